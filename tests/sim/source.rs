//! What a microphone, a camera or a screen sends: RTP as a browser would packetise it, with contents by which
//! a receiver can tell whether it could have decoded each frame.

use std::time::{Duration, Instant};

use str0m::media::Rid;
use str0m::rtp::{ExtensionValues, RtpWrite, Ssrc};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    Opus,
    Vp8,
}

/// One encoding (simulcast layer) of a source.
#[derive(Clone, Debug)]
pub struct Encoding {
    pub ssrc: Ssrc,
    pub rtx: Option<Ssrc>,
    pub rid: Option<Rid>,
    pub packets_per_frame: usize,
    /// The same of a key frame, where it is larger.
    pub packets_per_key_frame: usize,
    pub payload_bytes: usize,
    pub active: bool,
    sequence: u64,
    timestamp: u32,
    picture: u16,
    tl0: u8,
    frame: u32,
    key_frame_wanted: bool,
    /// Frame number of the newest base layer frame, which the others refer to.
    base_frame: u32,
}

#[derive(Clone, Debug)]
pub struct Source {
    pub medium: Medium,
    pub interval: Duration,
    pub encodings: Vec<Encoding>,
    pub temporal_layers: u8,
    pub is_screen: bool,
    /// -dBov of each audio packet.
    pub level: u8,
    next: Instant,
}

/// What a frame's first payload bytes behind the descriptor say; every packet of the frame carries them.
pub const STAMP: usize = 20;

impl Source {
    pub fn microphone(ssrc: u32, start: Instant) -> Self {
        let encoding = Encoding { packets_per_frame: 1, payload_bytes: 80, ..Encoding::new(ssrc, None, None) };
        Source {
            medium: Medium::Opus,
            interval: Duration::from_millis(20),
            encodings: vec![encoding],
            temporal_layers: 1,
            is_screen: false,
            level: 30,
            next: start,
        }
    }

    pub fn camera(ssrc: u32, start: Instant) -> Self {
        Source {
            medium: Medium::Vp8,
            interval: Duration::from_micros(33_333),
            encodings: vec![Encoding::new(ssrc, Some(ssrc + 1), None)],
            temporal_layers: 1,
            is_screen: false,
            level: 0,
            next: start,
        }
    }

    /// As a browser shares one: a single size, at a single frame rate.
    pub fn screen(ssrc: u32, start: Instant) -> Self {
        Source { interval: Duration::from_millis(200), is_screen: true, ..Source::camera(ssrc, start) }
    }

    pub fn simulcast(ssrc: u32, start: Instant) -> Self {
        let encodings = (0..3u32).map(|layer| Encoding {
            packets_per_frame: [1, 2, 5][layer as usize],
            payload_bytes: [500, 900, 1100][layer as usize],
            ..Encoding::new(ssrc + 2 * layer, Some(ssrc + 2 * layer + 1), Some(format!("r{layer}").as_str().into()))
        });
        Source { encodings: encodings.collect(), temporal_layers: 3, ..Source::camera(ssrc, start) }
    }

    pub fn next(&self) -> Instant {
        self.next
    }

    /// Counts from other numbers and another time on, as a sender does that was built anew.
    pub fn start_over(&mut self) {
        for encoding in &mut self.encodings {
            encoding.sequence += 20_000;
            encoding.timestamp = encoding.timestamp.wrapping_add(1 << 30);
        }
    }

    /// The receiver cannot go on without a key frame of the layer under this SSRC or RID.
    pub fn want_key_frame(&mut self, rid: Option<Rid>) {
        for encoding in self.encodings.iter_mut().filter(|encoding| rid.is_none() || encoding.rid == rid) {
            encoding.key_frame_wanted = true;
        }
    }

    /// The packets of the frame that is due at `now`, with the encoding that each belongs to.
    pub fn capture(&mut self, now: Instant, payload_type: u8) -> Vec<(usize, RtpWrite)> {
        self.next += self.interval;
        let mut packets = Vec::new();
        for (at, encoding) in self.encodings.iter_mut().enumerate().filter(|(_, encoding)| encoding.active) {
            let ticks = match self.medium {
                Medium::Opus => 960,
                Medium::Vp8 => 3_000,
            };
            encoding.timestamp = encoding.timestamp.wrapping_add(ticks);
            let frame = match self.medium {
                Medium::Opus => encoding.audio_frame(now, payload_type, self.level),
                Medium::Vp8 => encoding.video_frame(now, payload_type, self.temporal_layers),
            };
            packets.extend(frame.into_iter().map(|packet| (at, packet)));
        }
        packets
    }
}

