//! A request to consume: a producer in the router's numbers and a client's capabilities in, the
//! shard's spec and the parameters that the client builds its m-section from out.

use serde_json::Number;

use super::matching::{associated_payload_type, is_rtx, same_codec};
use super::parameters::{
    RtcpFeedback, RtpCapabilities, RtpCodecCapability, RtpCodecParameters, RtpEncoding, RtpHeaderExtensionParameters,
    RtpParameters, RtxEncoding,
};
use super::producer::NegotiatedProducer;
use super::{NegotiationError, scalability, validate};
use crate::ids::{ConsumerId, Ssrc};
use crate::limits;
use crate::packet::extension::{Extension, ExtensionSet};
use crate::shard::command::{ConsumerSpec, Feedback, Kind, Layers};

/// The two forms of an answer to `consume`: for the shard and for the client.
#[derive(Clone, Debug)]
pub struct NegotiatedConsumer {
    pub spec: ConsumerSpec,
    pub rtp_parameters: RtpParameters,
}

/// What the caller decides for a consumer.
#[derive(Clone, Debug)]
pub struct ConsumerContext {
    /// Unique on the transport, 1 to 8 bytes; a counter will do.
    pub mid: String,
    /// Unique on the transport, not 0 and not [`PROBATOR_SSRC`](super::PROBATOR_SSRC).
    pub ssrc: Ssrc,
    /// As `ssrc`; `ssrc` + 1 by custom. Unused where there is no RTX.
    pub rtx_ssrc: Ssrc,
    pub paused: bool,
    /// 1 (least) to 255 (most).
    pub priority: u8,
    pub preferred: Option<Layers>,
}

pub(super) fn can_consume(producer: &NegotiatedProducer, caps: &RtpCapabilities) -> bool {
    media_codec(producer).is_some_and(|codec| capability_for(codec, caps).is_some())
}

pub(super) fn negotiate(
    id: ConsumerId,
    producer: &NegotiatedProducer,
    caps: &RtpCapabilities,
    context: ConsumerContext,
) -> Result<NegotiatedConsumer, NegotiationError> {
    validate::capabilities(caps)?;
    debug_assert!((1..=limits::MID_BYTES).contains(&context.mid.len()), "mids are handed out by the caller");
    let extensions = shared_extensions(&producer.consumable.header_extensions, caps);
    let set: ExtensionSet = extensions.iter().filter_map(|extension| Extension::from_uri(&extension.uri)).collect();
    let codecs = shared_codecs(producer, caps, set)?;
    let rtx_payload_type = codecs.get(1).map(|rtx| rtx.payload_type);
    let spec = ConsumerSpec {
        id,
        producer: producer.spec.id,
        payload_type: codecs[0].payload_type,
        rtx_payload_type,
        ssrc: context.ssrc,
        rtx_ssrc: rtx_payload_type.map(|_| context.rtx_ssrc),
        mid: context.mid.clone(),
        extensions: set,
        feedback: feedback(&codecs[0].rtcp_feedback),
        cname: producer.spec.cname.clone(),
        paused: context.paused,
        priority: context.priority,
        preferred: context.preferred,
    };
    let rtp_parameters = RtpParameters {
        mid: Some(context.mid),
        codecs,
        header_extensions: extensions,
        encodings: vec![encoding(producer, &spec)],
        rtcp: producer.consumable.rtcp.clone(),
        msid: producer.consumable.msid.clone(),
    };
    Ok(NegotiatedConsumer { spec, rtp_parameters })
}

/// Retransmission is for video: a lost packet of Opus is concealed before its resend could arrive.
fn wants_rtx(kind: Kind) -> bool {
    kind == Kind::Video
}

fn media_codec(producer: &NegotiatedProducer) -> Option<&RtpCodecParameters> {
    producer.consumable.codecs.iter().find(|codec| !is_rtx(&codec.mime_type))
}

fn capability_for<'a>(codec: &RtpCodecParameters, caps: &'a RtpCapabilities) -> Option<&'a RtpCodecCapability> {
    caps.codecs.iter().find(|capability| same_codec((*capability).into(), codec.into()))
}

/// The RTX entry of the client that belongs to its own entry for the media codec.
fn rtx_capability_for<'a>(media: &RtpCodecCapability, caps: &'a RtpCapabilities) -> Option<&'a RtpCodecCapability> {
    caps.codecs.iter().find(|capability| {
        is_rtx(&capability.mime_type)
            && capability.clock_rate == media.clock_rate
            && (media.preferred_payload_type.is_none()
                || associated_payload_type(&capability.parameters) == media.preferred_payload_type)
    })
}

