//! What it costs to open and to seal one RTP packet: three profiles, three payload sizes, one key or many, and
//! against `webrtc-srtp` in the same run.
//!
//! CPU time of the thread per packet, median (least) of interleaved repeats, in nanoseconds.
//! `cargo bench --bench srtp [-- --quick]`.

mod support;

use std::hint::black_box;
use std::time::Duration;

use ringside::ids::Ssrc;
use ringside::transport::srtp::{Inbound, Keys, Outbound, Profile};
use ringside::uring::clock;
use support::Samples;
use webrtc_srtp::context::Context;
use webrtc_srtp::protection_profile::ProtectionProfile;

/// As egress writes it: fixed header and an extension block of 8 bytes.
const HEADER: usize = 20;
const PAYLOADS: [usize; 3] = [64, 160, 1150];
const SSRC: Ssrc = Ssrc(0x1234_5678);
/// Subscribers of a large room: each has a key of its own.
const KEYS: usize = 500;

#[derive(Clone, Copy)]
struct Effort {
    repeats: usize,
    packets: usize,
}

fn main() {
    let effort =
        if support::quick() { Effort { repeats: 2, packets: 20 } } else { Effort { repeats: 21, packets: 2000 } };
    println!("ns per packet: median (least)\n");
    one_stream(effort);
    many_keys(effort);
}

fn one_stream(effort: Effort) {
    println!("{:<26}{:>8} {:>14} {:>14} {:>14}", "profile", "payload", "seal", "in place", "open");
    println!("{:<26}{:>8} {:>14} {:>14} {:>14}", "  webrtc-srtp", "", "seal", "", "open");
    for profile in Profile::ALL {
        for payload in PAYLOADS {
            let mut ours = Ours::new(profile, payload);
            let mut theirs = Theirs::new(profile, payload);
            let [mut seal, mut in_place, mut open, mut their_seal, mut their_open] =
                std::array::from_fn(|_| Samples::default());
            for _ in 0..effort.repeats {
                ours.seal(&mut seal, effort.packets);
                ours.seal_in_place(&mut in_place, effort.packets);
                ours.open(&mut open, effort.packets);
                theirs.run(&mut their_seal, &mut their_open, effort.packets.div_ceil(8));
            }
            let [a, b, c] = [&seal, &in_place, &open].map(Samples::show);
            println!("{:<26}{payload:>8} {a:>14} {b:>14} {c:>14}", profile.name());
            let [a, c] = [&their_seal, &their_open].map(Samples::show);
            let [x, y] = [(&their_seal, &seal), (&their_open, &open)].map(|(t, o)| t.median() / o.median());
            println!("{:<26}{payload:>8} {a:>14} {:>14} {c:>14}   {x:.1} x, {y:.1} x ours", "  webrtc-srtp", "");
        }
    }
}

/// The same plaintext for each of many receivers, as a producer's packet goes out.
fn many_keys(effort: Effort) {
    println!("\n{:<26}{:>8} {:>14} {:>14}", "profile", "payload", "1 key", format!("{KEYS} keys"));
    for profile in Profile::ALL {
        let mut receivers: Vec<Outbound> = (0..KEYS).map(|at| Outbound::new(&keys(profile, at as u8))).collect();
        for payload in PAYLOADS {
            let plain = vec![0x5a; payload];
            let mut out = packet(payload);
            let [mut one, mut many] = std::array::from_fn(|_| Samples::default());
            let mut index = 0;
            for _ in 0..effort.repeats {
                for (samples, spread) in [(&mut one, 1), (&mut many, KEYS)] {
                    let start = cpu();
                    for at in 0..effort.packets {
                        let receiver = &mut receivers[at % spread];
                        black_box(receiver.seal_rtp(&mut out, HEADER, &plain, &[], SSRC, index));
                        index += 1;
                    }
                    samples.add(cpu() - start, effort.packets as u64);
                }
            }
            let ratio = many.median() / one.median();
            println!("{:<26}{payload:>8} {:>14} {:>14}   {ratio:.2} x", profile.name(), one.show(), many.show());
        }
    }
}

