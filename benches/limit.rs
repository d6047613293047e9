//! The distance to the bound: the whole product against the same ring and cipher with hard-coded tables.
//!
//! Both receive the frames of one sender from the kernel, open them, and for each receiver write a header, seal
//! the payload and send one GSO message per frame, over loopback, with the same keys. The limit knows nothing else:
//! no demux, no statistics, no layers, no feedback, no history. CPU time of the one thread per forwarded packet;
//! repeats interleaved; ratio of medians. `cargo bench --bench limit [-- --quick]`; its last line is
//! `product/limit: R` for 49 consumers and bursts of 6.

#[allow(dead_code, reason = "each bench takes its part")]
#[path = "support/call.rs"]
mod call;
mod support;

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use call::{Call, Medium};
use ringside::ids::Ssrc;
use ringside::limits::{DATAGRAM_BYTES, RUN_BYTES};
use ringside::packet::rtp::RtpHeader;
use ringside::shard::Datagram;
use ringside::shard::outbox::{Destination, Outbox};
use ringside::transport::srtp::{Inbound, Outbound};
use ringside::uring::socket::SocketOptions;
use ringside::uring::{Ring, RingConfig, Socket, clock};
use support::Samples;

/// What Chromium puts into a packet.
const PAYLOAD: usize = 1_100;

fn main() {
    let (repeats, frames): (usize, usize) = if support::quick() { (3, 4) } else { (25, 40) };
    println!("CPU ns per forwarded packet, median (least) of {repeats} interleaved repeats of {frames} frames\n");
    println!("{:>9} {:>6} {:>16} {:>16} {:>8}", "consumers", "burst", "limit", "product", "ratio");
    let mut headline = f64::NAN;
    for consumers in [10, 49, 500] {
        let mut rig = Rig::new(consumers);
        for burst in [1, 3, 6, 12] {
            let frames = (frames * 49).div_ceil(consumers).max(2);
            let (mut limit, mut product) = (Samples::default(), Samples::default());
            for _ in 0..repeats {
                limit.add(rig.run(burst, frames, Rig::forward_by_limit), (frames * burst * consumers) as u64);
                product.add(rig.run(burst, frames, Rig::forward_by_product), (frames * burst * consumers) as u64);
            }
            let ratio = product.median() / limit.median();
            println!("{consumers:>9} {burst:>6} {:>16} {:>16} {ratio:>8.2}", limit.show(), product.show());
            if (consumers, burst) == (49, 6) {
                headline = ratio;
            }
        }
    }
    println!("\nproduct/limit: {headline:.2}");
}

struct Rig {
    ring: Ring,
    call: Call,
    limit: Limit,
    browser: UdpSocket,
    server: SocketAddr,
    sinks: Vec<UdpSocket>,
}

/// Everything that the bound knows.
struct Limit {
    inbound: Inbound,
    receivers: Vec<(Destination, Outbound, u64)>,
    header: [u8; 28],
    plain: Vec<Vec<u8>>,
}

impl Rig {
    fn new(consumers: usize) -> Rig {
        let any = "127.0.0.1:0".parse().expect("an address");
        let socket = Socket::bind(any, SocketOptions::default()).expect("a socket");
        let server = socket.address();
        let ring = Ring::open(RingConfig::default(), vec![socket]).expect("a ring");
        let open = || {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            socket.set_nonblocking(true).expect("a nonblocking socket");
            socket
        };
        let (browser, sinks): (_, Vec<_>) = (open(), (0..consumers).map(|_| open()).collect());
        let address = |socket: &UdpSocket| socket.local_addr().expect("an address");
        let addresses: Vec<_> = sinks.iter().map(address).collect();
        let call = Call::new(&[(address(&browser), Medium::Vp8)], &addresses);
        let receivers = call.receivers.iter().zip(&addresses).map(|(keys, address)| {
            (Destination { address: *address, local: 0 }, Outbound::new(&keys.swapped()), 1 << 20)
        });
        let limit = Limit {
            inbound: Inbound::new(&call.senders[0].keys.swapped()),
            receivers: receivers.collect(),
            header: [0x90; 28],
            plain: (0..16).map(|_| vec![0; DATAGRAM_BYTES]).collect(),
        };
        Rig { ring, call, limit, browser, server, sinks }
    }

    /// Sends `frames` frames, each forwarded by `forward`; returns the CPU time of the forwarding alone.
    fn run(&mut self, burst: usize, frames: usize, forward: fn(&mut Rig, usize)) -> Duration {
        let mut spent = Duration::ZERO;
        for _ in 0..frames {
            for datagram in self.call.senders[0].frame(burst, PAYLOAD, false) {
                self.browser.send_to(&datagram, self.server).expect("sent");
            }
            let before = clock::thread_cpu();
            forward(self, burst);
            spent += clock::thread_cpu() - before;
            self.drain(burst);
        }
        spent
    }

    /// Reads the receivers empty, and sees that each got its frame.
    fn drain(&self, burst: usize) {
        let mut buffer = [0; 2048];
        for sink in &self.sinks {
            let got = std::iter::from_fn(|| sink.recv(&mut buffer).ok()).count();
            assert_eq!(got, burst, "datagrams at one receiver");
        }
    }

    fn forward_by_product(&mut self, burst: usize) {
        let mut received = 0;
        while received < burst {
            self.ring.wait(Some(Duration::from_secs(1))).expect("datagrams");
            let now = Instant::now();
            while let Some(mut datagrams) = self.ring.receive() {
                let (source, local) = (datagrams.source(), datagrams.local());
                for bytes in datagrams.datagrams() {
                    received += 1;
                    self.call.shard.handle_datagram(now, Datagram { source, local, bytes, received_at: None });
                }
            }
            self.call.shard.handle_timeout(now);
            self.call.shard.flush(now, &mut self.ring);
        }
        self.ring.submit().expect("sent");
    }

    fn forward_by_limit(&mut self, burst: usize) {
        let (mut lens, mut count) = ([0; 16], 0);
        while count < burst {
            self.ring.wait(Some(Duration::from_secs(1))).expect("datagrams");
            while let Some(mut datagrams) = self.ring.receive() {
                for bytes in datagrams.datagrams() {
                    let header = RtpHeader::parse(bytes).expect("RTP");
                    let out = &mut self.limit.plain[count];
                    let len = self.limit.inbound.open_rtp(bytes, header.len(), out).expect("authentic");
                    lens[count] = (header.len(), len).1;
                    count += 1;
                }
            }
        }
        let header_len = self.limit.header.len();
        for (to, outbound, sequence) in &mut self.limit.receivers {
            let slot = self.ring.reserve(*to, RUN_BYTES).expect("a slot");
            let (mut at, mut segment) = (0, 0);
            for (plain, len) in self.limit.plain.iter().zip(&lens[..burst]) {
                *sequence += 1;
                let out = &mut slot[at..];
                out[..header_len].copy_from_slice(&self.limit.header);
                out[2..4].copy_from_slice(&(*sequence as u16).to_be_bytes());
                // The sender's header is 24 bytes long.
                segment = outbound.seal_rtp(out, header_len, &plain[24..*len], &[], Ssrc(9), *sequence);
                at += segment;
            }
            self.ring.commit(at, segment);
        }
        self.ring.submit().expect("sent");
    }
}
