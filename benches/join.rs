//! What it costs to let somebody in: a DTLS handshake on the server's side, and an answered connectivity check
//! beside what the `stun` crate takes for the same.
//!
//! CPU time of the thread, median (least) of interleaved repeats. `cargo bench --bench join [-- --quick]`.

mod support;

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ringside::limits;
use ringside::packet::stun::RESPONSE_BYTES;
use ringside::transport::dtls::{DtlsRole, Endpoint, Identity, Output};
use ringside::transport::ice::{Credentials, IceLite, Tuple};
use ringside::transport::srtp::{Inbound, Outbound};
use ringside::uring::clock;
use stun::attributes::{ATTR_USERNAME, AttrType, RawAttribute};
use stun::fingerprint::FINGERPRINT;
use stun::integrity::MessageIntegrity;
use stun::message::{BINDING_REQUEST, BINDING_SUCCESS, Message, Setter};
use stun::xoraddr::XorMappedAddress;
use support::Samples;

fn main() {
    let (repeats, handshakes, checks) = if support::quick() { (2, 2, 20) } else { (15, 40, 2000) };
    handshake(repeats, handshakes);
    check(repeats, checks);
}

fn handshake(repeats: usize, count: usize) {
    let (ours, theirs) = (Identity::generate(), Identity::generate());
    for (peer_role, name) in [(DtlsRole::Client, "server"), (DtlsRole::Server, "client")] {
        let [mut dtls, mut srtp] = std::array::from_fn(|_| Samples::default());
        for _ in 0..repeats {
            let mut spent = [Duration::ZERO; 2];
            for _ in 0..count {
                let [in_handshake, in_keys] = join(&ours, &theirs, peer_role);
                spent[0] += in_handshake;
                spent[1] += in_keys;
            }
            dtls.add(spent[0], count as u64);
            srtp.add(spent[1], count as u64);
        }
        println!(
            "DTLS handshake as {name}: {} ns on this side, {:.0} per second and core; SRTP contexts from its keys: {} ns",
            dtls.show(),
            1e9 / dtls.median(),
            srtp.show()
        );
    }
}

/// Our side's CPU time for one whole handshake, and for the contexts that follow it.
fn join(ours: &Identity, theirs: &Identity, peer_role: DtlsRole) -> [Duration; 2] {
    let now = Instant::now();
    let our_role = if peer_role == DtlsRole::Client { DtlsRole::Server } else { DtlsRole::Client };
    let (our_prints, their_prints) = (ours.fingerprints().to_vec(), theirs.fingerprints().to_vec());
    let mut peer = Endpoint::new(theirs);
    peer.start(now, our_role, our_prints).expect("the first start");
    let mut spent = Duration::ZERO;
    let start = cpu();
    let mut endpoint = Endpoint::new(ours);
    endpoint.start(now, peer_role, their_prints).expect("the first start");
    let mut keys = None;
    spent += cpu() - start;
    let mut peer_connected = false;
    while keys.is_none() || !peer_connected {
        let mut arriving = Vec::new();
        drain(&mut peer, |output| match output {
            Output::Datagram(datagram) => arriving.push(datagram.to_vec()),
            Output::Connected(_) => peer_connected = true,
            _ => panic!("the peer gave up"),
        });
        let mut leaving = Vec::new();
        let start = cpu();
        for datagram in arriving {
            endpoint.handle_datagram(now, &datagram);
        }
        drain(&mut endpoint, |output| match output {
            Output::Datagram(datagram) => leaving.push(datagram.to_vec()),
            Output::Connected(connected) => keys = Some(connected),
            _ => panic!("we gave up"),
        });
        spent += cpu() - start;
        leaving.iter().for_each(|datagram| peer.handle_datagram(now, datagram));
    }
    let keys = keys.expect("the loop ends with keys");
    let start = cpu();
    black_box((Inbound::new(&keys), Outbound::new(&keys)));
    [spent, cpu() - start]
}

fn drain(endpoint: &mut Endpoint, mut take: impl FnMut(Output<'_>)) {
    let mut buf = [0; limits::DATAGRAM_BYTES];
    while let Some(output) = endpoint.poll(&mut buf) {
        take(output);
    }
}

fn check(repeats: usize, count: usize) {
    let credentials = Credentials::from_random(&[9; Credentials::RANDOM_BYTES]);
    let (ufrag, password) = (credentials.ufrag().to_owned(), credentials.password().to_owned());
    let request = browser_check(&ufrag, &password);
    let remote = SocketAddr::from(([192, 0, 2, 7], 50_000));
    let mut ice = IceLite::new(credentials);
    let [mut ours, mut theirs] = std::array::from_fn(|_| Samples::default());
    for _ in 0..repeats {
        let now = Instant::now();
        let mut out = [0; RESPONSE_BYTES];
        let start = cpu();
        for _ in 0..count {
            let outcome = ice.handle_check(now, black_box(&request), Tuple { remote, local: 0 }, &mut out);
            assert!(outcome.response_len > 0);
        }
        ours.add(cpu() - start, count as u64);
        let start = cpu();
        for _ in 0..count {
            black_box(answer_with_stun_crate(black_box(&request), &password, remote));
        }
        theirs.add(cpu() - start, count as u64);
    }
    println!(
        "connectivity check, verified and answered: {} ns; stun crate {} ns, {:.1} x",
        ours.show(),
        theirs.show(),
        theirs.median() / ours.median()
    );
}

/// A check with the attributes that Chromium sends.
fn browser_check(ufrag: &str, password: &str) -> Vec<u8> {
    let raw = |kind, value: &[u8]| -> Box<dyn Setter> {
        Box::new(RawAttribute { typ: AttrType(kind), length: value.len() as u16, value: value.to_vec() })
    };
    let setters: Vec<Box<dyn Setter>> = vec![
        Box::new(BINDING_REQUEST),
        raw(ATTR_USERNAME.0, format!("{ufrag}:aBcD").as_bytes()),
        raw(0xc057, &[0, 1, 0, 10]),
        raw(0x802a, &[7; 8]),
        raw(0x0025, &[]),
        raw(0x0024, &[0x6e, 0x7f, 0x1e, 0xff]),
        Box::new(MessageIntegrity::new_short_term_integrity(password.to_owned())),
        Box::new(FINGERPRINT),
    ];
    let mut message = Message::new();
    message.build(&setters).expect("a message");
    message.raw
}

fn answer_with_stun_crate(request: &[u8], password: &str, remote: SocketAddr) -> Vec<u8> {
    let mut message = Message::new();
    message.unmarshal_binary(request).expect("a message");
    FINGERPRINT.check(&message).expect("a right fingerprint");
    let integrity = MessageIntegrity::new_short_term_integrity(password.to_owned());
    integrity.check(&mut message).expect("a right integrity");
    let mut response = Message::new();
    let setters: Vec<Box<dyn Setter>> = vec![
        Box::new(message.transaction_id),
        Box::new(BINDING_SUCCESS),
        Box::new(XorMappedAddress { ip: remote.ip(), port: remote.port() }),
        Box::new(integrity),
        Box::new(FINGERPRINT),
    ];
    response.build(&setters).expect("a message");
    response.raw
}

fn cpu() -> Duration {
    clock::thread_cpu()
}
