//! One conversation, over each framing; and what refused connections hear.

use serde_json::{Value, json};

use super::client::{Client, Framing};
use super::*;
use crate::shard::command::{Layers, Reason};

const MIC: &str = include_str!("../../../tests/fixtures/chromium156-msc3.24.1.produce.mic.json");
const CAMERA: &str = include_str!("../../../tests/fixtures/chromium156-msc3.24.1.produce.webcam-vp8-simulcast3.json");
const CAPABILITIES: &str =
    include_str!("../../../tests/fixtures/chromium156-msc3.24.1.device.recvRtpCapabilities.json");

fn produce(transport: &Value, body: &str) -> Value {
    let mut body = json(body);
    body["transportId"] = transport.clone();
    body
}

fn dtls() -> Value {
    let value = ["AB"; 32].join(":");
    json!({"role": "client", "fingerprints": [{"algorithm": "sha-256", "value": value}]})
}

/// Two peers in a call, saying and hearing everything there is. Returns it all in order.
fn conversation(running: &Running, framing: Framing) -> Vec<Value> {
    let mut said = Vec::new();
    let mut ada = framing.enter(running.address, "study", "ada");
    let mut bob = framing.try_enter(running.address, "study", &[("peerId", "bob"), ("displayName", "Bob")]).unwrap();
    said.push(ada.welcome.clone());
    said.push(bob.welcome.clone());
    said.push(ada.hears("peer-joined"));

    said.push(ada.request("get-rtp-capabilities", json!({})));
    let send = ada.request("create-transport", json!({"direction": "send", "forceTcp": false}));
    said.push(send.clone());
    said.push(ada.request("connect-transport", json!({"transportId": send["id"], "dtlsParameters": dtls()})));
    let mic = ada.request("produce", produce(&send["id"], MIC))["id"].clone();
    let camera = ada.request("produce", produce(&send["id"], CAMERA))["id"].clone();
    said.push(bob.hears("new-producer"));
    said.push(bob.hears("new-producer"));

    let joined = bob.request("join", json!({"produce": false, "rtpCapabilities": json(CAPABILITIES)}));
    said.push(joined.clone());
    let recv = &joined["recvTransport"]["id"];
    let consume = json!({"transportId": recv, "producerId": camera, "rtpCapabilities": json(CAPABILITIES)});
    let consumer = bob.request("consume", consume);
    said.push(consumer.clone());
    said.push(bob.request("consume", json!({"producerId": mic})));
    let id = &consumer["id"];
    for (method, data) in [
        ("resume-consumer", json!({"consumerId": id})),
        ("pause-consumer", json!({"consumerId": id})),
        ("set-preferred-layers", json!({"consumerId": id, "spatialLayer": 1})),
        ("set-consumer-priority", json!({"consumerId": id, "priority": 9})),
        ("request-key-frame", json!({"consumerId": id})),
        ("restart-ice", json!({"transportId": recv})),
        ("get-stats", json!({"transportId": recv})),
        ("get-producers", json!({})),
    ] {
        said.push(bob.request(method, data));
    }
    running.events.blocking_send(layers(id)).unwrap();
    said.push(bob.hears("consumer-layers-changed"));

    for (method, data) in [
        ("dance", json!({})),
        ("consume", json!({"producerId": 7})),
        ("consume", json!({"producerId": "0"})),
        ("close-transport", json!({"transportId": send["id"]})),
        ("produce", produce(recv, MIC)),
    ] {
        said.push(bob.try_request(method, data).unwrap_err());
    }
    said.push(ada.request("pause-producer", json!({"producerId": camera})));
    said.push(bob.hears("producer-paused"));
    said.push(bob.hears("consumer-paused"));
    said.push(ada.request("resume-producer", json!({"producerId": camera})));
    said.push(bob.hears("producer-resumed"));
    said.push(ada.request("close-producer", json!({"producerId": camera})));
    said.push(bob.hears("consumer-closed"));
    said.push(bob.hears("producer-closed"));
    said.push(bob.try_request("resume-consumer", json!({"consumerId": id})).unwrap_err());
    said.push(ada.request("leave", json!({})));
    said.push(bob.hears("peer-left"));
    said
}

fn layers(consumer: &Value) -> Event {
    let consumer = consumer.as_str().unwrap().parse().unwrap();
    Event::ConsumerLayers { consumer, layers: Some(Layers { spatial: 1, temporal: 2 }), reason: Reason::Preferred }
}

/// With everything that is random made the same.
fn anonymous(value: &Value) -> Value {
    let is_id = |text: &str| text.len() >= 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match value {
        Value::String(text) if is_id(text.trim_start_matches("ufrag-")) => json!("<random>"),
        Value::Array(items) => items.iter().map(anonymous).collect(),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| match name.as_str() {
                "ssrc" => (name.clone(), json!("<random>")),
                _ => (name.clone(), anonymous(value)),
            });
            fields.collect()
        }
        other => other.clone(),
    }
}

