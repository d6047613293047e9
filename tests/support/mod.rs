//! What tests of received bytes share: a real browser's packets, and randomness that repeats.
#![allow(dead_code, reason = "each test crate takes what it needs")]

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::time::Duration;

/// Three simulcast layers of VP8 with RTX, and Opus: what Chromium 156 sent in six seconds, decrypted. Its
/// receiver's reports are in it too.
pub const CAPTURE: &[u8] = include_bytes!("../media/chromium156-vp8-simulcast3-opus.pcap");
/// What an independent reader counted in it.
pub const CAPTURE_FACTS: &str = include_str!("../media/chromium156-vp8-simulcast3-opus.json");
/// The session description that the browser offered for it.
pub const CAPTURE_OFFER: &str = include_str!("../media/chromium156-vp8-simulcast3-opus.offer.sdp");

const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;
const UDP_HEADER: usize = 8;
/// Microseconds, little endian.
const MAGIC: [u8; 4] = 0xa1b2_c3d4u32.to_le_bytes();
const RAW_IPV4: u32 = 228;

/// Payloads of the UDP datagrams of a capture of raw IPv4 packets, with their times.
pub fn datagrams(capture: &[u8]) -> Vec<(Duration, &[u8])> {
    let u32_at = |at: usize| u32::from_le_bytes(capture[at..at + 4].try_into().unwrap());
    assert_eq!(capture[..4], MAGIC);
    assert_eq!(u32_at(20), RAW_IPV4);
    let mut datagrams = vec![];
    let mut at = FILE_HEADER;
    while at < capture.len() {
        let time = Duration::new(u32_at(at).into(), 1000 * u32_at(at + 4));
        let end = at + RECORD_HEADER + u32_at(at + 8) as usize;
        let ip = &capture[at + RECORD_HEADER..end];
        let ip_header = 4 * usize::from(ip[0] & 0x0f);
        datagrams.push((time, &ip[ip_header + UDP_HEADER..]));
        at = end;
    }
    datagrams
}

/// Leaves `bytes` as a seed of the fuzz target `target`, where `fuzz/run` asks the tests for seeds.
pub fn seed(target: &str, bytes: &[u8]) {
    let Some(root) = std::env::var_os("RINGSIDE_FUZZ_SEEDS") else { return };
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    let corpus = PathBuf::from(root).join(target);
    std::fs::create_dir_all(&corpus).unwrap();
    std::fs::write(corpus.join(format!("seed-{:016x}", hasher.finish())), bytes).unwrap();
}

/// Xorshift: the same numbers in every run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 11) as usize % bound.max(1)
    }

    pub fn flip(&mut self) -> bool {
        self.next() & 0x800 != 0
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| (self.next() >> 24) as u8).collect()
    }

    /// A copy with a few bits, bytes, lengths or whole parts changed, as a broken or hostile sender would.
    pub fn damage(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(8) {
                _ if bytes.is_empty() => bytes = self.bytes(1),
                0 => bytes.truncate(at),
                1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xfe, 0xff][self.below(6)],
                2 => bytes[at] ^= 1 << self.below(8),
                3 => bytes[at] = self.next() as u8,
                4 => {
                    bytes.remove(at);
                }
                5 => bytes.insert(at, self.next() as u8),
                6 => {
                    let len = self.below(12);
                    let noise = self.bytes(len);
                    bytes.extend(noise);
                }
                _ => {
                    let end = at + self.below(bytes.len() - at);
                    let part = bytes[at..end].to_vec();
                    let to = self.below(bytes.len());
                    bytes.splice(to..to, part);
                }
            }
        }
        bytes
    }
}