/// The media codec, then its RTX where both sides have it; feedback is what the *client* lists.
fn shared_codecs(
    producer: &NegotiatedProducer,
    caps: &RtpCapabilities,
    extensions: ExtensionSet,
) -> Result<Vec<RtpCodecParameters>, NegotiationError> {
    let no_codec = || NegotiationError::CannotConsume {
        codec: media_codec(producer).map_or_else(String::new, |codec| codec.mime_type.clone()),
    };
    let media = media_codec(producer).ok_or_else(no_codec)?;
    let capability = capability_for(media, caps).ok_or_else(no_codec)?;
    let rtx_enabled = wants_rtx(producer.kind);
    let with_feedback = |codec: &RtpCodecParameters, capability: &RtpCodecCapability| RtpCodecParameters {
        rtcp_feedback: reduced(&capability.rtcp_feedback, rtx_enabled, extensions),
        ..codec.clone()
    };
    let mut codecs = vec![with_feedback(media, capability)];
    let rtx = producer.consumable.codecs.iter().find(|codec| is_rtx(&codec.mime_type)).filter(|_| rtx_enabled);
    if let (Some(rtx), Some(rtx_capability)) = (rtx, rtx_capability_for(capability, caps)) {
        codecs.push(with_feedback(rtx, rtx_capability));
    }
    Ok(codecs)
}

/// One way of estimating bandwidth: transport-cc where the receiver gets its sequence numbers, REMB
/// where it gets send times, else none. Without RTX there is no plain NACK either.
fn reduced(feedback: &[RtcpFeedback], rtx_enabled: bool, extensions: ExtensionSet) -> Vec<RtcpFeedback> {
    let transport_cc = extensions.contains(Extension::TransportCc);
    let remb = !transport_cc && extensions.contains(Extension::AbsSendTime);
    let kept = |entry: &&RtcpFeedback| match entry.feedback_type.as_str() {
        "transport-cc" => transport_cc,
        "goog-remb" => remb,
        "nack" => rtx_enabled || !entry.parameter.is_empty(),
        _ => true,
    };
    feedback.iter().filter(kept).cloned().collect()
}

/// The consumable extensions that the client has under the same URI *and* id. The kind is not
/// compared: Chromium lists mid and send times for video only and uses them for audio too.
fn shared_extensions(
    consumable: &[RtpHeaderExtensionParameters],
    caps: &RtpCapabilities,
) -> Vec<RtpHeaderExtensionParameters> {
    let shared = |extension: &&RtpHeaderExtensionParameters| {
        caps.header_extensions.iter().any(|cap| cap.preferred_id == extension.id && cap.uri == extension.uri)
    };
    consumable.iter().filter(shared).cloned().collect()
}

fn feedback(list: &[RtcpFeedback]) -> Feedback {
    let has = |feedback_type: &str, parameter: &str| {
        list.iter().any(|entry| entry.feedback_type == feedback_type && entry.parameter == parameter)
    };
    Feedback {
        nack: has("nack", ""),
        pli: has("nack", "pli"),
        fir: has("ccm", "fir"),
        transport_cc: has("transport-cc", ""),
        remb: has("goog-remb", ""),
    }
}

/// The one stream that the client sees, whatever the producer's encodings are.
fn encoding(producer: &NegotiatedProducer, spec: &ConsumerSpec) -> RtpEncoding {
    let encodings = &producer.consumable.encodings;
    let max_bitrate = encodings
        .iter()
        .filter_map(|encoding| encoding.max_bitrate.as_ref())
        .max_by(|a, b| value(a).total_cmp(&value(b)))
        .filter(|bitrate| value(bitrate) > 0.0);
    RtpEncoding {
        ssrc: Some(spec.ssrc.0),
        rtx: spec.rtx_ssrc.map(|ssrc| RtxEncoding { ssrc: ssrc.0 }),
        scalability_mode: scalability_mode(producer),
        max_bitrate: max_bitrate.cloned(),
        ..RtpEncoding::default()
    }
}

fn value(number: &Number) -> f64 {
    number.as_f64().unwrap_or(0.0)
}

/// Simulcast is shown as spatial layers of one stream; a single encoding keeps its own mode.
fn scalability_mode(producer: &NegotiatedProducer) -> Option<String> {
    let encodings = &producer.spec.encodings;
    if encodings.len() > 1 {
        let temporal = encodings.iter().map(|encoding| encoding.temporal_layers).max();
        return Some(format!("L{}T{}", encodings.len(), temporal.unwrap_or(scalability::PLAIN.temporal)));
    }
    let mode = producer.consumable.encodings.first()?.scalability_mode.clone()?;
    (!mode.is_empty()).then_some(mode)
}
