//! One thing that a participant sends (microphone, camera, shared screen): an endless series of frames, each with the
//! time at which it is due, cut into packets. Pure: no clock, no keys, no socket.

use super::recording::Recording;
use super::vp8;
use crate::random::Random;
use crate::scenario::{Microphone, Silence, Video, VideoSource};
use crate::schedule::Nanos;

/// Largest payload of a packet, as Chromium cuts its frames.
const PAYLOAD_BYTES_MAX: usize = 1160;
/// Smallest payload that carries a frame header and a stamp.
const PAYLOAD_BYTES_MIN: usize = vp8::DESCRIPTOR_BYTES + 10 + super::stamp::STAMP_BYTES;
const AUDIO_FRAME: Nanos = 20_000_000;
const DTX_FRAMES: u64 = 20;
const SILENCE_LEVEL: u8 = 127;
/// An encoder makes at most one key frame per layer in this time, whoever asks.
const KEY_FRAME_INTERVAL: Nanos = 300_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Microphone,
    Camera,
    Share,
}

/// A packet to send. Packets of one layer follow each other in sequence.
#[derive(Clone, Copy, Debug)]
pub struct Draft {
    pub layer: usize,
    pub due: Nanos,
    pub timestamp: u32,
    pub marker: bool,
    pub payload_bytes: usize,
    /// First packet of its frame.
    pub first: bool,
    pub frame: Option<vp8::Frame>,
    pub audio_level: Option<u8>,
}

pub struct Source {
    pub class: Class,
    pub layers: usize,
    /// When its first frame is due; `None` before it begins.
    start: Option<Nanos>,
    /// Frames sent so far.
    frames: u64,
    timestamp_offset: u32,
    pattern: Pattern,
}

enum Pattern {
    Speech { silence: Silence, spoken: u64 },
    Video { settings: Video, encoders: Vec<Encoder> },
}

struct Encoder {
    picture_id: u16,
    tl0_index: u8,
    key_wanted: bool,
    last_key: Option<Nanos>,
}

impl Source {
    pub fn microphone(settings: &Microphone, random: &mut Random) -> Source {
        let pattern = Pattern::Speech { silence: settings.silence, spoken: random.below(1000) };
        Source {
            class: Class::Microphone,
            layers: 1,
            start: None,
            frames: 0,
            timestamp_offset: random.draw() as u32,
            pattern,
        }
    }

    pub fn video(class: Class, settings: &Video, random: &mut Random) -> Source {
        let layers = match settings.source {
            VideoSource::Recorded => settings.layers,
            VideoSource::Constant => 1,
        };
        let encoders = (0..layers)
            .map(|_| Encoder {
                picture_id: random.draw() as u16 & 0x7fff,
                tl0_index: random.draw() as u8,
                key_wanted: true,
                last_key: None,
            })
            .collect();
        let pattern = Pattern::Video { settings: settings.clone(), encoders };
        Source { class, layers, start: None, frames: 0, timestamp_offset: random.draw() as u32, pattern }
    }

    pub fn begin(&mut self, at: Nanos) {
        self.start = Some(at);
    }

    pub fn has_begun(&self) -> bool {
        self.start.is_some()
    }

    /// When the next frame is due; never, before it begins.
    pub fn due(&self) -> Nanos {
        self.start.map_or(Nanos::MAX, |start| start + self.offset(self.frames))
    }

    /// Mean time between frames.
    pub fn interval(&self) -> Nanos {
        self.offset(1)
    }

    /// Whether packets due together leave in one system call.
    pub fn segmented(&self) -> bool {
        matches!(&self.pattern, Pattern::Video { settings, .. } if settings.segmented)
    }

    pub fn clock_rate(&self) -> u32 {
        if self.class == Class::Microphone { 48_000 } else { 90_000 }
    }

    /// RTP timestamp of a moment, for sender reports.
    pub fn timestamp_at(&self, at: Nanos) -> u32 {
        self.timestamp(at.saturating_sub(self.start.unwrap_or(at)))
    }

