//! The shard's own share of forwarding: one frame to many consumers, and many producers to the same consumers, with
//! nothing behind the outbox. `cargo bench --bench fanout [-- --quick]`
//!
//! `seal` is the cipher alone over the same packets, `receive` what a packet costs on its way in (once, however many
//! consumers there are). What is left of `total` is bookkeeping. CPU time of the thread, repeats interleaved.

#[allow(dead_code, reason = "each bench takes its part")]
#[path = "support/call.rs"]
mod call;
mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use call::{Call, Medium, Nowhere};
use ringside::ids::Ssrc;
use ringside::limits::RUN_BYTES;
use ringside::shard::Datagram;
use ringside::transport::srtp::Outbound;
use ringside::uring::clock;
use support::Samples;

/// What Chromium puts into a packet.
const PAYLOAD: usize = 1_100;
const HEADER: usize = 28;

fn main() {
    let repeats = if support::quick() { 3 } else { 31 };
    let packets = if support::quick() { 2_000 } else { 30_000 };
    println!("CPU ns per forwarded packet, median (least) of {repeats} interleaved repeats\n");
    one_to_many(repeats, packets);
    many_to_many(repeats, packets);
    sound(packets);
    tiles(repeats, packets);
}

/// Small pictures, one packet at a time, each of another camera: every packet finds the state of other consumers, so what
/// counts is how much of it lies outside of the nearest cache.
fn tiles(repeats: usize, packets: usize) {
    println!("\n{:>9} {:>9} {:>14}", "cameras", "receivers", "total");
    for (cameras, receivers) in [(1, 49), (48, 49), (48, 300)] {
        let mut rig = Rig::new(&vec![Medium::Vp8; cameras], receivers);
        let (ticks, mut total) = ((packets / receivers).max(2 * cameras), Samples::default());
        for _ in 0..repeats {
            total.add(rig.take_turns(ticks, |sender| sender.frame(1, 200, false)), (ticks * receivers) as u64);
        }
        println!("{cameras:>9} {receivers:>9} {:>14}", total.show());
    }
}

fn one_to_many(repeats: usize, packets: usize) {
    let columns = ["receive", "total", "seal", "bookkeeping", "datagrams/message"];
    println!(
        "{:>9} {:>6} {:>14} {:>14} {:>14} {:>12} {:>18}",
        "consumers", "burst", columns[0], columns[1], columns[2], columns[3], columns[4]
    );
    let mut unheard = Rig::new(&[Medium::Vp8], 0);
    let mut rigs = [1, 10, 49, 500].map(|consumers| (consumers, Rig::new(&[Medium::Vp8], consumers)));
    for burst in [1, 6] {
        let mut samples = [(); 4].map(|_| (Samples::default(), Samples::default(), Samples::default()));
        rigs.iter_mut().for_each(|(_, rig)| rig.outbox = Nowhere::default());
        for _ in 0..repeats {
            for ((consumers, rig), (receive, total, seal)) in rigs.iter_mut().zip(&mut samples) {
                let frames = (packets / burst / *consumers).clamp(2, 600);
                let count = (frames * burst) as u64;
                receive.add(unheard.forward(frames, |sender, _| sender.frame(burst, PAYLOAD, false)), count);
                let time = rig.forward(frames, |sender, _| sender.frame(burst, PAYLOAD, false));
                total.add(time, count * *consumers as u64);
                seal.add(rig.seal(frames, burst), count * *consumers as u64);
            }
        }
        for ((consumers, rig), (receive, total, seal)) in rigs.iter().zip(&samples) {
            let rest = total.least() - seal.least() - receive.least() / *consumers as f64;
            let joined = rig.outbox.datagrams as f64 / rig.outbox.messages as f64;
            let (receive, total, seal) = (receive.show(), total.show(), seal.show());
            println!("{consumers:>9} {burst:>6} {receive:>14} {total:>14} {seal:>14} {rest:>12.0} {joined:>18.1}");
        }
        let [_, _, few, many] = &samples;
        println!(
            "500/49 consumers, bursts of {burst}: total {:.2}, cipher {:.2}",
            many.1.least() / few.1.least(),
            many.2.least() / few.2.least()
        );
    }
}

/// Frames of several cameras in one tick, all for the same 49 consumers.
fn many_to_many(repeats: usize, packets: usize) {
    println!("\n{:>9} {:>9} {:>14} {:>14}", "producers", "consumers", "total", "messages/tick");
    for producers in [1, 4, 16] {
        let mut rig = Rig::new(&vec![Medium::Vp8; producers], 49);
        let (ticks, mut total) = ((packets / producers / 3 / 49).max(2), Samples::default());
        for _ in 0..repeats {
            let time = rig.forward(ticks, |sender, at| sender.frame(3, PAYLOAD - 40 * (at % 4), false));
            total.add(time, (ticks * producers * 3 * 49) as u64);
        }
        let messages = rig.outbox.messages as f64 / (ticks * repeats * 49) as f64;
        println!("{producers:>9} {:>9} {:>14} {messages:>14.1}", 49, total.show());
    }
}

