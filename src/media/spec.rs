//! What two ends agreed on for a stream, in the terms of the data path: kinds, codecs, layers, and the shapes
//! in which negotiation hands producers and consumers to a shard.

use std::time::Duration;

use crate::ids::{ConsumerId, ProducerId, Ssrc};
use crate::limits::{AUDIO_KEPT, VIDEO_KEPT};
pub use crate::packet::codec::Codec;
use crate::packet::extension::{ExtensionMap, ExtensionSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Audio,
    Video,
}

impl Kind {
    /// How long a packet can be asked for again.
    pub fn kept(self) -> Duration {
        match self {
            Kind::Audio => AUDIO_KEPT,
            Kind::Video => VIDEO_KEPT,
        }
    }
}

/// Where the client library of mediasoup expects probes for bandwidth: it adds an m-line of its own for them. No stream may
/// have this SSRC, and no codec this payload type.
pub const PROBATOR_SSRC: Ssrc = Ssrc(1234);
pub const PROBATOR_PAYLOAD_TYPE: u8 = 127;

/// What a source sends; decides how often a key frame may be asked for, and who gets bandwidth first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceClass {
    Microphone,
    Camera,
    ScreenShare,
}

/// Which feedback the two ends agreed on (the `rtcpFeedback` of the codec).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Feedback {
    pub nack: bool,
    pub pli: bool,
    pub fir: bool,
    pub transport_cc: bool,
    pub remb: bool,
}

/// A producer as negotiated: payload types and extension ids are the *browser's own*.
#[derive(Clone, Debug)]
pub struct ProducerSpec {
    pub id: ProducerId,
    pub kind: Kind,
    pub codec: Codec,
    pub class: SourceClass,
    pub mid: Option<String>,
    pub payload_type: u8,
    pub rtx_payload_type: Option<u8>,
    pub clock_rate: u32,
    /// Lowest quality first, as in the request; 1 to 3.
    pub encodings: Vec<EncodingSpec>,
    pub extensions: ExtensionMap,
    pub feedback: Feedback,
    pub cname: String,
    pub paused: bool,
}

#[derive(Clone, Debug, Default)]
pub struct EncodingSpec {
    pub ssrc: Option<Ssrc>,
    pub rtx_ssrc: Option<Ssrc>,
    pub rid: Option<String>,
    pub max_bitrate_bps: Option<u32>,
    /// 1 to 4, from `scalabilityMode`.
    pub spatial_layers: u8,
    /// 1 to 4, from `scalabilityMode`.
    pub temporal_layers: u8,
    /// The source may fall silent without being gone (screen share).
    pub dtx: bool,
}

/// A consumer as negotiated: payload types and extension ids are the *router's*.
#[derive(Clone, Debug)]
pub struct ConsumerSpec {
    pub id: ConsumerId,
    pub producer: ProducerId,
    pub payload_type: u8,
    pub rtx_payload_type: Option<u8>,
    pub ssrc: Ssrc,
    pub rtx_ssrc: Option<Ssrc>,
    /// Unique on the transport, at most 8 bytes; written into every packet.
    pub mid: String,
    pub extensions: ExtensionSet,
    pub feedback: Feedback,
    pub cname: String,
    pub paused: bool,
    /// 1 (least) to 255 (most).
    pub priority: u8,
    /// What the client wants at most; `None` wants the best.
    pub preferred: Option<Layers>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Layers {
    #[serde(rename = "spatialLayer")]
    pub spatial: u8,
    #[serde(rename = "temporalLayer")]
    pub temporal: u8,
}

/// Why a consumer gets what it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The best that the producer offers.
    Full,
    /// The client asked for less.
    Preferred,
    /// The estimate of the receiver's downlink allows no more.
    Bandwidth,
    /// The producer's own uplink or CPU holds the better layer back.
    ProducerUplink,
    /// Waiting for a key frame.
    NoKeyFrame,
    /// The consumer or its producer is paused.
    Paused,
    /// The wanted layer does not arrive; a sound that is sent by nobody, or is not among the loudest.
    LayerInactive,
}
