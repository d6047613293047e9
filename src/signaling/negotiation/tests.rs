//! Negotiation as clients notice it: first against the oracle (what a real browser sent and what
//! mediasoup answers to it), then rule by rule.

use crate::ids::Ssrc;
use serde_json::{Value, json};

use super::*;
use crate::packet::extension::Extension;
use crate::shard::command::{Codec, Feedback, Layers, SourceClass};

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

fn opus_request() -> Value {
    json!({
        "mid": "0",
        "codecs": [{"mimeType": "audio/opus", "payloadType": 109, "clockRate": 48000, "channels": 2,
            "parameters": {"maxplaybackrate": 48000, "stereo": 1, "useinbandfec": 1},
            "rtcpFeedback": [{"type": "nack"}, {"type": "transport-cc"}]}],
        "headerExtensions": [
            {"uri": Extension::AudioLevel.uri(), "id": 1},
            {"uri": Extension::TransportCc.uri(), "id": 7},
        ],
        "encodings": [{"ssrc": 5}],
        "rtcp": {"cname": "{firefox}"},
    })
}

/// `base` with the value at a JSON pointer replaced.
fn with(mut base: Value, pointer: &str, value: Value) -> Value {
    match base.pointer_mut(pointer) {
        Some(place) => *place = value,
        None => {
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            base.pointer_mut(parent).unwrap()[name] = value;
        }
    }
    base
}

/// A simulcast request with an SSRC and a RID for each encoding, as some clients send both.
fn simulcast_request(modes: &[&str]) -> Value {
    let encoding = |(index, mode): (usize, &&str)| json!({"rid": format!("r{index}"), "ssrc": 3000 + index, "scalabilityMode": mode, "maxBitrate": 1000 * index});
    with(vp8_request(), "/encodings", modes.iter().enumerate().map(encoding).collect())
}

fn caps_without(uri: &str) -> RtpCapabilities {
    let mut caps = chromium_caps();
    caps.header_extensions.retain(|extension| extension.uri != uri);
    caps
}

fn feedback_of(consumer: &NegotiatedConsumer) -> Vec<String> {
    let name = |feedback: &RtcpFeedback| format!("{} {}", feedback.feedback_type, feedback.parameter);
    consumer.rtp_parameters.codecs[0].rtcp_feedback.iter().map(name).map(|name| name.trim().to_owned()).collect()
}

// What the contract says of `produce`.

#[test]
fn ssrc_lists_are_accepted_as_well_as_rids() {
    let producer = produce(Kind::Video, simulcast_request(&["L1T3", "L1T3"])).unwrap();
    assert_eq!(producer.producer_type, ProducerType::Simulcast);
    let rids: Vec<_> = producer.spec.encodings.iter().map(|encoding| encoding.rid.as_deref()).collect();
    assert_eq!(rids, [Some("r0"), Some("r1")]);
    assert_eq!(producer.spec.encodings[1].ssrc, Some(Ssrc(3001)));
}

#[test]
fn unknown_fields_of_a_client_are_tolerated() {
    let request = with(vp8_request(), "/encodings/0/networkPriority", json!("high"));
    assert!(produce(Kind::Video, with(request, "/future", json!([1, {"a": null}]))).is_ok());
}

#[test]
fn the_first_cname_of_a_transport_is_kept_and_a_missing_one_invented() {
    let cname = |own: &str, transport: Option<&str>| {
        let context =
            ProducerContext { cname: transport, class: SourceClass::Camera, paused: false, random: &mut || 0xabc };
        let parameters = serde_json::from_value(with(vp8_request(), "/rtcp/cname", json!(own))).unwrap();
        negotiate_producer(ProducerId(1), Kind::Video, parameters, context).unwrap().spec.cname
    };
    assert_eq!(cname("own", None), "own");
    assert_eq!(cname("own", Some("first")), "first");
    assert_eq!(cname("", None).len(), 8);
}