/// Microphones, of which so many have a packet in one tick.
fn sound(packets: usize) {
    println!(
        "\n{:>12} {:>9} {:>14} {:>18} {:>14}",
        "microphones", "consumers", "total", "datagrams/message", "padding bytes"
    );
    for speaking in [1, 2, 3, 6, 12, 50] {
        let mut rig = Rig::new(&vec![Medium::Opus; speaking], 49);
        let ticks = (packets / speaking / 49).max(2);
        let mut total = Samples::default();
        let (mut next, mut plain) = (0x2545_f491_u32, 0);
        let time = rig.forward(ticks, |sender, _| {
            // Opus at 32 kbit/s with variable rate: 70 to 110 bytes.
            next = next.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let len = 70 + (next >> 16) as usize % 41;
            plain += len as u64 * 49;
            vec![sender.sound(len)]
        });
        let forwarded = (ticks * speaking * 49) as u64;
        total.add(time, forwarded);
        let joined = rig.outbox.datagrams as f64 / rig.outbox.messages as f64;
        // A header of 12 + 4 + 8 bytes and the tag stand around each payload.
        let padding = (rig.outbox.bytes - plain) as f64 / forwarded as f64 - 40.0;
        println!("{speaking:>12} {:>9} {:>14} {joined:>18.1} {padding:>14.1}", 49, total.show());
    }
}

struct Rig {
    call: Call,
    outbox: Nowhere,
    now: Instant,
    /// The receivers' ciphers again, to be measured alone.
    ciphers: Vec<Outbound>,
    sequence: u64,
    slot: Vec<u8>,
    plain: Vec<Vec<u8>>,
}

impl Rig {
    fn new(senders: &[Medium], consumers: usize) -> Rig {
        let address = |net: u8, at: usize| SocketAddr::from(([10, net, (at / 250) as u8, (at % 250) as u8], 5_000));
        let senders: Vec<_> = senders.iter().enumerate().map(|(at, medium)| (address(1, at), *medium)).collect();
        let receivers: Vec<_> = (0..consumers).map(|at| address(2, at)).collect();
        let call = Call::new(&senders, &receivers);
        let ciphers = call.receivers.iter().map(|keys| Outbound::new(&keys.swapped())).collect();
        let plain = (0..6).map(|fill| vec![fill; PAYLOAD]).collect();
        let (outbox, now, slot) = (Nowhere::default(), Instant::now(), vec![0x90; RUN_BYTES]);
        Rig { call, outbox, now, ciphers, sequence: 0, slot, plain }
    }

    /// Lets every sender send once per tick, a tick every 33 ms; CPU time of receiving and flushing.
    fn forward(&mut self, ticks: usize, mut send: impl FnMut(&mut call::Sender, usize) -> Vec<Vec<u8>>) -> Duration {
        let mut batch = Vec::new();
        for _ in 0..ticks {
            for (at, sender) in self.call.senders.iter_mut().enumerate() {
                let address = sender.address;
                batch.extend(send(sender, at).into_iter().map(|bytes| (address, bytes)));
            }
        }
        let per_tick = batch.len() / ticks;
        let start = clock::thread_cpu();
        for tick in batch.chunks_mut(per_tick) {
            self.now += Duration::from_millis(33);
            for (source, bytes) in tick {
                let datagram = Datagram { source: *source, local: 0, bytes, received_at: None };
                self.call.shard.handle_datagram(self.now, datagram);
            }
            self.call.shard.flush(self.now, &mut self.outbox);
        }
        clock::thread_cpu() - start
    }

    /// One sender after the other sends, each in a tick of its own.
    fn take_turns(&mut self, ticks: usize, send: impl Fn(&mut call::Sender) -> Vec<Vec<u8>>) -> Duration {
        let senders = self.call.senders.len();
        let mut batch = Vec::new();
        for tick in 0..ticks {
            let sender = &mut self.call.senders[tick % senders];
            batch.push((sender.address, send(sender)));
        }
        let start = clock::thread_cpu();
        for (source, datagrams) in &mut batch {
            self.now += Duration::from_micros(700);
            for bytes in datagrams {
                let datagram = Datagram { source: *source, local: 0, bytes, received_at: None };
                self.call.shard.handle_datagram(self.now, datagram);
            }
            self.call.shard.flush(self.now, &mut self.outbox);
        }
        clock::thread_cpu() - start
    }

    fn seal(&mut self, frames: usize, burst: usize) -> Duration {
        let start = clock::thread_cpu();
        for _ in 0..frames {
            for cipher in &mut self.ciphers {
                let mut at = 0;
                for (index, plain) in self.plain[..burst].iter().enumerate() {
                    let sequence = self.sequence + index as u64;
                    at += cipher.seal_rtp(&mut self.slot[at..], HEADER, plain, &[], Ssrc(9), sequence);
                }
            }
            self.sequence += burst as u64;
        }
        clock::thread_cpu() - start
    }
}
