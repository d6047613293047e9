//! What the server says unasked: one constructor for each notification of the protocol.
//!
//! Made once per happening and shared by everybody who hears it; framings write it down.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use crate::ids::{ConsumerId, ProducerId, TransportId};
use crate::shard::command::{DtlsState, IceState, Kind, Layers, Reason};
use crate::signaling::negotiation::ProducerType;

/// A method name and its data, cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub struct Notification {
    pub method: &'static str,
    pub data: Arc<Value>,
}

/// A producer as other peers learn of it, in `new-producer`, `join` and `get-producers`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProducerInfo {
    pub producer_id: ProducerId,
    pub peer_id: Arc<str>,
    pub kind: Kind,
    #[serde(rename = "type")]
    pub producer_type: ProducerType,
    pub paused: bool,
    pub app_data: Arc<Value>,
}

impl Notification {
    fn new(method: &'static str, data: Value) -> Notification {
        Notification { method, data: Arc::new(data) }
    }

    /// The first thing that a connection hears: who it is, and the token with which another
    /// connection may take its place.
    pub fn welcome(data: Value) -> Notification {
        Notification::new("welcome", data)
    }

    /// Again with the new name when a peer gives or changes its display name.
    pub fn peer_joined(peer: &str, display_name: Option<&str>) -> Notification {
        Notification::new("peer-joined", json!({ "peerId": peer, "displayName": display_name }))
    }

    pub fn peer_left(peer: &str) -> Notification {
        Notification::new("peer-left", json!({ "peerId": peer }))
    }

    pub fn new_producer(info: &ProducerInfo) -> Notification {
        Notification::new("new-producer", json!(info))
    }

    pub fn producer_closed(producer: ProducerId, peer: &str) -> Notification {
        Notification::new("producer-closed", json!({ "producerId": producer, "peerId": peer }))
    }

    pub fn producer_paused(producer: ProducerId, peer: &str, paused: bool) -> Notification {
        let method = if paused { "producer-paused" } else { "producer-resumed" };
        Notification::new(method, json!({ "producerId": producer, "peerId": peer }))
    }

    pub fn consumer_closed(consumer: ConsumerId, producer: ProducerId) -> Notification {
        Notification::new("consumer-closed", json!({ "consumerId": consumer, "producerId": producer }))
    }

    pub fn consumer_paused(consumer: ConsumerId, producer: ProducerId, paused: bool) -> Notification {
        let method = if paused { "consumer-paused" } else { "consumer-resumed" };
        Notification::new(method, json!({ "consumerId": consumer, "producerId": producer }))
    }

    pub fn consumer_layers(consumer: ConsumerId, layers: Option<Layers>, reason: Reason) -> Notification {
        let data = json!({ "consumerId": consumer, "layers": layers, "reason": reason });
        Notification::new("consumer-layers-changed", data)
    }

    pub fn consumer_score(consumer: ConsumerId, score: u8, producer_score: u8) -> Notification {
        let data = json!({ "consumerId": consumer, "score": score, "producerScore": producer_score });
        Notification::new("consumer-score", data)
    }

    pub fn producer_score(producer: ProducerId, score: u8) -> Notification {
        Notification::new("producer-score", json!({ "producerId": producer, "score": score }))
    }

    pub fn active_speaker(peer: &str) -> Notification {
        Notification::new("active-speaker", json!({ "peerId": peer }))
    }

    /// Levels in -dBov: 0 is the loudest, 127 silence.
    pub fn audio_levels<'a>(levels: impl Iterator<Item = (&'a str, u8)>) -> Notification {
        let levels: Vec<Value> = levels.map(|(peer, level)| json!({ "peerId": peer, "level": level })).collect();
        Notification::new("audio-levels", json!({ "levels": levels }))
    }

    pub fn transport_state(transport: TransportId, ice: IceState, dtls: DtlsState) -> Notification {
        Notification::new("transport-state", json!({ "transportId": transport, "ice": ice, "dtls": dtls }))
    }

    pub fn server_draining(deadline_ms: u64) -> Notification {
        Notification::new("server-draining", json!({ "deadlineMs": deadline_ms }))
    }
}
