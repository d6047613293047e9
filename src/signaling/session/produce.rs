//! `produce`, and pausing, resuming and closing producers; who learns of them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use super::Control;
use super::waiting::{Asker, Then};
use crate::ids::{ConsumerId, PeerId, ProducerId};
use crate::limits;
use crate::shard::command::{Command, Direction, Kind, Reply, SourceClass};
use crate::signaling::error::{ErrorCode, Failure};
use crate::signaling::message::Produce;
use crate::signaling::negotiation::{self, ProducerContext};
use crate::signaling::notification::{Notification, ProducerInfo};
use crate::signaling::registry::Producer;

impl Control {
    pub(super) fn produce(
        &mut self,
        now: Instant,
        peer: PeerId,
        asker: Asker,
        body: Produce,
    ) -> Result<Option<Value>, Failure> {
        let transport = body.transport_id;
        self.own_transport_for(peer, transport, Direction::Send)?;
        let owned = self.registry.peers.get(&peer).ok_or(ErrorCode::NotFound)?.producers.len();
        if owned >= self.config.producers_per_peer {
            return Err(Failure::new(ErrorCode::TooMany, "producers of this peer"));
        }
        if body.app_data.to_string().len() > limits::APP_DATA_BYTES {
            let detail = format!("appData: at most {} bytes of JSON", limits::APP_DATA_BYTES);
            return Err(Failure::bad_request(detail));
        }
        let id = ProducerId(self.registry.random());
        let cname = self.registry.transports.get(&transport).and_then(|transport| transport.cname.clone());
        let context = ProducerContext {
            cname: cname.as_deref(),
            class: source_class(body.kind, &body.app_data),
            paused: body.paused,
            random: &mut || self.registry.random() as u32,
        };
        let negotiated = negotiation::negotiate_producer(id, body.kind, body.rtp_parameters, context)?;
        let spec = Box::new(negotiated.spec.clone());
        let worker = self.worker_of(peer)?;
        let asked = self.ask(now, asker, worker, Then::Produced(id), |token| Command::Produce {
            token,
            transport,
            producer: spec,
        })?;
        if let Some(entry) = self.registry.transports.get_mut(&transport) {
            entry.cname = Some(negotiated.spec.cname.clone());
        }
        let producer = Producer {
            peer,
            transport,
            negotiated,
            paused: body.paused,
            app_data: Arc::new(if body.app_data.is_null() { json!({}) } else { body.app_data }),
            consumers: HashSet::new(),
            ready: false,
        };
        self.registry.add_producer(id, producer);
        Ok(asked)
    }

    pub(super) fn produced(&mut self, id: ProducerId, result: Result<Reply, Failure>) -> Result<Value, Failure> {
        let producer = self.registry.producers.get_mut(&id).ok_or(ErrorCode::NotFound)?;
        let peer = producer.peer;
        if let Err(failure) = result {
            if failure.code == ErrorCode::Internal
                && let Some(worker) = self.registry.worker_of(peer)
            {
                self.command(worker, Command::CloseProducer { producer: id });
            }
            self.registry.remove_producer(id);
            return Err(failure);
        }
        producer.ready = true;
        let room = self.registry.peers.get(&peer).ok_or(ErrorCode::NotFound)?.room;
        if let Some(info) = self.producer_info(id) {
            self.notify_room(room, Some(peer), &Notification::new_producer(&info));
        }
        Ok(json!({ "id": id }))
    }

    pub(super) fn pause_producer(
        &mut self,
        now: Instant,
        peer: PeerId,
        asker: Asker,
        producer: ProducerId,
        paused: bool,
    ) -> Result<Option<Value>, Failure> {
        self.own_producer(peer, producer)?;
        let worker = self.worker_of(peer)?;
        self.ask(now, asker, worker, Then::ProducerPaused(producer, paused), |token| match paused {
            true => Command::PauseProducer { token, producer },
            false => Command::ResumeProducer { token, producer },
        })
    }

