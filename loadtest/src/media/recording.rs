//! Sizes and cadence of what a real browser sent: a table made from a capture, compiled in.

use std::sync::LazyLock;

use serde::Deserialize;

use crate::schedule::Nanos;

const TABLE: &str = include_str!("../../media/chromium156-simulcast3-opus.json");

static RECORDING: LazyLock<Recording> =
    LazyLock::new(|| serde_json::from_str(TABLE).expect("the compiled-in table is valid"));

#[derive(Deserialize)]
pub struct Recording {
    /// Payload bytes and level (0 loudest, 127 silence) of each 20 ms of speech.
    pub audio: Vec<(usize, u8)>,
    pub video: VideoRecording,
}

#[derive(Deserialize)]
pub struct VideoRecording {
    /// RTP timestamps of the frames at 90 kHz, from 0.
    ticks: Vec<u32>,
    /// VP8 temporal layer of each frame.
    temporal: Vec<u8>,
    /// Whether a frame depends only on the base layer.
    sync: Vec<u8>,
    pub layers: Vec<LayerRecording>,
}

#[derive(Deserialize)]
pub struct LayerRecording {
    pub rid: String,
    pub width: u16,
    pub height: u16,
    pub key_frame_bytes: usize,
    frame_bytes: Vec<usize>,
    /// Frames that the browser sent as key frames; a replay sends key frames when they are asked for instead.
    key_frames: Vec<usize>,
}

impl Recording {
    pub fn chromium() -> &'static Recording {
        &RECORDING
    }

    /// Size and level of the n-th packet of a speaker; the recording repeats.
    pub fn speech(&self, n: u64) -> (usize, u8) {
        self.audio[n as usize % self.audio.len()]
    }
}

impl VideoRecording {
    /// Time from the first frame to the n-th; the recording repeats.
    pub fn offset(&self, n: u64) -> Nanos {
        let frames = self.ticks.len() as u64;
        let last = u64::from(*self.ticks.last().expect("frames"));
        let period = last + last / (frames - 1);
        let ticks = (n / frames) * period + u64::from(self.ticks[(n % frames) as usize]);
        ticks * 100_000 / 9
    }

    pub fn temporal(&self, n: u64) -> u8 {
        self.temporal[n as usize % self.temporal.len()]
    }

    pub fn sync(&self, n: u64) -> bool {
        self.sync[n as usize % self.sync.len()] != 0
    }

    /// Bytes of the n-th frame of a layer when it is not a key frame.
    pub fn frame_bytes(&self, layer: usize, n: u64) -> usize {
        let layer = &self.layers[layer];
        let at = n as usize % layer.frame_bytes.len();
        let at = if layer.key_frames.contains(&at) { at + 1 } else { at };
        layer.frame_bytes[at % layer.frame_bytes.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recording_repeats_without_a_jump_in_cadence() {
        let video = &Recording::chromium().video;
        for n in 0..1000 {
            let gap_ms = (video.offset(n + 1) - video.offset(n)) / 1_000_000;
            assert!((28..=38).contains(&gap_ms), "frame {n}: {gap_ms} ms");
        }
    }

    #[test]
    fn layers_grow_from_the_first_to_the_last() {
        let video = &Recording::chromium().video;
        let total = |layer| (0..180).map(|n| video.frame_bytes(layer, n)).sum::<usize>();
        assert!(total(0) < total(1) && total(1) < total(2));
    }
}
