//! Negotiation as clients notice it: first against the oracle (what a real browser sent and what
//! mediasoup answers to it), then rule by rule.

use serde_json::{Value, json};

use super::*;
use crate::packet::extension::Extension;
use crate::shard::command::{Feedback, SourceClass};

macro_rules! capture {
    ($name:literal) => {
        (
            $name,
            include_str!(concat!("../../../tests/fixtures/chromium156-msc3.24.1.produce.", $name, ".json")),
            include_str!(concat!("../../../tests/fixtures/chromium156-msc3.24.1.golden.", $name, ".json")),
        )
    };
}

/// Name, request and golden answer.
const CAPTURES: [(&str, &str, &str); 6] = [
    capture!("mic"),
    capture!("mic-dtx-stereo"),
    capture!("screen-vp8"),
    capture!("webcam-vp8-simulcast2-rids"),
    capture!("webcam-vp8-simulcast3"),
    capture!("webcam-vp8-single"),
];

fn chromium_caps() -> RtpCapabilities {
    let text = include_str!("../../../tests/fixtures/chromium156-msc3.24.1.device.recvRtpCapabilities.json");
    serde_json::from_str(text).unwrap()
}

fn produce(kind: Kind, parameters: Value) -> Result<NegotiatedProducer, NegotiationError> {
    produce_with(Router::standard(), kind, parameters)
}

fn produce_with(router: &Router, kind: Kind, parameters: Value) -> Result<NegotiatedProducer, NegotiationError> {
    let context = ProducerContext {
        cname: Some("fixedcname"),
        class: SourceClass::Camera,
        paused: false,
        random: &mut || 100_000_000,
    };
    producer::negotiate(router, ProducerId(7), kind, serde_json::from_value(parameters).unwrap(), context)
}

fn consumer_context() -> ConsumerContext {
    ConsumerContext {
        mid: "0".to_owned(),
        ssrc: Ssrc(200_000_050),
        rtx_ssrc: Ssrc(200_000_051),
        paused: true,
        priority: 1,
        preferred: None,
    }
}

fn consume(producer: &NegotiatedProducer, caps: &RtpCapabilities) -> Result<NegotiatedConsumer, NegotiationError> {
    negotiate_consumer(ConsumerId(9), producer, caps, consumer_context())
}

fn json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

#[test]
fn captured_requests_are_answered_as_mediasoup_does() {
    for (name, request, golden) in CAPTURES {
        let (request, golden): (Value, Value) =
            (serde_json::from_str(request).unwrap(), serde_json::from_str(golden).unwrap());
        let kind: Kind = serde_json::from_value(request["kind"].clone()).unwrap();
        let own_cname = request["rtpParameters"]["rtcp"]["cname"].as_str().unwrap();
        let context = ProducerContext {
            cname: own_cname.is_empty().then_some("fixedcname"),
            class: SourceClass::Camera,
            paused: false,
            random: &mut || 100_000_000,
        };
        let parameters = serde_json::from_value(request["rtpParameters"].clone()).unwrap();
        let producer = negotiate_producer(ProducerId(1), kind, parameters, context).unwrap();
        assert_eq!(json(&producer.mapping), golden["rtpMapping"], "{name}");
        assert_eq!(json(&producer.consumable), golden["consumableRtpParameters"], "{name}");
        assert_eq!(Value::from(can_consume(&producer, &chromium_caps())), golden["canConsume"], "{name}");

        let answer = &golden["consumerRtpParameters"];
        let ssrc = |value: &Value| Ssrc(value.as_u64().unwrap_or_default() as u32);
        let context = ConsumerContext {
            mid: answer["mid"].as_str().unwrap().to_owned(),
            ssrc: ssrc(&answer["encodings"][0]["ssrc"]),
            rtx_ssrc: ssrc(&answer["encodings"][0]["rtx"]["ssrc"]),
            ..consumer_context()
        };
        let consumer = negotiate_consumer(ConsumerId(1), &producer, &chromium_caps(), context).unwrap();
        assert_eq!(json(&consumer.rtp_parameters), *answer, "{name}");
    }
}

/// A request as Firefox makes it: SSRCs instead of RIDs, few extensions, no msid.
fn vp8_request() -> Value {
    json!({
        "mid": "1",
        "codecs": [
            {"mimeType": "video/VP8", "payloadType": 120, "clockRate": 90000,
             "parameters": {"max-fs": 12288, "max-fr": 60},
             "rtcpFeedback": [{"type": "nack"}, {"type": "nack", "parameter": "pli"},
                {"type": "ccm", "parameter": "fir"}, {"type": "goog-remb"}, {"type": "transport-cc"}]},
            {"mimeType": "video/rtx", "payloadType": 124, "clockRate": 90000, "parameters": {"apt": 120}},
        ],
        "headerExtensions": [
            {"uri": Extension::Mid.uri(), "id": 3},
            {"uri": Extension::AbsSendTime.uri(), "id": 4},
            {"uri": Extension::TransportCc.uri(), "id": 7},
        ],
        "encodings": [{"ssrc": 1001, "rtx": {"ssrc": 1002}}],
        "rtcp": {"cname": "{firefox}"},
    })
}

#[test]
fn the_shard_gets_the_browsers_own_numbers() {
    let producer = produce(Kind::Video, vp8_request()).unwrap();
    let spec = &producer.spec;
    assert_eq!((spec.payload_type, spec.rtx_payload_type, spec.clock_rate), (120, Some(124), 90_000));
    assert_eq!((spec.encodings[0].ssrc, spec.encodings[0].rtx_ssrc), (Some(Ssrc(1001)), Some(Ssrc(1002))));
    assert_eq!(spec.extensions.extension(7), Some(Extension::TransportCc));
    assert_eq!(spec.extensions.id(Extension::AbsSendTime), Some(4));
    assert_eq!(spec.feedback, Feedback { nack: true, pli: true, fir: true, transport_cc: true, remb: true });
}

#[test]
fn the_shard_sends_a_consumer_the_routers_numbers() {
    let producer = produce(Kind::Video, vp8_request()).unwrap();
    let consumer = consume(&producer, &chromium_caps()).unwrap();
    let spec = &consumer.spec;
    assert_eq!((spec.payload_type, spec.rtx_payload_type), (101, Some(102)));
    assert_eq!((spec.ssrc, spec.rtx_ssrc), (Ssrc(200_000_050), Some(Ssrc(200_000_051))));
    assert_eq!(spec.feedback, Feedback { nack: true, pli: true, fir: true, transport_cc: true, remb: false });
    assert!(spec.extensions.contains(Extension::Mid) && !spec.extensions.contains(Extension::RtpStreamId));
    assert_eq!(spec.cname, "fixedcname");
    assert!(spec.paused);
}
