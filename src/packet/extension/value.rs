//! The values of header extensions: what the bytes of an element mean, and back.
//!
//! Every reader refuses a value of the wrong length: an element under the wrong id is noise, not news.

use std::time::Duration;

use crate::limits;
use crate::packet::be;
use crate::packet::extension::{Extension, ExtensionMap};
use crate::packet::ntp::Ntp;
use crate::packet::rtp::Extensions;
use crate::packet::seq::SeqNo;

/// What ingress needs of a packet's extensions, gathered in one pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtensionValues<'a> {
    pub mid: Option<&'a str>,
    pub rid: Option<&'a str>,
    pub repaired_rid: Option<&'a str>,
    pub abs_send_time: Option<AbsSendTime>,
    pub transport_cc: Option<SeqNo>,
    pub audio_level: Option<AudioLevel>,
    pub video_orientation: Option<VideoOrientation>,
    pub transmission_offset: Option<i32>,
    pub playout_delay: Option<PlayoutDelay>,
    /// 8 or 16 bytes, see [`AbsCaptureTime::read`]; passed on as they are.
    pub abs_capture_time: Option<&'a [u8]>,
    /// See [`dependency_descriptor`](crate::packet::codec::dependency_descriptor).
    pub dependency_descriptor: Option<&'a [u8]>,
}