#[test]
fn types_follow_encodings_and_layers() {
    let vp9: &[CodecRow] = &[CodecRow { codec: Codec::Vp9, parameters: &[] }];
    let of = |router: &[CodecRow], name: &str, modes: &[&str]| {
        let request = with(simulcast_request(modes), "/codecs/0/mimeType", json!(name));
        produce_with(&Router::with_codecs(router), Kind::Video, request).unwrap().producer_type
    };
    assert_eq!(of(ROUTER_CODECS, "video/VP8", &["L1T1"]), ProducerType::Simple);
    assert_eq!(of(ROUTER_CODECS, "video/VP8", &["L1T3"]), ProducerType::Simple);
    assert_eq!(of(ROUTER_CODECS, "video/VP8", &["L1T3", "L1T3", "L1T3"]), ProducerType::Simulcast);
    assert_eq!(of(vp9, "video/VP9", &["L3T3_KEY"]), ProducerType::Svc);
    assert_eq!(of(vp9, "video/VP9", &["S3T1"]), ProducerType::Svc);
    assert_eq!(of(vp9, "video/VP9", &["L1T3"]), ProducerType::Simple);
}

#[test]
fn layers_reach_the_shard() {
    let layers = |codec, name: &str, mode: &str| {
        let router = Router::with_codecs(&[CodecRow { codec, parameters: &[] }]);
        let request = with(simulcast_request(&[mode]), "/codecs/0/mimeType", json!(name));
        let spec = produce_with(&router, Kind::Video, request).unwrap().spec;
        (spec.encodings[0].spatial_layers, spec.encodings[0].temporal_layers)
    };
    assert_eq!(layers(Codec::Vp9, "video/VP9", "L3T2_KEY"), (3, 2));
    assert_eq!(layers(Codec::Av1, "video/AV1", "S2T1"), (2, 1));
    assert_eq!(layers(Codec::Vp8, "video/VP8", "L1T3"), (1, 3));
    assert_eq!(layers(Codec::Vp8, "video/VP8", "L3T3"), (1, 3), "VP8 has one picture size in a stream");
    assert_eq!(layers(Codec::Vp8, "video/VP8", "whatever"), (1, 1));
}

#[test]
fn bitrates_and_silence_reach_the_shard() {
    let encoding = |request: Value| produce(Kind::Video, request).unwrap().spec.encodings[0].clone();
    assert_eq!(encoding(with(vp8_request(), "/encodings/0/maxBitrate", json!(1.5e6))).max_bitrate_bps, Some(1_500_000));
    assert_eq!(encoding(with(vp8_request(), "/encodings/0/maxBitrate", json!(1e300))).max_bitrate_bps, Some(u32::MAX));
    assert_eq!(encoding(with(vp8_request(), "/encodings/0/maxBitrate", json!(0))).max_bitrate_bps, None);
    assert!(encoding(with(vp8_request(), "/encodings/0/dtx", json!(true))).dtx);
    let opus = with(opus_request(), "/codecs/0/parameters/usedtx", json!(1));
    assert!(produce(Kind::Audio, opus).unwrap().spec.encodings[0].dtx, "Opus says it in the codec's parameters");
}

#[test]
fn extensions_are_known_by_uri_under_the_browsers_ids() {
    let request = with(
        vp8_request(),
        "/headerExtensions",
        json!([{"uri": "urn:example:unknown", "id": 14}, {"uri": Extension::Mid.uri(), "id": 200},
            {"uri": Extension::VideoOrientation.uri(), "id": 9, "encrypt": true}]),
    );
    let extensions = produce(Kind::Video, request).unwrap().spec.extensions;
    assert_eq!(extensions.extension(200), Some(Extension::Mid));
    assert_eq!(extensions.extension(14), None);
    assert_eq!(extensions.extension(9), None, "an encrypted extension cannot be read");
}

