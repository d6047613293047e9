//! The distance to the bound: the whole product against the same ring and cipher with hard-coded tables.
//!
//! Both receive the frames of one sender from the kernel, open them, and for each receiver write a header, seal
//! the payload and send one GSO message per frame, over loopback, with the same keys. The limit knows nothing else:
//! no demux, no statistics, no layers, no feedback, no history. CPU time of the one thread per forwarded packet;
//! repeats interleaved; ratio of medians.
//!
//! Both twice: with *silent* receivers, and in a *live* call with all that makes an SFU. There the sender has three sizes
//! and every receiver gets the largest, because its estimate allows it; receivers answer ([`live`]) through the kernel and the ring as in
//! production, so that receiving, opening and understanding feedback, allocation, resends and reports are all charged to the
//! packets forwarded meanwhile. A frame's time passes between two frames, and what comes due in it is done when it is due.
//! The limit of the live call receives and opens as many datagrams of the same lengths from the same senders, understands none
//! and answers none. Sound is left out: it would change the size of bursts, not the cost of feedback.
//!
//! `cargo bench --bench limit [-- --quick] [--headline]`; its last lines are for 49 consumers and bursts of 6: without feedback, live
//! against the limit that receives nothing but the source, and `product/limit: R`, live against the live limit.

#[allow(dead_code, reason = "each bench takes its part")]
#[path = "support/call.rs"]
mod call;
#[path = "support/live.rs"]
mod live;
mod support;

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use call::{Call, LAYERS, Medium, Nowhere};
use live::{FRAME_US, Receiver};
use ringside::ids::Ssrc;
use ringside::limits::{DATAGRAM_BYTES, RUN_BYTES};
use ringside::packet::rtcp::{Ntp, SenderInfo, write_sender_report};
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
    println!(
        "{:>9} {:>6} {:>16} {:>16} {:>8} {:>16} {:>16} {:>8}",
        "consumers", "burst", "limit", "silent", "ratio", "live limit", "live", "ratio"
    );
    let mut headline = [f64::NAN; 3];
    let is_headline = std::env::args().any(|argument| argument == "--headline");
    let (rooms, bursts): (&[usize], &[usize]) =
        if is_headline { (&[49], &[6]) } else { (&[10, 49, 500], &[1, 3, 6, 12]) };
    for &consumers in rooms {
        let mut rig = Rig::new(consumers);
        for &burst in bursts {
            let frames = (frames * 49).div_ceil(consumers).max(2);
            let [mut limit, mut silent, mut live, mut live_limit] = [(); 4].map(|_| Samples::default());
            let is_live = rig.warm_up(burst);
            for _ in 0..repeats {
                limit.add(rig.run(burst, frames, Rig::forward_by_limit), (frames * burst * consumers) as u64);
                rig.renew_consent();
                silent.add(rig.run(burst, frames, Rig::forward_by_product), (frames * burst * consumers) as u64);
                if is_live {
                    let (time, forwarded) = rig.run_live(burst, frames, false);
                    assert_eq!(forwarded, (frames * burst * consumers) as u64, "every receiver gets the largest size");
                    live.add(time, forwarded);
                    live_limit.add(rig.run_live_limit(burst), forwarded);
                }
            }
            let silent_ratio = silent.median() / limit.median();
            let ratios = [silent_ratio, live.median() / limit.median(), live.median() / live_limit.median()];
            let none = || "-".to_owned();
            let shown = |samples: Samples| if is_live { samples.show() } else { none() };
            let shown_ratio = if is_live { format!("{:.2}", ratios[2]) } else { none() };
            let (limit, silent, live_limit, live) = (limit.show(), silent.show(), shown(live_limit), shown(live));
            println!(
                "{consumers:>9} {burst:>6} {limit:>16} {silent:>16} {silent_ratio:>8.2} {live_limit:>16} {live:>16} \
                 {shown_ratio:>8}"
            );
            if (consumers, burst) == (49, 6) {
                headline = ratios;
            }
        }
        rig.say_what_was_live();
    }
    println!("\nwithout feedback, product/limit: {:.2}", headline[0]);
    if headline[2].is_nan() {
        return println!("product/limit: not every receiver reached the largest size in time");
    }
    println!("live, product/limit without its answers: {:.2}", headline[1]);
    println!("product/limit: {:.2}", headline[2]);
}

struct Rig {
    ring: Ring,
    call: Call,
    live: Call,
    receivers: Vec<Receiver>,
    /// What came with each frame of the last live run.
    came: Vec<Came>,
    /// Frames of the live call so far, and its own time.
    frame: u64,
    now: Instant,
    limit: Limit,
    browser: UdpSocket,
    server: SocketAddr,
    sinks: Vec<UdpSocket>,
    /// Seal the answers that the live limit gets.
    far_ends: Vec<Outbound>,
    /// The next number of the source that the live limit gets.
    live_sequence: [u64; LAYERS],
}

