//! Bodies of the fuzz targets of what a stranger's datagram reaches first: STUN, ICE, SRTP, DTLS.
//!
//! Each takes any bytes, first as a stranger's and then as a script of what a peer who holds the secrets could do, so that
//! what lies behind the authentication is reached too. It panics only for a bug: a parser that panics itself, bytes that were
//! accepted although nobody authenticated them, or honest ones that were not. `fuzz/` calls them under libFuzzer, and
//! `tests/fuzz_transport.rs` with damaged real messages in every test run.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::ids::Ssrc;
use crate::limits;
use crate::packet::stun::{self, Message, RESPONSE_BYTES, Writer};
use crate::transport::dtls::{DtlsRole, DtlsState, Endpoint, Fingerprint, FingerprintHash, Identity, Output};
use crate::transport::ice::{Credentials, IceLite, IceState, Tuple};
use crate::transport::srtp::{Inbound, Keys, Outbound, Profile, SrtpError};

/// Random bytes of the credentials and keys below; nobody else's messages match them.
const SECRET: [u8; Credentials::RANDOM_BYTES] = [0x5a; Credentials::RANDOM_BYTES];
const USERNAME: u16 = 0x0006;

/// A datagram: what is read as STUN lies inside it. Then as the attributes of a request that is signed: no byte of it can
/// be changed.
pub fn stun(data: &[u8]) {
    let key = stun::integrity_key("a password that nobody else knows");
    if let Some(message) = Message::parse(data) {
        assert!(data.len() >= 20 && message.len() == data.len());
        assert!(message.username().is_none_or(|username| username.len() <= data.len() - 24));
        assert!(message.local_ufrag().is_none_or(|ufrag| !ufrag.contains(':')));
        assert!(message.has_fingerprint() || !message.verify_fingerprint());
        assert!(!message.verify_integrity(&key));
    }
    let Some((at, attributes)) = data.split_first() else { return };
    let mut signed = request(attributes, &key);
    // An attribute that is not whole swallows what follows it.
    let Some(message) = Message::parse(&signed).filter(Message::has_fingerprint) else { return };
    assert!(message.verify_fingerprint());
    let is_authentic = message.verify_integrity(&key);
    let at = usize::from(*at) % signed.len();
    signed[at] ^= 1;
    let Some(message) = Message::parse(&signed) else { return };
    assert!(!message.verify_fingerprint());
    // MESSAGE-INTEGRITY covers all but FINGERPRINT behind it.
    assert!(!is_authentic || !message.verify_integrity(&key) || at >= signed.len() - 8);
}

fn request(attributes: &[u8], key: &aws_lc_rs::hmac::Key) -> Vec<u8> {
    let mut out = vec![0; attributes.len() + 64];
    let Some(len) = Writer::request(&mut out, [7; 12], attributes).finish(Some(key)) else { panic!("there is room") };
    out.truncate(len);
    out
}

/// A check from a stranger: nothing changes, and the answer is no larger than the question. Then a script of checks.
pub fn ice_check(data: &[u8]) {
    let mut ice = IceLite::new(Credentials::from_random(&SECRET));
    let source = Tuple { remote: SocketAddr::from((Ipv4Addr::LOCALHOST, 9)), local: 0 };
    let mut out = [0; RESPONSE_BYTES];
    let outcome = ice.handle_check(Instant::now(), data, source, &mut out);
    assert!(outcome.refused.is_some() && !outcome.added && !outcome.selected_changed);
    assert!(outcome.response_len <= data.len());
    assert!(outcome.response_len == 0 || Message::parse(&out[..outcome.response_len]).is_some());
    assert!(ice.state() == IceState::New && ice.selected().is_none() && ice.tuples().len() == 0);
    checks_of_a_peer(data);
}

