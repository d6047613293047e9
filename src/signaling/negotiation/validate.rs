//! Bounds on what clients send, checked before anything is made of it.
//!
//! Every refusal names the field by its path in the request (`rtpParameters.encodings[1].ssrc`), so
//! that the author of a client can find it. Must never look at the router.

use std::collections::HashSet;

use serde_json::{Number, Value};

use super::matching::{associated_payload_type, is_rtx};
use super::parameters::{
    CodecParameters, RtcpFeedback, RtpCapabilities, RtpCodecParameters, RtpEncoding, RtpHeaderExtensionParameters,
    RtpParameters,
};
use super::{NegotiationError, PROBATOR_SSRC};
use crate::limits;

/// Payload types 64 to 95 would be taken for RTCP on a shared port (RFC 5761 section 4).
const RTCP_LOOKALIKES: std::ops::RangeInclusive<u8> = 64..=95;

/// Refuses a client's `rtpCapabilities` that are out of bounds.
pub fn capabilities(caps: &RtpCapabilities) -> Result<(), NegotiationError> {
    count("rtpCapabilities.codecs", caps.codecs.len(), limits::CODECS)?;
    count("rtpCapabilities.headerExtensions", caps.header_extensions.len(), limits::HEADER_EXTENSIONS)?;
    for (index, codec) in caps.codecs.iter().enumerate() {
        let at = |field: &str| format!("rtpCapabilities.codecs[{index}].{field}");
        mime_type(|| at("mimeType"), &codec.mime_type)?;
        if codec.preferred_payload_type.is_some_and(|payload_type| payload_type > 127) {
            return refused(at("preferredPayloadType"), "a payload type is 0 to 127");
        }
        parameters(|| at("parameters"), &codec.parameters)?;
        feedback(|| at("rtcpFeedback"), &codec.rtcp_feedback)?;
        if is_rtx(&codec.mime_type) && associated_payload_type(&codec.parameters).is_none() {
            return refused(at("parameters.apt"), "RTX names the payload type of its media codec");
        }
    }
    for (index, extension) in caps.header_extensions.iter().enumerate() {
        let at = |field: &str| format!("rtpCapabilities.headerExtensions[{index}].{field}");
        text(|| at("uri"), &extension.uri, limits::PARAMETER_TEXT_BYTES)?;
        extension_id(|| at("preferredId"), extension.preferred_id)?;
    }
    Ok(())
}

/// Refuses the `rtpParameters` of a request to produce that are out of bounds or contradict themselves.
pub fn producer_parameters(parameters: &RtpParameters) -> Result<(), NegotiationError> {
    if let Some(mid) = &parameters.mid {
        text(|| "rtpParameters.mid".to_owned(), mid, limits::MID_BYTES)?;
    }
    if let Some(msid) = &parameters.msid {
        text_or_empty(|| "rtpParameters.msid".to_owned(), msid, limits::PARAMETER_TEXT_BYTES)?;
    }
    if let Some(cname) = &parameters.rtcp.cname {
        text_or_empty(|| "rtpParameters.rtcp.cname".to_owned(), cname, limits::CNAME_BYTES)?;
    }
    codecs(&parameters.codecs)?;
    extensions(&parameters.header_extensions)?;
    encodings(parameters)
}

fn codecs(codecs: &[RtpCodecParameters]) -> Result<(), NegotiationError> {
    if codecs.is_empty() {
        return refused("rtpParameters.codecs".to_owned(), "at least one codec is needed");
    }
    count("rtpParameters.codecs", codecs.len(), limits::CODECS)?;
    let mut payload_types = HashSet::new();
    for (index, codec) in codecs.iter().enumerate() {
        let at = |field: &str| format!("rtpParameters.codecs[{index}].{field}");
        mime_type(|| at("mimeType"), &codec.mime_type)?;
        if codec.payload_type > 127 {
            return refused(at("payloadType"), "a payload type is 0 to 127");
        }
        if RTCP_LOOKALIKES.contains(&codec.payload_type) {
            return refused(at("payloadType"), "64 to 95 cannot be told from RTCP (RFC 5761)");
        }
        if !payload_types.insert(codec.payload_type) {
            return refused(at("payloadType"), "this payload type is used twice");
        }
        parameters(|| at("parameters"), &codec.parameters)?;
        feedback(|| at("rtcpFeedback"), &codec.rtcp_feedback)?;
    }
    Ok(())
}

fn extensions(extensions: &[RtpHeaderExtensionParameters]) -> Result<(), NegotiationError> {
    count("rtpParameters.headerExtensions", extensions.len(), limits::HEADER_EXTENSIONS)?;
    let (mut ids, mut uris) = (HashSet::new(), HashSet::new());
    for (index, extension) in extensions.iter().enumerate() {
        let at = |field: &str| format!("rtpParameters.headerExtensions[{index}].{field}");
        text(|| at("uri"), &extension.uri, limits::PARAMETER_TEXT_BYTES)?;
        extension_id(|| at("id"), extension.id)?;
        parameters(|| at("parameters"), &extension.parameters)?;
        if !ids.insert(extension.id) {
            return refused(at("id"), "this id is used twice");
        }
        if !uris.insert(extension.uri.as_str()) {
            return refused(at("uri"), "this extension is listed twice");
        }
    }
    Ok(())
}

