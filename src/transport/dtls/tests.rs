//! Handshakes of an [`Endpoint`] with a bare dimpl peer over a network that loses, doubles and swaps
//! datagrams, in virtual time.

use super::*;

/// What happens to one datagram, counted over both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Lost,
    Doubled,
    /// Overtaken by the next one in its direction.
    Delayed,
}

const ONE_WAY: Duration = Duration::from_millis(10);

/// A peer: a browser's DTLS stack, played by dimpl itself.
struct Peer {
    dtls: Dtls,
    fingerprint: Fingerprint,
    keys: Option<(Vec<u8>, SrtpProfile)>,
    closed: bool,
    deadline: Option<Instant>,
}

impl Peer {
    fn new(now: Instant, active: bool) -> Self {
        let identity = Identity::generate();
        let mut dtls = identity.connection(now);
        dtls.set_active(active);
        dtls.handle_timeout(now).unwrap();
        let fingerprint = identity.fingerprints()[0].clone();
        Peer { dtls, fingerprint, keys: None, closed: false, deadline: None }
    }

    fn poll(&mut self) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        let mut buf = vec![0; 4000];
        loop {
            match self.dtls.poll_output(&mut buf) {
                dimpl::Output::Packet(packet) => sent.push(packet.to_vec()),
                dimpl::Output::KeyingMaterial(keys, profile) => self.keys = Some((keys.to_vec(), profile)),
                dimpl::Output::CloseNotify => self.closed = true,
                dimpl::Output::Timeout(deadline) => {
                    self.deadline = Some(deadline);
                    return sent;
                }
                _ => {}
            }
        }
    }
}

/// Both ends and the datagrams on their way.
struct Network {
    start: Instant,
    now: Instant,
    endpoint: Endpoint,
    peer: Peer,
    /// Arrival, whether it goes to the endpoint, bytes.
    in_flight: Vec<(Instant, bool, Vec<u8>)>,
    sent: usize,
    fate: Option<(usize, Fate)>,
    keys: Option<Keys>,
    failed: Option<&'static str>,
    closed: bool,
}

impl Network {
    fn new(endpoint_role: DtlsRole) -> Self {
        let start = Instant::now();
        let peer_is_client = endpoint_role == DtlsRole::Server;
        let endpoint = Endpoint::new(&Identity::generate());
        Network {
            start,
            now: start,
            endpoint,
            peer: Peer::new(start, peer_is_client),
            in_flight: Vec::new(),
            sent: 0,
            fate: None,
            keys: None,
            failed: None,
            closed: false,
        }
    }

    /// Signaling tells the endpoint who the peer is.
    fn start_handshake(&mut self) {
        let role = if self.peer.dtls.is_active() { DtlsRole::Client } else { DtlsRole::Server };
        let fingerprints = vec![self.peer.fingerprint.clone()];
        self.endpoint.start(self.now, role, fingerprints).unwrap();
    }

    fn send(&mut self, to_endpoint: bool, datagram: Vec<u8>) {
        let fate = self.fate.filter(|(at, _)| *at == self.sent).map(|(_, fate)| fate);
        self.sent += 1;
        let arrival = self.now + ONE_WAY;
        match fate {
            Some(Fate::Lost) => return,
            Some(Fate::Doubled) => self.in_flight.push((arrival, to_endpoint, datagram.clone())),
            Some(Fate::Delayed) => {
                self.in_flight.push((arrival + ONE_WAY / 2, to_endpoint, datagram));
                return;
            }
            None => {}
        }
        self.in_flight.push((arrival, to_endpoint, datagram));
    }

    fn collect(&mut self) {
        let mut buf = [0; limits::DATAGRAM_BYTES];
        loop {
            match self.endpoint.poll(&mut buf) {
                Some(Output::Datagram(datagram)) => {
                    let datagram = datagram.to_vec();
                    self.send(false, datagram);
                }
                Some(Output::Connected(keys)) => assert!(self.keys.replace(keys).is_none(), "keys come once"),
                Some(Output::Failed(reason)) => self.failed = Some(reason),
                Some(Output::Closed) => self.closed = true,
                None => break,
            }
        }
        for datagram in self.peer.poll() {
            self.send(true, datagram);
        }
    }

