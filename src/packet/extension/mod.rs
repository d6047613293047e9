//! RTP header extensions (RFC 8285): which ones Ringside knows, under which id.
//!
//! `Extension` names a meaning; its number on the wire is the producer's own choice inwards
//! ([`ExtensionMap`]) and the router's fixed choice outwards ([`Extension::router_id`]).

mod value;

pub use value::{
    AbsCaptureTime, AbsSendTime, AudioLevel, ExtensionValues, PlayoutDelay, VideoOrientation, stream_id,
    transmission_offset, transport_cc,
};

/// A header extension that Ringside reads, writes or passes on. The discriminant is the router's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Extension {
    Mid = 1,
    RtpStreamId = 2,
    RepairedRtpStreamId = 3,
    AbsSendTime = 4,
    TransportCc = 5,
    AudioLevel = 6,
    DependencyDescriptor = 7,
    VideoOrientation = 8,
    TransmissionOffset = 9,
    AbsCaptureTime = 10,
    PlayoutDelay = 11,
    PacketId = 12,
}

impl Extension {
    pub const ALL: [Extension; 12] = [
        Extension::Mid,
        Extension::RtpStreamId,
        Extension::RepairedRtpStreamId,
        Extension::AbsSendTime,
        Extension::TransportCc,
        Extension::AudioLevel,
        Extension::DependencyDescriptor,
        Extension::VideoOrientation,
        Extension::TransmissionOffset,
        Extension::AbsCaptureTime,
        Extension::PlayoutDelay,
        Extension::PacketId,
    ];

    pub const fn uri(self) -> &'static str {
        match self {
            Extension::Mid => "urn:ietf:params:rtp-hdrext:sdes:mid",
            Extension::RtpStreamId => "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
            Extension::RepairedRtpStreamId => "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
            Extension::AbsSendTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
            Extension::TransportCc => "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
            Extension::AudioLevel => "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
            Extension::DependencyDescriptor => {
                "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
            }
            Extension::VideoOrientation => "urn:3gpp:video-orientation",
            Extension::TransmissionOffset => "urn:ietf:params:rtp-hdrext:toffset",
            Extension::AbsCaptureTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time",
            Extension::PlayoutDelay => "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
            Extension::PacketId => "urn:mediasoup:params:rtp-hdrext:packet-id",
        }
    }

    pub fn from_uri(uri: &str) -> Option<Extension> {
        Extension::ALL.into_iter().find(|e| e.uri() == uri)
    }

    /// The id under which the router offers it and every consumer receives it.
    pub const fn router_id(self) -> u8 {
        self as u8
    }
}

/// One producer's ids, 1 to 14 (one-byte form) and 15 to 255 (two-byte form).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtensionMap {
    by_id: [Option<Extension>; 256],
}

impl Default for ExtensionMap {
    fn default() -> Self {
        ExtensionMap { by_id: [None; 256] }
    }
}

impl ExtensionMap {
    pub fn insert(&mut self, id: u8, extension: Extension) {
        self.by_id[id as usize] = Some(extension);
    }

    pub fn extension(&self, id: u8) -> Option<Extension> {
        self.by_id[id as usize]
    }

    pub fn id(&self, extension: Extension) -> Option<u8> {
        (1..=255u8).find(|id| self.by_id[*id as usize] == Some(extension))
    }
}

/// Which extensions a consumer agreed to receive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ExtensionSet(u16);

impl ExtensionSet {
    pub fn with(self, extension: Extension) -> Self {
        ExtensionSet(self.0 | 1 << extension as u16)
    }

    pub fn contains(self, extension: Extension) -> bool {
        self.0 & (1 << extension as u16) != 0
    }

    pub fn contains_all(self, others: ExtensionSet) -> bool {
        others.0 & !self.0 == 0
    }
}

impl FromIterator<Extension> for ExtensionSet {
    fn from_iter<I: IntoIterator<Item = Extension>>(extensions: I) -> Self {
        extensions.into_iter().fold(ExtensionSet::default(), ExtensionSet::with)
    }
}
