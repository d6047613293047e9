//! Bodies of the fuzz targets of the control plane, compiled with everything else.
//!
//! Each takes any bytes and panics only for a bug: an input that a parser lets through although what
//! comes out breaks a promise.

use serde::Deserialize;

use super::negotiation::{
    ConsumerContext, NegotiationError, ProducerContext, RtpCapabilities, RtpParameters, can_consume,
    negotiate_consumer, negotiate_producer, router_capabilities,
};
use super::protoo;
use crate::ids::{ConsumerId, ProducerId, Ssrc};
use crate::limits;
use crate::shard::command::{Kind, SourceClass};
use crate::signaling::error::ErrorCode;
use crate::signaling::message::{Call, METHODS, Request};

/// What two clients could send: one produces, the other consumes it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Requests {
    kind: Kind,
    rtp_parameters: RtpParameters,
    #[serde(default)]
    rtp_capabilities: Option<RtpCapabilities>,
}

/// JSON of a request to produce, with or without the capabilities of a client that wants to consume.
pub fn negotiation(bytes: &[u8]) {
    let Ok(requests) = serde_json::from_slice::<Requests>(bytes) else { return };
    let mut state = bytes.len() as u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state
    };
    let context = ProducerContext { cname: None, class: SourceClass::Camera, paused: false, random: &mut random };
    let producer = match negotiate_producer(ProducerId(1), requests.kind, requests.rtp_parameters, context) {
        Ok(producer) => producer,
        Err(error) => return refusal_is_bounded(&error),
    };
    let spec = &producer.spec;
    assert!((1..=limits::ENCODINGS).contains(&spec.encodings.len()));
    assert!(
        spec.encodings.iter().all(|encoding| (1..=limits::SPATIAL_LAYERS as u8).contains(&encoding.spatial_layers)
            && (1..=limits::TEMPORAL_LAYERS as u8).contains(&encoding.temporal_layers))
    );
    assert!(spec.payload_type <= 127 && !spec.cname.is_empty() && spec.cname.len() <= limits::CNAME_BYTES);
    assert!(can_consume(&producer, router_capabilities()), "what the router carries, the router's own device can hear");
    for caps in requests.rtp_capabilities.iter().chain([router_capabilities()]) {
        let context = ConsumerContext {
            mid: "0".to_owned(),
            ssrc: Ssrc(1),
            rtx_ssrc: Ssrc(2),
            paused: true,
            priority: 1,
            preferred: None,
        };
        match negotiate_consumer(ConsumerId(1), &producer, caps, context) {
            Err(error) => refusal_is_bounded(&error),
            Ok(consumer) => {
                let preferred = producer.consumable.codecs[0].payload_type;
                assert_eq!(consumer.rtp_parameters.codecs[0].payload_type, preferred);
                assert_eq!(consumer.rtp_parameters.encodings.len(), 1);
                assert_eq!(consumer.spec.rtx_ssrc.is_some(), consumer.spec.rtx_payload_type.is_some());
            }
        }
    }
}

/// A frame of a WebSocket client, and what it asks for if it asks for something.
pub fn frame(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match protoo::parse(text) {
        protoo::Incoming::Request(_, request) => call(request),
        protoo::Incoming::Idle | protoo::Incoming::Malformed(..) => {}
    }
}

/// A request whose method is the first line and whose data is the rest.
pub fn request(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (method, data) = text.split_once('\n').unwrap_or((text, "null"));
    let Ok(data) = serde_json::from_str(data) else { return };
    call(Request { method: method.to_owned(), data });
}

fn call(request: Request) {
    let known = METHODS.contains(&request.method.as_str());
    match Call::parse(request) {
        Ok(Call::ConnectTransport(body)) => {
            if let Ok(fingerprints) = body.dtls_parameters.fingerprints() {
                assert!((1..=limits::FINGERPRINTS).contains(&fingerprints.len()));
                assert!(fingerprints.iter().all(|fingerprint| matches!(fingerprint.value.len(), 32 | 48 | 64)));
            }
        }
        Ok(_) => assert!(known),
        Err(failure) => {
            assert_eq!(known, failure.code != ErrorCode::UnknownMethod);
            // In characters; of four bytes at most.
            assert!(failure.detail.is_none_or(|detail| detail.len() <= 4 * (limits::ERROR_DETAIL_CHARS + 1)));
        }
    }
}

/// A message goes back to whoever sent the request; it must not grow with it.
fn refusal_is_bounded(error: &NegotiationError) {
    assert!(error.to_string().len() < 1024);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: &str = include_str!("../../tests/fixtures/chromium156-msc3.24.1.produce.webcam-vp8-simulcast3.json");
    const CAPS: &str = include_str!("../../tests/fixtures/chromium156-msc3.24.1.device.recvRtpCapabilities.json");

    #[test]
    fn damaged_requests_never_panic() {
        let requests = format!(r#"{{"rtpCapabilities": {CAPS}, {}"#, &SEED.trim_start()[1..]);
        assert!(serde_json::from_str::<Requests>(&requests).is_ok());
        let damage = b"09-\"x[]{},:eL\x00\xff";
        let mut damaged = requests.clone().into_bytes();
        for place in 0..damaged.len() {
            let whole = std::mem::replace(&mut damaged[place], damage[place % damage.len()]);
            negotiation(&damaged);
            damaged[place] = whole;
            if place % 16 == 0 {
                negotiation(&damaged[..place]);
            }
        }
    }

    #[test]
    fn deeply_nested_input_is_refused_and_not_followed() {
        let nested = "[".repeat(100_000);
        negotiation(format!(r#"{{"kind":"audio","rtpParameters":{{"codecs":{nested}"#).as_bytes());
        negotiation(format!(r#"{{"x":{nested}"#).as_bytes());
    }
}