    /// Lets things happen until both ends have keys (or until `limit`), and returns how long that took.
    fn run(&mut self, limit: Duration) -> Duration {
        self.collect();
        while !(self.keys.is_some() && self.peer.keys.is_some()) && self.failed.is_none() {
            let arrival = self.in_flight.iter().map(|(at, ..)| *at).min();
            let next = [arrival, self.endpoint.next_deadline(), self.peer.deadline].into_iter().flatten().min();
            match next {
                Some(next) if next <= self.start + limit => self.step(next),
                _ => break,
            }
        }
        self.now - self.start
    }

    fn step(&mut self, next: Instant) {
        self.now = next.max(self.now);
        let now = self.now;
        if let Some(at) = self.in_flight.iter().position(|(at, ..)| *at <= now) {
            let (_, to_endpoint, datagram) = self.in_flight.remove(at);
            if to_endpoint {
                self.endpoint.handle_datagram(now, &datagram);
            } else {
                self.peer.dtls.handle_timeout(now).unwrap();
                self.peer.dtls.handle_packet(&datagram).unwrap();
            }
        } else {
            self.endpoint.handle_timeout(now);
            self.peer.dtls.handle_timeout(now).unwrap();
        }
        self.collect();
    }

    /// What the peer seals the endpoint opens: the surest sign that the keys are the same.
    fn assert_keys_match(&self) {
        use crate::ids::Ssrc;
        use crate::transport::srtp::{Inbound, Outbound};
        let keys = self.keys.as_ref().expect("the endpoint has keys");
        let (exported, _) = self.peer.keys.as_ref().expect("the peer has keys");
        let peer_keys = Keys::from_exporter(keys.profile(), exported, self.peer.dtls.is_active()).unwrap();
        for (ours, theirs) in [(keys, &peer_keys), (&peer_keys, keys)] {
            let mut packet = [0; 64];
            packet[..12].copy_from_slice(&[0x80, 96, 0, 7, 0, 0, 0, 1, 0, 0, 0, 9]);
            let len = Outbound::new(ours).seal_rtp(&mut packet, 12, b"payload", &[], Ssrc(9), 7);
            let mut opened = [0; 64];
            let len = Inbound::new(theirs).open_rtp(&packet[..len], 12, &mut opened).unwrap();
            assert_eq!(opened[12..len], *b"payload");
        }
    }
}

const BOTH_ROLES: [DtlsRole; 2] = [DtlsRole::Server, DtlsRole::Client];

#[test]
fn both_roles_connect_and_agree_on_keys() {
    for role in BOTH_ROLES {
        let mut network = Network::new(role);
        network.start_handshake();
        let took = network.run(Duration::from_secs(1));
        network.assert_keys_match();
        assert_eq!(network.endpoint.state(), DtlsState::Connected);
        assert_eq!(network.keys.as_ref().unwrap().profile(), Profile::AeadAes256Gcm);
        assert!(took <= 4 * ONE_WAY, "two round trips, took {took:?}");
    }
}

#[test]
fn any_single_lost_doubled_or_swapped_datagram_costs_less_than_200_ms() {
    for role in BOTH_ROLES {
        let mut clean = Network::new(role);
        clean.start_handshake();
        let undisturbed = clean.run(Duration::from_secs(1));
        let datagrams = clean.sent;
        assert!(datagrams >= 4);
        for at in 0..datagrams {
            for fate in [Fate::Lost, Fate::Doubled, Fate::Delayed] {
                let mut network = Network::new(role);
                network.fate = Some((at, fate));
                network.start_handshake();
                let took = network.run(Duration::from_secs(5));
                network.assert_keys_match();
                let cost = took.saturating_sub(undisturbed);
                assert!(cost < Duration::from_millis(200), "{role:?}: datagram {at} {fate:?}: {cost:?} more");
            }
        }
    }
}

#[test]
fn a_hello_that_arrives_before_signaling_is_answered_when_signaling_does() {
    let mut network = Network::new(DtlsRole::Server);
    network.run(Duration::from_millis(60));
    assert_eq!(network.endpoint.state(), DtlsState::New);
    assert!(network.keys.is_none());
    network.start_handshake();
    let before = network.now;
    network.run(Duration::from_secs(2));
    network.assert_keys_match();
    assert!(network.now - before <= 3 * ONE_WAY, "the held hello was used, not a repeated one");
}

