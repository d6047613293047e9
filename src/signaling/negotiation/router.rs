//! What the router offers: one table of codecs, one of header extensions, and the capabilities made of them.
//!
//! A codec becomes available by a row in [`ROUTER_CODECS`]; payload types, RTX entries and feedback
//! follow from it. The order counts: mediasoup-client produces with the first codec of a kind, and
//! expects a codec's RTX right behind it. Must never depend on a client.

use std::sync::LazyLock;

use serde_json::Value;

use super::matching::{CodecView, same_codec};
use super::parameters::{
    CodecParameters, ExtensionDirection, RtcpFeedback, RtpCapabilities, RtpCodecCapability,
    RtpHeaderExtensionCapability,
};
use crate::packet::extension::Extension;
use crate::shard::command::{Codec, Kind};

/// A codec of the router, with the parameters that tell its forms apart.
#[derive(Clone, Copy, Debug)]
pub struct CodecRow {
    pub codec: Codec,
    pub parameters: &'static [(&'static str, ParameterValue)],
}

#[derive(Clone, Copy, Debug)]
pub enum ParameterValue {
    Number(u32),
    Text(&'static str),
}

/// What every room carries. VP8 stays the first of its kind: it is what a client sends that does not choose, and the only
/// one of which every browser both sends and shows several qualities at once. Profiles are those that all browsers share.
pub const ROUTER_CODECS: &[CodecRow] = &[
    CodecRow { codec: Codec::Opus, parameters: &[] },
    CodecRow { codec: Codec::Vp8, parameters: &[] },
    CodecRow { codec: Codec::Vp9, parameters: &[("profile-id", ParameterValue::Number(0))] },
    CodecRow {
        codec: Codec::H264,
        parameters: &[
            ("level-asymmetry-allowed", ParameterValue::Number(1)),
            ("packetization-mode", ParameterValue::Number(1)),
            ("profile-level-id", ParameterValue::Text("42e01f")),
        ],
    },
    CodecRow { codec: Codec::Av1, parameters: &[("profile", ParameterValue::Number(0))] },
];

/// 127 is the payload type of the client's bandwidth probes ("probator") and never given to a codec.
const DYNAMIC_PAYLOAD_TYPES: [std::ops::RangeInclusive<u8>; 2] = [100..=126, 96..=99];

const AUDIO_FEEDBACK: &[(&str, &str)] = &[("nack", ""), ("transport-cc", "")];
const VIDEO_FEEDBACK: &[(&str, &str)] =
    &[("nack", ""), ("nack", "pli"), ("ccm", "fir"), ("goog-remb", ""), ("transport-cc", "")];

/// Which way an extension may go for audio and for video, seen from the router. The ids of RID and of
/// repaired RID only mean something on the way in: a consumer has one stream. Transport-wide sequence
/// numbers are not offered to receivers of audio (mediasoup's own choice, which clients expect). Dependency descriptors go on to
/// receivers, which mediasoup's do not: of a layered stream of AV1 they say which frames belong together.
const ROUTER_EXTENSIONS: &[(Extension, Option<ExtensionDirection>, Option<ExtensionDirection>)] = {
    const BOTH: Option<ExtensionDirection> = Some(ExtensionDirection::SendRecv);
    const IN: Option<ExtensionDirection> = Some(ExtensionDirection::RecvOnly);
    &[
        (Extension::Mid, BOTH, BOTH),
        (Extension::RtpStreamId, None, IN),
        (Extension::RepairedRtpStreamId, None, IN),
        (Extension::AbsSendTime, BOTH, BOTH),
        (Extension::TransportCc, IN, BOTH),
        (Extension::AudioLevel, BOTH, None),
        (Extension::DependencyDescriptor, None, BOTH),
        (Extension::VideoOrientation, None, BOTH),
        (Extension::TransmissionOffset, None, BOTH),
        (Extension::AbsCaptureTime, BOTH, BOTH),
        (Extension::PlayoutDelay, BOTH, BOTH),
        (Extension::PacketId, BOTH, BOTH),
    ]
};

/// The router's capabilities with what negotiation looks up in them.
#[derive(Clone, Debug)]
pub struct Router {
    capabilities: RtpCapabilities,
    codecs: Vec<RouterCodec>,
}

/// A media codec of the router and where its entries stand in the capabilities.
#[derive(Clone, Copy, Debug)]
pub struct RouterCodec {
    pub codec: Codec,
    media: usize,
    rtx: Option<usize>,
}

impl Router {
    /// The router of every room.
    pub fn standard() -> &'static Router {
        static ROUTER: LazyLock<Router> = LazyLock::new(|| Router::with_codecs(ROUTER_CODECS));
        &ROUTER
    }

