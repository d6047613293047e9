//! Transports, producers and consumers.

use super::*;
use crate::ids::{ConsumerId, ProducerId, TransportId};
use crate::shard::command::{Direction, DtlsRole, DtlsState, IceState, Layers, Reason, SourceClass};

/// A room in which ada sends and bob receives.
fn two() -> (Stage, ConnectionId, ConnectionId, String, String) {
    let mut stage = Stage::new();
    let (ada, bob) = (stage.connect("study", "ada"), stage.connect("study", "bob"));
    let (send, recv) = (stage.transport(ada, "send"), stage.transport(bob, "recv"));
    stage.heard.clear();
    (stage, ada, bob, send, recv)
}

#[test]
fn a_transport_is_described_as_the_client_library_wants_it() {
    let mut stage = Stage::with(|config| {
        config.announced = vec!["203.0.113.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
        config.ice_servers = Some(json!([{"urls": "turn:turn.example.org"}]));
    });
    let ada = stage.connect("study", "ada");
    let options = stage.request(ada, "create-transport", json!({"direction": "send", "forceTcp": false}));
    let id = text(&options["id"]);
    assert_eq!(options["iceParameters"]["usernameFragment"], format!("ufrag-{id}"));
    let candidates = options["iceCandidates"].as_array().unwrap();
    let seen: Vec<_> = candidates.iter().map(|c| (text(&c["address"]), c["port"].as_u64().unwrap())).collect();
    // The fake worker puts every transport on its second port.
    assert_eq!(seen, [("203.0.113.7".to_owned(), 10_001), ("2001:db8::7".to_owned(), 10_001)]);
    assert_eq!(options["dtlsParameters"]["role"], "auto");
    assert_eq!(options["dtlsParameters"]["fingerprints"][0]["algorithm"], "sha-256");
    assert_eq!(text(&options["dtlsParameters"]["fingerprints"][0]["value"]).len(), 95);
    assert_eq!(options["iceServers"][0]["urls"], "turn:turn.example.org");
    assert!(options.get("sctpParameters").is_none(), "there are no data channels");
}

#[test]
fn a_transport_is_connected_restarted_and_closed() {
    let (mut stage, ada, ..) = two();
    let send = stage.transport(ada, "send");
    stage.request(ada, "connect-transport", json!({"transportId": send, "dtlsParameters": fingerprint()}));
    let Command::ConnectTransport { role, fingerprints, .. } = stage.last_command() else { panic!() };
    assert_eq!((*role, fingerprints.len()), (DtlsRole::Client, 1));
    let restarted = stage.request(ada, "restart-ice", json!({"transportId": send}));
    assert_eq!(restarted["iceParameters"]["usernameFragment"], "another-ufrag");
    stage.request(ada, "close-transport", json!({"transportId": send}));
    assert!(matches!(stage.last_command(), Command::CloseTransport { .. }));
    assert_eq!(stage.refused(ada, "restart-ice", json!({"transportId": send})), ErrorCode::NotFound);
}

#[test]
fn a_producer_is_announced_with_what_the_application_said_of_it() {
    let (mut stage, ada, bob, send, _) = two();
    let mut body = parsed(SIMULCAST);
    (body["transportId"], body["appData"]) = (json!(send), json!({"source": "screen"}));
    body["paused"] = json!(true);
    let id = text(&stage.request(ada, "produce", body)["id"]);
    let Command::Produce { producer, .. } = stage.last_command() else { panic!() };
    assert_eq!(producer.class, SourceClass::ScreenShare);
    assert!(producer.paused);
    let heard = stage.heard(bob);
    let expected = json!({"producerId": id, "peerId": "ada", "kind": "video", "type": "simulcast", "paused": true,
        "appData": {"source": "screen"}});
    assert_eq!(heard, [("new-producer", expected)]);
    assert_eq!(stage.methods_heard(ada), [] as [&str; 0], "its owner knows");
}

#[test]
fn the_producers_of_a_transport_share_a_cname() {
    let (mut stage, ada, _, send, _) = two();
    stage.produce(ada, &send, SIMULCAST);
    stage.produce(ada, &send, MIC);
    let cnames: Vec<String> = stage
        .commands
        .iter()
        .filter_map(|(_, command)| match command {
            Command::Produce { producer, .. } => Some(producer.cname.clone()),
            _ => None,
        })
        .collect();
    assert!(!cnames[0].is_empty());
    assert_eq!(cnames[0], cnames[1]);
}

#[test]
fn a_consumer_starts_paused_whatever_was_asked() {
    let (mut stage, ada, bob, send, recv) = two();
    let camera = stage.produce(ada, &send, SIMULCAST);
    let data = json!({"transportId": recv, "producerId": camera, "rtpCapabilities": parsed(CAPABILITIES),
        "paused": false});
    let answer = stage.request(bob, "consume", data);
    let Command::Consume { consumer, .. } = stage.last_command() else { panic!() };
    assert!(consumer.paused);
    assert_eq!(answer["producerId"], json!(camera));
    assert_eq!(answer["peerId"], "ada");
    assert_eq!((&answer["kind"], &answer["type"]), (&json!("video"), &json!("simulcast")));
    assert_eq!(answer["producerPaused"], false);
    assert_eq!(answer["rtpParameters"]["mid"], "0");
    let ssrc = answer["rtpParameters"]["encodings"][0]["ssrc"].as_u64().unwrap();
    assert_eq!(answer["rtpParameters"]["encodings"][0]["rtx"]["ssrc"], json!(ssrc + 1));
    stage.request(bob, "resume-consumer", json!({"consumerId": answer["id"]}));
    assert!(matches!(stage.last_command(), Command::ResumeConsumer { .. }));
}

#[test]
fn consumers_of_a_transport_have_their_own_mid_and_ssrc() {
    let (mut stage, ada, bob, send, _) = two();
    let mic = stage.produce(ada, &send, MIC);
    let mut seen = std::collections::HashSet::new();
    for mid in 0..20 {
        let answer = stage.consume(bob, &mic);
        assert_eq!(answer["rtpParameters"]["mid"], mid.to_string());
        assert!(seen.insert(answer["rtpParameters"]["encodings"][0]["ssrc"].as_u64().unwrap()));
    }
    stage.request(bob, "close-consumer", json!({"consumerId": stage.control.registry.consumers.keys().next()}));
    assert_eq!(stage.consume(bob, &mic)["rtpParameters"]["mid"], "20", "a mid is never used twice");
}

#[test]
fn the_ssrc_of_the_clients_own_probes_is_never_given() {
    let mut numbers = [1233, 1234, u64::from(u32::MAX), 1 << 32, 77, 77, 76, 78, 90].into_iter();
    let mut registry = Registry::new(1, Box::new(move || numbers.next().unwrap_or(1_000_000)));
    let transport = {
        let id = TransportId(5);
        let mut other = Registry::new(1, Box::new(|| 5));
        other.add_transport(PeerId(1), Direction::Recv);
        registry.transports.insert(id, other.transports.remove(&id).unwrap());
        id
    };
    let (mid, ssrc, rtx) = registry.consumer_numbers(transport).unwrap();
    assert_eq!((mid.as_str(), ssrc.0, rtx.0), ("0", 77, 78), "1233 + 1, 1234, -1 + 1 and 0 are passed over");
    let consumer = crate::signaling::registry::Consumer {
        peer: PeerId(1),
        transport,
        producer: ProducerId(1),
        ssrc,
        paused: true,
        ready: true,
    };
    registry.add_consumer(ConsumerId(1), consumer);
    assert_eq!(registry.consumer_numbers(transport).unwrap().1.0, 90, "77, 76 + 1 and 78 are taken");
}

#[test]
fn pausing_a_producer_is_heard_by_everybody_once() {
    let (mut stage, ada, bob, send, _) = two();
    let mic = stage.produce(ada, &send, MIC);
    let consumer = text(&stage.consume(bob, &mic)["id"]);
    stage.heard(bob);
    for (method, producer_heard, consumer_heard) in [
        ("pause-producer", "producer-paused", "consumer-paused"),
        ("resume-producer", "producer-resumed", "consumer-resumed"),
    ] {
        stage.request(ada, method, json!({"producerId": mic}));
        stage.request(ada, method, json!({"producerId": mic}));
        let expected = [
            (producer_heard, json!({"producerId": mic, "peerId": "ada"})),
            (consumer_heard, json!({"consumerId": consumer, "producerId": mic})),
        ];
        assert_eq!(stage.heard(bob), expected);
    }
}

#[test]
fn a_paused_producer_is_shown_as_such_to_who_comes_later() {
    let (mut stage, ada, bob, send, _) = two();
    let mic = stage.produce(ada, &send, MIC);
    stage.request(ada, "pause-producer", json!({"producerId": mic}));
    assert_eq!(stage.consume(bob, &mic)["producerPaused"], true);
    assert_eq!(stage.request(bob, "get-producers", json!({}))["producers"][0]["paused"], true);
}

#[test]
fn closing_a_producer_closes_its_consumers() {
    let (mut stage, ada, bob, send, _) = two();
    let mic = stage.produce(ada, &send, MIC);
    let consumer = text(&stage.consume(bob, &mic)["id"]);
    stage.heard(bob);
    stage.request(ada, "close-producer", json!({"producerId": mic}));
    assert_eq!(stage.methods_heard(bob), ["consumer-closed", "producer-closed"]);
    assert_eq!(stage.refused(bob, "resume-consumer", json!({"consumerId": consumer})), ErrorCode::NotFound);
    assert_eq!(stage.total("consumers"), 0);
}

#[test]
fn closing_a_consumer_concerns_nobody_else() {
    let (mut stage, ada, bob, send, _) = two();
    let mic = stage.produce(ada, &send, MIC);
    let consumer = stage.consume(bob, &mic)["id"].clone();
    stage.heard.clear();
    stage.request(bob, "close-consumer", json!({"consumerId": consumer}));
    assert!(matches!(stage.last_command(), Command::CloseConsumer { .. }));
    assert_eq!(stage.methods_heard(ada), [] as [&str; 0]);
    assert_eq!(stage.total("producers"), 1);
}

#[test]
fn what_a_peer_asks_of_its_consumer_reaches_the_worker() {
    let (mut stage, ada, bob, send, _) = two();
    let camera = stage.produce(ada, &send, SIMULCAST);
    let id = stage.consume(bob, &camera)["id"].clone();
    stage.request(bob, "set-preferred-layers", json!({"consumerId": id, "spatialLayer": 1, "temporalLayer": 2}));
    let Command::SetPreferredLayers { spatial: 1, temporal: Some(2), .. } = stage.last_command() else { panic!() };
    stage.request(bob, "set-consumer-priority", json!({"consumerId": id, "priority": 255}));
    let Command::SetConsumerPriority { priority: 255, .. } = stage.last_command() else { panic!() };
    stage.request(bob, "request-key-frame", json!({"consumerId": id}));
    assert!(matches!(stage.last_command(), Command::RequestKeyFrame { .. }));
    stage.request(bob, "pause-consumer", json!({"consumerId": id}));
    assert!(matches!(stage.last_command(), Command::PauseConsumer { .. }));
    assert_eq!(stage.request(bob, "get-stats", json!({"consumerId": id})), json!({"stats": []}));
}

#[test]
fn what_workers_report_reaches_whom_it_concerns() {
    let (mut stage, ada, bob, send, recv) = two();
    let camera = stage.produce(ada, &send, SIMULCAST);
    let id = text(&stage.consume(bob, &camera)["id"]);
    stage.heard.clear();
    let (consumer, producer) = (id.parse().unwrap(), camera.parse().unwrap());
    for event in [
        Event::TransportState {
            transport: recv.parse().unwrap(),
            ice: IceState::Completed,
            dtls: DtlsState::Connected,
        },
        Event::ConsumerLayers { consumer, layers: Some(Layers { spatial: 2, temporal: 1 }), reason: Reason::Bandwidth },
        Event::ConsumerLayers { consumer, layers: None, reason: Reason::NoKeyFrame },
        Event::ConsumerScore { consumer, score: 7, producer_score: 9 },
        Event::ProducerScore { producer, score: 9 },
        Event::ConsumerScore { consumer: ConsumerId(1), score: 1, producer_score: 1 },
    ] {
        stage.control.handle_event(event);
    }
    stage.settle();
    let expected = [
        ("transport-state", json!({"transportId": recv, "ice": "completed", "dtls": "connected"})),
        (
            "consumer-layers-changed",
            json!({"consumerId": id, "layers": {"spatialLayer": 2, "temporalLayer": 1}, "reason": "bandwidth"}),
        ),
        ("consumer-layers-changed", json!({"consumerId": id, "layers": null, "reason": "no-key-frame"})),
        ("consumer-score", json!({"consumerId": id, "score": 7, "producerScore": 9})),
    ];
    assert_eq!(stage.heard(bob), expected);
    assert_eq!(stage.heard(ada), [("producer-score", json!({"producerId": camera, "score": 9}))]);
}

#[test]
fn a_transport_that_dies_by_itself_takes_its_producers_and_everybody_hears_of_it() {
    let (mut stage, ada, bob, send, _) = two();
    let mic = stage.produce(ada, &send, MIC);
    let consumer = text(&stage.consume(bob, &mic)["id"]);
    stage.heard.clear();
    stage.control.handle_event(Event::TransportClosed { transport: send.parse().unwrap() });
    stage.settle();
    let expected = [
        ("consumer-closed", json!({"consumerId": consumer, "producerId": mic})),
        ("producer-closed", json!({"producerId": mic, "peerId": "ada"})),
    ];
    assert_eq!(stage.heard(bob), expected);
    assert_eq!(stage.methods_heard(ada), ["transport-state", "producer-closed"]);
    assert_eq!(stage.total("peers"), 2, "the peer itself stays");
}

#[test]
fn answers_of_workers_may_come_in_any_order() {
    let (mut stage, ada, ..) = two();
    stage.workers_answer = false;
    let serials: Vec<u64> = (0..3).map(|_| stage.send(ada, "create-transport", json!({"direction": "send"}))).collect();
    let mut asked: Vec<Command> = stage.commands.iter().rev().take(3).map(|(_, command)| command.clone()).collect();
    asked.swap(0, 1);
    for command in &asked {
        stage.control.handle_event(fake_worker::answer(command).unwrap());
    }
    stage.settle();
    assert!(serials.iter().all(|serial| stage.answers[&(ada, Some(*serial))].is_ok()));
    assert_eq!(stage.control.next_deadline(), None);
}

#[test]
fn a_producer_that_closed_while_it_was_being_consumed_is_not_found() {
    let (mut stage, ada, bob, send, _) = two();
    let mic = stage.produce(ada, &send, MIC);
    stage.workers_answer = false;
    let data = json!({"producerId": mic, "rtpCapabilities": parsed(CAPABILITIES)});
    let serial = stage.send(bob, "consume", data);
    let asked = stage.last_command().clone();
    stage.request(ada, "close-producer", json!({"producerId": mic}));
    stage.control.handle_event(fake_worker::answer(&asked).unwrap());
    stage.settle();
    assert_eq!(stage.answers[&(bob, Some(serial))].as_ref().unwrap_err().code, ErrorCode::NotFound);
}

#[test]
fn a_peer_that_left_is_not_answered_and_leaves_no_request_behind() {
    let (mut stage, ada, _, send, _) = two();
    stage.workers_answer = false;
    let mut body = parsed(MIC);
    body["transportId"] = json!(send);
    stage.send(ada, "produce", body);
    let asked = stage.last_command().clone();
    stage.disconnect(ada);
    stage.control.handle_event(fake_worker::answer(&asked).unwrap());
    stage.settle();
    assert_eq!(stage.total("producers"), 0);
    assert_eq!(stage.control.next_deadline(), None);
}

#[test]
fn rows_of_statistics_carry_the_names_that_clients_know() {
    let (stage, ada, ..) = two();
    let peer_id = stage.control.registry.peer_of(ada).unwrap();
    let row = crate::shard::stats::TransportStats {
        transport_id: TransportId(7),
        peer_id,
        ice_state: IceState::Connected,
        dtls_state: DtlsState::Connected,
        srtp_profile: None,
        selected_tuple: Some("198.51.100.1:5000".to_owned()),
        tuples: 1,
        packets_received: 1,
        bytes_received: 2,
        packets_sent: 3,
        bytes_sent: 4,
        recv_bitrate_bps: 5,
        send_bitrate_bps: 6,
        padding_bytes_sent: 0,
        rtt_ms: Some(7.5),
        available_outgoing_bitrate_bps: None,
    };
    let rows = stage.control.rows(&[crate::shard::stats::Stats::Transport(row)]);
    assert_eq!((&rows[0]["peerId"], &rows[0]["type"]), (&json!("ada"), &json!("transport")));
}
