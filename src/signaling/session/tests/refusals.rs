//! Everything that a peer can do wrong, or that can go wrong for it: a clear code, and nobody else notices.

use super::*;
use crate::shard::command::Refusal;

#[test]
fn unknown_methods_and_wrong_types_are_named_and_counted() {
    let mut stage = Stage::new();
    let ada = stage.connect("study", "ada");
    assert_eq!(stage.refused(ada, "sing", json!({})), ErrorCode::UnknownMethod);
    assert_eq!(stage.refused(ada, "create-transport", json!({"direction": true})), ErrorCode::BadRequest);
    assert_eq!(stage.refused(ada, "produce", json!("text")), ErrorCode::BadRequest);
    assert_eq!(stage.control.counters.errors[ErrorCode::UnknownMethod as usize], 1);
    assert_eq!(stage.control.counters.errors[ErrorCode::BadRequest as usize], 2);
    assert_eq!(stage.control.counters.unknown_requests, 1);
    stage.transport(ada, "send");
}

#[test]
fn every_method_refuses_an_id_that_is_not_there() {
    let mut stage = Stage::new();
    let ada = stage.connect("study", "ada");
    stage.transport(ada, "recv");
    let mic = parsed(MIC);
    for (method, data) in [
        ("connect-transport", json!({"transportId": "1", "dtlsParameters": fingerprint()})),
        ("restart-ice", json!({"transportId": "1"})),
        ("close-transport", json!({"transportId": "not hex at all"})),
        ("produce", json!({"transportId": "1", "kind": "audio", "rtpParameters": mic["rtpParameters"]})),
        ("consume", json!({"producerId": "1", "rtpCapabilities": parsed(CAPABILITIES)})),
        ("resume-consumer", json!({"consumerId": "1"})),
        ("pause-consumer", json!({"consumerId": "1"})),
        ("close-consumer", json!({"consumerId": "1"})),
        ("request-key-frame", json!({"consumerId": "1"})),
        ("set-preferred-layers", json!({"consumerId": "1", "spatialLayer": 0})),
        ("set-consumer-priority", json!({"consumerId": "1", "priority": 1})),
        ("pause-producer", json!({"producerId": "1"})),
        ("resume-producer", json!({"producerId": "1"})),
        ("close-producer", json!({"producerId": "1"})),
        ("get-stats", json!({"transportId": "1"})),
        ("get-stats", json!({"producerId": "1"})),
        ("get-stats", json!({"consumerId": "1"})),
    ] {
        assert_eq!(stage.refused(ada, method, data), ErrorCode::NotFound, "{method}");
    }
}

#[test]
fn what_is_another_peers_is_forbidden() {
    let mut stage = Stage::new();
    let (ada, bob) = (stage.connect("study", "ada"), stage.connect("study", "bob"));
    let (send, recv) = (stage.transport(ada, "send"), stage.transport(bob, "recv"));
    let mic = stage.produce(ada, &send, MIC);
    let consumer = stage.consume(bob, &mic)["id"].clone();
    let mut produce = parsed(MIC);
    produce["transportId"] = json!(send);
    let consume = json!({"transportId": recv, "producerId": mic, "rtpCapabilities": parsed(CAPABILITIES)});
    for (who, method, data) in [
        (bob, "connect-transport", json!({"transportId": send, "dtlsParameters": fingerprint()})),
        (bob, "restart-ice", json!({"transportId": send})),
        (bob, "close-transport", json!({"transportId": send})),
        (bob, "produce", produce),
        (ada, "consume", consume),
        (bob, "pause-producer", json!({"producerId": mic})),
        (bob, "close-producer", json!({"producerId": mic})),
        (ada, "resume-consumer", json!({"consumerId": consumer})),
        (ada, "close-consumer", json!({"consumerId": consumer})),
        (ada, "get-stats", json!({"consumerId": consumer})),
        (bob, "get-stats", json!({"producerId": mic})),
    ] {
        assert_eq!(stage.refused(who, method, data), ErrorCode::Forbidden, "{method}");
    }
}

#[test]
fn directions_are_kept_apart() {
    let mut stage = Stage::new();
    let ada = stage.connect("study", "ada");
    let (send, recv) = (stage.transport(ada, "send"), stage.transport(ada, "recv"));
    let mic = stage.produce(ada, &send, MIC);
    let mut produce = parsed(MIC);
    produce["transportId"] = json!(recv);
    assert_eq!(stage.refused(ada, "produce", produce), ErrorCode::BadRequest);
    let consume = json!({"transportId": send, "producerId": mic, "rtpCapabilities": parsed(CAPABILITIES)});
    assert_eq!(stage.refused(ada, "consume", consume), ErrorCode::BadRequest);
}

#[test]
fn a_producer_of_another_room_is_as_good_as_none() {
    let mut stage = Stage::new();
    let (ada, bob) = (stage.connect("one", "ada"), stage.connect("two", "bob"));
    let send = stage.transport(ada, "send");
    stage.transport(bob, "recv");
    let mic = stage.produce(ada, &send, MIC);
    let data = json!({"producerId": mic, "rtpCapabilities": parsed(CAPABILITIES)});
    assert_eq!(stage.refused(bob, "consume", data), ErrorCode::NotFound);
}