impl<'a> ExtensionValues<'a> {
    /// Reads the elements that `map` knows; of two with the same meaning the last one counts.
    #[inline]
    pub fn read(elements: Extensions<'a>, map: &ExtensionMap) -> ExtensionValues<'a> {
        let mut values = ExtensionValues::default();
        for (id, value) in elements {
            match map.extension(id) {
                Some(Extension::Mid) => values.mid = stream_id(value),
                Some(Extension::RtpStreamId) => values.rid = stream_id(value),
                Some(Extension::RepairedRtpStreamId) => values.repaired_rid = stream_id(value),
                Some(Extension::AbsSendTime) => values.abs_send_time = AbsSendTime::read(value),
                Some(Extension::TransportCc) => values.transport_cc = transport_cc(value),
                Some(Extension::AudioLevel) => values.audio_level = AudioLevel::read(value),
                Some(Extension::VideoOrientation) => values.video_orientation = VideoOrientation::read(value),
                Some(Extension::TransmissionOffset) => values.transmission_offset = transmission_offset(value),
                Some(Extension::PlayoutDelay) => values.playout_delay = PlayoutDelay::read(value),
                Some(Extension::AbsCaptureTime) => {
                    values.abs_capture_time = matches!(value.len(), 8 | 16).then_some(value);
                }
                Some(Extension::DependencyDescriptor) => values.dependency_descriptor = Some(value),
                Some(Extension::PacketId) | None => {}
            }
        }
        values
    }
}

/// A mid or rid: 1 to [`limits::STREAM_ID_BYTES`] bytes of the token alphabet (RFC 8843 section 15.1,
/// RFC 8852 section 3.1; a rid's alphabet is a part of it).
#[inline]
pub fn stream_id(value: &[u8]) -> Option<&str> {
    let fits = (1..=limits::STREAM_ID_BYTES).contains(&value.len());
    let token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`{|}~".contains(b);
    if !fits || !value.iter().all(token) {
        return None;
    }
    std::str::from_utf8(value).ok()
}

/// Sequence number of transport-wide congestion control.
#[inline]
pub fn transport_cc(value: &[u8]) -> Option<SeqNo> {
    Some(SeqNo(u16::from_be_bytes(value.try_into().ok()?)))
}

/// Milliseconds are not its unit: ticks of the RTP clock, signed 24 bits (RFC 5450 section 3).
#[inline]
pub fn transmission_offset(value: &[u8]) -> Option<i32> {
    let [a, b, c]: [u8; 3] = value.try_into().ok()?;
    Some(i32::from_be_bytes([a, b, c, 0]) >> 8)
}

/// Departure time of a packet: 24 bits of 6.18 fixed-point seconds, wraps every 64 s
/// (webrtc.org/experiments/rtp-hdrext/abs-send-time).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AbsSendTime(pub u32);

impl AbsSendTime {
    /// From any clock that runs evenly; only differences mean something.
    #[inline]
    pub const fn from_clock(clock: Duration) -> AbsSendTime {
        let seconds = (clock.as_secs() & 0x3f) << 18;
        let fraction = ((clock.subsec_nanos() as u64) << 18) / 1_000_000_000;
        AbsSendTime((seconds | fraction) as u32)
    }

    #[inline]
    pub fn read(value: &[u8]) -> Option<AbsSendTime> {
        if value.len() == 3 { be::u24_at(value, 0).map(AbsSendTime) } else { None }
    }

    #[inline]
    pub const fn to_bytes(self) -> [u8; 3] {
        let [_, a, b, c] = self.0.to_be_bytes();
        [a, b, c]
    }

    /// Microseconds from `earlier` to `self`, the shorter way round the 64 s; negative when `self` is older.
    #[inline]
    pub const fn distance_us(self, earlier: AbsSendTime) -> i64 {
        let steps = (self.0.wrapping_sub(earlier.0) << 8) as i32 >> 8;
        steps as i64 * 1_000_000 / (1 << 18)
    }
}

/// Loudness of an audio packet (RFC 6464).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioLevel {
    /// The encoder believes that it hears a voice.
    pub voice: bool,
    /// -dBov: 0 is loudest, 127 silence.
    pub level: u8,
}

impl AudioLevel {
    /// The two-byte form may carry one byte of padding inside the element (RFC 6464 section 3).
    #[inline]
    pub fn read(value: &[u8]) -> Option<AudioLevel> {
        match *value {
            [byte] | [byte, _] => Some(AudioLevel { voice: byte & 0x80 != 0, level: byte & 0x7f }),
            _ => None,
        }
    }

    #[inline]
    pub const fn to_byte(self) -> u8 {
        (self.voice as u8) << 7 | self.level & 0x7f
    }
}

/// How a receiver turns the picture (3GPP TS 26.114 section 7.4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VideoOrientation {
    pub back_camera: bool,
    pub flip: bool,
    /// 0, 90, 180 or 270.
    pub rotation_degrees: u16,
}

impl VideoOrientation {
    #[inline]
    pub fn read(value: &[u8]) -> Option<VideoOrientation> {
        let &[byte] = value else { return None };
        Some(VideoOrientation {
            back_camera: byte & 0x08 != 0,
            flip: byte & 0x04 != 0,
            rotation_degrees: u16::from(byte & 0x03) * 90,
        })
    }
}

/// Bounds that the sender asks of the receiver's playout delay, in units of 10 ms, 12 bits each
/// (webrtc.org/experiments/rtp-hdrext/playout-delay).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlayoutDelay {
    pub min_ms: u16,
    pub max_ms: u16,
}

impl PlayoutDelay {
    #[inline]
    pub fn read(value: &[u8]) -> Option<PlayoutDelay> {
        let &[a, b, c] = value else { return None };
        let min = u16::from(a) << 4 | u16::from(b) >> 4;
        let max = u16::from(b & 0x0f) << 8 | u16::from(c);
        Some(PlayoutDelay { min_ms: min * 10, max_ms: max * 10 })
    }
}

/// When the first sample of a frame was captured (webrtc.org/experiments/rtp-hdrext/abs-capture-time).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbsCaptureTime {
    pub captured: Ntp,
    /// Estimated offset of the capture clock from the sender's, in 32.32 seconds.
    pub clock_offset: Option<i64>,
}

impl AbsCaptureTime {
    #[inline]
    pub fn read(value: &[u8]) -> Option<AbsCaptureTime> {
        let clock_offset = match value.len() {
            8 => None,
            16 => Some(be::u64_at(value, 8)? as i64),
            _ => return None,
        };
        Some(AbsCaptureTime { captured: Ntp(be::u64_at(value, 0)?), clock_offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Ssrc;
    use crate::packet::rtp::{Form, HeaderFields, HeaderWriter, RtpHeader};

    #[test]
    fn a_mid_is_a_short_token() {
        for good in ["0", "audio", "a-b_c.d", "0123456789abcdef"] {
            assert_eq!(stream_id(good.as_bytes()), Some(good));
        }
        let long = "x".repeat(limits::STREAM_ID_BYTES + 1);
        for bad in ["", " ", "a b", "a\0", "\u{e9}", "a/b", long.as_str()] {
            assert_eq!(stream_id(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(stream_id(&[0xff, 0xfe]), None);
    }

    #[test]
    fn values_of_the_wrong_length_are_refused() {
        for len in (0..=20).filter(|len| *len != 3) {
            let value = vec![0; len];
            assert_eq!(AbsSendTime::read(&value), None);
            assert_eq!(PlayoutDelay::read(&value), None);
            assert_eq!(transmission_offset(&value), None);
            assert_eq!(transport_cc(&value).is_some(), len == 2);
            assert_eq!(AudioLevel::read(&value).is_some(), len == 1 || len == 2);
            assert_eq!(VideoOrientation::read(&value).is_some(), len == 1);
            assert_eq!(AbsCaptureTime::read(&value).is_some(), len == 8 || len == 16);
        }
    }

    #[test]
    fn values_mean_what_their_documents_say() {
        assert_eq!(AudioLevel::read(&[0x80 | 30]), Some(AudioLevel { voice: true, level: 30 }));
        assert_eq!(AudioLevel { voice: true, level: 30 }.to_byte(), 0x80 | 30);
        assert_eq!(
            VideoOrientation::read(&[0x0d]),
            Some(VideoOrientation { back_camera: true, flip: true, rotation_degrees: 90 })
        );
        assert_eq!(PlayoutDelay::read(&[0x00, 0xa0, 0x14]), Some(PlayoutDelay { min_ms: 100, max_ms: 200 }));
        assert_eq!(PlayoutDelay::read(&[0xff; 3]), Some(PlayoutDelay { min_ms: 40950, max_ms: 40950 }));
        assert_eq!(transmission_offset(&[0xff, 0xff, 0xfe]), Some(-2));
        assert_eq!(transmission_offset(&[0, 0, 2]), Some(2));
        assert_eq!(
            AbsCaptureTime::read(&[0, 0, 0, 1, 0x80, 0, 0, 0]),
            Some(AbsCaptureTime { captured: Ntp(0x1_8000_0000), clock_offset: None })
        );
        let mut both = [0; 16];
        both[8..].copy_from_slice(&(-5i64).to_be_bytes());
        assert_eq!(AbsCaptureTime::read(&both).unwrap().clock_offset, Some(-5));
    }

    #[test]
    fn a_send_time_measures_across_its_wrap() {
        let before = AbsSendTime::from_clock(Duration::from_millis(63_990));
        let after = AbsSendTime::from_clock(Duration::from_millis(64_010));
        assert!(after.0 < before.0 && before.0 < 1 << 24);
        assert!((after.distance_us(before) - 20_000).abs() <= 8);
        assert!((before.distance_us(after) + 20_000).abs() <= 8);
        assert_eq!(AbsSendTime::read(&before.to_bytes()), Some(before));
    }

    #[test]
    fn one_pass_gathers_what_the_map_knows() {
        let fields = HeaderFields {
            marker: false,
            padding: false,
            payload_type: 96,
            sequence: SeqNo(1),
            timestamp: 1,
            ssrc: Ssrc(1),
        };
        let mut map = ExtensionMap::default();
        for (id, extension) in [
            (9, Extension::Mid),
            (10, Extension::RtpStreamId),
            (3, Extension::TransportCc),
            (2, Extension::AbsSendTime),
            (1, Extension::AudioLevel),
            (12, Extension::DependencyDescriptor),
        ] {
            map.insert(id, extension);
        }
        let mut packet = [0; 100];
        let mut writer = HeaderWriter::new(&mut packet, &fields, Form::OneByte).unwrap();
        let elements: [(u8, &[u8]); 7] =
            [(9, b"v0"), (10, b"r1"), (3, &[1, 2]), (2, &[0, 0, 7]), (1, &[5]), (12, &[1, 2, 3]), (13, b"unknown")];
        for (id, value) in elements {
            writer.element(id, value).unwrap();
        }
        let len = writer.finish().unwrap();
        let header = RtpHeader::parse(&packet[..len]).unwrap();
        assert_eq!(
            ExtensionValues::read(header.extensions(&packet), &map),
            ExtensionValues {
                mid: Some("v0"),
                rid: Some("r1"),
                transport_cc: Some(SeqNo(0x0102)),
                abs_send_time: Some(AbsSendTime(7)),
                audio_level: Some(AudioLevel { voice: false, level: 5 }),
                dependency_descriptor: Some(&[1, 2, 3]),
                ..ExtensionValues::default()
            }
        );
    }
}