#[test]
fn bandwidth_feedback_needs_its_header_extension() {
    let bare = produce(Kind::Video, with(vp8_request(), "/headerExtensions", json!([]))).unwrap();
    assert_eq!(bare.spec.feedback, Feedback { nack: true, pli: true, fir: true, transport_cc: false, remb: false });
    let silent = produce(Kind::Video, with(vp8_request(), "/codecs/0/rtcpFeedback", json!([]))).unwrap();
    assert_eq!(silent.spec.feedback, Feedback::default());
}

#[test]
fn a_producer_without_rtx_has_no_rtx_ssrc_but_its_consumers_have_rtx() {
    let mut request = vp8_request();
    request["codecs"].as_array_mut().unwrap().pop();
    let producer = produce(Kind::Video, request).unwrap();
    assert_eq!((producer.spec.rtx_payload_type, producer.spec.encodings[0].rtx_ssrc), (None, None));
    assert_eq!(consume(&producer, &chromium_caps()).unwrap().spec.rtx_payload_type, Some(102));
}

#[test]
fn inner_ssrcs_are_never_reserved_ones() {
    for random in [0, 1233, 1234, u32::MAX] {
        let context =
            ProducerContext { cname: None, class: SourceClass::Camera, paused: false, random: &mut || random };
        let request = serde_json::from_value(simulcast_request(&["L1T1", "L1T1", "L1T1"])).unwrap();
        let producer = negotiate_producer(ProducerId(1), Kind::Video, request, context).unwrap();
        let ssrcs: Vec<u32> = producer.mapping.encodings.iter().map(|encoding| encoding.mapped_ssrc).collect();
        assert!(ssrcs.iter().all(|ssrc| ![0, 1234].contains(ssrc)), "{ssrcs:?}");
        assert_eq!(ssrcs.iter().collect::<std::collections::HashSet<_>>().len(), 3);
    }
}

#[test]
fn codecs_that_the_router_lacks_are_unsupported() {
    for (pointer, value) in [
        ("/codecs/0/mimeType", json!("video/H264")),
        ("/codecs/0/clockRate", json!(48000)),
        ("/codecs/0/mimeType", json!("audio/opus")),
    ] {
        let error = produce(Kind::Video, with(vp8_request(), pointer, value)).unwrap_err();
        assert_eq!(error.code(), "unsupported-codec");
        assert!(error.to_string().contains("rtpParameters.codecs[0]"), "{error}");
    }
    let error = produce(Kind::Video, opus_request()).unwrap_err();
    assert_eq!(error.code(), "unsupported-codec", "audio does not become video by its kind");
    let mono = produce(Kind::Audio, with(opus_request(), "/codecs/0/channels", json!(1))).unwrap_err();
    assert!(mono.to_string().contains("1 channels"), "{mono}");
}

