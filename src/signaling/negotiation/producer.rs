//! A request to produce: the browser's own payload types and ids in, the shard's spec and the
//! router's view of the same media (`consumable`) out.

use serde_json::Number;

use super::matching::{associated_payload_type, is_rtx, number};
use super::parameters::{
    CodecMapping, EncodingMapping, ProducerType, Rtcp, RtcpFeedback, RtpCodecParameters, RtpEncoding,
    RtpHeaderExtensionParameters, RtpMapping, RtpParameters,
};
use super::router::{self, Router, RouterCodec};
use super::scalability::{self, Layering};
use super::{NegotiationError, PROBATOR_SSRC, h264, validate};
use crate::ids::{ProducerId, Ssrc};
use crate::packet::extension::{Extension, ExtensionMap};
use crate::shard::command::{Codec, EncodingSpec, Feedback, Kind, ProducerSpec, SourceClass};

/// A producer as the control plane keeps it: enough to answer every consumer.
#[derive(Clone, Debug)]
pub struct NegotiatedProducer {
    /// For the shard; `spec.cname` is to be kept for the transport's later producers.
    pub spec: ProducerSpec,
    pub mapping: RtpMapping,
    /// The producer in the router's numbers; what consumers are made of.
    pub consumable: RtpParameters,
    pub kind: Kind,
    pub producer_type: ProducerType,
}

/// What a request to produce does not carry itself.
pub struct ProducerContext<'a> {
    /// The CNAME of the transport's first producer: later ones share it, so that receivers keep
    /// picture and sound in step.
    pub cname: Option<&'a str>,
    pub class: SourceClass,
    pub paused: bool,
    /// Random numbers, for SSRCs inside the router and for a CNAME where the browser brings none.
    pub random: &'a mut dyn FnMut() -> u32,
}

pub(super) fn negotiate(
    router: &Router,
    id: ProducerId,
    kind: Kind,
    parameters: RtpParameters,
    mut context: ProducerContext<'_>,
) -> Result<NegotiatedProducer, NegotiationError> {
    validate::producer_parameters(&parameters)?;
    let codecs = match_codecs(router, kind, &parameters)?;
    let cname = cname(&parameters, &mut context);
    let extensions = extension_map(&parameters.header_extensions);
    let encodings = encoding_specs(&parameters, &codecs)?;
    let mapping = RtpMapping {
        codecs: codecs.mapping.clone(),
        encodings: encoding_mapping(&parameters.encodings, context.random),
    };
    let consumable = consumable(router, &parameters, &codecs, &mapping, &cname);
    let producer_type = producer_type(codecs.entry.codec, &encodings);
    let spec = ProducerSpec {
        id,
        kind,
        codec: codecs.entry.codec,
        class: context.class,
        mid: parameters.mid,
        payload_type: codecs.media.payload_type,
        rtx_payload_type: codecs.rtx_payload_type,
        clock_rate: codecs.media.clock_rate,
        encodings,
        feedback: agreed_feedback(&codecs.media.rtcp_feedback, router.media(codecs.entry), &extensions),
        extensions,
        cname,
        paused: context.paused,
    };
    Ok(NegotiatedProducer { spec, mapping, consumable, kind, producer_type })
}

/// The codec that the producer sends, and the router's names for everything it listed.
struct MatchedCodecs {
    entry: RouterCodec,
    media: RtpCodecParameters,
    rtx_payload_type: Option<u8>,
    mapping: Vec<CodecMapping>,
}

fn match_codecs(router: &Router, kind: Kind, parameters: &RtpParameters) -> Result<MatchedCodecs, NegotiationError> {
    let listed = |rtx| parameters.codecs.iter().enumerate().filter(move |(_, codec)| is_rtx(&codec.mime_type) == rtx);
    let mut matched: Vec<(u8, RouterCodec)> = Vec::new();
    let mut mapping = Vec::new();
    for (index, codec) in listed(false) {
        let entry = router.find(codec.into()).filter(|entry| router::kind(entry.codec) == kind);
        let entry = entry.ok_or_else(|| unsupported(index, codec))?;
        matched.push((codec.payload_type, entry));
        mapping.push(map(codec, router.media(entry).preferred_payload_type));
    }
    for (index, codec) in listed(true) {
        let media = associated_payload_type(&codec.parameters);
        let media = matched.iter().find(|(payload_type, _)| Some(*payload_type) == media);
        let (_, entry) = media.ok_or_else(|| NegotiationError::BadRequest {
            field: format!("rtpParameters.codecs[{index}].parameters.apt"),
            problem: "no media codec of the request has this payload type".to_owned(),
        })?;
        let rtx = router.rtx(*entry).filter(|rtx| rtx.clock_rate == codec.clock_rate);
        let rtx = rtx.ok_or_else(|| unsupported(index, codec))?;
        mapping.push(map(codec, rtx.preferred_payload_type));
    }
    let sent = sent_payload_type(parameters, &matched)?;
    let mut media =
        parameters.codecs.iter().find(|codec| codec.payload_type == sent.0).cloned().ok_or_else(no_media)?;
    if sent.1.codec == Codec::H264 {
        match h264::answered_profile_level_id(&media.parameters, &router.media(sent.1).parameters) {
            Some(id) => media.parameters.insert("profile-level-id".to_owned(), id),
            None => media.parameters.remove("profile-level-id"),
        };
    }
    let rtx = listed(true).find(|(_, codec)| associated_payload_type(&codec.parameters) == Some(sent.0));
    Ok(MatchedCodecs { entry: sent.1, media, rtx_payload_type: rtx.map(|(_, codec)| codec.payload_type), mapping })
}

