//! `consume`, and everything that a peer may ask of a consumer of its own.

use std::time::Instant;

use serde_json::{Value, json};

use super::Control;
use super::waiting::{Asker, Then};
use crate::ids::{ConsumerId, PeerId, ProducerId, TransportId};
use crate::shard::command::{Command, ConsumerSpec, Direction, Reply};
use crate::signaling::error::{ErrorCode, Failure};
use crate::signaling::message::{Consume, SetConsumerPriority, SetPreferredLayers};
use crate::signaling::negotiation::{self, ConsumerContext, RtpCapabilities};
use crate::signaling::registry::{Consumer, Producer};

/// What a consumer starts with until `set-consumer-priority` says otherwise.
const DEFAULT_PRIORITY: u8 = 1;

impl Control {
    pub(super) fn consume(
        &mut self,
        now: Instant,
        peer: PeerId,
        asker: Asker,
        mut body: Consume,
    ) -> Result<Option<Value>, Failure> {
        let transport = self.transport_to_consume_on(peer, body.transport_id)?;
        self.producer_in_room(peer, body.producer_id)?;
        let owner = self.registry.peers.get(&peer).ok_or(ErrorCode::NotFound)?;
        if owner.consumers.len() >= self.config.consumers_per_peer {
            return Err(Failure::new(ErrorCode::TooMany, "consumers of this peer"));
        }
        let capabilities = match body.rtp_capabilities.take() {
            Some(capabilities) => capabilities,
            None => owner.rtp_capabilities.clone().ok_or(Failure::bad_request("missing field `rtpCapabilities`"))?,
        };
        let id = ConsumerId(self.registry.random());
        let (consumer, answer, spec) = self.negotiated(id, peer, transport, body.producer_id, &capabilities)?;
        let worker = self.worker_of(peer)?;
        let then = Then::Consumed(id, Box::new(answer));
        let asked =
            self.ask(now, asker, worker, then, |token| Command::Consume { token, transport, consumer: spec })?;
        self.registry.add_consumer(id, consumer);
        Ok(asked)
    }

    /// The consumer in its three forms: for the registry, for the client and for the shard.
    fn negotiated(
        &mut self,
        id: ConsumerId,
        peer: PeerId,
        transport: TransportId,
        producer_id: ProducerId,
        capabilities: &RtpCapabilities,
    ) -> Result<(Consumer, Value, Box<ConsumerSpec>), Failure> {
        let producer = &self.registry.producers[&producer_id];
        negotiation::capabilities_problem(capabilities)?;
        if !negotiation::can_consume(&producer.negotiated, capabilities) {
            return Err(ErrorCode::CannotConsume.into());
        }
        let (mid, ssrc, rtx_ssrc) = self.registry.consumer_numbers(transport).ok_or(ErrorCode::NotFound)?;
        let context =
            ConsumerContext { mid, ssrc, rtx_ssrc, paused: true, priority: DEFAULT_PRIORITY, preferred: None };
        let producer = &self.registry.producers[&producer_id];
        let negotiated = negotiation::negotiate_consumer(id, &producer.negotiated, capabilities, context)?;
        let answer = json!({
            "id": id,
            "producerId": producer_id,
            "peerId": self.registry.peers[&producer.peer].name,
            "kind": producer.negotiated.kind,
            "type": producer.negotiated.producer_type,
            "rtpParameters": negotiated.rtp_parameters,
            "producerPaused": producer.paused,
            "appData": producer.app_data,
        });
        let consumer = Consumer { peer, transport, producer: producer_id, ssrc, paused: true, ready: false };
        Ok((consumer, answer, Box::new(negotiated.spec)))
    }

    /// The one that is named, or the newest on which the peer receives.
    fn transport_to_consume_on(&self, peer: PeerId, named: Option<TransportId>) -> Result<TransportId, Failure> {
        if let Some(id) = named {
            self.own_transport_for(peer, id, Direction::Recv)?;
            return Ok(id);
        }
        let owned = &self.registry.peers.get(&peer).ok_or(ErrorCode::NotFound)?.transports;
        let receives = |id: &&TransportId| {
            self.registry.transports.get(id).is_some_and(|entry| entry.ready && entry.direction == Direction::Recv)
        };
        let newest = owned.iter().rev().find(receives).copied();
        newest.ok_or(Failure::new(ErrorCode::NotFound, "this peer has no transport of direction recv"))
    }