    /// Names of the layers, worst first: the simulcast rids. Empty for a single encoding.
    pub fn rids(&self) -> Vec<&'static str> {
        if self.layers < 2 {
            return Vec::new();
        }
        Recording::chromium().video.layers[3 - self.layers..].iter().map(|layer| layer.rid.as_str()).collect()
    }

    /// Somebody needs a key frame of this layer.
    pub fn want_key_frame(&mut self, layer: usize) {
        if let Pattern::Video { encoders, .. } = &mut self.pattern
            && let Some(encoder) = encoders.get_mut(layer)
        {
            encoder.key_wanted = true;
        }
    }

    /// Cuts the next frame into packets, best layer last, and moves on. `speaks` is for microphones.
    pub fn next_frame(&mut self, speaks: bool, drafts: &mut Vec<Draft>) {
        let (due, frame) = (self.due(), self.frames);
        let timestamp = self.timestamp(self.offset(frame));
        self.frames += 1;
        match &mut self.pattern {
            Pattern::Speech { silence, spoken } => {
                let (bytes, level) = if speaks {
                    *spoken += 1;
                    Recording::chromium().speech(*spoken)
                } else if *silence == Silence::Send {
                    (35, SILENCE_LEVEL)
                } else if *silence == Silence::Dtx && frame.is_multiple_of(DTX_FRAMES) {
                    (PAYLOAD_BYTES_MIN, SILENCE_LEVEL)
                } else {
                    return;
                };
                drafts.push(Draft {
                    layer: 0,
                    due,
                    timestamp,
                    marker: false,
                    payload_bytes: bytes.max(super::stamp::STAMP_BYTES + 1),
                    first: true,
                    frame: None,
                    audio_level: Some(level),
                });
            }
            Pattern::Video { settings, encoders } => {
                let start = drafts.len();
                for (layer, encoder) in encoders.iter_mut().enumerate() {
                    // Layers follow each other, as their encoders do.
                    let due = due + (drafts.len() - start) as u64 * settings.packet_gap_us * 1000;
                    encoder.encode(settings, layer, frame, due, timestamp, drafts);
                }
            }
        }
    }

    fn offset(&self, frame: u64) -> Nanos {
        match &self.pattern {
            Pattern::Speech { .. } => frame * AUDIO_FRAME,
            Pattern::Video { settings, .. } => match settings.source {
                VideoSource::Recorded => Recording::chromium().video.offset(frame),
                VideoSource::Constant => (frame as f64 * 1e9 / settings.frames_per_second) as Nanos,
            },
        }
    }

    fn timestamp(&self, offset: Nanos) -> u32 {
        let ticks = u128::from(offset) * u128::from(self.clock_rate()) / 1_000_000_000;
        self.timestamp_offset.wrapping_add(ticks as u32)
    }
}