/// The payload type of the media: what the encodings name, or the first codec of the list.
fn sent_payload_type(
    parameters: &RtpParameters,
    matched: &[(u8, RouterCodec)],
) -> Result<(u8, RouterCodec), NegotiationError> {
    let first = *matched.first().ok_or_else(no_media)?;
    let mut chosen = None;
    for (index, payload_type) in parameters
        .encodings
        .iter()
        .enumerate()
        .filter_map(|(index, encoding)| Some((index, encoding.codec_payload_type?)))
    {
        let named = matched.iter().find(|(known, _)| *known == payload_type);
        match (named, chosen) {
            (Some(named), None) => chosen = Some(*named),
            (Some(named), Some((earlier, _))) if named.0 == earlier => {}
            _ => {
                return Err(NegotiationError::BadRequest {
                    field: format!("rtpParameters.encodings[{index}].codecPayloadType"),
                    problem: "all encodings must name one media codec of the request".to_owned(),
                });
            }
        }
    }
    Ok(chosen.unwrap_or(first))
}

fn no_media() -> NegotiationError {
    NegotiationError::BadRequest {
        field: "rtpParameters.codecs".to_owned(),
        problem: "there is no media codec, only RTX".to_owned(),
    }
}

fn unsupported(index: usize, codec: &RtpCodecParameters) -> NegotiationError {
    NegotiationError::UnsupportedCodec {
        field: format!("rtpParameters.codecs[{index}]"),
        codec: match codec.channels {
            Some(channels) => format!("{} at {} Hz with {channels} channels", codec.mime_type, codec.clock_rate),
            None => format!("{} at {} Hz with these parameters", codec.mime_type, codec.clock_rate),
        },
    }
}

fn map(codec: &RtpCodecParameters, router_payload_type: Option<u8>) -> CodecMapping {
    CodecMapping {
        payload_type: codec.payload_type,
        mapped_payload_type: router_payload_type.unwrap_or(codec.payload_type),
    }
}

/// The transport's CNAME wins over the request's; Chromium's simulcast brings an empty one.
fn cname(parameters: &RtpParameters, context: &mut ProducerContext<'_>) -> String {
    let own = parameters.rtcp.cname.as_deref().filter(|cname| !cname.is_empty());
    match context.cname.or(own) {
        Some(cname) => cname.to_owned(),
        None => format!("{:08x}", (context.random)()),
    }
}

/// Extensions that Ringside knows. One that the browser encrypts (RFC 6904) cannot be read and is left out.
fn extension_map(extensions: &[RtpHeaderExtensionParameters]) -> ExtensionMap {
    let mut map = ExtensionMap::default();
    for extension in extensions.iter().filter(|extension| !extension.encrypt) {
        if let (Ok(id), Some(known)) = (u8::try_from(extension.id), Extension::from_uri(&extension.uri)) {
            map.insert(id, known);
        }
    }
    map
}

fn encoding_specs(parameters: &RtpParameters, codecs: &MatchedCodecs) -> Result<Vec<EncodingSpec>, NegotiationError> {
    let silent = number(&codecs.media.parameters, "usedtx") == Some(1);
    let spec = |(index, encoding): (usize, &RtpEncoding)| {
        let layering = layering(index, encoding, codecs.entry.codec)?;
        Ok(EncodingSpec {
            ssrc: encoding.ssrc.map(Ssrc),
            rtx_ssrc: encoding.rtx.filter(|_| codecs.rtx_payload_type.is_some()).map(|rtx| Ssrc(rtx.ssrc)),
            rid: encoding.rid.clone(),
            max_bitrate_bps: encoding.max_bitrate.as_ref().and_then(whole_bps),
            spatial_layers: layering.spatial,
            temporal_layers: layering.temporal,
            dtx: silent || encoding.dtx == Some(true),
        })
    };
    parameters.encodings.iter().enumerate().map(spec).collect()
}

fn layering(index: usize, encoding: &RtpEncoding, codec: Codec) -> Result<Layering, NegotiationError> {
    let mode = encoding.scalability_mode.as_deref().unwrap_or("");
    let layering = scalability::parse(mode).map_err(|_| NegotiationError::BadRequest {
        field: format!("rtpParameters.encodings[{index}].scalabilityMode"),
        problem: "more layers than 4 spatial and 4 temporal".to_owned(),
    })?;
    let layering = layering.unwrap_or(scalability::PLAIN);
    // A stream of VP8 or H.264 has one picture size, whatever a client writes.
    let spatial = if layered_in_one_stream(codec) { layering.spatial } else { 1 };
    Ok(Layering { spatial, ..layering })
}