struct Ours {
    outbound: Outbound,
    inbound: Inbound,
    plain: Vec<u8>,
    index: u64,
}

impl Ours {
    fn new(profile: Profile, payload: usize) -> Self {
        let keys = keys(profile, 1);
        Ours {
            outbound: Outbound::new(&keys),
            inbound: Inbound::new(&keys.swapped()),
            plain: vec![0x5a; payload],
            index: 0,
        }
    }

    fn seal(&mut self, samples: &mut Samples, packets: usize) {
        let mut out = packet(self.plain.len());
        let start = cpu();
        for _ in 0..packets {
            self.index += 1;
            black_box(self.outbound.seal_rtp(&mut out, HEADER, &self.plain, &[], SSRC, self.index));
        }
        samples.add(cpu() - start, packets as u64);
    }

    fn seal_in_place(&mut self, samples: &mut Samples, packets: usize) {
        let mut out = packet(self.plain.len());
        let len = HEADER + self.plain.len();
        let start = cpu();
        for _ in 0..packets {
            self.index += 1;
            black_box(self.outbound.seal_rtp_in_place(&mut out, HEADER, len, SSRC, self.index));
        }
        samples.add(cpu() - start, packets as u64);
    }

    fn open(&mut self, samples: &mut Samples, packets: usize) {
        let sealed: Vec<Vec<u8>> = (0..packets)
            .map(|_| {
                self.index += 1;
                let mut out = packet(self.plain.len());
                out[2..4].copy_from_slice(&(self.index as u16).to_be_bytes());
                let len = self.outbound.seal_rtp(&mut out, HEADER, &self.plain, &[], SSRC, self.index);
                out.truncate(len);
                out
            })
            .collect();
        let mut out = packet(self.plain.len());
        let start = cpu();
        for packet in &sealed {
            black_box(self.inbound.open_rtp(packet, HEADER, &mut out)).expect("an authentic packet");
        }
        samples.add(cpu() - start, packets as u64);
    }
}

struct Theirs {
    sealer: Context,
    opener: Context,
    payload: usize,
    sequence: u16,
}

impl Theirs {
    fn new(profile: Profile, payload: usize) -> Self {
        let theirs = match profile {
            Profile::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
            Profile::AeadAes256Gcm => ProtectionProfile::AeadAes256Gcm,
            Profile::Aes128CmSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
        };
        let (key, salt) = (vec![1; profile.key_len()], vec![2; profile.salt_len()]);
        let context = || Context::new(&key, &salt, theirs, None, None).expect("keys of the profile's lengths");
        Theirs { sealer: context(), opener: context(), payload, sequence: 0 }
    }

    fn run(&mut self, seal: &mut Samples, open: &mut Samples, packets: usize) {
        let plain: Vec<Vec<u8>> = (0..packets)
            .map(|_| {
                self.sequence = self.sequence.wrapping_add(1);
                let mut plain = packet(self.payload)[..HEADER + self.payload].to_vec();
                plain[2..4].copy_from_slice(&self.sequence.to_be_bytes());
                plain
            })
            .collect();
        let start = cpu();
        let sealed: Vec<_> = plain.iter().map(|plain| self.sealer.encrypt_rtp(plain).expect("a packet")).collect();
        seal.add(cpu() - start, packets as u64);
        let start = cpu();
        for packet in &sealed {
            black_box(self.opener.decrypt_rtp(packet)).expect("an authentic packet");
        }
        open.add(cpu() - start, packets as u64);
    }
}

fn keys(profile: Profile, seed: u8) -> Keys {
    Keys::from_exporter(profile, &vec![seed; profile.exported_len()], true).expect("the profile's own length")
}

/// A header, and room for the payload and the largest tag.
fn packet(payload: usize) -> Vec<u8> {
    let mut packet = vec![0; HEADER + payload + 16];
    packet[..2].copy_from_slice(&[0x90, 96]);
    packet[8..12].copy_from_slice(&SSRC.0.to_be_bytes());
    packet[12..HEADER].copy_from_slice(&[0xbe, 0xde, 0, 1, 0x12, 1, 2, 3]);
    packet
}

fn cpu() -> Duration {
    clock::thread_cpu()
}