#[test]
fn requests_out_of_bounds_are_refused_with_the_field() {
    let long = "x".repeat(300);
    let many = |count: usize, value: Value| Value::from(vec![value; count]);
    let cases = [
        ("/mid", json!("123456789"), "rtpParameters.mid"),
        ("/mid", json!(""), "rtpParameters.mid"),
        ("/msid", json!(long), "rtpParameters.msid"),
        ("/rtcp/cname", json!(long), "rtpParameters.rtcp.cname"),
        ("/codecs", json!([]), "rtpParameters.codecs"),
        ("/codecs", many(200, vp8_request()["codecs"][0].clone()), "rtpParameters.codecs"),
        ("/codecs/0", vp8_request()["codecs"][1].clone(), "rtpParameters.codecs[1].payloadType"),
        ("/codecs/1/payloadType", json!(120), "rtpParameters.codecs[1].payloadType"),
        ("/codecs/0/payloadType", json!(128), "rtpParameters.codecs[0].payloadType"),
        ("/codecs/0/payloadType", json!(72), "rtpParameters.codecs[0].payloadType"),
        ("/codecs/0/mimeType", json!("VP8"), "rtpParameters.codecs[0].mimeType"),
        ("/codecs/0/mimeType", json!(format!("video/{long}")), "rtpParameters.codecs[0].mimeType"),
        ("/codecs/0/parameters", json!({"a": [1]}), "rtpParameters.codecs[0].parameters.a"),
        ("/codecs/0/parameters", json!({"a": null}), "rtpParameters.codecs[0].parameters.a"),
        ("/codecs/0/parameters", json!({"a": long}), "rtpParameters.codecs[0].parameters.a"),
        ("/codecs/0/rtcpFeedback", many(99, json!({"type": "nack"})), "rtpParameters.codecs[0].rtcpFeedback"),
        ("/codecs/1/parameters/apt", json!(99), "rtpParameters.codecs[1].parameters.apt"),
        ("/codecs/1/parameters", json!({}), "rtpParameters.codecs[1].parameters.apt"),
        ("/headerExtensions/0/id", json!(0), "rtpParameters.headerExtensions[0].id"),
        ("/headerExtensions/0/id", json!(256), "rtpParameters.headerExtensions[0].id"),
        ("/headerExtensions/1/id", json!(3), "rtpParameters.headerExtensions[1].id"),
        ("/headerExtensions/1/uri", json!(Extension::Mid.uri()), "rtpParameters.headerExtensions[1].uri"),
        ("/headerExtensions", many(200, json!({"uri": "u", "id": 1})), "rtpParameters.headerExtensions"),
        ("/encodings", json!([]), "rtpParameters.encodings"),
        ("/encodings", many(4, json!({"ssrc": 1})), "rtpParameters.encodings"),
        ("/encodings/0/ssrc", json!(0), "rtpParameters.encodings[0].ssrc"),
        ("/encodings/0/ssrc", json!(1234), "rtpParameters.encodings[0].ssrc"),
        ("/encodings/0/rtx/ssrc", json!(1001), "rtpParameters.encodings[0].rtx.ssrc"),
        ("/encodings/0/rtx/ssrc", json!(1234), "rtpParameters.encodings[0].rtx.ssrc"),
        ("/encodings", json!([{"ssrc": 1}, {"ssrc": 1}]), "rtpParameters.encodings[1].ssrc"),
        ("/encodings", json!([{"rid": "a"}, {"rid": "a"}]), "rtpParameters.encodings[1].rid"),
        ("/encodings", json!([{"rid": "a"}, {}]), "rtpParameters.encodings[1].ssrc"),
        ("/encodings/0/rid", json!("seventeen-letters"), "rtpParameters.encodings[0].rid"),
        ("/encodings/0/maxBitrate", json!(-1), "rtpParameters.encodings[0].maxBitrate"),
        ("/encodings/0/scalabilityMode", json!("L9T9"), "rtpParameters.encodings[0].scalabilityMode"),
        ("/encodings/0/codecPayloadType", json!(124), "rtpParameters.encodings[0].codecPayloadType"),
    ];
    for (pointer, value, field) in cases {
        let error = produce(Kind::Video, with(vp8_request(), pointer, value.clone())).unwrap_err();
        assert_eq!(error.code(), "bad-request", "{pointer} {value}");
        assert!(error.to_string().starts_with(&format!("{field}: ")), "{pointer} {value}: {error}");
        assert!(error.to_string().len() < 600);
    }
    let only_rtx = with(vp8_request(), "/codecs", json!([vp8_request()["codecs"][1]]));
    assert_eq!(produce(Kind::Video, only_rtx).unwrap_err().code(), "bad-request");
}

#[test]
fn one_encoding_may_be_known_by_its_mid_alone() {
    let bare = with(vp8_request(), "/encodings", json!([{}]));
    assert!(produce(Kind::Video, bare.clone()).is_ok());
    assert!(produce(Kind::Video, with(bare, "/mid", Value::Null)).is_err());
}

