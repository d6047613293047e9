//! What a receiver makes of a stream: reassembled by an independent VP8 depacketiser, every frame judged by
//! whether a decoder that has only what came before could have shown it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use rtp::codecs::vp8::Vp8Packet;
use rtp::packetizer::Depacketizer;

use crate::source::STAMP;

#[derive(Default)]
pub struct Viewer {
    /// By extended sequence number: everything that came, resent packets in their place.
    packets: BTreeMap<u64, Received>,
    pub duplicates: u64,
    /// Packets that came behind a later one: whoever sees the gap asks for them.
    pub overtaken: u64,
    pub padding: u64,
    is_video: bool,
}

struct Received {
    at: Instant,
    timestamp: u32,
    marker: bool,
    payload: Vec<u8>,
}

/// A frame that could be shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shown {
    pub at: Instant,
    pub timestamp: u32,
    pub picture: u16,
    pub tid: u8,
    pub is_key: bool,
    /// SSRC of the producer's layer that it came from.
    pub layer: u32,
    pub frame: u32,
}

impl Viewer {
    pub fn new(is_video: bool) -> Viewer {
        Viewer { is_video, ..Viewer::default() }
    }

    pub fn receive(&mut self, at: Instant, sequence: u64, timestamp: u32, marker: bool, payload: &[u8]) {
        if payload.is_empty() {
            self.padding += 1;
        }
        self.overtaken += u64::from(self.packets.last_key_value().is_some_and(|(newest, _)| *newest > sequence));
        let received = Received { at, timestamp, marker, payload: payload.to_vec() };
        if self.packets.insert(sequence, received).is_some() {
            self.duplicates += 1;
        }
    }

    pub fn packets(&self) -> usize {
        self.packets.len()
    }

    /// The longest time between two packets that came behind `from`.
    pub fn longest_silence(&self, from: Instant) -> Duration {
        let times: Vec<_> = self.packets.values().map(|packet| packet.at).filter(|at| *at >= from).collect();
        times.windows(2).map(|pair| pair[1].saturating_duration_since(pair[0])).max().unwrap_or_default()
    }

    pub fn last_arrival(&self) -> Option<Instant> {
        self.packets.values().map(|packet| packet.at).max()
    }

    /// How much later than the soonest since `start` the latest came of a sound of one packet each `interval`, from `from` on.
    pub fn latest(&self, start: Instant, from: Instant, interval: Duration) -> Duration {
        let frame = |packet: &Received| u32::from_be_bytes(packet.payload[1..5].try_into().expect("a stamp"));
        let since =
            |packet: &Received| (packet.at - start).as_secs_f64() - interval.as_secs_f64() * f64::from(frame(packet));
        let came = || self.packets.values().filter(|packet| packet.payload.len() > 5);
        let soonest = came().map(since).fold(f64::INFINITY, f64::min);
        let latest = came().filter(|packet| packet.at > from).map(since).fold(soonest, f64::max);
        Duration::from_secs_f64(latest - soonest)
    }

    /// How many packets came in a time.
    pub fn arrivals(&self, from: Instant, to: Instant) -> usize {
        self.packets.values().filter(|packet| packet.at > from && packet.at <= to).count()
    }

    /// The newest number, if one above `above` is missing that nobody asks for any more (it is more than `window` packets
    /// back, or was noticed more than `patience` ago), and no key frame has begun behind it.
    pub fn given_up(&self, now: Instant, window: u64, patience: Duration, above: u64) -> Option<u64> {
        let (last, _) = self.packets.last_key_value()?;
        let (first, _) = self.packets.first_key_value()?;
        let from = last.saturating_sub(2 * window).max(above + 1).max(*first);
        let behind =
            |number: u64| self.packets.range(number..).next().is_some_and(|(_, next)| now - next.at > patience);
        let is_given_up =
            |number: &u64| !self.packets.contains_key(number) && (*last - *number > window || behind(*number));
        let missing = (from..*last).rev().find(is_given_up)?;
        let begins =
            |packet: &Received| packet.payload.len() > 6 && packet.payload[0] & 0x10 != 0 && packet.payload[6] & 1 == 0;
        (!self.packets.range(missing..).any(|(_, packet)| begins(packet))).then_some(*last)
    }

    /// The temporal layers of what came in a time, shown or not.
    pub fn temporal_layers(&self, from: Instant, to: Instant) -> BTreeSet<u8> {
        let came = self.packets.values().filter(|packet| packet.at > from && packet.at <= to);
        came.filter_map(|packet| packet.payload.get(5)).map(|byte| byte >> 6).collect()
    }

    pub fn last_shown(&self) -> Option<Instant> {
        self.shown().iter().map(|shown| shown.at).max()
    }

    /// How many frames were shown in a time.
    pub fn shown_in(&self, from: Instant, to: Instant) -> usize {
        self.shown().iter().filter(|shown| shown.at > from && shown.at <= to).count()
    }

    /// Numbers between the first and the last that never came.
    pub fn missing(&self) -> u64 {
        match (self.packets.first_key_value(), self.packets.last_key_value()) {
            (Some((first, _)), Some((last, _))) => last - first + 1 - self.packets.len() as u64,
            _ => 0,
        }
    }

    /// In the order of the numbers timestamps never go back. And what a VP8 receiver needs to know at once what it may
    /// decode (libwebrtc's search for references; RFC 7741 section 4.2): the picture id counts up by one from frame to frame,
    /// TL0PICIDX with each frame of the base layer and with no other; over numbers that never came both go on by no more
    /// than these can have held.
    pub fn assert_continuous(&self) {
        let mut last: Option<(u64, u32)> = None;
        for (sequence, packet) in &self.packets {
            if let Some((before, timestamp)) = last {
                let step = packet.timestamp.wrapping_sub(timestamp) as i32;
                assert!(step >= 0, "timestamp goes back by {} at {before}..{sequence}", -step);
            }
            last = Some((*sequence, packet.timestamp));
        }
        if self.is_video {
            self.assert_pictures_continuous();
        }
    }

