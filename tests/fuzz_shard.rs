//! The body of the shard's fuzz target over a real call with hostile turns, the same ones in every run: packets of a
//! browser, whole and damaged, from an authenticated sender, and feedback that lies from an authenticated receiver.

mod support;

use ringside::shard::fuzz;
use ringside::shard::fuzz::{
    CHECK, COMMAND, CONSUMER_SSRC, DESCRIPTOR, FEEDBACK, LAYERED_CONSUMER_SSRC, LONG, NACK, RAW, RECEIVER_RTCP, REPORT,
    SENDER_RTCP, SENDER_RTP, STRANGER, TIME, VP9,
};
use rtp::header::Header;
use support::{CAPTURE, Random, datagrams, seed};
use webrtc_util::marshal::Marshal;

const SCRIPTS: usize = 200;
const RECORDS: usize = 400;
/// What one input of libFuzzer is: short enough that a change of a byte matters and that thousands are run in a second.
const SEED_RECORDS: usize = 30;
const SEED_PACKET: usize = 96;

fn push(script: &mut Vec<u8>, kind: u8, content: &[u8]) {
    let (kind, unit) = if content.len() > 255 { (kind | LONG, 8) } else { (kind, 1) };
    script.extend([kind, content.len().div_ceil(unit) as u8]);
    script.extend(content);
    script.resize(script.len() + content.len().next_multiple_of(unit) - content.len(), 0);
}