/// What a server gets in one frame's time: which receivers answer with how many bytes, and packets of the source.
struct Came {
    answers: Vec<(usize, usize)>,
    packets: usize,
}

/// Everything that the bound knows.
struct Limit {
    inbound: Inbound,
    receivers: Vec<(Destination, Outbound, u64)>,
    /// By port: what a receiver's answers are opened with.
    answers: HashMap<u16, Inbound>,
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
        let ports = addresses.iter().map(SocketAddr::port);
        let limit = Limit {
            inbound: Inbound::new(&call.senders[0].keys.swapped()),
            receivers: receivers.collect(),
            answers: ports.zip(&call.receivers).map(|(port, keys)| (port, Inbound::new(&keys.swapped()))).collect(),
            header: [0x90; 28],
            plain: (0..32).map(|_| vec![0; DATAGRAM_BYTES]).collect(),
        };
        let live = Call::new(&[(address(&browser), Medium::Simulcast)], &addresses);
        let far = live.receivers.iter().zip(&live.checks).enumerate();
        let receivers = far.map(|(at, (keys, check))| Receiver::new(at, keys, check)).collect();
        let (came, now) = (Vec::new(), Instant::now());
        let far_ends = call.receivers.iter().map(Outbound::new).collect();
        Rig {
            ring,
            call,
            live,
            receivers,
            came,
            far_ends,
            live_sequence: [1 << 16; LAYERS],
            frame: 0,
            now,
            limit,
            browser,
            server,
            sinks,
        }
    }

    /// The silent call's own time is the machine's, and the live one takes longer than consent lasts.
    fn renew_consent(&mut self) {
        let now = Instant::now();
        let senders = self.call.senders.iter().map(|sender| (sender.address, &sender.check));
        let receivers = self.sinks.iter().map(|sink| sink.local_addr().expect("an address")).zip(&self.call.checks);
        for (source, check) in senders.chain(receivers) {
            let bytes = &mut check.clone()[..];
            self.call.shard.handle_datagram(now, Datagram { source, local: 0, bytes, received_at: None });
            self.call.shard.flush(now, &mut Nowhere::default());
        }
    }

    /// Lets the live call go on until all receivers have had the largest size for three seconds; whether they did in time: after
    /// a change of bitrate a path may have to wait 64 s for its next raise.
    fn warm_up(&mut self, burst: usize) -> bool {
        let expected = (30 * burst * self.sinks.len()) as u64;
        let seconds = if support::quick() { 10 } else { 150 };
        let mut held = 0;
        for _ in 0..seconds {
            self.renew_consent();
            // Every second begins with a key frame.
            let forwarded = self.run_live(burst, 1, true).1 + self.run_live(burst, 29, false).1;
            held = if forwarded == expected { held + 1 } else { 0 };
            if held == 3 {
                return true;
            }
        }
        false
    }

    /// The live call for so many frames: CPU time of the forwarding and of all that belongs to it, and packets of the
    /// source's stream that reached receivers.
    fn run_live(&mut self, burst: usize, frames: usize, is_key: bool) -> (Duration, u64) {
        let had: u64 = self.receivers.iter().map(|receiver| receiver.forwarded).sum();
        let mut spent = Duration::ZERO;
        self.came.clear();
        for _ in 0..frames {
            let sent = self.send_live(burst, is_key);
            let before = clock::thread_cpu();
            self.forward_live(sent);
            self.pass_live();
            spent += clock::thread_cpu() - before;
            self.drain_live();
            self.frame += 1;
        }
        let has: u64 = self.receivers.iter().map(|receiver| receiver.forwarded).sum();
        (spent, has - had)
    }

    /// Everybody's datagrams of one frame's time; returns how many.
    fn send_live(&mut self, burst: usize, is_key: bool) -> usize {
        let mut answers = Vec::new();
        for (at, (receiver, sink)) in self.receivers.iter_mut().zip(&self.sinks).enumerate() {
            receiver.answers(self.frame, |datagram| {
                sink.send_to(datagram, self.server).expect("sent");
                answers.push((at, datagram.len()));
            });
        }
        let sent = answers.len();
        let sender = &mut self.live.senders[0];
        let mut datagrams = sender.picture([1, burst.div_ceil(3), burst], PAYLOAD, is_key);
        let layer = self.frame % 30;
        if layer < LAYERS as u64 {
            let info = SenderInfo {
                ssrc: Ssrc(sender.ssrc.0 + 2 * layer as u32),
                ntp: Ntp(((self.frame * FRAME_US) << 32) / 1_000_000),
                rtp_timestamp: sender.timestamp,
                packets: 0,
                octets: 0,
            };
            let mut report = vec![0; 96];
            let len = write_sender_report(&mut report, &info, []).expect("room");
            let len = sender.outbound.seal_rtcp(&mut report, len).expect("room");
            report.truncate(len);
            datagrams.push(report);
        }
        if self.frame.is_multiple_of(75) {
            datagrams.push(sender.check.clone());
        }
        for datagram in &datagrams {
            self.browser.send_to(datagram, self.server).expect("sent");
        }
        self.came.push(Came { answers, packets: datagrams.len() });
        sent + datagrams.len()
    }

    /// The limit with as many datagrams as came in the last live run.
    fn run_live_limit(&mut self, burst: usize) -> Duration {
        let mut spent = Duration::ZERO;
        // Under an SSRC of its own: the silent call would take so large a gap in its numbers for another stream.
        let (ssrc, sequence) = (self.call.senders[0].ssrc, self.call.senders[0].sequences);
        self.call.senders[0].ssrc = Ssrc(ssrc.0 ^ 0x1000);
        self.call.senders[0].sequences = self.live_sequence;
        for came in std::mem::take(&mut self.came) {
            for (at, len) in &came.answers {
                let mut answer = [0; DATAGRAM_BYTES];
                answer[..2].copy_from_slice(&[0x80, 201]);
                let plain = len - self.call.receivers[*at].profile().rtcp_overhead();
                let len = self.far_ends[*at].seal_rtcp(&mut answer, plain).expect("room");
                self.sinks[*at].send_to(&answer[..len], self.server).expect("sent");
            }
            for datagram in self.call.senders[0].frame(came.packets, PAYLOAD, false) {
                self.browser.send_to(&datagram, self.server).expect("sent");
            }
            let before = clock::thread_cpu();
            self.forward_by_limit_among(burst, came.packets + came.answers.len());
            spent += clock::thread_cpu() - before;
            self.drain(burst);
        }
        self.live_sequence = self.call.senders[0].sequences;
        (self.call.senders[0].ssrc, self.call.senders[0].sequences) = (ssrc, sequence);
        spent
    }

    fn forward_live(&mut self, sent: usize) {
        let mut received = 0;
        while received < sent {
            self.ring.wait(Some(Duration::from_secs(1))).expect("datagrams");
            while let Some(mut datagrams) = self.ring.receive() {
                let (source, local) = (datagrams.source(), datagrams.local());
                for bytes in datagrams.datagrams() {
                    received += 1;
                    let received_at = Some(self.now);
                    self.live.shard.handle_datagram(self.now, Datagram { source, local, bytes, received_at });
                }
            }
            self.live.shard.handle_timeout(self.now);
            self.live.shard.flush(self.now, &mut self.ring);
        }
        self.ring.submit().expect("sent");
    }

    /// The time until the next frame, with everything that comes due in it.
    fn pass_live(&mut self) {
        let next = self.now + Duration::from_micros(FRAME_US);
        while let Some(at) = self.live.shard.next_deadline().filter(|at| *at < next) {
            self.now = at.max(self.now);
            self.live.shard.handle_timeout(self.now);
            self.live.shard.flush(self.now, &mut self.ring);
            self.ring.submit().expect("sent");
        }
        self.now = next;
        while self.live.shard.poll_event().is_some() {}
    }

    fn drain_live(&mut self) {
        let mut buffer = [0; 2048];
        for (receiver, sink) in self.receivers.iter_mut().zip(&self.sinks) {
            while let Ok(len) = sink.recv(&mut buffer) {
                receiver.take(&mut buffer[..len], self.frame);
            }
        }
        while self.browser.recv(&mut buffer).is_ok() {}
    }

    fn say_what_was_live(&self) {
        let sum = |of: fn(&Receiver) -> u64| self.receivers.iter().map(of).sum::<u64>();
        let (forwarded, resent) = (sum(|receiver| receiver.forwarded), sum(|receiver| receiver.resent));
        let padding = sum(|receiver| receiver.padding);
        let reports = sum(|receiver| receiver.reports);
        assert!(resent > 0 && reports > 0, "a call without resends and reports is not alive");
        println!("{:>16} live: {forwarded} packets, {resent} resent, {padding} of padding, {reports} reports", "");
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
        while self.browser.recv(&mut buffer).is_ok() {}
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
        self.forward_by_limit_among(burst, burst);
    }

    /// Opens `all` datagrams, and forwards the first `burst` of the source.
    fn forward_by_limit_among(&mut self, burst: usize, all: usize) {
        let (mut lens, mut count, mut answers) = ([0; 32], 0, 0);
        while count + answers < all {
            self.ring.wait(Some(Duration::from_secs(1))).expect("datagrams");
            while let Some(mut datagrams) = self.ring.receive() {
                let port = datagrams.source().port();
                for bytes in datagrams.datagrams() {
                    if bytes[1] == 201 {
                        let inbound = self.limit.answers.get_mut(&port).expect("a receiver");
                        inbound.open_rtcp(bytes).expect("authentic");
                        answers += 1;
                        continue;
                    }
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