    /// A producer of another room, or that its worker does not have yet, is as good as none.
    fn producer_in_room(&self, peer: PeerId, id: ProducerId) -> Result<&Producer, Failure> {
        let room = |peer: PeerId| self.registry.peers.get(&peer).map(|peer| peer.room);
        let here = |producer: &&Producer| producer.ready && room(producer.peer) == room(peer);
        self.registry.producers.get(&id).filter(here).ok_or(Failure::new(ErrorCode::NotFound, "producerId"))
    }

    pub(super) fn consumed(
        &mut self,
        id: ConsumerId,
        mut answer: Value,
        result: Result<Reply, Failure>,
    ) -> Result<Value, Failure> {
        let consumer = self.registry.consumers.get_mut(&id).ok_or(ErrorCode::NotFound)?;
        if let Err(failure) = result {
            let peer = consumer.peer;
            self.registry.remove_consumer(id);
            if failure.code == ErrorCode::Internal
                && let Some(worker) = self.registry.worker_of(peer)
            {
                self.command(worker, Command::CloseConsumer { consumer: id });
            }
            return Err(failure);
        }
        consumer.ready = true;
        // Whoever paused it meanwhile was told to nobody who had the consumer.
        let producer_paused = self.registry.producers.get(&consumer.producer).is_some_and(|producer| producer.paused);
        answer["producerPaused"] = json!(producer_paused);
        Ok(answer)
    }

    pub(super) fn pause_consumer(
        &mut self,
        now: Instant,
        peer: PeerId,
        asker: Asker,
        consumer: ConsumerId,
        paused: bool,
    ) -> Result<Option<Value>, Failure> {
        let worker = self.worker_of_consumer(peer, consumer)?;
        self.ask(now, asker, worker, Then::ConsumerPaused(consumer, paused), |token| match paused {
            true => Command::PauseConsumer { token, consumer },
            false => Command::ResumeConsumer { token, consumer },
        })
    }

    pub(super) fn consumer_paused(
        &mut self,
        id: ConsumerId,
        paused: bool,
        result: Result<Reply, Failure>,
    ) -> Result<Value, Failure> {
        result?;
        self.registry.consumers.get_mut(&id).ok_or(ErrorCode::NotFound)?.paused = paused;
        Ok(json!({}))
    }

    pub(super) fn close_consumer(&mut self, peer: PeerId, id: ConsumerId) -> Result<Option<Value>, Failure> {
        let worker = self.worker_of_consumer(peer, id)?;
        self.command(worker, Command::CloseConsumer { consumer: id });
        self.registry.remove_consumer(id);
        Ok(Some(json!({})))
    }

    pub(super) fn set_preferred_layers(
        &mut self,
        now: Instant,
        peer: PeerId,
        asker: Asker,
        body: SetPreferredLayers,
    ) -> Result<Option<Value>, Failure> {
        let SetPreferredLayers { consumer_id: consumer, spatial_layer: spatial, temporal_layer: temporal } = body;
        let worker = self.worker_of_consumer(peer, consumer)?;
        self.ask(now, asker, worker, Then::Answered, |token| Command::SetPreferredLayers {
            token,
            consumer,
            spatial,
            temporal,
        })
    }

    pub(super) fn set_consumer_priority(
        &mut self,
        now: Instant,
        peer: PeerId,
        asker: Asker,
        body: SetConsumerPriority,
    ) -> Result<Option<Value>, Failure> {
        let SetConsumerPriority { consumer_id: consumer, priority } = body;
        let priority = priority.get();
        let worker = self.worker_of_consumer(peer, consumer)?;
        self.ask(now, asker, worker, Then::Answered, |token| Command::SetConsumerPriority { token, consumer, priority })
    }

    pub(super) fn request_key_frame(
        &mut self,
        now: Instant,
        peer: PeerId,
        asker: Asker,
        consumer: ConsumerId,
    ) -> Result<Option<Value>, Failure> {
        let worker = self.worker_of_consumer(peer, consumer)?;
        self.ask(now, asker, worker, Then::Answered, |token| Command::RequestKeyFrame { token, consumer })
    }

    /// The worker to ask about a consumer, which must be the peer's own.
    pub(super) fn worker_of_consumer(&self, peer: PeerId, id: ConsumerId) -> Result<usize, Failure> {
        let consumer = self.registry.consumers.get(&id).ok_or(Failure::new(ErrorCode::NotFound, "consumerId"))?;
        if consumer.peer != peer {
            return Err(Failure::new(ErrorCode::Forbidden, "this consumer is another peer's"));
        }
        self.worker_of(peer)
    }
}