/// Records of a kind, a length and attributes: checks with the newest and the last but one credentials from some
/// addresses, whole and damaged, restarts, and time that passes.
fn checks_of_a_peer(script: &[u8]) {
    let credentials = |generation: u8| Credentials::from_random(&[generation; Credentials::RANDOM_BYTES]);
    let mut generation = 0;
    let mut ice = IceLite::new(credentials(generation));
    let mut now = Instant::now();
    let mut rest = script;
    while let [kind, len, behind @ ..] = rest {
        let (content, next) = behind.split_at(behind.len().min(usize::from(*len)));
        rest = next;
        match kind & 3 {
            0 => {
                generation = generation.wrapping_add(1) & 63;
                ice.restart(credentials(generation));
            }
            1 => {
                now += Duration::from_millis(100) * u32::from(*len);
                ice.handle_timeout(now);
                assert!(ice.next_deadline().is_none_or(|at| at > now), "consent ends once");
                rest = behind;
            }
            _ => {
                let signer = credentials(if kind & 4 == 0 { generation } else { generation.wrapping_sub(1) & 63 });
                let port = u16::from(kind >> 4);
                let source = Tuple { remote: SocketAddr::from((Ipv4Addr::LOCALHOST, 5000 + port)), local: 0 };
                check_of_a_peer(&mut ice, now, &signer, content, source, kind & 8 != 0);
            }
        }
        assert!(ice.tuples().len() <= limits::TUPLES_PER_TRANSPORT && (1..=2).contains(&ice.local_ufrags().count()));
        assert!(ice.selected().is_none_or(|selected| ice.tuples().any(|tuple| tuple == selected)));
        let is_connected = matches!(ice.state(), IceState::Connected | IceState::Completed);
        assert_eq!(ice.selected().is_some(), is_connected);
    }
}

fn check_of_a_peer(
    ice: &mut IceLite,
    now: Instant,
    signer: &Credentials,
    attributes: &[u8],
    source: Tuple,
    damaged: bool,
) {
    let username = format!("{}:far", signer.ufrag());
    let mut all = [USERNAME.to_be_bytes(), (username.len() as u16).to_be_bytes()].concat();
    all.extend(username.as_bytes());
    all.extend(attributes);
    let key = stun::integrity_key(signer.password());
    let mut check = request(&all, &key);
    if damaged {
        let at = 37 * usize::from(attributes.first().copied().unwrap_or(0)) % check.len();
        check[at] ^= 0x10;
    }
    let before = (ice.state(), ice.selected(), ice.tuples().len());
    let was_known = ice.tuples().any(|tuple| tuple == source);
    let mut out = [0; RESPONSE_BYTES];
    let outcome = ice.handle_check(now, &check, source, &mut out);
    let after = (ice.state(), ice.selected(), ice.tuples().len());
    if outcome.refused.is_some() {
        assert!(before == after && outcome.response_len <= check.len());
        return;
    }
    assert!(!damaged, "a byte of it was changed");
    let Some(response) = Message::parse(&out[..outcome.response_len]) else {
        panic!("no answer to an authentic check")
    };
    assert!(response.class() == stun::Class::Success && response.verify_integrity(&key));
    assert!(outcome.added != was_known && ice.tuples().any(|tuple| tuple == source));
    assert!(outcome.removed.is_none_or(|removed| ice.tuples().all(|tuple| tuple != removed)));
    assert!(outcome.selected_changed == (before.1 != after.1) && outcome.state_changed == (before.0 != after.0));
}

/// A packet from a stranger under each profile, as RTP with any header length and as RTCP: it is refused. Then a script
/// of a peer's packets.
pub fn srtp_open(data: &[u8]) {
    for profile in Profile::ALL {
        let mut inbound = Inbound::new(&keys(profile));
        let mut out = vec![0; data.len()];
        let lengths = [0, 12, usize::from(data.first().copied().unwrap_or(0)), data.len(), usize::MAX];
        for header_len in lengths {
            assert!(inbound.open_rtp(data, header_len, &mut out).is_err());
        }
        assert!(inbound.open_rtcp(&mut data.to_vec()).is_err());
        packets_of_a_peer(profile, data);
    }
}

fn keys(profile: Profile) -> Keys {
    let exported = vec![0x5a; profile.exported_len()];
    let Some(keys) = Keys::from_exporter(profile, &exported, false) else { panic!("the profile's own length") };
    keys
}