impl Encoding {
    fn new(ssrc: u32, rtx: Option<u32>, rid: Option<Rid>) -> Self {
        Encoding {
            ssrc: ssrc.into(),
            rtx: rtx.map(Ssrc::from),
            rid,
            packets_per_frame: 4,
            packets_per_key_frame: 0,
            payload_bytes: 1_000,
            active: true,
            sequence: u64::from(ssrc % 30_000) + 1,
            timestamp: ssrc.wrapping_mul(2_654_435_761),
            picture: (ssrc % 0x7fff) as u16,
            tl0: ssrc as u8,
            frame: 0,
            key_frame_wanted: true,
            base_frame: 0,
        }
    }

    fn audio_frame(&mut self, now: Instant, payload_type: u8, level: u8) -> Vec<RtpWrite> {
        self.sequence += 1;
        self.frame += 1;
        let mut payload = vec![0x78; self.payload_bytes];
        payload[1..5].copy_from_slice(&self.frame.to_be_bytes());
        let extensions =
            ExtensionValues { audio_level: Some(-(level as i8)), voice_activity: Some(true), ..Default::default() };
        vec![
            RtpWrite::new(payload_type.into(), self.sequence.into(), self.timestamp, now, payload).ext_vals(extensions),
        ]
    }

    /// A VP8 frame: payload descriptor with picture id, TL0PICIDX and TID (RFC 7741), frame tag, and a stamp that
    /// says which frame it is and which one it refers to.
    fn video_frame(&mut self, now: Instant, payload_type: u8, temporal_layers: u8) -> Vec<RtpWrite> {
        let is_key = std::mem::take(&mut self.key_frame_wanted);
        self.frame += 1;
        self.picture = self.picture.wrapping_add(1) & 0x7fff;
        // The pattern of Chromium's three layers: 0 2 1 2.
        let tid = match (is_key, temporal_layers) {
            (true, _) | (_, 1) => 0,
            _ => [0, 2, 1, 2][self.frame as usize % 4],
        };
        let refers_to = if is_key { 0 } else { self.base_frame };
        if tid == 0 {
            self.tl0 = self.tl0.wrapping_add(1);
            self.base_frame = self.frame;
        }
        let count =
            if is_key { self.packets_per_key_frame.max(self.packets_per_frame) } else { self.packets_per_frame };
        (0..count)
            .map(|index| {
                self.sequence += 1;
                let start = u8::from(index == 0) << 4;
                let [high, low] = (0x8000 | self.picture).to_be_bytes();
                // Every frame above the base refers to the base alone, so each is a point to step up at (Y).
                let tid_byte = tid << 6 | u8::from(tid > 0) << 5;
                let mut payload = vec![0x80 | start, 0xe0, high, low, self.tl0, tid_byte];
                if index == 0 {
                    // Frame tag of a shown frame; a key frame goes on with its start code and 640 x 480.
                    payload.extend([0x10 | u8::from(!is_key), 0, 0]);
                    if is_key {
                        payload.extend([0x9d, 0x01, 0x2a, 0x80, 0x02, 0xe0, 0x01]);
                    }
                }
                payload.extend(self.frame.to_be_bytes());
                payload.extend(refers_to.to_be_bytes());
                payload.extend((index as u32).to_be_bytes());
                payload.extend((count as u32).to_be_bytes());
                payload.extend((*self.ssrc).to_be_bytes());
                payload.resize(self.payload_bytes.max(payload.len()), 0xaa);
                let marker = index + 1 == count;
                let extensions = ExtensionValues { rid: self.rid, ..Default::default() };
                RtpWrite::new(payload_type.into(), self.sequence.into(), self.timestamp, now, payload)
                    .marker(marker)
                    .nackable(true)
                    .ext_vals(extensions)
            })
            .collect()
    }
}