fn encodings(parameters: &RtpParameters) -> Result<(), NegotiationError> {
    let encodings = &parameters.encodings;
    if encodings.is_empty() {
        return refused("rtpParameters.encodings".to_owned(), "at least one encoding is needed");
    }
    count("rtpParameters.encodings", encodings.len(), limits::ENCODINGS)?;
    let (mut ssrcs, mut rids) = (HashSet::new(), HashSet::new());
    for (index, encoding) in encodings.iter().enumerate() {
        let at = |field: &str| format!("rtpParameters.encodings[{index}].{field}");
        let own_ssrcs = [("ssrc", encoding.ssrc), ("rtx.ssrc", encoding.rtx.map(|rtx| rtx.ssrc))];
        for (field, ssrc) in own_ssrcs.into_iter().filter_map(|(field, ssrc)| Some((field, ssrc?))) {
            if ssrc == 0 || ssrc == PROBATOR_SSRC.0 {
                return refused(at(field), "SSRC 0 and SSRC 1234 (bandwidth probes) are reserved");
            }
            if !ssrcs.insert(ssrc) {
                return refused(at(field), "this SSRC is used twice");
            }
        }
        if let Some(rid) = &encoding.rid {
            text(|| at("rid"), rid, limits::RID_BYTES)?;
            if !rids.insert(rid) {
                return refused(at("rid"), "this rid is used twice");
            }
        }
        if let Some(mode) = &encoding.scalability_mode {
            text_or_empty(|| at("scalabilityMode"), mode, limits::PARAMETER_TEXT_BYTES)?;
        }
        numbers(&at, encoding)?;
        // Without either, only the mid could tell whose packet it is; that names a producer, not one of its encodings.
        let by_mid = encodings.len() == 1 && parameters.mid.is_some();
        if encoding.ssrc.is_none() && encoding.rid.is_none() && !by_mid {
            return refused(at("ssrc"), "an encoding needs an ssrc or a rid");
        }
    }
    Ok(())
}

fn numbers(at: &impl Fn(&str) -> String, encoding: &RtpEncoding) -> Result<(), NegotiationError> {
    let all = [
        ("maxBitrate", &encoding.max_bitrate),
        ("maxFramerate", &encoding.max_framerate),
        ("scaleResolutionDownBy", &encoding.scale_resolution_down_by),
    ];
    for (field, value) in all {
        if value.as_ref().and_then(Number::as_f64).is_some_and(|value| !value.is_finite() || value < 0.0) {
            return refused(at(field), "must not be negative");
        }
    }
    Ok(())
}

fn parameters(at: impl Fn() -> String, parameters: &CodecParameters) -> Result<(), NegotiationError> {
    if parameters.len() > limits::CODEC_PARAMETERS {
        return refused(at(), format!("has {} entries, at most {}", parameters.len(), limits::CODEC_PARAMETERS));
    }
    for (name, value) in parameters {
        // The name may be as hostile as the value, so it is measured before it is put into a message.
        text_or_empty(&at, name, limits::PARAMETER_TEXT_BYTES)?;
        match value {
            Value::String(value) => {
                text_or_empty(|| format!("{}.{name}", at()), value, limits::PARAMETER_TEXT_BYTES)?;
            }
            Value::Number(_) | Value::Bool(_) => {}
            _ => return refused(format!("{}.{name}", at()), "must be a text, a number or a truth value"),
        }
    }
    Ok(())
}

fn feedback(at: impl Fn() -> String, feedback: &[RtcpFeedback]) -> Result<(), NegotiationError> {
    if feedback.len() > limits::RTCP_FEEDBACKS {
        return refused(at(), format!("has {} entries, at most {}", feedback.len(), limits::RTCP_FEEDBACKS));
    }
    for entry in feedback {
        text(&at, &entry.feedback_type, limits::PARAMETER_TEXT_BYTES)?;
        text_or_empty(&at, &entry.parameter, limits::PARAMETER_TEXT_BYTES)?;
    }
    Ok(())
}

fn mime_type(at: impl Fn() -> String, mime_type: &str) -> Result<(), NegotiationError> {
    text(&at, mime_type, limits::PARAMETER_TEXT_BYTES)?;
    match mime_type.split_once('/') {
        Some((kind, name)) if !name.is_empty() && ["audio", "video"].iter().any(|k| kind.eq_ignore_ascii_case(k)) => {
            Ok(())
        }
        _ => refused(at(), "must read audio/<name> or video/<name>"),
    }
}

fn extension_id(at: impl Fn() -> String, id: u16) -> Result<(), NegotiationError> {
    if (1..=255).contains(&id) { Ok(()) } else { refused(at(), "an extension id is 1 to 255") }
}

fn text(at: impl Fn() -> String, text: &str, bytes: usize) -> Result<(), NegotiationError> {
    if text.is_empty() { refused(at(), "must not be empty") } else { text_or_empty(at, text, bytes) }
}

fn text_or_empty(at: impl Fn() -> String, text: &str, bytes: usize) -> Result<(), NegotiationError> {
    if text.len() > bytes {
        return refused(at(), format!("is {} bytes long, at most {bytes}", text.len()));
    }
    Ok(())
}

fn count(field: &str, entries: usize, most: usize) -> Result<(), NegotiationError> {
    if entries > most {
        return refused(field.to_owned(), format!("has {entries} entries, at most {most}"));
    }
    Ok(())
}

fn refused<T>(field: String, problem: impl Into<String>) -> Result<T, NegotiationError> {
    Err(NegotiationError::BadRequest { field, problem: problem.into() })
}