    fn assert_pictures_continuous(&self) {
        let frames = self.frames();
        assert!(!frames.is_empty(), "a picture came");
        for pair in frames.windows(2) {
            let [before, after] = pair else { unreachable!() };
            let missing = after.missing_before;
            let pictures = u64::from(after.picture.wrapping_sub(before.picture) & 0x7fff);
            assert!((1..=1 + missing).contains(&pictures), "picture {before:?}, then {after:?}");
            let bases = u64::from(after.tl0.wrapping_sub(before.tl0));
            let own = u64::from(after.tid == 0);
            assert!((own..=own + missing).contains(&bases), "TL0PICIDX {before:?}, then {after:?}");
        }
    }

    /// Picture ids count up by one from frame to frame, modulo 2^15, whatever was left out on the way.
    pub fn assert_pictures_consecutive(&self) {
        let frames = self.frames();
        for pair in frames.windows(2) {
            let step = pair[1].picture.wrapping_sub(pair[0].picture) & 0x7fff;
            assert_eq!(step, 1, "picture {} follows {}", pair[1].picture, pair[0].picture);
        }
    }

    /// Every frame that could be decoded in order, with what it refers to at hand.
    pub fn shown(&self) -> Vec<Shown> {
        let mut shown: Vec<Shown> = Vec::new();
        let mut decoded: HashMap<(u32, u32), ()> = HashMap::new();
        for frame in self.frames() {
            let Some(stamp) = frame.complete() else { continue };
            let can_decode = frame.is_key || decoded.contains_key(&(stamp.layer, stamp.refers_to));
            if !can_decode {
                continue;
            }
            if frame.is_key {
                decoded.clear();
            }
            decoded.insert((stamp.layer, stamp.frame), ());
            shown.push(Shown {
                at: frame.at,
                timestamp: frame.timestamp,
                picture: frame.picture,
                tid: frame.tid,
                is_key: frame.is_key,
                layer: stamp.layer,
                frame: stamp.frame,
            });
        }
        shown
    }

    /// The longest time between two shown frames, and from `from` to the first.
    pub fn longest_freeze(&self, from: Instant, to: Instant) -> Duration {
        let times: Vec<_> = self.shown().iter().map(|shown| shown.at).filter(|at| *at >= from && *at <= to).collect();
        let starts = std::iter::once(from).chain(times.iter().copied());
        let ends = times.iter().copied().chain(std::iter::once(to));
        starts.zip(ends).map(|(start, end)| end.saturating_duration_since(start)).max().unwrap_or_default()
    }

    fn frames(&self) -> Vec<Frame> {
        let mut frames: Vec<Frame> = Vec::new();
        let mut previous: Option<u64> = None;
        for (sequence, packet) in &self.packets {
            if packet.payload.is_empty() {
                previous = Some(*sequence);
                continue;
            }
            let mut vp8 = Vp8Packet::default();
            let body = vp8.depacketize(&packet.payload.clone().into()).expect("a VP8 payload");
            let starts = vp8.s == 1 && vp8.pid == 0;
            let follows = previous == Some(sequence.wrapping_sub(1));
            if starts || frames.last().is_none_or(|frame| frame.timestamp != packet.timestamp) {
                frames.push(Frame {
                    timestamp: packet.timestamp,
                    picture: vp8.picture_id,
                    tl0: vp8.tl0_pic_idx,
                    tid: vp8.tid,
                    missing_before: previous.map_or(0, |previous| sequence - previous - 1),
                    is_key: starts && body[0] & 1 == 0,
                    at: packet.at,
                    bodies: Vec::new(),
                    whole: starts,
                    ended: false,
                });
            }
            let frame = frames.last_mut().expect("just pushed");
            frame.whole &= starts || follows;
            assert_eq!((frame.picture, frame.tl0), (vp8.picture_id, vp8.tl0_pic_idx), "one picture id per frame");
            frame.at = frame.at.max(packet.at);
            frame.ended |= packet.marker;
            let skip = if !starts {
                0
            } else if frame.is_key {
                10
            } else {
                3
            };
            frame.bodies.push(body[skip..].to_vec());
            previous = Some(*sequence);
        }
        frames
    }
}

struct Frame {
    at: Instant,
    timestamp: u32,
    picture: u16,
    tl0: u8,
    tid: u8,
    /// Numbers between the frame before and this one that never came.
    missing_before: u64,
    is_key: bool,
    bodies: Vec<Vec<u8>>,
    whole: bool,
    ended: bool,
}

struct Stamp {
    frame: u32,
    refers_to: u32,
    layer: u32,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Frame { picture, tl0, tid, is_key, missing_before, .. } = self;
        write!(f, "{picture} (TL0PICIDX {tl0}, layer {tid}, key {is_key}, {missing_before} missing before it)")
    }
}

impl Frame {
    /// The stamp of a frame of which every packet came, in order.
    fn complete(&self) -> Option<Stamp> {
        let word = |body: &[u8], at: usize| u32::from_be_bytes(body[at..at + 4].try_into().expect("four bytes"));
        let first = self.bodies.first().filter(|body| body.len() >= STAMP)?;
        let count = word(first, 12) as usize;
        let in_order = self.bodies.iter().enumerate().all(|(at, body)| word(body, 8) as usize == at);
        let is_whole = self.whole && self.ended && in_order && self.bodies.len() == count;
        is_whole.then(|| Stamp { frame: word(first, 0), refers_to: word(first, 4), layer: word(first, 16) })
    }
}