#[test]
fn an_encoding_may_choose_among_the_codecs_of_the_request() {
    let router = Router::with_codecs(&[
        CodecRow { codec: Codec::Vp8, parameters: &[] },
        CodecRow { codec: Codec::Vp9, parameters: &[] },
    ]);
    let mut request = vp8_request();
    let vp9 = json!({"mimeType": "video/VP9", "payloadType": 98, "clockRate": 90000});
    request["codecs"].as_array_mut().unwrap().push(vp9);
    assert_eq!(produce_with(&router, Kind::Video, request.clone()).unwrap().spec.codec, Codec::Vp8);
    let request = with(request, "/encodings/0/codecPayloadType", json!(98));
    let spec = produce_with(&router, Kind::Video, request).unwrap().spec;
    assert_eq!((spec.codec, spec.payload_type, spec.rtx_payload_type), (Codec::Vp9, 98, None));
}

// What the contract says of `consume`, by its numbers.

#[test]
fn rule_1_a_consumer_has_the_routers_preferred_payload_type() {
    for (kind, request) in [(Kind::Audio, opus_request()), (Kind::Video, vp8_request())] {
        let consumer = consume(&produce(kind, request).unwrap(), &chromium_caps()).unwrap();
        let preferred = router_capabilities().codecs.iter().find(|codec| codec.kind == kind).unwrap();
        assert_eq!(Some(consumer.rtp_parameters.codecs[0].payload_type), preferred.preferred_payload_type);
    }
}

#[test]
fn rule_2_codec_parameters_are_the_producers_own() {
    let consumer = consume(&produce(Kind::Audio, opus_request()).unwrap(), &chromium_caps()).unwrap();
    assert_eq!(json(&consumer.rtp_parameters.codecs[0].parameters), opus_request()["codecs"][0]["parameters"]);
}

#[test]
fn rule_2_rtx_goes_where_the_client_has_none_for_this_codec() {
    let producer = produce(Kind::Video, vp8_request()).unwrap();
    let mut caps = chromium_caps();
    let rtx = caps.codecs.iter().position(|codec| codec.mime_type == "video/rtx").unwrap();
    caps.codecs[rtx].parameters["apt"] = json!(99);
    let consumer = consume(&producer, &caps).unwrap();
    assert_eq!(consumer.rtp_parameters.codecs.len(), 1);
    assert_eq!((consumer.spec.rtx_payload_type, consumer.spec.rtx_ssrc), (None, None));
    assert_eq!(consumer.rtp_parameters.encodings[0].rtx, None);
    assert!(consumer.spec.feedback.nack, "without RTX a resend goes out on the stream itself");
}

#[test]
fn rule_2_a_client_without_the_codec_cannot_consume() {
    let producer = produce(Kind::Video, vp8_request()).unwrap();
    let mut caps = chromium_caps();
    caps.codecs.retain(|codec| codec.mime_type != "video/VP8");
    assert!(!can_consume(&producer, &caps), "RTX alone is nothing to see");
    assert_eq!(consume(&producer, &caps).unwrap_err().code(), "cannot-consume");
    assert!(!can_consume(&producer, &RtpCapabilities::default()));
}

#[test]
fn rule_3_retransmission_is_for_video_only() {
    let audio = consume(&produce(Kind::Audio, opus_request()).unwrap(), &chromium_caps()).unwrap();
    assert!(!feedback_of(&audio).contains(&"nack".to_owned()));
    assert_eq!((audio.spec.rtx_ssrc, audio.spec.feedback.nack), (None, false));
    let video = consume(&produce(Kind::Video, vp8_request()).unwrap(), &chromium_caps()).unwrap();
    assert!(feedback_of(&video).contains(&"nack".to_owned()));
    assert_eq!(video.spec.rtx_ssrc, Some(Ssrc(200_000_051)));
}

