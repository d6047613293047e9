//! The RTP JSON of mediasoup-client as typed values: what clients send and hear, nothing more.
//!
//! Deserialising here is lenient about what a client adds (unknown fields are dropped) and strict
//! about shapes; sizes and ranges are checked afterwards by [`validate`](super::validate), which can
//! name the field. Must never decide anything about codecs.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

use crate::shard::command::Kind;

/// Codec parameters (`fmtp` of SDP). Values are kept as they came: text, number or truth value.
pub type CodecParameters = Map<String, Value>;

/// What a router or a device can do (`rtpCapabilities`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RtpCapabilities {
    #[serde(default)]
    pub codecs: Vec<RtpCodecCapability>,
    #[serde(default)]
    pub header_extensions: Vec<RtpHeaderExtensionCapability>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RtpCodecCapability {
    pub kind: Kind,
    pub mime_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preferred_payload_type: Option<u8>,
    /// In Hz.
    pub clock_rate: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<u8>,
    #[serde(default)]
    pub parameters: CodecParameters,
    #[serde(default)]
    pub rtcp_feedback: Vec<RtcpFeedback>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RtpHeaderExtensionCapability {
    /// Absent means both kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    pub uri: String,
    pub preferred_id: u16,
    #[serde(default)]
    pub preferred_encrypt: bool,
    /// Seen from whoever states the capability.
    #[serde(default)]
    pub direction: ExtensionDirection,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExtensionDirection {
    #[default]
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

/// What one producer sends or one consumer receives (`rtpParameters`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RtpParameters {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mid: Option<String>,
    pub codecs: Vec<RtpCodecParameters>,
    #[serde(default)]
    pub header_extensions: Vec<RtpHeaderExtensionParameters>,
    #[serde(default)]
    pub encodings: Vec<RtpEncoding>,
    #[serde(default)]
    pub rtcp: Rtcp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub msid: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RtpCodecParameters {
    pub mime_type: String,
    pub payload_type: u8,
    /// In Hz.
    pub clock_rate: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<u8>,
    #[serde(default)]
    pub parameters: CodecParameters,
    #[serde(default)]
    pub rtcp_feedback: Vec<RtcpFeedback>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RtcpFeedback {
    #[serde(rename = "type")]
    pub feedback_type: String,
    #[serde(default)]
    pub parameter: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RtpHeaderExtensionParameters {
    pub uri: String,
    pub id: u16,
    #[serde(default)]
    pub encrypt: bool,
    #[serde(default)]
    pub parameters: CodecParameters,
}

/// One stream of a producer; a simulcast producer has one for each quality, lowest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RtpEncoding {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssrc: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtx: Option<RtxEncoding>,
    /// Chooses among the codecs of the request; absent means the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codec_payload_type: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_resolution_down_by: Option<Number>,
    /// In bit/s. Browsers may write a fraction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bitrate: Option<Number>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_framerate: Option<Number>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scalability_mode: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtx: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RtxEncoding {
    pub ssrc: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rtcp {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cname: Option<String>,
    #[serde(default = "yes")]
    pub reduced_size: bool,
}

impl Default for Rtcp {
    fn default() -> Self {
        Rtcp { cname: None, reduced_size: true }
    }
}

fn yes() -> bool {
    true
}

/// How a producer's own numbers become the router's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RtpMapping {
    pub codecs: Vec<CodecMapping>,
    pub encodings: Vec<EncodingMapping>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CodecMapping {
    pub payload_type: u8,
    pub mapped_payload_type: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EncodingMapping {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssrc: Option<u32>,
    pub mapped_ssrc: u32,
}

/// The shape of a producer's media, as told to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProducerType {
    /// One encoding, one spatial layer.
    Simple,
    /// Several encodings, each a stream of its own.
    Simulcast,
    /// One encoding with several spatial layers in one stream.
    Svc,
}
