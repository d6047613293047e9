//! The bodies of the fuzz targets of the transport over damaged real messages, the same ones in every run; and
//! handshakes into which damaged copies of their own datagrams are thrown.

mod support;

use std::time::{Duration, Instant};

use ringside::ids::Ssrc;
use ringside::limits;
use ringside::transport::dtls::{DtlsRole, DtlsState, Endpoint, Identity, Output};
use ringside::transport::fuzz;
use ringside::transport::srtp::{Keys, Outbound, Profile};
use stun::attributes::{AttrType, RawAttribute};
use stun::message::Setter;
use support::{Random, seed};

const INPUTS: usize = 4000;

fn run(target: &str, body: fn(&[u8]), seeds: &[Vec<u8>], inputs: usize) {
    seeds.iter().for_each(|bytes| seed(target, bytes));
    let mut random = Random(0x7a11);
    for seed in seeds {
        (0..=seed.len().min(200)).for_each(|len| body(&seed[..len]));
    }
    for round in 0..inputs {
        let damaged = random.damage(&seeds[round % seeds.len()]);
        body(&damaged);
    }
}

/// A browser's check: its attributes, for a ufrag and password that are not the target's.
fn check(ufrag: &str) -> Vec<u8> {
    let raw = |kind, value: &[u8]| -> Box<dyn Setter> {
        Box::new(RawAttribute { typ: AttrType(kind), length: value.len() as u16, value: value.to_vec() })
    };
    let setters: Vec<Box<dyn Setter>> = vec![
        Box::new(stun::message::BINDING_REQUEST),
        raw(0x0006, format!("{ufrag}:peer").as_bytes()),
        raw(0xc057, &[0, 1, 0, 10]),
        raw(0x802a, &[7; 8]),
        raw(0x0025, &[]),
        raw(0xc001, &[0, 0, 0, 1]),
        raw(0x0024, &[0x6e, 0x7f, 0x1e, 0xff]),
        Box::new(stun::integrity::MessageIntegrity::new_short_term_integrity("another password".to_owned())),
        Box::new(stun::fingerprint::FINGERPRINT),
    ];
    let mut message = stun::message::Message::new();
    message.build(&setters).unwrap();
    message.raw
}

fn checks() -> Vec<Vec<u8>> {
    // The second one has the ufrag that the target's own random bytes yield.
    vec![check("short"), check(&"a".repeat(32))]
}

/// What a check carries beside the username.
const ATTRIBUTES: &[u8] = &[
    0x80, 0x2a, 0, 8, 7, 7, 7, 7, 7, 7, 7, 7, 0x00, 0x25, 0, 0, 0x00, 0x24, 0, 4, 0x6e, 0x7f, 0x1e, 0xff, 0xc0, 0x01,
    0, 4, 0, 0, 0, 1,
];

#[test]
fn damaged_stun_is_refused_or_read() {
    run("stun", fuzz::stun, &[checks(), vec![ATTRIBUTES.to_vec()]].concat(), INPUTS);
}

#[test]
fn damaged_checks_of_strangers_change_nothing() {
    run("ice_check", fuzz::ice_check, &checks(), INPUTS);
}

#[test]
fn checks_of_a_peer_keep_a_path_in_whatever_order_they_come() {
    let mut random = Random(0x1ce);
    let mut scripts = Vec::new();
    for _ in 0..12 {
        let mut script = Vec::new();
        for _ in 0..20 {
            // Mostly checks; kinds, credentials, addresses and damage at random.
            let kind = random.next() as u8 | (2 * u8::from(random.below(4) > 0));
            let attributes = if random.flip() { ATTRIBUTES } else { &ATTRIBUTES[..24] };
            match kind & 3 {
                0 => script.extend([kind, 0]),
                1 => script.extend([kind, random.next() as u8]),
                _ => script.extend([&[kind, attributes.len() as u8], attributes].concat()),
            }
        }
        scripts.push(script);
    }
    run("ice_check", fuzz::ice_check, &scripts, INPUTS / 4);
}

#[test]
fn damaged_packets_of_strangers_are_not_opened() {
    let mut seeds = Vec::new();
    for profile in Profile::ALL {
        let keys = Keys::from_exporter(profile, &vec![3; profile.exported_len()], true).unwrap();
        let mut outbound = Outbound::new(&keys);
        let mut packet = vec![0x80; 200];
        let len = outbound.seal_rtp_in_place(&mut packet, 12, 180, Ssrc(0x8080_8080), 0x8080);
        seeds.push(packet[..len].to_vec());
        let mut report = vec![0x81; 100];
        let len = outbound.seal_rtcp(&mut report, 60).unwrap();
        seeds.push(report[..len].to_vec());
    }
    run("srtp_open", fuzz::srtp_open, &seeds, INPUTS / 4);
}