    /// # Panics
    /// When the rows need more payload types than the 31 dynamic ones: a mistake of the table.
    pub fn with_codecs(rows: &[CodecRow]) -> Router {
        let mut payload_types = DYNAMIC_PAYLOAD_TYPES.into_iter().flatten();
        let mut next = || payload_types.next().expect("fewer codec rows than dynamic payload types");
        let mut capabilities = RtpCapabilities { codecs: Vec::new(), header_extensions: extension_capabilities() };
        let mut codecs = Vec::new();
        for row in rows {
            let payload_type = next();
            let media = capabilities.codecs.len();
            capabilities.codecs.push(media_capability(row, payload_type));
            let rtx = (kind(row.codec) == Kind::Video).then(|| {
                capabilities.codecs.push(rtx_capability(next(), payload_type));
                media + 1
            });
            codecs.push(RouterCodec { codec: row.codec, media, rtx });
        }
        Router { capabilities, codecs }
    }

    pub fn capabilities(&self) -> &RtpCapabilities {
        &self.capabilities
    }

    /// The router's form of a client's media codec.
    pub fn find(&self, wanted: CodecView<'_>) -> Option<RouterCodec> {
        self.codecs.iter().copied().find(|entry| same_codec(wanted, self.media(*entry).into()))
    }

    pub fn media(&self, entry: RouterCodec) -> &RtpCodecCapability {
        &self.capabilities.codecs[entry.media]
    }

    pub fn rtx(&self, entry: RouterCodec) -> Option<&RtpCodecCapability> {
        entry.rtx.map(|index| &self.capabilities.codecs[index])
    }

    /// Extensions that a consumer of this kind may get, in the order of the router's ids.
    pub fn outward_extensions(&self, kind: Kind) -> impl Iterator<Item = (Extension, &RtpHeaderExtensionCapability)> {
        self.capabilities.header_extensions.iter().filter_map(move |capability| {
            let outward = matches!(capability.direction, ExtensionDirection::SendRecv | ExtensionDirection::SendOnly);
            let extension = Extension::from_uri(&capability.uri)?;
            (outward && capability.kind == Some(kind)).then_some((extension, capability))
        })
    }
}

pub fn kind(codec: Codec) -> Kind {
    match codec {
        Codec::Opus => Kind::Audio,
        Codec::Vp8 | Codec::Vp9 | Codec::H264 | Codec::Av1 => Kind::Video,
    }
}

fn mime_type(codec: Codec) -> &'static str {
    match codec {
        Codec::Opus => "audio/opus",
        Codec::Vp8 => "video/VP8",
        Codec::Vp9 => "video/VP9",
        Codec::H264 => "video/H264",
        Codec::Av1 => "video/AV1",
    }
}

fn media_capability(row: &CodecRow, payload_type: u8) -> RtpCodecCapability {
    let kind = kind(row.codec);
    let (clock_rate, channels, feedback) = match kind {
        Kind::Audio => (48_000, Some(2), AUDIO_FEEDBACK),
        Kind::Video => (90_000, None, VIDEO_FEEDBACK),
    };
    let parameters = row.parameters.iter().map(|(name, value)| {
        let value = match value {
            ParameterValue::Number(number) => Value::from(*number),
            ParameterValue::Text(text) => Value::from(*text),
        };
        (name.to_string(), value)
    });
    RtpCodecCapability {
        kind,
        mime_type: mime_type(row.codec).to_owned(),
        preferred_payload_type: Some(payload_type),
        clock_rate,
        channels,
        parameters: parameters.collect(),
        rtcp_feedback: feedback
            .iter()
            .map(|(feedback_type, parameter)| RtcpFeedback {
                feedback_type: feedback_type.to_string(),
                parameter: parameter.to_string(),
            })
            .collect(),
    }
}