#[test]
fn consuming_needs_a_transport_and_capabilities() {
    let mut stage = Stage::new();
    let (ada, bob) = (stage.connect("study", "ada"), stage.connect("study", "bob"));
    let send = stage.transport(ada, "send");
    let (mic, camera) = (stage.produce(ada, &send, MIC), stage.produce(ada, &send, SIMULCAST));
    let data = json!({"producerId": mic, "rtpCapabilities": parsed(CAPABILITIES)});
    assert_eq!(stage.refused(bob, "consume", data), ErrorCode::NotFound);
    stage.transport(bob, "recv");
    assert_eq!(stage.refused(bob, "consume", json!({"producerId": mic})), ErrorCode::BadRequest);
    let mut deaf = parsed(CAPABILITIES);
    deaf["codecs"] = json!([]);
    assert_eq!(
        stage.refused(bob, "consume", json!({"producerId": camera, "rtpCapabilities": deaf})),
        ErrorCode::CannotConsume
    );
    let untyped = json!({"producerId": mic, "rtpCapabilities": {"codecs": [{"kind": "audio"}]}});
    assert_eq!(stage.refused(bob, "consume", untyped), ErrorCode::BadRequest);
}

#[test]
fn a_codec_that_the_room_does_not_carry_is_refused() {
    let mut stage = Stage::new();
    let ada = stage.connect("study", "ada");
    let send = stage.transport(ada, "send");
    let mut body = parsed(MIC);
    body["transportId"] = json!(send);
    body["rtpParameters"]["codecs"][0]["mimeType"] = json!("audio/speex");
    assert_eq!(stage.refused(ada, "produce", body.clone()), ErrorCode::UnsupportedCodec);
    body["rtpParameters"]["codecs"] = json!([]);
    assert_eq!(stage.refused(ada, "produce", body), ErrorCode::BadRequest);
    assert_eq!(stage.total("producers"), 0);
}

#[test]
fn app_data_is_bounded() {
    let mut stage = Stage::new();
    let ada = stage.connect("study", "ada");
    let mut body = parsed(MIC);
    body["transportId"] = json!(stage.transport(ada, "send"));
    body["appData"] = json!({"diary": "x".repeat(limits::APP_DATA_BYTES)});
    assert_eq!(stage.refused(ada, "produce", body), ErrorCode::BadRequest);
}

#[test]
fn what_one_peer_may_own_is_bounded() {
    let mut stage = Stage::with(|config| {
        (config.transports_per_peer, config.producers_per_peer, config.consumers_per_peer) = (2, 1, 1);
    });
    let ada = stage.connect("study", "ada");
    let send = stage.transport(ada, "send");
    stage.transport(ada, "recv");
    let mic = stage.produce(ada, &send, MIC);
    let consumer = stage.consume(ada, &mic)["id"].clone();
    assert_eq!(stage.refused(ada, "create-transport", json!({"direction": "send"})), ErrorCode::TooMany);
    assert_eq!(stage.refused(ada, "join", json!({})), ErrorCode::TooMany);
    let mut produce = parsed(MIC);
    produce["transportId"] = json!(send);
    assert_eq!(stage.refused(ada, "produce", produce.clone()), ErrorCode::TooMany);
    let consume = json!({"producerId": mic, "rtpCapabilities": parsed(CAPABILITIES)});
    assert_eq!(stage.refused(ada, "consume", consume), ErrorCode::TooMany);
    // What is given back is free again.
    stage.request(ada, "close-consumer", json!({"consumerId": consumer}));
    stage.consume(ada, &mic);
    stage.request(ada, "close-producer", json!({"producerId": mic}));
    stage.request(ada, "produce", produce);
}

#[test]
fn what_a_worker_refuses_leaves_nothing_behind() {
    for (method, refusal, code) in [
        ("create-transport", Refusal::TooMany, ErrorCode::TooMany),
        ("produce", Refusal::Conflict, ErrorCode::BadRequest),
        ("consume", Refusal::Conflict, ErrorCode::BadRequest),
        ("connect-transport", Refusal::AlreadyConnected, ErrorCode::AlreadyConnected),
        ("pause-producer", Refusal::NotFound, ErrorCode::NotFound),
    ] {
        let mut stage = Stage::new();
        let ada = stage.connect("study", "ada");
        let (send, recv) = (stage.transport(ada, "send"), stage.transport(ada, "recv"));
        let mic = stage.produce(ada, &send, MIC);
        let before = stage.control.totals();
        let data = match method {
            "create-transport" => json!({"direction": "recv"}),
            "produce" => {
                let mut body = parsed(SIMULCAST);
                body["transportId"] = json!(send);
                body
            }
            "consume" => json!({"transportId": recv, "producerId": mic, "rtpCapabilities": parsed(CAPABILITIES)}),
            "connect-transport" => json!({"transportId": send, "dtlsParameters": fingerprint()}),
            _ => json!({"producerId": mic}),
        };
        stage.workers_answer = false;
        let serial = stage.send(ada, method, data);
        let event = fake_worker::refusal(stage.last_command(), refusal).unwrap();
        stage.control.handle_event(event);
        stage.settle();
        assert_eq!(stage.answers[&(ada, Some(serial))].as_ref().unwrap_err().code, code, "{method}");
        assert_eq!(stage.control.totals(), before, "{method}");
    }
}