fn layered_in_one_stream(codec: Codec) -> bool {
    matches!(codec, Codec::Vp9 | Codec::Av1)
}

/// 0 means no cap.
fn whole_bps(bitrate: &Number) -> Option<u32> {
    bitrate.as_f64().map(|bps| bps as u32).filter(|bps| *bps > 0)
}

fn encoding_mapping(encodings: &[RtpEncoding], random: &mut dyn FnMut() -> u32) -> Vec<EncodingMapping> {
    let mut next = random();
    let mut mapped_ssrc = || {
        while next == 0 || next == PROBATOR_SSRC.0 {
            next = next.wrapping_add(1);
        }
        let mapped = next;
        next = next.wrapping_add(1);
        mapped
    };
    encodings
        .iter()
        .map(|encoding| EncodingMapping { rid: encoding.rid.clone(), ssrc: encoding.ssrc, mapped_ssrc: mapped_ssrc() })
        .collect()
}

fn producer_type(codec: Codec, encodings: &[EncodingSpec]) -> ProducerType {
    match encodings {
        [only] if only.spatial_layers > 1 && layered_in_one_stream(codec) => ProducerType::Svc,
        [_] => ProducerType::Simple,
        _ => ProducerType::Simulcast,
    }
}

/// Feedback that both list. Transport-cc needs its header extension, REMB needs absolute send times:
/// a producer in a recycled m-section can lack either.
fn agreed_feedback(
    offered: &[RtcpFeedback],
    router: &super::RtpCodecCapability,
    extensions: &ExtensionMap,
) -> Feedback {
    let has = |list: &[RtcpFeedback], feedback_type: &str, parameter: &str| {
        list.iter().any(|entry| entry.feedback_type == feedback_type && entry.parameter == parameter)
    };
    let both = |feedback_type, parameter| {
        has(offered, feedback_type, parameter) && has(&router.rtcp_feedback, feedback_type, parameter)
    };
    Feedback {
        nack: both("nack", ""),
        pli: both("nack", "pli"),
        fir: both("ccm", "fir"),
        transport_cc: both("transport-cc", "") && extensions.id(Extension::TransportCc).is_some(),
        remb: both("goog-remb", "") && extensions.id(Extension::AbsSendTime).is_some(),
    }
}

fn consumable(
    router: &Router,
    parameters: &RtpParameters,
    codecs: &MatchedCodecs,
    mapping: &RtpMapping,
    cname: &str,
) -> RtpParameters {
    // The browser's own codec parameters go on to the receivers; everything else is the router's.
    let media = router.media(codecs.entry);
    let media_codec = RtpCodecParameters { parameters: codecs.media.parameters.clone(), ..in_router_terms(media) };
    let rtx = router.rtx(codecs.entry).map(in_router_terms);
    let encodings = parameters.encodings.iter().zip(&mapping.encodings).map(|(encoding, mapped)| RtpEncoding {
        ssrc: Some(mapped.mapped_ssrc),
        rid: None,
        rtx: None,
        codec_payload_type: None,
        ..encoding.clone()
    });
    RtpParameters {
        mid: None,
        codecs: std::iter::once(media_codec).chain(rtx).collect(),
        header_extensions: consumable_extensions(router, codecs.entry.codec, &parameters.header_extensions),
        encodings: encodings.collect(),
        rtcp: Rtcp { cname: Some(cname.to_owned()), reduced_size: true },
        msid: parameters.msid.clone(),
    }
}

fn in_router_terms(codec: &super::RtpCodecCapability) -> RtpCodecParameters {
    RtpCodecParameters {
        mime_type: codec.mime_type.clone(),
        payload_type: codec.preferred_payload_type.unwrap_or_default(),
        clock_rate: codec.clock_rate,
        channels: codec.channels,
        parameters: codec.parameters.clone(),
        rtcp_feedback: codec.rtcp_feedback.clone(),
    }
}

/// Absolute capture times and dependency descriptors are the source's to give, so they are offered only where the producer has
/// them; the latter of AV1 alone, because in what is sent of the other codecs the payload says as much.
fn consumable_extensions(
    router: &Router,
    codec: Codec,
    offered: &[RtpHeaderExtensionParameters],
) -> Vec<RtpHeaderExtensionParameters> {
    let given = |extension: Extension| offered.iter().any(|offer| offer.uri == extension.uri());
    let is_offered = |extension: Extension| match extension {
        Extension::AbsCaptureTime => given(extension),
        Extension::DependencyDescriptor => given(extension) && codec == Codec::Av1,
        _ => true,
    };
    router
        .outward_extensions(router::kind(codec))
        .filter(|(extension, _)| is_offered(*extension))
        .map(|(_, capability)| RtpHeaderExtensionParameters {
            uri: capability.uri.clone(),
            id: capability.preferred_id,
            encrypt: capability.preferred_encrypt,
            parameters: Default::default(),
        })
        .collect()
}