#[test]
fn rule_4_extensions_need_the_same_uri_and_the_same_id() {
    let producer = produce(Kind::Video, vp8_request()).unwrap();
    let mut caps = chromium_caps();
    for extension in &mut caps.header_extensions {
        if extension.uri == Extension::VideoOrientation.uri() {
            extension.preferred_id = 13;
        }
    }
    let extensions = consume(&producer, &caps).unwrap().spec.extensions;
    assert!(!extensions.contains(Extension::VideoOrientation));
    assert!(extensions.contains(Extension::TransmissionOffset));
}

#[test]
fn rule_4_rids_never_appear_and_audio_has_no_transport_cc_even_where_the_client_lists_them() {
    let mut caps = chromium_caps();
    for extension in [Extension::RtpStreamId, Extension::RepairedRtpStreamId, Extension::TransportCc] {
        caps.header_extensions.push(RtpHeaderExtensionCapability {
            kind: None,
            uri: extension.uri().to_owned(),
            preferred_id: extension.router_id().into(),
            preferred_encrypt: false,
            direction: ExtensionDirection::SendRecv,
        });
    }
    for (kind, request) in [(Kind::Audio, opus_request()), (Kind::Video, vp8_request())] {
        let extensions = consume(&produce(kind, request).unwrap(), &caps).unwrap().spec.extensions;
        assert!(!extensions.contains(Extension::RtpStreamId) && !extensions.contains(Extension::RepairedRtpStreamId));
        assert_eq!(extensions.contains(Extension::TransportCc), kind == Kind::Video);
    }
}

#[test]
fn rule_4_capture_times_are_offered_only_where_the_producer_has_them() {
    let mut caps = chromium_caps();
    caps.header_extensions.push(RtpHeaderExtensionCapability {
        kind: Some(Kind::Video),
        uri: Extension::AbsCaptureTime.uri().to_owned(),
        preferred_id: 10,
        preferred_encrypt: false,
        direction: ExtensionDirection::SendRecv,
    });
    let has = |request| {
        let producer = produce(Kind::Video, request).unwrap();
        consume(&producer, &caps).unwrap().spec.extensions.contains(Extension::AbsCaptureTime)
    };
    assert!(!has(vp8_request()));
    let capture_time = json!({"uri": Extension::AbsCaptureTime.uri(), "id": 11});
    assert!(has(with(vp8_request(), "/headerExtensions/0", capture_time)));
}

#[test]
fn rule_5_one_way_of_estimating_bandwidth_is_left() {
    let producer = produce(Kind::Video, vp8_request()).unwrap();
    let left = |caps: &RtpCapabilities| {
        let mut feedback = feedback_of(&consume(&producer, caps).unwrap());
        feedback.retain(|name| name == "goog-remb" || name == "transport-cc");
        feedback
    };
    assert_eq!(left(&chromium_caps()), ["transport-cc"]);
    let mut caps = caps_without(Extension::TransportCc.uri());
    assert_eq!(left(&caps), ["goog-remb"]);
    caps.header_extensions.retain(|extension| extension.uri != Extension::AbsSendTime.uri());
    assert_eq!(left(&caps), [""; 0]);
}

#[test]
fn rule_6_a_consumer_has_one_encoding_that_shows_simulcast_as_layers() {
    for (modes, shown, bitrate) in [
        (&["L1T3", "L1T3", "L1T3"][..], Some("L3T3"), Some(json!(2000))),
        (&["L1T1", "L1T3"], Some("L2T3"), Some(json!(1000))),
        (&["", ""], Some("L2T1"), Some(json!(1000))),
        (&["L1T2"], Some("L1T2"), None),
        (&[""], None, None),
    ] {
        let producer = produce(Kind::Video, simulcast_request(modes)).unwrap();
        let parameters = consume(&producer, &chromium_caps()).unwrap().rtp_parameters;
        let [encoding] = &parameters.encodings[..] else { panic!("{parameters:?}") };
        assert_eq!(encoding.scalability_mode.as_deref(), shown, "{modes:?}");
        assert_eq!(encoding.max_bitrate.as_ref().map(json), bitrate, "{modes:?}");
        assert_eq!((encoding.ssrc, encoding.rtx), (Some(200_000_050), Some(RtxEncoding { ssrc: 200_000_051 })));
        assert_eq!(encoding.rid, None);
    }
}