/// Records of a stream, a step of its number, and what is damaged: each packet is opened once and never again, whatever
/// came between, and not at all where a byte was changed.
fn packets_of_a_peer(profile: Profile, script: &[u8]) {
    const PAYLOAD: [u8; 24] = [0x33; 24];
    let keys = keys(profile);
    let (mut outbound, mut inbound) = (Outbound::new(&keys.swapped()), Inbound::new(&keys));
    let mut opened: HashMap<u32, (u64, HashSet<u64>)> = HashMap::new();
    for record in script.chunks_exact(4) {
        let (stream, damage) = (u32::from(record[0]), usize::from(record[3]));
        let step = i16::from_be_bytes([record[1], record[2]]);
        let newest = opened.get(&stream).map(|(newest, _)| *newest);
        // A stream may begin anywhere in the first cycle.
        let index = newest.map_or(Some(u64::from(step as u16)), |newest| newest.checked_add_signed(step.into()));
        // Half a cycle away the number alone does not tell which cycle is meant.
        let Some(index) = index.filter(|_| step > i16::MIN) else { continue };
        let mut packet = [0x80; 12 + PAYLOAD.len() + 32];
        packet[2..4].copy_from_slice(&(index as u16).to_be_bytes());
        packet[8..12].copy_from_slice(&stream.to_be_bytes());
        let header = 12;
        let len = outbound.seal_rtp(&mut packet, header, &PAYLOAD, &[], Ssrc(stream), index);
        let mut out = [0; 128];
        if damage != 0 {
            let mut damaged = packet;
            damaged[damage % len] ^= record[3];
            assert!(inbound.open_rtp(&damaged[..len], header, &mut out).is_err());
        }
        match inbound.open_rtp(&packet[..len], header, &mut out) {
            Ok(len) => {
                assert!(out[..header] == packet[..header] && out[header..len] == PAYLOAD);
                let (newest, seen) = opened.entry(stream).or_insert((index, HashSet::new()));
                assert!(seen.insert(index), "{index} of {stream} was opened twice");
                *newest = index.max(*newest);
            }
            Err(SrtpError::Replayed) => {
                let (newest, seen) = &opened[&stream];
                assert!(seen.contains(&index) || newest - index >= 128, "{index} of {stream} behind {newest}");
            }
            Err(error) => panic!("{index} of {stream} behind {newest:?}: {error}"),
        }
        let mut report = [0x81; 96];
        report[4..8].copy_from_slice(&(stream & 3).to_be_bytes());
        let Some(len) = outbound.seal_rtcp(&mut report, 32) else { panic!("there is room") };
        let sealed = report;
        report[damage % len] ^= record[3];
        assert_eq!(inbound.open_rtcp(&mut report[..len]).is_ok(), record[3] == 0);
        report = sealed;
        assert_eq!(inbound.open_rtcp(&mut report[..len]).is_ok(), record[3] != 0, "the next one, and only once");
    }
}

/// Datagrams of a stranger (each behind a byte that tells its length in eights) in both roles: no keys. Then a handshake whose
/// datagrams the script mistreats. And the first are no goodbye of a peer that is connected.
pub fn dtls(data: &[u8]) {
    static IDENTITIES: LazyLock<[Identity; 2]> = LazyLock::new(|| [Identity::generate(), Identity::generate()]);
    let fingerprint = Fingerprint { hash: FingerprintHash::Sha256, value: vec![0; 32] };
    let mut buf = [0; limits::DATAGRAM_BYTES];
    for peer_role in [DtlsRole::Client, DtlsRole::Server] {
        let now = Instant::now();
        let mut endpoint = Endpoint::new(&IDENTITIES[0]);
        assert!(endpoint.start(now, peer_role, vec![fingerprint.clone()]).is_ok());
        let mut rest = data;
        while let Some((eights, behind)) = rest.split_first() {
            let (datagram, next) = behind.split_at(behind.len().min(8 * usize::from(*eights)));
            endpoint.handle_datagram(now, datagram);
            while let Some(output) = endpoint.poll(&mut buf) {
                assert!(!matches!(output, Output::Connected(_)));
            }
            rest = next;
        }
    }
    handshake(&IDENTITIES, data);
    static SETTLED: LazyLock<Mutex<Endpoint>> = LazyLock::new(|| Mutex::new(settled(&IDENTITIES[0])));
    let mut endpoint = SETTLED.lock().unwrap_or_else(PoisonError::into_inner);
    endpoint.handle_datagram(Instant::now(), data);
    assert!(endpoint.poll(&mut buf).is_none() && endpoint.state() == DtlsState::Connected);
}