#[test]
fn datagrams_that_wait_for_signaling_are_bounded() {
    let mut endpoint = Endpoint::new(&Identity::generate());
    for _ in 0..1000 {
        endpoint.handle_datagram(Instant::now(), &[22; 1200]);
    }
    let Phase::Waiting { held } = &endpoint.phase else { panic!("it waits") };
    assert_eq!(held.len(), limits::DTLS_HELD_DATAGRAMS);
}

#[test]
fn a_certificate_that_signaling_did_not_announce_yields_no_keys() {
    for role in BOTH_ROLES {
        let mut network = Network::new(role);
        network.peer.fingerprint = Identity::generate().fingerprints()[0].clone();
        network.start_handshake();
        network.run(Duration::from_secs(5));
        assert!(network.keys.is_none());
        assert_eq!(network.failed, Some("the peer's certificate matches none of its fingerprints"));
        assert_eq!(network.endpoint.state(), DtlsState::Failed);
        assert_eq!(network.endpoint.next_deadline(), None);
    }
}

#[test]
fn a_fingerprint_of_each_known_hash_is_enough_alone() {
    for hash in 0..3 {
        let mut network = Network::new(DtlsRole::Server);
        let identity = Identity::generate();
        network.peer.dtls = identity.connection(network.now);
        network.peer.dtls.set_active(true);
        network.peer.dtls.handle_timeout(network.now).unwrap();
        network.peer.fingerprint = identity.fingerprints()[hash].clone();
        network.start_handshake();
        network.run(Duration::from_secs(1));
        network.assert_keys_match();
    }
}

#[test]
fn a_peer_that_never_answers_fails_within_the_handshake_timeout() {
    let mut network = Network::new(DtlsRole::Client);
    network.start_handshake();
    let mut buf = [0; limits::DATAGRAM_BYTES];
    let mut hellos = 0;
    let failure = loop {
        match network.endpoint.poll(&mut buf) {
            Some(Output::Datagram(_)) => hellos += 1,
            Some(Output::Failed(reason)) => break reason,
            Some(_) => panic!("nobody answered"),
            None => {
                let next = network.endpoint.next_deadline().expect("a retry or the end");
                assert!(next <= network.start + limits::HANDSHAKE_TIMEOUT);
                network.endpoint.handle_timeout(next);
            }
        }
    };
    assert!(failure.contains("took too long"));
    assert!((5..=10).contains(&hellos), "{hellos} hellos");
}

#[test]
fn a_deadline_that_was_acted_on_is_gone_although_nobody_polls() {
    let mut network = Network::new(DtlsRole::Client);
    network.start_handshake();
    network.collect();
    let due = network.endpoint.next_deadline().expect("the hello's repetition");
    network.endpoint.handle_timeout(due);
    assert_eq!(network.endpoint.next_deadline(), None);
    network.collect();
    assert!(network.endpoint.next_deadline().expect("the next repetition") > due);
}

#[test]
fn closing_says_goodbye_to_the_peer() {
    let mut network = Network::new(DtlsRole::Server);
    network.start_handshake();
    network.run(Duration::from_secs(1));
    network.endpoint.close();
    assert_eq!(network.endpoint.state(), DtlsState::Closed);
    network.collect();
    assert!(network.closed);
    let arrival = network.now + 2 * ONE_WAY;
    while let Some(next) = network.in_flight.iter().map(|(at, ..)| *at).min().filter(|at| *at <= arrival) {
        network.step(next);
    }
    assert!(network.peer.closed);
}

#[test]
fn the_peers_goodbye_is_noticed_at_once() {
    let mut network = Network::new(DtlsRole::Server);
    network.start_handshake();
    network.run(Duration::from_secs(1));
    network.peer.dtls.close().unwrap();
    network.collect();
    while let Some(next) = network.in_flight.iter().map(|(at, ..)| *at).min() {
        network.step(next);
    }
    assert!(network.closed);
    assert_eq!(network.endpoint.state(), DtlsState::Closed);
    assert!(network.endpoint.poll(&mut [0; limits::DATAGRAM_BYTES]).is_none(), "told once");
}