#[test]
fn rule_7_the_mid_is_the_one_that_the_transport_counts() {
    let producer = produce(Kind::Video, vp8_request()).unwrap();
    let context = ConsumerContext { mid: "41".to_owned(), ..consumer_context() };
    let consumer = negotiate_consumer(ConsumerId(1), &producer, &chromium_caps(), context).unwrap();
    assert_eq!((consumer.rtp_parameters.mid.as_deref(), consumer.spec.mid.as_str()), (Some("41"), "41"));
}

#[test]
fn rule_8_cname_and_msid_are_the_producers() {
    let request = with(vp8_request(), "/msid", json!("stream track"));
    let consumer = consume(&produce(Kind::Video, request).unwrap(), &chromium_caps()).unwrap();
    assert_eq!(consumer.rtp_parameters.msid.as_deref(), Some("stream track"));
    assert_eq!(consumer.rtp_parameters.rtcp.cname.as_deref(), Some(consumer.spec.cname.as_str()));
    assert!(consumer.rtp_parameters.rtcp.reduced_size);
}

#[test]
fn what_the_caller_decides_reaches_the_shard() {
    let producer = produce(Kind::Video, vp8_request()).unwrap();
    let preferred = Some(Layers { spatial: 1, temporal: 2 });
    let context = ConsumerContext { paused: false, priority: 200, preferred, ..consumer_context() };
    let spec = negotiate_consumer(ConsumerId(3), &producer, &chromium_caps(), context).unwrap().spec;
    assert_eq!((spec.id, spec.producer), (ConsumerId(3), ProducerId(7)));
    assert_eq!((spec.paused, spec.priority, spec.preferred), (false, 200, preferred));
}

#[test]
fn capabilities_out_of_bounds_are_refused_with_the_field() {
    let caps = json(&chromium_caps());
    let cases = [
        ("/codecs/0/preferredPayloadType", json!(128), "rtpCapabilities.codecs[0].preferredPayloadType"),
        ("/codecs/0/mimeType", json!(""), "rtpCapabilities.codecs[0].mimeType"),
        ("/codecs/0/parameters", json!({"a": {}}), "rtpCapabilities.codecs[0].parameters.a"),
        ("/codecs/2/parameters/apt", json!("x"), "rtpCapabilities.codecs[2].parameters.apt"),
        ("/codecs", Value::from(vec![caps["codecs"][0].clone(); 129]), "rtpCapabilities.codecs"),
        ("/headerExtensions/0/preferredId", json!(0), "rtpCapabilities.headerExtensions[0].preferredId"),
        ("/headerExtensions/0/uri", json!("u".repeat(257)), "rtpCapabilities.headerExtensions[0].uri"),
    ];
    let producer = produce(Kind::Video, vp8_request()).unwrap();
    for (pointer, value, field) in cases {
        let caps: RtpCapabilities = serde_json::from_value(with(caps.clone(), pointer, value)).unwrap();
        let error = capabilities_problem(&caps).unwrap_err();
        assert!(error.to_string().starts_with(&format!("{field}: ")), "{error}");
        assert_eq!(consume(&producer, &caps).unwrap_err(), error);
    }
    assert!(capabilities_problem(&chromium_caps()).is_ok());
    assert!(capabilities_problem(router_capabilities()).is_ok());
}

// Codecs beyond those of a room: a row of the table is all that they take.

const WIDE_ROUTER: &[CodecRow] = &[
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
    CodecRow {
        codec: Codec::H264,
        parameters: &[
            ("level-asymmetry-allowed", ParameterValue::Number(1)),
            ("packetization-mode", ParameterValue::Number(0)),
            ("profile-level-id", ParameterValue::Text("42e01f")),
        ],
    },
    CodecRow { codec: Codec::Av1, parameters: &[("profile", ParameterValue::Number(0))] },
];