/// Feedback about the receiver's video: what a hostile page could say of it.
fn lies(random: &mut Random) -> Vec<u8> {
    let mut feedback = match random.below(7) {
        // NACK of everything: each entry names seventeen packets.
        0 => {
            let entries = 1 + random.below(300);
            let mut nack = vec![0x81, 205, 0, 0, 0, 0, 0, 1];
            nack.extend(CONSUMER_SSRC.to_be_bytes());
            for _ in 0..entries {
                nack.extend((random.next() as u16).to_be_bytes());
                nack.extend([0xff, 0xff]);
            }
            nack
        }
        1 => [&[0x81, 206, 0, 2, 0, 0, 0, 1][..], &CONSUMER_SSRC.to_be_bytes()].concat(),
        2 => {
            let number = random.next() as u8;
            let fir = [&[0x84, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0][..], &CONSUMER_SSRC.to_be_bytes()].concat();
            [&fir[..], &[number, 0, 0, 0]].concat()
        }
        // Transport-cc: a base, a count and a time that nobody knows, chunks and deltas at random.
        3 => {
            let mut lie = vec![0x8f, 205, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2];
            lie.extend((random.below(64) as u16).to_be_bytes());
            let len = 6 + random.below(60);
            lie.extend(random.bytes(len));
            lie
        }
        // REMB from nothing to more than there is.
        4 => {
            let mut remb = vec![0x8f, 206, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B', 1];
            remb.extend(random.bytes(3));
            remb.extend(CONSUMER_SSRC.to_be_bytes());
            remb
        }
        // A receiver report with any loss, number and echo.
        5 => {
            let report = [&[0x81, 201, 0, 7, 0, 0, 0, 1][..], &CONSUMER_SSRC.to_be_bytes()].concat();
            [report, random.bytes(20)].concat()
        }
        _ => {
            let mut xr = vec![0x80, 207, 0, 0, 0, 0, 0, 1, 4, 0, 0, 2];
            xr.extend(random.bytes(8));
            xr.extend([5, 0, 0, random.next() as u8]);
            let len = random.below(80);
            xr.extend(random.bytes(len));
            xr
        }
    };
    feedback.resize(feedback.len().next_multiple_of(4), 0);
    let words = (feedback.len() / 4 - 1) as u16;
    feedback[2..4].copy_from_slice(&words.to_be_bytes());
    feedback
}

fn script(random: &mut Random, captured: &[Vec<u8>], records: usize) -> Vec<u8> {
    let mut script = Vec::new();
    let path = PATHS[random.below(PATHS.len())];
    let from = if random.flip() { 0 } else { random.below(captured.len()) };
    for at in 0..records {
        let real = &captured[(from + at) % captured.len()];
        let is_report = (192..=223).contains(&real[1]);
        push(&mut script, if is_report { SENDER_RTCP } else { SENDER_RTP }, real);
        match random.below(12) {
            0 => push(&mut script, if is_report { SENDER_RTCP } else { SENDER_RTP }, &random.damage(real)),
            1 => push(&mut script, RECEIVER_RTCP, &lies(random)),
            2 => {
                let lie = lies(random);
                push(&mut script, RECEIVER_RTCP, &random.damage(&lie));
            }
            3 => push(&mut script, TIME, &[random.below(30) as u8]),
            4 => {
                // Those that close something are the last ones; too many of them leave nothing to forward.
                let mut command = random.bytes(5);
                command[0] = if random.below(8) == 0 { 11 + command[0] % 3 } else { command[0] % 11 };
                push(&mut script, COMMAND, &command);
            }
            5 => push(&mut script, [RAW, STRANGER][random.below(2)], &random.damage(real)),
            // A number far ahead or behind: streams restart, histories are jumped over.
            6 if !is_report => {
                let mut jump = real.clone();
                jump[2] = random.next() as u8;
                push(&mut script, SENDER_RTP, &jump);
            }
            7 => push(&mut script, SENDER_RTCP, &lies(random)),
            _ => {}
        }
        honest(random, &mut script, path);
    }
    script
}

#[derive(Clone, Copy)]
enum Path {
    /// No feedback at all: nothing is held back for lack of an estimate.
    Silent,
    Good,
    Bad,
}

const PATHS: [Path; 4] = [Path::Silent, Path::Silent, Path::Good, Path::Bad];

/// What a well-behaved receiver does meanwhile.
fn honest(random: &mut Random, script: &mut Vec<u8>, path: Path) {
    match random.below(24) {
        0..4 => match path {
            Path::Silent => {}
            Path::Good => push(script, FEEDBACK, &[0, 5]),
            Path::Bad => {
                let lost = [0, 0, 0, 0x10, 0x55][random.below(5)];
                push(script, FEEDBACK, &[random.below(12) as u8, random.below(60) as u8, lost, 0, 0, 0]);
            }
        },
        4 => push(script, REPORT, &[random.next() as u8, random.below(80) as u8, random.below(200) as u8, 9]),
        5 => push(script, NACK, &[random.next() as u8, random.below(30) as u8, 0x10, 0x11]),
        // USE-CANDIDATE and ICE-CONTROLLING, from one of some ports.
        6 => push(script, CHECK, &[random.next() as u8, 0x00, 0x25, 0, 0, 0x80, 0x2a, 0, 8, 7, 7, 7, 7, 7, 7, 7, 7]),
        _ => {}
    }
}

/// Pictures of three temporal layers of VP9 with descriptors as Chromium makes them, and what a receiver and a page could do
/// meanwhile.
fn layered_script(random: &mut Random, records: usize) -> Vec<u8> {
    const KEY: [u8; 16] =
        [0xc0, 0x00, 0x01, 0x80, 0x02, 0x14, 0xea, 0xa8, 0x60, 0x41, 0x4d, 0x14, 0x10, 0x20, 0x84, 0x26];
    let mut script = Vec::new();
    let path = PATHS[random.below(PATHS.len())];
    for at in 0..records as u16 {
        let is_key = at.is_multiple_of(40);
        let temporal = if is_key { 0 } else { [0, 2, 1, 2][at as usize % 4] };
        let mut descriptor = if is_key { KEY.to_vec() } else { vec![0xc1 + temporal, 0, at as u8] };
        if random.below(6) == 0 {
            descriptor = random.damage(&descriptor);
        }
        if random.below(20) == 0 {
            let len = random.below(255);
            descriptor = [&KEY[..], &random.bytes(len)].concat();
        }
        let flags = 0xac | u8::from(!is_key) << 6;
        let spatial = random.below(if is_key { 1 } else { 3 }) as u8;
        let mut payload = vec![flags, at as u8 & 0x7f, temporal << 5 | 0x10 | spatial << 1, 0, 0x82];
        payload.resize(20 + random.below(if records < RECORDS { SEED_PACKET } else { 600 }), 0x55);
        let mut header = Header {
            version: 2,
            marker: random.flip(),
            payload_type: VP9,
            sequence_number: 500 + at,
            timestamp: 3000 * u32::from(at),
            ssrc: 99,
            ..Header::default()
        };
        if !descriptor.is_empty() && descriptor.len() < 255 {
            // The first one decides between the one-byte form and the two-byte form.
            header.set_extension(DESCRIPTOR, descriptor.into()).expect("a descriptor");
        }
        header.set_extension(4, vec![b'2'].into()).expect("a mid");
        let packet = [&header.marshal().expect("a header")[..], &payload].concat();
        push(&mut script, SENDER_RTP, &packet);
        match random.below(8) {
            0 => push(&mut script, SENDER_RTP, &random.damage(&packet)),
            1 => push(&mut script, TIME, &[random.below(30) as u8]),
            // Of the consumer of VP9: pauses, resumes, wishes.
            2 => push(
                &mut script,
                COMMAND,
                &[2 + random.below(3) as u8, 2, random.below(4) as u8, 0, random.below(4) as u8],
            ),
            3 => {
                let mut nack = vec![0x81, 205, 0, 4, 0, 0, 0, 1];
                nack.extend(LAYERED_CONSUMER_SSRC.to_be_bytes());
                (0..2).for_each(|_| nack.extend([random.next() as u8, random.next() as u8, 0xff, 0xff]));
                push(&mut script, RECEIVER_RTCP, &nack);
            }
            _ => {}
        }
        honest(random, &mut script, path);
    }
    script
}

#[test]
fn a_shard_survives_layers_within_one_stream_and_descriptors_that_lie() {
    let mut random = Random(0x57c);
    let mut forwarded = 0;
    for _ in 0..SCRIPTS {
        forwarded += fuzz::shard(&layered_script(&mut random, RECORDS)).0;
    }
    assert!(forwarded > 50 * SCRIPTS, "{forwarded} forwarded: nothing was at stake");
}

#[test]
fn a_shard_survives_whatever_its_own_peers_send() {
    let captured: Vec<Vec<u8>> = datagrams(CAPTURE).into_iter().map(|(_, datagram)| datagram.to_vec()).collect();
    let mut random = Random(0x5a_4d);
    let (mut forwarded, mut resent) = (0, 0);
    for _ in 0..SCRIPTS {
        let reached = fuzz::shard(&script(&mut random, &captured, RECORDS));
        (forwarded, resent) = (forwarded + reached.0, resent + reached.1);
    }
    assert!(
        forwarded > 20 * SCRIPTS && resent > SCRIPTS,
        "{forwarded} forwarded, {resent} resent: nothing was at stake"
    );
}

/// Not a test of the shard: scripts for libFuzzer to begin with, where `fuzz/run` asks for them.
#[test]
fn scripts_that_are_seeds_of_the_fuzz_target_forward_something() {
    let cut = |packet: &[u8]| packet[..packet.len().min(SEED_PACKET)].to_vec();
    let captured: Vec<Vec<u8>> = datagrams(CAPTURE).into_iter().map(|(_, datagram)| cut(datagram)).collect();
    let mut random = Random(0x5eed);
    let scripts = (0..64).map(|at| match at % 2 {
        0 => script(&mut random, &captured, SEED_RECORDS),
        _ => layered_script(&mut random, SEED_RECORDS),
    });
    let scripts = scripts.inspect(|script| seed("shard", script));
    let forwarded = scripts.filter(|script| fuzz::shard(script).0 > 0).count();
    assert!(forwarded > 32, "{forwarded}");
}

#[test]
fn a_shard_survives_noise() {
    let mut random = Random(0x0e15e);
    for _ in 0..100 {
        let len = random.below(2_000);
        fuzz::shard(&random.bytes(len));
    }
}

/// A packet of the first of the three qualities, named by MID and RID as the first packet of a stream is.
fn named(payload_type: u8, ssrc: u32, sequence: u16, rid_id: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x90, payload_type];
    packet.extend(sequence.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend(ssrc.to_be_bytes());
    packet.extend([0xbe, 0xde, 0, 2, 4 << 4, b'1', rid_id << 4 | 1, b'r', b'0', 0, 0, 0]);
    packet.extend(payload);
    packet
}

#[test]
fn a_packet_that_is_resent_twice_leaves_once_however_old_it_is() {
    let key_frame = [0x90, 0xe0, 0x80, 0x01, 0, 0, 0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0xe0, 0x01];
    let rest = [0x80, 0xe0, 0x80, 0x01, 0, 0, 0xaa];
    for behind in [1, 400, 511, 512, 600, 1000, 1001] {
        let mut script = Vec::new();
        push(&mut script, SENDER_RTP, &named(96, 10, 1000, 10, &key_frame));
        push(&mut script, SENDER_RTP, &named(96, 10, 3000, 10, &rest));
        push(&mut script, TIME, &[10]);
        for number in [50, 51] {
            let resent = [&(3000u16 - behind).to_be_bytes()[..], &rest].concat();
            push(&mut script, SENDER_RTP, &named(97, 11, number, 11, &resent));
            push(&mut script, TIME, &[10]);
        }
        let (forwarded, _) = fuzz::shard(&script);
        assert_eq!(forwarded, if behind < 512 { 3 } else { 2 }, "{behind} behind");
    }
}