/// A connection of which the peer has used the keys, with the endpoint in this role.
fn settled(role: DtlsRole) -> Network {
    let mut network = Network::new(role);
    network.start_handshake();
    network.run(Duration::from_secs(1));
    network.endpoint.settle();
    assert!(matches!(network.endpoint.phase, Phase::Settled(_)), "{role:?}");
    assert_eq!(network.endpoint.state(), DtlsState::Connected);
    assert_eq!(network.endpoint.next_deadline(), None);
    network
}

#[test]
fn a_settled_connection_says_goodbye_and_is_answered() {
    for role in [DtlsRole::Server, DtlsRole::Client] {
        let mut network = settled(role);
        network.endpoint.close();
        assert_eq!(network.endpoint.state(), DtlsState::Closed);
        network.collect();
        assert!(network.closed);
        while let Some(next) = network.in_flight.iter().map(|(at, ..)| *at).min() {
            network.step(next);
        }
        assert!(network.peer.closed, "{role:?}");
        assert!(network.endpoint.poll(&mut [0; limits::DATAGRAM_BYTES]).is_none(), "told once");
    }
}

#[test]
fn a_settled_connection_hears_the_peers_goodbye_and_answers_it() {
    for role in [DtlsRole::Server, DtlsRole::Client] {
        let mut network = settled(role);
        network.peer.dtls.close().unwrap();
        network.collect();
        while let Some(next) = network.in_flight.iter().map(|(at, ..)| *at).min() {
            network.step(next);
        }
        assert!(network.closed, "{role:?}");
        assert_eq!(network.endpoint.state(), DtlsState::Closed);
        assert!(network.endpoint.poll(&mut [0; limits::DATAGRAM_BYTES]).is_none(), "told once");
    }
}

#[test]
fn a_goodbye_that_was_forged_or_damaged_ends_nothing() {
    let mut network = settled(DtlsRole::Server);
    network.peer.dtls.close().unwrap();
    let [goodbye]: [Vec<u8>; 1] = network.peer.poll().try_into().unwrap();
    let mut buf = [0; limits::DATAGRAM_BYTES];
    let now = network.now;
    for at in 0..goodbye.len() {
        // A damaged version is authenticated as well as the rest.
        let mut damaged = goodbye.clone();
        damaged[at] ^= 0x40;
        network.endpoint.handle_datagram(now, &damaged);
        network.endpoint.handle_datagram(now, &goodbye[..at]);
        assert!(network.endpoint.poll(&mut buf).is_none(), "byte {at}");
    }
    assert_eq!(network.endpoint.state(), DtlsState::Connected);
    network.endpoint.handle_datagram(now, &goodbye);
    assert!(matches!(network.endpoint.poll(&mut buf), Some(Output::Datagram(_))));
    assert!(matches!(network.endpoint.poll(&mut buf), Some(Output::Closed)));
}

#[test]
fn a_goodbye_is_heard_behind_a_warning_in_the_same_datagram_and_not_behind_a_forged_one() {
    const WARNING: u8 = 1;
    const USER_CANCELED: u8 = 90;
    const CLOSE_NOTIFY: u8 = 0;
    for is_forged in [true, false] {
        let mut network = settled(DtlsRole::Server);
        let Phase::Settled(settled) = &network.endpoint.phase else { unreachable!() };
        let mut warning = settled.sealed_by_peer(9, [WARNING, USER_CANCELED]);
        *warning.last_mut().unwrap() ^= u8::from(is_forged);
        let goodbye = settled.sealed_by_peer(10, [WARNING, CLOSE_NOTIFY]);
        let now = network.now;
        network.endpoint.handle_datagram(now, &warning);
        assert_eq!(network.endpoint.state(), DtlsState::Connected);
        network.endpoint.handle_datagram(now, &[warning, goodbye].concat());
        network.collect();
        assert_eq!(network.closed, !is_forged);
    }
}

#[test]
fn nothing_settles_before_the_handshake_is_complete() {
    let mut network = Network::new(DtlsRole::Server);
    network.endpoint.settle();
    network.start_handshake();
    network.endpoint.settle();
    network.run(Duration::from_secs(1));
    assert!(network.keys.is_some());
    network.endpoint.close();
    network.endpoint.settle();
    network.collect();
    assert!(network.closed, "closing goes on");
}