impl Encoder {
    fn encode(
        &mut self,
        settings: &Video,
        layer: usize,
        number: u64,
        due: Nanos,
        timestamp: u32,
        drafts: &mut Vec<Draft>,
    ) {
        let recording = &Recording::chromium().video;
        // Fewer layers than recorded are the better ones.
        let recorded = recording.layers.len() - settings.layers + layer;
        let rested = self.last_key.is_none_or(|last| due >= last + KEY_FRAME_INTERVAL);
        let key = self.key_wanted && rested;
        if key {
            self.key_wanted = false;
            self.last_key = Some(due);
        }
        let (packets, bytes, temporal, sync) = match settings.source {
            VideoSource::Constant => (settings.packets_per_frame, settings.payload_bytes, 0, false),
            VideoSource::Recorded => {
                let frame_bytes = if key {
                    recording.layers[recorded].key_frame_bytes
                } else {
                    recording.frame_bytes(recorded, number)
                };
                let frame_bytes = (frame_bytes as f64 * settings.bitrate_scale) as usize;
                let room = PAYLOAD_BYTES_MAX - vp8::DESCRIPTOR_BYTES;
                let packets = frame_bytes.div_ceil(room).max(1);
                let temporal = if key { 0 } else { recording.temporal(number) };
                (packets, frame_bytes, temporal, !key && recording.sync(number))
            }
        };
        self.picture_id = (self.picture_id + 1) & 0x7fff;
        if temporal == 0 {
            self.tl0_index = self.tl0_index.wrapping_add(1);
        }
        let frame = vp8::Frame {
            key,
            picture_id: self.picture_id,
            tl0_index: self.tl0_index,
            temporal,
            sync,
            width: recording.layers[recorded].width,
            height: recording.layers[recorded].height,
        };
        for packet in 0..packets {
            let payload_bytes = match settings.source {
                VideoSource::Constant => bytes,
                // Sizes differ by at most one byte, smaller first, as libwebrtc's packetizer does it.
                VideoSource::Recorded => (bytes + packet) / packets + vp8::DESCRIPTOR_BYTES,
            };
            drafts.push(Draft {
                layer,
                due: due + packet as u64 * settings.packet_gap_us * 1000,
                timestamp,
                marker: packet + 1 == packets,
                payload_bytes: payload_bytes.max(PAYLOAD_BYTES_MIN),
                first: packet == 0,
                frame: Some(frame),
                audio_level: None,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    fn camera(extra: &str) -> Source {
        let text = format!("rooms = 1\nparticipants = 1\n[camera]\n{extra}\n");
        let scenario = Scenario::parse(&text).unwrap();
        let mut source = Source::video(Class::Camera, &scenario.camera.unwrap(), &mut Random::new(1, 1));
        source.begin(0);
        source
    }

    #[test]
    fn a_constant_source_sends_its_packets_per_second_whatever_the_time_of_day() {
        let mut source =
            camera("source = 'constant'\nframes_per_second = 50\npackets_per_frame = 6\npacket_gap_us = 0");
        let mut drafts = Vec::new();
        while source.due() < 10_000_000_000 {
            source.next_frame(false, &mut drafts);
        }
        assert_eq!(drafts.len(), 3000);
        assert!(drafts.iter().all(|draft| draft.payload_bytes == 1130));
        assert_eq!(drafts.iter().filter(|draft| draft.marker).count(), 500);
    }

    #[test]
    fn packets_of_a_recorded_frame_differ_by_one_byte_at_most() {
        let mut source = camera("bitrate_scale = 12.0");
        for _ in 0..300 {
            let mut drafts = Vec::new();
            source.next_frame(false, &mut drafts);
            for layer in 0..3 {
                let sizes: Vec<_> = drafts.iter().filter(|d| d.layer == layer).map(|d| d.payload_bytes).collect();
                let (small, large) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
                assert!(large - small <= 1 && *large <= PAYLOAD_BYTES_MAX, "{sizes:?}");
            }
        }
    }

    #[test]
    fn a_key_frame_comes_when_it_is_asked_for_and_not_more_often_than_an_encoder_would() {
        let mut source = camera("layers = 1");
        let mut keys = Vec::new();
        for n in 0..60 {
            let mut drafts = Vec::new();
            let due = source.due();
            source.want_key_frame(0);
            source.next_frame(false, &mut drafts);
            if drafts[0].frame.unwrap().key {
                keys.push((n, due));
            }
        }
        assert_eq!(keys[0].0, 0);
        assert!(keys.len() > 5 && keys.windows(2).all(|pair| pair[1].1 - pair[0].1 >= KEY_FRAME_INTERVAL));
    }

    #[test]
    fn a_silent_microphone_sends_little() {
        let scenario = Scenario::parse("rooms = 1\nparticipants = 1\n[microphone]\n").unwrap();
        let settings = scenario.microphone.unwrap();
        let mut muted =
            Source::microphone(&Microphone { silence: Silence::Mute, ..settings.clone() }, &mut Random::new(1, 1));
        muted.begin(0);
        let mut source = Source::microphone(&settings, &mut Random::new(1, 1));
        source.begin(0);
        let mut drafts = Vec::new();
        for _ in 0..500 {
            muted.next_frame(false, &mut drafts);
        }
        assert_eq!(drafts.len(), 0);
        for _ in 0..500 {
            source.next_frame(false, &mut drafts);
        }
        assert_eq!(drafts.len(), 25);
        drafts.clear();
        for _ in 0..500 {
            source.next_frame(true, &mut drafts);
        }
        assert_eq!(drafts.len(), 500);
    }
}
