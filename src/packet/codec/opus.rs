//! Opus payloads (RFC 6716 section 3.1, RFC 7587): the table-of-contents byte, and silence.

use std::time::Duration;

/// Frames of at most this many bytes, TOC included, carry no sound: an encoder in discontinuous transmission
/// sends one every 400 ms (RFC 6716 section 2.1.9 and 3.1: a frame of one byte or none is a lost or DTX frame).
const SILENCE_BYTES: usize = 2;

/// `None` for an empty payload.
#[inline]
pub fn is_silence(payload: &[u8]) -> Option<bool> {
    payload.first().map(|_| payload.len() <= SILENCE_BYTES)
}

/// How much sound the packet holds; `None` when it is cut or holds more than the 120 ms that a packet may
/// (RFC 6716 section 3.2.5).
pub fn duration(payload: &[u8]) -> Option<Duration> {
    let toc = *payload.first()?;
    let frame_us: u64 = match toc >> 3 {
        silk @ 0..=11 => [10_000, 20_000, 40_000, 60_000][usize::from(silk & 3)],
        hybrid @ 12..=15 => [10_000, 20_000][usize::from(hybrid & 1)],
        celt => [2_500, 5_000, 10_000, 20_000][usize::from(celt & 3)],
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u64::from(payload.get(1)? & 0x3f),
    };
    let whole_us = frame_us * frames;
    (frames > 0 && whole_us <= 120_000).then(|| Duration::from_micros(whole_us))
}

/// Both channels are coded. The receiver decodes to what it wants either way (RFC 7587 section 3.4).
pub fn is_stereo(payload: &[u8]) -> Option<bool> {
    payload.first().map(|toc| toc & 4 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_of_two_bytes_or_less_is_silence() {
        assert_eq!(is_silence(&[]), None);
        assert_eq!(is_silence(&[0x78]), Some(true));
        assert_eq!(is_silence(&[0x78, 0]), Some(true));
        assert_eq!(is_silence(&[0x78, 0, 0]), Some(false));
    }

    #[test]
    fn the_table_of_contents_tells_the_duration() {
        for (payload, ms) in [
            (&[0x78, 1][..], Some(20.0)), // hybrid, fullband, one frame: what browsers send
            (&[0xfc, 1], Some(20.0)),
            (&[0xe0, 1], Some(2.5)),
            (&[0x18, 1], Some(60.0)),
            (&[0x19, 1], Some(120.0)),
            (&[0xfb, 6], Some(120.0)),
            (&[0xfb, 7], None),
            (&[0xfb, 0], None),
            (&[0xfb], None),
            (&[], None),
        ] {
            assert_eq!(duration(payload).map(|d| d.as_secs_f64() * 1000.0), ms, "{payload:x?}");
        }
    }

    #[test]
    fn the_table_of_contents_tells_the_channels() {
        assert_eq!(is_stereo(&[0x78]), Some(false));
        assert_eq!(is_stereo(&[0x7c]), Some(true));
        assert_eq!(is_stereo(&[]), None);
    }
}
