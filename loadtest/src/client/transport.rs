//! One transport of a client: its socket, ICE, DTLS, keys, what it sends and what it receives. State only; `swarm`
//! moves the bytes and keeps the time.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::UdpSocket;

use super::dtls::Handshake;
use super::ice::Ice;
use super::sending::Sending;
use super::signaling::Direction;
use super::srtp;
use super::stream::Stream;
use crate::schedule::Nanos;

pub struct Transport {
    pub participant: usize,
    pub direction: Direction,
    pub socket: UdpSocket,
    pub ice: Ice,
    pub handshake: Handshake,
    pub keys: Option<Keys>,
    pub connected_at: Option<Nanos>,
    pub closed: bool,
    pub sendings: Vec<Sending>,
    pub streams: Streams,
    /// SSRC that our reports and requests are from.
    pub own_ssrc: u32,
    /// Next transport-wide sequence number that we send.
    pub transport_cc: u16,
    /// Packets that may be sent again: one more with each that is sent for the first time.
    pub resends_left: u32,
    pub arrivals: Arrivals,
    /// A request for lost packets is scheduled.
    pub repairing: bool,
}

pub struct Keys {
    pub profile: &'static str,
    pub send: srtp::Context,
    pub receive: srtp::Context,
}

/// The streams of a transport by SSRC.
#[derive(Default)]
pub struct Streams {
    all: Vec<Stream>,
    by_ssrc: HashMap<u32, Place, BuildHasherDefault<SsrcHasher>>,
}

#[derive(Clone, Copy)]
enum Place {
    Media(usize),
    /// Retransmissions of the stream at this place.
    Rtx(usize),
}

pub enum Found<'a> {
    Media(&'a mut Stream),
    Rtx(&'a mut Stream),
    Unknown,
}

impl Streams {
    pub fn add(&mut self, stream: Stream, rtx_ssrc: Option<u32>) {
        let place = self.all.len();
        self.by_ssrc.insert(stream.ssrc, Place::Media(place));
        if let Some(rtx) = rtx_ssrc {
            self.by_ssrc.insert(rtx, Place::Rtx(place));
        }
        self.all.push(stream);
    }

    pub fn find(&mut self, ssrc: u32) -> Found<'_> {
        match self.by_ssrc.get(&ssrc) {
            Some(Place::Media(place)) => Found::Media(&mut self.all[*place]),
            Some(Place::Rtx(place)) => Found::Rtx(&mut self.all[*place]),
            None => Found::Unknown,
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Stream> {
        self.all.iter()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.all.iter_mut()
    }
}

/// SSRCs are random already: one multiplication spreads them over the table.
#[derive(Default)]
pub struct SsrcHasher(u64);

impl Hasher for SsrcHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.0 = (self.0 ^ u64::from(value)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

/// Arrivals that the next transport-cc feedback tells.
#[derive(Default)]
pub struct Arrivals {
    /// Extension id, where agreed.
    pub extension: Option<u8>,
    pub media_ssrc: u32,
    pub feedback_count: u8,
    highest: u64,
    seen: Vec<(u64, Nanos)>,
}

/// Arrivals kept for one feedback; a server that sends faster gets a shorter list, as after loss.
const ARRIVALS_MAX: usize = 2000;

impl Arrivals {
    pub fn note(&mut self, sequence: u16, at: Nanos) {
        let ahead = sequence.wrapping_sub(self.highest as u16);
        let number = if ahead < 0x8000 {
            self.highest += u64::from(ahead);
            self.highest
        } else {
            self.highest.saturating_sub(u64::from(ahead.wrapping_neg()))
        };
        if self.seen.len() < ARRIVALS_MAX {
            self.seen.push((number, at));
        }
    }

    /// Ascending, each number once.
    pub fn take(&mut self) -> Vec<(u64, Nanos)> {
        let mut seen = std::mem::take(&mut self.seen);
        seen.sort_unstable();
        seen.dedup_by_key(|(number, _)| *number);
        seen
    }
}
