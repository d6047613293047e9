//! Whose datagram is it: by address, and by ufrag for connectivity checks, among 1, 100 and 10,000 transports.
//! `cargo bench --bench demux [-- --quick]`
//!
//! A truncated RTP packet is refused right behind the lookup, so what it costs more than a datagram that is refused
//! before it is the lookup. Sources come in random order, so that tables are as cold as in a crowded server.

#[allow(dead_code, reason = "each bench takes its part")]
#[path = "support/call.rs"]
mod call;
mod support;

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use call::{Nowhere, Visitor};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use ringside::shard::Datagram;
use ringside::uring::clock;
use support::Samples;

fn main() {
    let (repeats, datagrams) = if support::quick() { (3, 200) } else { (31, 10_000) };
    println!("CPU ns per datagram, median (least) of {repeats} interleaved repeats\n");
    let columns = ["refused before", "by address", "unknown source", "answered check"];
    println!("{:>10} {:>16} {:>16} {:>16} {:>16}", "transports", columns[0], columns[1], columns[2], columns[3]);
    for transports in [1, 100, 10_000] {
        let mut rng = StdRng::seed_from_u64(7);
        let (mut shard, visitors) = call::visitors(&addresses(transports));
        let stranger: SocketAddr = "172.16.0.1:9".parse().expect("an address");
        let mut outbox = Nowhere::default();
        let now = Instant::now();
        let mut measure = |samples: &mut Samples, make: &dyn Fn(&Visitor) -> (SocketAddr, Vec<u8>)| {
            let count = datagrams.min(2_000);
            let mut batch: Vec<_> = (0..count).map(|_| make(&visitors[rng.random_range(0..visitors.len())])).collect();
            let mut spent = Duration::ZERO;
            for part in batch.chunks_mut(200) {
                let start = clock::thread_cpu();
                for (source, bytes) in part {
                    let datagram = Datagram { source: *source, local: 0, bytes: black_box(bytes), received_at: None };
                    shard.handle_datagram(now, datagram);
                }
                spent += clock::thread_cpu() - start;
                shard.flush(now, &mut outbox);
            }
            samples.add(spent, count as u64);
        };
        let mut samples = [(); 4].map(|_| Samples::default());
        for _ in 0..repeats {
            measure(&mut samples[0], &|visitor| (visitor.address, vec![0xff; 12]));
            measure(&mut samples[1], &|visitor| (visitor.address, TRUNCATED.to_vec()));
            measure(&mut samples[2], &|_| (stranger, TRUNCATED.to_vec()));
            measure(&mut samples[3], &|visitor| (visitor.address, visitor.check.clone()));
        }
        let [before, address, unknown, check] = samples.map(|samples| samples.show());
        println!("{transports:>10} {before:>16} {address:>16} {unknown:>16} {check:>16}");
    }
}

/// An RTP header that promises more than there is.
const TRUNCATED: [u8; 12] = [0x8f, 96, 0, 1, 0, 0, 0, 1, 0, 0, 0, 9];

fn addresses(count: usize) -> Vec<SocketAddr> {
    (0..count).map(|at| SocketAddr::from(([10, 0, (at / 250) as u8, (at % 250) as u8], 5_000))).collect()
}
