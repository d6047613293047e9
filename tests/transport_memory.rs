//! What one idle, connected transport costs: in a shard that has four hundred of them, and its parts alone (ICE, DTLS and
//! SRTP). As the machine sees it, the C library's heap included.

#[path = "../benches/support/call.rs"]
#[allow(dead_code, reason = "shared with the benches")]
mod call;

use std::fs;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use call::Call;
use ringside::limits;
use ringside::transport::dtls::{DtlsRole, Endpoint, Identity, Output};
use ringside::transport::ice::{Credentials, IceLite};
use ringside::transport::srtp::{Inbound, Keys, Outbound};

/// What a shard keeps of one transport.
struct Transport {
    _ice: IceLite,
    _dtls: Endpoint,
    _inbound: Inbound,
    _outbound: Outbound,
}

/// Delivers what `from` has to send, and returns its keys when it got them.
fn pump(from: &mut Endpoint, to: &mut Endpoint, now: Instant) -> Option<Keys> {
    let mut keys = None;
    let mut buf = [0; limits::DATAGRAM_BYTES];
    while let Some(output) = from.poll(&mut buf) {
        match output {
            Output::Datagram(datagram) => to.handle_datagram(now, datagram),
            Output::Connected(connected) => keys = Some(connected),
            Output::Failed(reason) => panic!("{reason}"),
            Output::Closed => panic!("closed"),
        }
    }
    keys
}

fn connect(ours: &Identity, theirs: &Identity, peer_role: DtlsRole, now: Instant) -> Transport {
    let mut dtls = Endpoint::new(ours);
    let mut peer = Endpoint::new(theirs);
    let our_role = if peer_role == DtlsRole::Client { DtlsRole::Server } else { DtlsRole::Client };
    dtls.start(now, peer_role, theirs.fingerprints().to_vec()).unwrap();
    peer.start(now, our_role, ours.fingerprints().to_vec()).unwrap();
    let mut keys = None;
    while keys.is_none() {
        pump(&mut peer, &mut dtls, now);
        keys = pump(&mut dtls, &mut peer, now);
    }
    let keys = keys.unwrap();
    let credentials = Credentials::from_random(&[7; Credentials::RANDOM_BYTES]);
    Transport {
        _ice: IceLite::new(credentials),
        _dtls: dtls,
        _inbound: Inbound::new(&keys),
        _outbound: Outbound::new(&keys),
    }
}

fn resident_bytes() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// The tests of this file share one heap.
static ALONE: Mutex<()> = Mutex::new(());

const COUNT: usize = 400;

fn addresses(network: u8, count: usize) -> Vec<SocketAddr> {
    (0..count).map(|at| SocketAddr::from(([10, network, (at / 250) as u8, (at % 250) as u8], 5_000))).collect()
}

#[test]
fn an_idle_transport_of_a_shard_takes_less_than_32_kib() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // Connected as browsers do it: a check, a handshake, keys. Another shard has paid for the heap's own growth.
    let first = Call::new(&[], &addresses(1, 50));
    let before = resident_bytes();
    let call = Call::new(&[], &addresses(2, COUNT));
    let each = (resident_bytes() - before) / COUNT;
    let stats = call.shard.worker_stats();
    assert_eq!((stats.transports, first.shard.worker_stats().transports), (COUNT, 50));
    println!("{each} bytes per transport, what the shard has once included");
    assert!(each < 32 * 1024, "{each} bytes");
}

#[test]
fn the_parts_of_an_idle_transport_take_less_than_32_kib() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    let (ours, theirs) = (Identity::generate(), Identity::generate());
    // The first ones pay for the heap's own growth; none is dropped meanwhile, so that nothing is reused.
    let mut transports: Vec<Transport> = (0..50).map(|_| connect(&ours, &theirs, DtlsRole::Client, now)).collect();
    let count = COUNT;
    for role in [DtlsRole::Client, DtlsRole::Server] {
        let before = resident_bytes();
        transports.extend((0..count).map(|_| connect(&ours, &theirs, role, now)));
        let each = (resident_bytes() - before) / count;
        println!("{each} bytes per transport whose peer is the {role:?}");
        assert!(each < 32 * 1024, "{each} bytes");
    }
}