/// A byte for each datagram says what becomes of it; behind the script's end it arrives. Two ends that both have keys have
/// the same ones, and where nothing but order, number and two losses was changed, both have.
fn handshake(identities: &[Identity; 2], mut script: &[u8]) {
    let mut now = Instant::now();
    let mut ends = [Endpoint::new(&identities[0]), Endpoint::new(&identities[1])];
    let started = [
        ends[0].start(now, DtlsRole::Server, identities[1].fingerprints().to_vec()),
        ends[1].start(now, DtlsRole::Client, identities[0].fingerprints().to_vec()),
    ];
    assert!(started.iter().all(Result::is_ok));
    let mut keys = [None, None];
    let (mut damaged, mut lost) = (0, 0);
    let mut held: [Vec<Vec<u8>>; 2] = [Vec::new(), Vec::new()];
    let mut buf = [0; limits::DATAGRAM_BYTES];
    for _ in 0..40 {
        for side in [0, 1] {
            let mut arriving = Vec::new();
            while let Some(output) = ends[side].poll(&mut buf) {
                let mut datagram = match output {
                    Output::Datagram(datagram) => datagram.to_vec(),
                    Output::Connected(connected) => {
                        keys[side] = Some(connected);
                        continue;
                    }
                    Output::Failed(_) | Output::Closed => continue,
                };
                let mut next = || {
                    let (byte, rest) = script.split_first().unwrap_or((&0, &[]));
                    script = rest;
                    usize::from(*byte)
                };
                match next() % 8 {
                    1 => lost += 1,
                    2 => arriving.extend([datagram.clone(), datagram]),
                    3 => held[side].push(datagram),
                    4 | 5 => {
                        let at = (next() << 8 | next()) % datagram.len();
                        datagram[at] ^= next() as u8;
                        damaged += 1;
                        arriving.push(datagram);
                    }
                    6 => {
                        datagram.truncate((next() << 8 | next()) % datagram.len());
                        damaged += 1;
                        arriving.push(datagram);
                    }
                    _ => arriving.push(datagram),
                }
            }
            if arriving.is_empty() {
                arriving.append(&mut held[side]);
            }
            arriving.iter().for_each(|datagram| ends[1 - side].handle_datagram(now, datagram));
        }
        if ends.iter().all(|end| end.state() != DtlsState::Connecting) {
            break;
        }
        now += Duration::from_millis(500);
        ends.iter_mut().for_each(|end| end.handle_timeout(now));
    }
    let [Some(ours), Some(theirs)] = &keys else {
        return assert!(damaged > 0 || lost > 2, "no keys although nothing was damaged and {lost} lost");
    };
    let mut packet = [0x80; 64];
    let len = Outbound::new(ours).seal_rtp(&mut packet, 12, b"payload", &[], Ssrc(0x8080_8080), 0x8080);
    assert!(Inbound::new(theirs).open_rtp(&packet[..len], 12, &mut [0; 64]).is_ok(), "both ends have different keys");
}

/// One end of a connection that both ends have finished.
fn settled(identity: &Identity) -> Endpoint {
    let now = Instant::now();
    let mut ends = [DtlsRole::Server, DtlsRole::Client].map(|peer_role| {
        let mut endpoint = Endpoint::new(identity);
        assert!(endpoint.start(now, peer_role, identity.fingerprints().to_vec()).is_ok());
        endpoint
    });
    let mut buf = [0; limits::DATAGRAM_BYTES];
    while ends.iter().any(|endpoint| endpoint.state() != DtlsState::Connected) {
        for from in [0, 1] {
            while let Some(output) = ends[from].poll(&mut buf) {
                if let Output::Datagram(datagram) = output {
                    ends[1 - from].handle_datagram(now, datagram);
                }
            }
        }
    }
    let [_, mut endpoint] = ends;
    endpoint.settle();
    endpoint
}
