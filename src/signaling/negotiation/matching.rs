//! When two descriptions mean the same codec.
//!
//! Name, clock rate and channels always; beyond that each codec has parameters that change the
//! bitstream (H.264 packetisation and profile, VP9 and AV1 profile) and others that are only wishes.
//! Called for producers against the router and for consumers against a client's capabilities.

use serde_json::Value;

use super::h264;
use super::parameters::{CodecParameters, RtpCodecCapability, RtpCodecParameters};

/// The fields that codecs are compared by, of a capability or of parameters.
#[derive(Clone, Copy, Debug)]
pub struct CodecView<'a> {
    pub mime_type: &'a str,
    pub clock_rate: u32,
    pub channels: Option<u8>,
    pub parameters: &'a CodecParameters,
}

impl<'a> From<&'a RtpCodecCapability> for CodecView<'a> {
    fn from(codec: &'a RtpCodecCapability) -> Self {
        CodecView {
            mime_type: &codec.mime_type,
            clock_rate: codec.clock_rate,
            channels: codec.channels,
            parameters: &codec.parameters,
        }
    }
}

impl<'a> From<&'a RtpCodecParameters> for CodecView<'a> {
    fn from(codec: &'a RtpCodecParameters) -> Self {
        CodecView {
            mime_type: &codec.mime_type,
            clock_rate: codec.clock_rate,
            channels: codec.channels,
            parameters: &codec.parameters,
        }
    }
}

/// Whether a sender of one can be heard by a receiver of the other.
pub fn same_codec(a: CodecView<'_>, b: CodecView<'_>) -> bool {
    a.mime_type.eq_ignore_ascii_case(b.mime_type)
        && a.clock_rate == b.clock_rate
        && a.channels.unwrap_or(1) == b.channels.unwrap_or(1)
        && same_bitstream(a, b)
}

pub fn is_rtx(mime_type: &str) -> bool {
    mime_type.rsplit_once('/').is_some_and(|(_, name)| name.eq_ignore_ascii_case("rtx"))
}

/// The payload type that an RTX entry repeats (`apt`, RFC 4588 section 8.1).
pub fn associated_payload_type(parameters: &CodecParameters) -> Option<u8> {
    number(parameters, "apt").and_then(|value| u8::try_from(value).ok())
}

/// A parameter as a number; browsers' SDP parsers leave digits as text now and then.
pub fn number(parameters: &CodecParameters, name: &str) -> Option<u64> {
    match parameters.get(name)? {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn same_bitstream(a: CodecView<'_>, b: CodecView<'_>) -> bool {
    let same_or_zero = |name| number(a.parameters, name).unwrap_or(0) == number(b.parameters, name).unwrap_or(0);
    let is = |mime_type: &str| a.mime_type.eq_ignore_ascii_case(mime_type);
    if is("video/H264") {
        same_or_zero("packetization-mode") && h264::same_profile(a.parameters, b.parameters)
    } else if is("video/VP9") {
        same_or_zero("profile-id")
    } else if is("video/AV1") {
        same_or_zero("profile")
    } else {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn matches(a: Value, b: Value) -> bool {
        let codec = |mut value: Value| -> RtpCodecParameters {
            value["payloadType"] = json!(96);
            serde_json::from_value(value).unwrap()
        };
        let (a, b) = (codec(a), codec(b));
        let forwards = same_codec((&a).into(), (&b).into());
        assert_eq!(forwards, same_codec((&b).into(), (&a).into()), "matching does not depend on the side");
        forwards
    }

    #[test]
    fn names_match_in_any_case_but_clock_and_channels_must_be_equal() {
        let opus = json!({"mimeType": "audio/opus", "clockRate": 48000, "channels": 2});
        assert!(matches(opus.clone(), json!({"mimeType": "AUDIO/OPUS", "clockRate": 48000, "channels": 2})));
        assert!(!matches(opus.clone(), json!({"mimeType": "audio/opus", "clockRate": 16000, "channels": 2})));
        assert!(!matches(opus.clone(), json!({"mimeType": "audio/opus", "clockRate": 48000, "channels": 1})));
        assert!(!matches(opus.clone(), json!({"mimeType": "audio/PCMU", "clockRate": 48000, "channels": 2})));
    }

    #[test]
    fn missing_channels_mean_one() {
        let mono = json!({"mimeType": "audio/L16", "clockRate": 8000, "channels": 1});
        assert!(matches(mono, json!({"mimeType": "audio/L16", "clockRate": 8000})));
        let opus = json!({"mimeType": "audio/opus", "clockRate": 48000, "channels": 2});
        assert!(!matches(opus, json!({"mimeType": "audio/opus", "clockRate": 48000})));
    }

    #[test]
    fn vp9_and_av1_match_by_profile_and_a_missing_profile_is_zero() {
        let vp9 = |parameters| json!({"mimeType": "video/VP9", "clockRate": 90000, "parameters": parameters});
        assert!(matches(vp9(json!({})), vp9(json!({"profile-id": 0}))));
        assert!(matches(vp9(json!({"profile-id": "2"})), vp9(json!({"profile-id": 2}))));
        assert!(!matches(vp9(json!({"profile-id": 2})), vp9(json!({}))));
        let av1 = |parameters| json!({"mimeType": "video/AV1", "clockRate": 90000, "parameters": parameters});
        assert!(matches(av1(json!({"profile": 0, "level-idx": 5})), av1(json!({"level-idx": 8, "tier": 1}))));
        assert!(!matches(av1(json!({"profile": 1})), av1(json!({}))));
    }

    #[test]
    fn h264_matches_by_packetization_mode_and_profile() {
        let h264 = |mode, level: &str| {
            json!({"mimeType": "video/H264", "clockRate": 90000,
                "parameters": {"packetization-mode": mode, "profile-level-id": level}})
        };
        assert!(matches(h264(1, "42e01f"), h264(1, "42e034")));
        assert!(!matches(h264(1, "42e01f"), h264(0, "42e01f")));
        assert!(!matches(h264(1, "42e01f"), h264(1, "4d001f")));
        assert!(!matches(h264(1, "42e01f"), h264(1, "nonsense")));
    }

    #[test]
    fn the_media_payload_type_of_rtx_is_a_number_below_256() {
        let apt = |value: Value| associated_payload_type(json!({"apt": value}).as_object().unwrap());
        assert_eq!(apt(json!(96)), Some(96));
        assert_eq!(apt(json!("96")), Some(96));
        assert_eq!(apt(json!(352)), None);
        assert_eq!(apt(json!(true)), None);
    }
}