#[test]
fn packets_of_a_peer_are_opened_once() {
    let mut random = Random(0x5749);
    let mut scripts = Vec::new();
    for _ in 0..8 {
        let mut script = Vec::new();
        for _ in 0..100 {
            let step = [1, 1, 2, -1, -3, 200, -200, 0x7000][random.below(8)] as i16;
            script.push(random.below(3) as u8);
            script.extend(step.to_be_bytes());
            script.push(if random.below(4) == 0 { random.next() as u8 } else { 0 });
        }
        scripts.push(script);
    }
    run("srtp_open", fuzz::srtp_open, &scripts, 100);
}

#[test]
fn damaged_hellos_of_strangers_yield_no_keys() {
    let hello = include_str!("fixtures/chromium156-clienthello-datagrams.hex");
    let mut seed = Vec::new();
    for line in hello.split_whitespace() {
        let bytes = (0..line.len()).step_by(2).map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap());
        let mut datagram: Vec<u8> = bytes.collect();
        datagram.resize(datagram.len().next_multiple_of(8), 0);
        seed.push((datagram.len() / 8) as u8);
        seed.extend(datagram);
    }
    run("dtls", fuzz::dtls, &[seed], INPUTS / 8);
}

#[test]
fn handshakes_survive_lost_repeated_and_reordered_datagrams() {
    let mut random = Random(0xd7_15);
    let scripts: Vec<Vec<u8>> = (0..16).map(|_| (0..12).map(|_| random.below(8) as u8).collect()).collect();
    run("dtls", fuzz::dtls, &scripts, 200);
    // One lost at each place; then two.
    for lost in 0..12 {
        let mut script = vec![0; 12];
        script[lost] = 1;
        fuzz::dtls(&script);
        script[(lost + 5) % 12] = 1;
        fuzz::dtls(&script);
    }
}

/// A handshake in which each datagram is preceded or followed by a damaged copy of one of its forerunners.
/// Plaintext damage may make it fail, as anybody on the path could; it must never panic, nor leave two ends that
/// both believe in different keys.
fn damaged_handshake(identities: &[Identity; 2], random: &mut Random) -> bool {
    let mut now = Instant::now();
    let mut ends = [Endpoint::new(&identities[0]), Endpoint::new(&identities[1])];
    ends[0].start(now, DtlsRole::Server, identities[1].fingerprints().to_vec()).unwrap();
    ends[1].start(now, DtlsRole::Client, identities[0].fingerprints().to_vec()).unwrap();
    let mut keys = [None, None];
    let mut seen: Vec<Vec<u8>> = Vec::new();
    let mut buf = [0; limits::DATAGRAM_BYTES];
    for _ in 0..40 {
        for side in [0, 1] {
            while let Some(output) = ends[side].poll(&mut buf) {
                match output {
                    Output::Datagram(datagram) => {
                        let datagram = datagram.to_vec();
                        seen.push(datagram.clone());
                        let copied = random.below(seen.len());
                        let damaged = random.damage(&seen[copied]);
                        let first = random.below(2) == 0;
                        ends[1 - side].handle_datagram(now, if first { &damaged } else { &datagram });
                        ends[1 - side].handle_datagram(now, if first { &datagram } else { &damaged });
                    }
                    Output::Connected(connected) => keys[side] = Some(connected),
                    Output::Failed(_) | Output::Closed => {}
                }
            }
        }
        if ends.iter().all(|end| end.state() != DtlsState::Connecting) {
            break;
        }
        now += Duration::from_millis(150);
        ends.iter_mut().for_each(|end| end.handle_timeout(now));
    }
    let [Some(ours), Some(theirs)] = &keys else { return false };
    let mut packet = [0; 64];
    packet[0] = 0x80;
    let len = Outbound::new(ours).seal_rtp(&mut packet, 12, b"payload", &[], Ssrc(0), 0);
    let mut opened = [0; 64];
    let mut inbound = ringside::transport::srtp::Inbound::new(theirs);
    assert!(inbound.open_rtp(&packet[..len], 12, &mut opened).is_ok(), "both ends connected under different keys");
    true
}

#[test]
fn handshakes_among_damaged_datagrams_never_panic_and_mostly_succeed() {
    let identities = [Identity::generate(), Identity::generate()];
    let mut random = Random(0xd715);
    let succeeded = (0..300).filter(|_| damaged_handshake(&identities, &mut random)).count();
    assert!(succeeded > 100, "{succeeded} of 300");
}
