//! RTP parameters: what a producer offers, what a consumer gets.
//!
//! Pure: JSON values in, JSON values and the shard's specs out; the caller brings SSRCs, mids and
//! randomness. Answers what mediasoup answers to the same clients (the captures in `tests/fixtures`
//! are the oracle), because mediasoup-client compares payload types and extension ids with them.
//! Called by the session for `get-rtp-capabilities`, `produce` and `consume`; must never do I/O or
//! keep anything between calls.

mod consumer;
mod h264;
mod matching;
mod parameters;
mod producer;
mod router;
mod scalability;
mod validate;

#[cfg(test)]
mod tests;

pub use consumer::{ConsumerContext, NegotiatedConsumer};
pub use parameters::{
    CodecMapping, CodecParameters, EncodingMapping, ExtensionDirection, ProducerType, Rtcp, RtcpFeedback,
    RtpCapabilities, RtpCodecCapability, RtpCodecParameters, RtpEncoding, RtpHeaderExtensionCapability,
    RtpHeaderExtensionParameters, RtpMapping, RtpParameters, RtxEncoding,
};
pub use producer::{NegotiatedProducer, ProducerContext};
pub use router::{CodecRow, ParameterValue, ROUTER_CODECS, Router};

use crate::ids::{ConsumerId, ProducerId};
use crate::shard::command::Kind;

pub use crate::media::spec::PROBATOR_SSRC;

/// Why parameters were refused; every message names the field or codec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NegotiationError {
    /// The request contradicts itself or a bound.
    #[error("{field}: {problem}")]
    BadRequest { field: String, problem: String },
    /// The request is sound, but the router does not carry this codec.
    #[error("{field}: this server does not carry {codec}")]
    UnsupportedCodec { field: String, codec: String },
    /// The client's capabilities hold none of the producer's codecs.
    #[error("rtpCapabilities: no codec to receive {codec} with")]
    CannotConsume { codec: String },
}

impl NegotiationError {
    /// Its code in the closed set that clients know.
    pub fn code(&self) -> &'static str {
        match self {
            NegotiationError::BadRequest { .. } => "bad-request",
            NegotiationError::UnsupportedCodec { .. } => "unsupported-codec",
            NegotiationError::CannotConsume { .. } => "cannot-consume",
        }
    }
}

/// The answer to `get-rtp-capabilities`.
pub fn router_capabilities() -> &'static RtpCapabilities {
    Router::standard().capabilities()
}

/// Whether a client's `rtpCapabilities` are within bounds. [`negotiate_consumer`] asks again by itself.
pub fn capabilities_problem(caps: &RtpCapabilities) -> Result<(), NegotiationError> {
    validate::capabilities(caps)
}

/// Answers a request to produce.
pub fn negotiate_producer(
    id: ProducerId,
    kind: Kind,
    parameters: RtpParameters,
    context: ProducerContext<'_>,
) -> Result<NegotiatedProducer, NegotiationError> {
    producer::negotiate(Router::standard(), id, kind, parameters, context)
}

/// Whether a client with these capabilities could receive the producer.
pub fn can_consume(producer: &NegotiatedProducer, caps: &RtpCapabilities) -> bool {
    consumer::can_consume(producer, caps)
}

/// Answers a request to consume.
pub fn negotiate_consumer(
    id: ConsumerId,
    producer: &NegotiatedProducer,
    caps: &RtpCapabilities,
    context: ConsumerContext,
) -> Result<NegotiatedConsumer, NegotiationError> {
    consumer::negotiate(id, producer, caps, context)
}