fn rtx_capability(payload_type: u8, media_payload_type: u8) -> RtpCodecCapability {
    let mut parameters = CodecParameters::new();
    parameters.insert("apt".to_owned(), media_payload_type.into());
    RtpCodecCapability {
        kind: Kind::Video,
        mime_type: "video/rtx".to_owned(),
        preferred_payload_type: Some(payload_type),
        clock_rate: 90_000,
        channels: None,
        parameters,
        rtcp_feedback: Vec::new(),
    }
}

fn extension_capabilities() -> Vec<RtpHeaderExtensionCapability> {
    let entry = |extension: Extension, kind, direction: Option<ExtensionDirection>| {
        direction.map(|direction| RtpHeaderExtensionCapability {
            kind: Some(kind),
            uri: extension.uri().to_owned(),
            preferred_id: extension.router_id().into(),
            preferred_encrypt: false,
            direction,
        })
    };
    ROUTER_EXTENSIONS
        .iter()
        .flat_map(|(extension, audio, video)| {
            [entry(*extension, Kind::Audio, *audio), entry(*extension, Kind::Video, *video)]
        })
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::matching::is_rtx;
    use super::*;

    #[test]
    fn the_capabilities_are_those_that_mediasoup_answers() {
        // Of a mediasoup router with Opus and VP8. Ours gives dependency descriptors to receivers too.
        let mut ours = Router::with_codecs(&ROUTER_CODECS[..2]).capabilities;
        let descriptors =
            ours.header_extensions.iter_mut().filter(|entry| entry.uri == Extension::DependencyDescriptor.uri());
        descriptors.for_each(|entry| entry.direction = ExtensionDirection::RecvOnly);
        let fixture: Value =
            serde_json::from_str(include_str!("../../../tests/fixtures/router-rtpCapabilities.mediasoup-3.27.1.json"))
                .unwrap();
        assert_eq!(serde_json::to_value(ours).unwrap(), fixture);
    }

    #[test]
    fn the_other_codecs_stand_behind_and_move_no_payload_type() {
        let codecs = &Router::standard().capabilities().codecs;
        let listed: Vec<_> =
            codecs.iter().map(|codec| (codec.mime_type.as_str(), codec.preferred_payload_type.unwrap())).collect();
        assert_eq!(
            listed,
            [
                ("audio/opus", 100),
                ("video/VP8", 101),
                ("video/rtx", 102),
                ("video/VP9", 103),
                ("video/rtx", 104),
                ("video/H264", 105),
                ("video/rtx", 106),
                ("video/AV1", 107),
                ("video/rtx", 108),
            ]
        );
    }

    #[test]
    fn payload_type_127_is_kept_free_however_long_the_table() {
        let rows = [CodecRow { codec: Codec::Vp8, parameters: &[] }; 15];
        let router = Router::with_codecs(&rows);
        let payload_types: Vec<u8> =
            router.capabilities().codecs.iter().filter_map(|codec| codec.preferred_payload_type).collect();
        assert_eq!(payload_types.len(), 30);
        assert!(payload_types.iter().all(|payload_type| (96..127).contains(payload_type)));
        assert_eq!(payload_types.iter().collect::<std::collections::HashSet<_>>().len(), 30);
    }

    #[test]
    fn every_video_codec_is_followed_by_its_rtx() {
        let rows = [CodecRow { codec: Codec::Vp8, parameters: &[] }, CodecRow { codec: Codec::Av1, parameters: &[] }];
        let router = Router::with_codecs(&rows);
        for pair in router.capabilities().codecs.chunks(2) {
            assert!(is_rtx(&pair[1].mime_type));
            assert_eq!(pair[1].parameters["apt"], Value::from(pair[0].preferred_payload_type.unwrap()));
        }
    }

    #[test]
    fn an_extension_has_one_id_for_both_kinds_in_the_one_byte_range() {
        let capabilities = Router::standard().capabilities();
        for a in &capabilities.header_extensions {
            assert!((1..=14).contains(&a.preferred_id));
            for b in &capabilities.header_extensions {
                assert_eq!(a.uri == b.uri, a.preferred_id == b.preferred_id);
            }
        }
    }
}