#[test]
fn a_row_of_the_table_makes_a_codec_available_end_to_end() {
    let router = Router::with_codecs(WIDE_ROUTER);
    for (name, parameters, codec) in [
        ("video/VP8", json!({}), Codec::Vp8),
        ("video/VP9", json!({"profile-id": 0}), Codec::Vp9),
        ("video/H264", json!({"packetization-mode": 1, "profile-level-id": "42e01f"}), Codec::H264),
        ("video/H264", json!({"packetization-mode": 0, "profile-level-id": "42e01f"}), Codec::H264),
        ("video/AV1", json!({"profile": 0, "level-idx": 5, "tier": 0}), Codec::Av1),
    ] {
        let request = with(vp8_request(), "/codecs/0/mimeType", json!(name));
        let request = with(request, "/codecs/0/parameters", parameters.clone());
        let producer = produce_with(&router, Kind::Video, request).unwrap();
        assert_eq!(producer.spec.codec, codec);
        let consumer = consume(&producer, router.capabilities()).unwrap();
        let [media, rtx] = &consumer.rtp_parameters.codecs[..] else { panic!("{name}") };
        assert_eq!(json(&media.parameters), parameters, "{name}");
        assert_eq!(rtx.parameters["apt"], json!(media.payload_type), "{name}");
        assert!(!can_consume(&producer, &chromium_caps()) || codec == Codec::Vp8);
    }
}

#[test]
fn dependency_descriptors_reach_receivers_of_av1_and_nobody_else() {
    let uri = Extension::DependencyDescriptor.uri();
    let receives = |name: &str, offers: bool| {
        let mut request = with(vp8_request(), "/codecs/0/mimeType", json!(name));
        if offers {
            let entry = json!({"uri": uri, "id": 12, "encrypt": false, "parameters": {}});
            request["headerExtensions"].as_array_mut().unwrap().push(entry);
        }
        let producer = produce(Kind::Video, request).unwrap();
        let consumer = consume(&producer, router_capabilities()).unwrap();
        let listed = consumer.rtp_parameters.header_extensions.iter().any(|extension| extension.uri == uri);
        assert_eq!(listed, consumer.spec.extensions.contains(Extension::DependencyDescriptor));
        listed
    };
    assert!(receives("video/AV1", true));
    assert!(!receives("video/AV1", false), "there is nothing to pass on");
    assert!(!receives("video/VP8", true));
    assert!(!receives("video/VP9", true));
}

#[test]
fn another_profile_is_another_codec() {
    let router = Router::with_codecs(WIDE_ROUTER);
    for (name, parameters) in [
        ("video/VP9", json!({"profile-id": 2})),
        ("video/H264", json!({"packetization-mode": 1, "profile-level-id": "64001f"})),
        ("video/AV1", json!({"profile": 1})),
    ] {
        let request = with(vp8_request(), "/codecs/0/mimeType", json!(name));
        let request = with(request, "/codecs/0/parameters", parameters);
        assert_eq!(produce_with(&router, Kind::Video, request).unwrap_err().code(), "unsupported-codec", "{name}");
    }
}

#[test]
fn receivers_of_h264_are_told_the_answered_level() {
    let router = Router::with_codecs(WIDE_ROUTER);
    let level = |asymmetry: u8| {
        let request = with(vp8_request(), "/codecs/0/mimeType", json!("video/H264"));
        let parameters = json!({"packetization-mode": 1, "profile-level-id": "42e034",
            "level-asymmetry-allowed": asymmetry});
        let producer = produce_with(&router, Kind::Video, with(request, "/codecs/0/parameters", parameters)).unwrap();
        producer.consumable.codecs[0].parameters["profile-level-id"].clone()
    };
    assert_eq!(level(1), json!("42e034"));
    assert_eq!(level(0), json!("42e01f"));
}