#[test]
fn a_second_start_and_a_start_without_fingerprints_are_refused() {
    let mut network = Network::new(DtlsRole::Server);
    let now = network.now;
    assert_eq!(network.endpoint.start(now, DtlsRole::Auto, Vec::new()), Err(StartError::NoFingerprint));
    network.start_handshake();
    let again = network.endpoint.start(now, DtlsRole::Auto, vec![network.peer.fingerprint.clone()]);
    assert_eq!(again, Err(StartError::AlreadyStarted));
}

#[test]
fn a_fingerprint_is_displayed_as_sdp_writes_it() {
    let fingerprint = Fingerprint { hash: FingerprintHash::Sha256, value: vec![0xab, 0x01, 0xff] };
    assert_eq!(fingerprint.to_string(), "AB:01:FF");
    assert_eq!(fingerprint.hash.name(), "sha-256");
}

/// Chromium 156's ClientHello: 1.4 kB in two datagrams, offering DTLS 1.3 and 1.2.
fn chromium_hello() -> Vec<Vec<u8>> {
    let text = include_str!("../../../tests/fixtures/chromium156-clienthello-datagrams.hex");
    let bytes = |line: &str| -> Vec<u8> {
        (0..line.len()).step_by(2).map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap()).collect()
    };
    text.split_whitespace().map(bytes).collect()
}

/// Cuts the handshake message that stands in these datagrams into records of at most `size` bytes of it.
fn refragment(datagrams: &[Vec<u8>], size: usize) -> Vec<Vec<u8>> {
    const RECORD: usize = 13;
    const HANDSHAKE: usize = 12;
    let body: Vec<u8> = datagrams.iter().flat_map(|datagram| &datagram[RECORD + HANDSHAKE..]).copied().collect();
    let fragment = |(at, chunk): (usize, &[u8])| {
        let mut datagram = datagrams[0][..RECORD + HANDSHAKE].to_vec();
        datagram[9..11].copy_from_slice(&(at as u16).to_be_bytes());
        datagram[11..13].copy_from_slice(&((HANDSHAKE + chunk.len()) as u16).to_be_bytes());
        datagram[19..22].copy_from_slice(&((at * size) as u32).to_be_bytes()[1..]);
        datagram[22..25].copy_from_slice(&(chunk.len() as u32).to_be_bytes()[1..]);
        datagram.extend_from_slice(chunk);
        datagram
    };
    body.chunks(size).enumerate().map(fragment).collect()
}

/// Bytes that the endpoint answers to these datagrams.
fn answer(datagrams: &[Vec<u8>]) -> usize {
    let now = Instant::now();
    let mut endpoint = Endpoint::new(&Identity::generate());
    let fingerprint = Fingerprint { hash: FingerprintHash::Sha256, value: vec![0; 32] };
    endpoint.start(now, DtlsRole::Client, vec![fingerprint]).unwrap();
    let mut buf = [0; limits::DATAGRAM_BYTES];
    let mut bytes = 0;
    for datagram in datagrams {
        endpoint.handle_datagram(now, datagram);
        while let Some(output) = endpoint.poll(&mut buf) {
            let Output::Datagram(datagram) = output else { panic!("nothing else yet") };
            assert_eq!(datagram[1..3], [0xfe, 0xfd], "DTLS 1.2");
            bytes += datagram.len();
        }
    }
    bytes
}

#[test]
fn chromiums_hello_is_answered_whole_reordered_and_in_small_fragments() {
    let hello = chromium_hello();
    assert_eq!(hello.len(), 2);
    assert_eq!(answer(&hello[..1]), 0, "half a hello");
    let flight = answer(&hello);
    assert!(flight > 400, "ServerHello to ServerHelloDone");
    let mut arrivals = vec![vec![hello[1].clone(), hello[0].clone()]];
    for size in [100, 255, 600] {
        let fragments = refragment(&hello, size);
        arrivals.push(fragments.iter().rev().cloned().collect());
        arrivals.push(fragments.iter().flat_map(|fragment| [fragment.clone(), fragment.clone()]).collect());
        arrivals.push(fragments);
    }
    for datagrams in arrivals {
        // The signature's length varies by a few bytes.
        assert!(answer(&datagrams).abs_diff(flight) < 10, "{} datagrams", datagrams.len());
    }
}