#[test]
fn the_same_conversation_has_the_same_answers_over_every_framing() {
    let transcripts = Framing::ALL.map(|framing| {
        let running = start();
        let said = conversation(&running, framing);
        said.iter().map(anonymous).collect::<Vec<_>>()
    });
    for (line, said) in transcripts[0].iter().enumerate() {
        assert_eq!(&transcripts[1][line], said, "line {line}");
        assert_eq!(&transcripts[2][line], said, "line {line}");
    }
    assert_eq!(transcripts[0].len(), transcripts[1].len());
    let codes: Vec<&str> = transcripts[0].iter().filter_map(|said| said["code"].as_str()).collect();
    assert_eq!(codes, ["unknown-method", "bad-request", "not-found", "forbidden", "bad-request", "not-found"]);
}

#[test]
fn peers_of_different_framings_are_in_the_same_room() {
    let running = start();
    let mut peers: Vec<Client> = Vec::new();
    for (number, framing) in Framing::ALL.into_iter().enumerate() {
        peers.push(framing.enter(running.address, "study", &format!("peer{number}")));
        for other in &mut peers[..number] {
            assert_eq!(other.hears("peer-joined")["peerId"], json!(format!("peer{number}")));
        }
    }
    let send = peers[0].request("create-transport", json!({"direction": "send"}));
    let mic = peers[0].request("produce", produce(&send["id"], MIC))["id"].clone();
    for other in &mut peers[1..] {
        assert_eq!(other.hears("new-producer")["producerId"], mic);
    }
}

#[test]
fn a_refused_connection_is_told_the_code() {
    let running = start_with(|config| config.peers_per_room = 2);
    let mut inside = Vec::new();
    for framing in Framing::ALL {
        let room = format!("room-{framing:?}");
        let enter = |claims: &[(&str, &str)]| framing.try_enter(running.address, &room, claims).map(drop).unwrap_err();
        inside.push(framing.enter(running.address, &room, "ada"));
        let taken = enter(&[("peerId", "ada")]);
        assert!(taken == "peer-id-taken" || taken == "4000 peer-id-taken", "{framing:?}: {taken}");
        inside.push(framing.enter(running.address, &room, "bob"));
        let full = enter(&[("peerId", "carol")]);
        assert!(full == "room-full" || full == "4000 room-full", "{framing:?}: {full}");
    }
    assert_eq!(running.metric("ringside_signaling_connections_closed_total{reason=\"refused\"}"), 6.0);
    assert_eq!(running.metric("ringside_peers"), 6.0);
}

#[test]
fn a_join_token_is_asked_for_where_there_is_a_secret() {
    let running = start_with(|config| config.token_secret = Some("secret".to_owned()));
    let key = jsonwebtoken::EncodingKey::from_secret(b"secret");
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &json!({"room": "study"}), &key).unwrap();
    for framing in Framing::ALL {
        let refused = framing.try_enter(running.address, "study", &[]).map(drop).unwrap_err();
        assert!(refused.ends_with("unauthorized"), "{framing:?}: {refused}");
        let elsewhere = framing.try_enter(running.address, "other", &[("token", &token)]).map(drop).unwrap_err();
        assert!(elsewhere.ends_with("forbidden"), "{framing:?}: {elsewhere}");
        framing.try_enter(running.address, "study", &[("token", &token)]).unwrap();
    }
}

#[test]
fn another_connection_takes_a_peer_over() {
    let running = start_with(|config| config.reconnect_grace = Duration::from_secs(60));
    for framing in Framing::ALL {
        let room = format!("room-{framing:?}");
        let mut ada = framing.enter(running.address, &room, "ada");
        let transport = ada.request("create-transport", json!({"direction": "recv"}))["id"].clone();
        let token = ada.welcome["resumeToken"].as_str().unwrap().to_owned();
        let claims = [("peerId", "ada"), ("resumeToken", token.as_str())];
        let mut again = framing.try_enter(running.address, &room, &claims).unwrap();
        assert_eq!(again.welcome["resumed"], true);
        assert_eq!(again.welcome["transports"], json!([transport]));
        again.request("restart-ice", json!({"transportId": transport}));
        let (code, reason) = ada.closed();
        match framing {
            Framing::Protoo => assert_eq!((code, reason.as_str()), (4000, "session-replaced")),
            _ => assert_eq!(code, 41, "the namespace is left"),
        }
    }
}

#[test]
fn names_of_rooms_may_have_any_letters() {
    let running = start();
    let room = "Lesezimmer%20f%C3%BCr%20%F0%9F%93%9A";
    for (number, framing) in Framing::ALL.into_iter().enumerate() {
        let client = framing.enter(running.address, room, &format!("peer{number}"));
        assert_eq!(client.welcome["roomId"], "Lesezimmer für 📚");
        drop(client);
    }
}

#[test]
fn whoever_disconnects_is_gone_at_once() {
    let running = start();
    let mut stays = Framing::Protoo.enter(running.address, "study", "stays");
    for framing in [Framing::Protoo, Framing::SocketIo] {
        let name = format!("{framing:?}");
        let mut leaves = framing.enter(running.address, "study", &name);
        leaves.request("create-transport", json!({"direction": "send"}));
        drop(leaves);
        assert_eq!(stays.hears("peer-left")["peerId"], json!(name));
    }
    let mut polls = Framing::SocketIoPolling.enter(running.address, "study", "polls");
    // What a page sends when it goes: the namespace is left.
    polls.send_packet("41/room/study,");
    assert_eq!(stays.hears("peer-left")["peerId"], "polls");
    running.metric_becomes("ringside_transports", 0.0);
}