#[test]
fn a_full_queue_to_the_worker_is_overload() {
    let mut stage = Stage::new();
    let ada = stage.connect("study", "ada");
    stage.workers_answer = false;
    let serial = stage.send(ada, "create-transport", json!({"direction": "send"}));
    let token = stage.last_command().token().unwrap();
    stage.control.command_refused(token);
    stage.settle();
    assert_eq!(stage.answers[&(ada, Some(serial))].as_ref().unwrap_err().code, ErrorCode::Overloaded);
    assert_eq!(stage.total("transports"), 0);
    assert!(!matches!(stage.last_command(), Command::CloseTransport { .. }), "it was never made");
}

#[test]
fn a_worker_that_does_not_answer_in_time_is_given_up() {
    let mut stage = Stage::new();
    let ada = stage.connect("study", "ada");
    stage.workers_answer = false;
    let serial = stage.send(ada, "create-transport", json!({"direction": "send"}));
    let asked = stage.last_command().clone();
    assert_eq!(stage.control.next_deadline(), Some(stage.now + limits::REPLY_TIMEOUT));
    stage.pass(limits::REPLY_TIMEOUT);
    assert_eq!(stage.answers[&(ada, Some(serial))].as_ref().unwrap_err().code, ErrorCode::Internal);
    assert!(matches!(stage.last_command(), Command::CloseTransport { .. }), "it may have been made");
    assert_eq!(stage.control.counters.reply_timeouts, 1);
    stage.control.handle_event(fake_worker::answer(&asked).unwrap());
    stage.settle();
    assert_eq!(stage.total("transports"), 0, "a late answer changes nothing");
    assert_eq!(stage.control.next_deadline(), None);
}

#[test]
fn requests_in_flight_are_bounded() {
    let mut stage = Stage::new();
    let ada = stage.connect("study", "ada");
    let send = stage.transport(ada, "send");
    stage.workers_answer = false;
    for _ in 0..limits::REQUESTS_IN_FLIGHT_PER_PEER {
        stage.send(ada, "restart-ice", json!({"transportId": send}));
    }
    assert_eq!(stage.refused(ada, "restart-ice", json!({"transportId": send})), ErrorCode::RateLimited);
    stage.pass(limits::REPLY_TIMEOUT);
    stage.workers_answer = true;
    stage.request(ada, "restart-ice", json!({"transportId": send}));
}

#[test]
fn too_many_messages_are_refused_and_a_flood_ends_the_connection() {
    let mut stage = Stage::with(|config| (config.message_burst, config.messages_per_s) = (3, 1));
    let (ada, bob) = (stage.connect("study", "ada"), stage.connect("study", "bob"));
    for _ in 0..3 {
        stage.request(ada, "get-producers", json!({}));
    }
    assert_eq!(stage.refused(ada, "get-producers", json!({})), ErrorCode::RateLimited);
    stage.pass(Duration::from_secs(1));
    stage.request(ada, "get-producers", json!({}));
    stage.request(bob, "get-producers", json!({}));
    for sent in 0.. {
        stage.send(ada, "get-producers", json!({}));
        if let Some(reason) = stage.closed.get(&ada) {
            assert_eq!(*reason, CloseReason::Flood);
            assert_eq!(reason.code(), 1008);
            assert_eq!(sent, limits::FLOOD_BURST);
            break;
        }
    }
    assert_eq!(stage.total("peers"), 1);
}

#[test]
fn frames_that_are_no_requests_count_too() {
    let mut stage = Stage::with(|config| (config.message_burst, config.messages_per_s) = (2, 1));
    let ada = stage.connect("study", "ada");
    stage.control.handle_malformed(stage.now, ada, None, "no JSON");
    stage.control.handle_idle_frame(stage.now, ada);
    stage.settle();
    assert_eq!(stage.answers[&(ada, None)].as_ref().unwrap_err().code, ErrorCode::BadRequest);
    assert_eq!(stage.refused(ada, "get-producers", json!({})), ErrorCode::RateLimited);
}

#[test]
fn a_connection_that_is_gone_is_not_listened_to() {
    let mut stage = Stage::new();
    let ada = stage.connect("study", "ada");
    stage.disconnect(ada);
    stage.send(ada, "get-producers", json!({}));
    stage.control.handle_malformed(stage.now, ada, None, "no JSON");
    stage.settle();
    assert!(stage.answers.is_empty());
}