    /// Others hear of the producer; those who consume it, of their consumer too.
    pub(super) fn producer_paused(
        &mut self,
        id: ProducerId,
        paused: bool,
        result: Result<Reply, Failure>,
    ) -> Result<Value, Failure> {
        result?;
        let producer = self.registry.producers.get_mut(&id).ok_or(ErrorCode::NotFound)?;
        let changed = std::mem::replace(&mut producer.paused, paused) != paused;
        let peer = producer.peer;
        let mut consumers: Vec<ConsumerId> = producer.consumers.iter().copied().collect();
        consumers.sort_unstable();
        if changed && let Some(owner) = self.registry.peers.get(&peer) {
            let (room, name) = (owner.room, owner.name.clone());
            self.notify_room(room, Some(peer), &Notification::producer_paused(id, &name, paused));
            for consumer in consumers {
                if let Some(entry) = self.registry.consumers.get(&consumer).filter(|entry| entry.ready) {
                    self.notify(entry.peer, &Notification::consumer_paused(consumer, id, paused));
                }
            }
        }
        Ok(json!({}))
    }

    pub(super) fn close_producer(&mut self, peer: PeerId, id: ProducerId) -> Result<Option<Value>, Failure> {
        self.own_producer(peer, id)?;
        let worker = self.worker_of(peer)?;
        self.command(worker, Command::CloseProducer { producer: id });
        let closed = self.registry.remove_producer(id);
        if let Some(owner) = self.registry.peers.get(&peer) {
            let (room, name) = (owner.room, owner.name.clone());
            self.tell_closed(room, Some(peer), &name, &closed);
        }
        Ok(Some(json!({})))
    }

    pub(super) fn own_producer(&self, peer: PeerId, id: ProducerId) -> Result<&Producer, Failure> {
        let producer = self.registry.producers.get(&id).ok_or(Failure::new(ErrorCode::NotFound, "producerId"))?;
        if producer.peer != peer {
            return Err(Failure::new(ErrorCode::Forbidden, "this producer is another peer's"));
        }
        Ok(producer)
    }

    /// What a peer could consume: everything of the others, in the order of their coming.
    pub(super) fn producers_for(&self, peer: PeerId) -> Vec<ProducerInfo> {
        let room = self.registry.peers.get(&peer).and_then(|peer| self.registry.rooms.get(&peer.room));
        let others = room.into_iter().flat_map(|room| &room.peers).filter(|other| **other != peer);
        let producers = others.flat_map(|other| &self.registry.peers[other].producers);
        producers.filter_map(|id| self.producer_info(*id)).collect()
    }

    /// `None` while the worker does not have it.
    fn producer_info(&self, id: ProducerId) -> Option<ProducerInfo> {
        let producer = self.registry.producers.get(&id).filter(|producer| producer.ready)?;
        Some(ProducerInfo {
            producer_id: id,
            peer_id: self.registry.peers.get(&producer.peer)?.name.clone(),
            kind: producer.negotiated.kind,
            producer_type: producer.negotiated.producer_type,
            paused: producer.paused,
            app_data: producer.app_data.clone(),
        })
    }
}

/// Applications say in `appData` what a video is, each in its own words: `source: "screen"`,
/// `mediaTag: "screen-video"`, `type: "screensharing"`, `share: true`.
fn source_class(kind: Kind, app_data: &Value) -> SourceClass {
    if kind == Kind::Audio {
        return SourceClass::Microphone;
    }
    let says_screen = |key: &str| match app_data.get(key) {
        Some(Value::String(text)) => {
            let text = text.to_ascii_lowercase();
            text.contains("screen") || text.contains("share") || text.contains("display")
        }
        Some(Value::Bool(yes)) => *yes && matches!(key, "share" | "screen" | "screenShare"),
        _ => false,
    };
    let keys = ["source", "mediaTag", "type", "kind", "mediaType", "label", "share", "screen", "screenShare"];
    if keys.into_iter().any(says_screen) { SourceClass::ScreenShare } else { SourceClass::Camera }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applications_may_say_in_their_own_words_that_a_video_is_a_screen() {
        for (app_data, class) in [
            (json!({"source": "screen"}), SourceClass::ScreenShare),
            (json!({"mediaTag": "screen-video"}), SourceClass::ScreenShare),
            (json!({"type": "ScreenSharing"}), SourceClass::ScreenShare),
            (json!({"share": true}), SourceClass::ScreenShare),
            (json!({"share": false}), SourceClass::Camera),
            (json!({"source": "webcam", "name": "screenwriter"}), SourceClass::Camera),
            (json!({}), SourceClass::Camera),
            (json!(null), SourceClass::Camera),
        ] {
            assert_eq!(source_class(Kind::Video, &app_data), class, "{app_data}");
            assert_eq!(source_class(Kind::Audio, &app_data), SourceClass::Microphone);
        }
    }
}
