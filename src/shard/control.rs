//! Commands: each in its own handler, each answered once.
//!
//! A command arrives validated; what is refused here is what only the shard can know: ids that are gone,
//! tables that are full, names that are taken on a transport.

use std::collections::HashMap;
use std::time::Instant;

use rand::RngExt;

use crate::discard::Discard;
use crate::ids::{ConsumerId, PeerId, ProducerId, RoomId, Ssrc, TransportId};
use crate::limits;
use crate::media::pacer::Pacer;
use crate::shard::Shard;
use crate::shard::awaited::Awaited;
use crate::shard::command::*;
use crate::shard::consumer::Consumer;
use crate::shard::producer::{Layer, Producer};
use crate::shard::room::Room;
use crate::shard::table::Key;
use crate::shard::timers::Armed;
use crate::shard::transport::{Resent, Stream, Traffic, Transport};
use crate::transport::dtls::{Endpoint, StartError};
use crate::transport::ice::{Credentials, IceLite};

impl Shard {
    /// Takes one command; its answer is the next [`Event::Reply`] with its token.
    pub fn handle_command(&mut self, now: Instant, command: Command) {
        use Command::*;
        let (token, result) = match command {
            OpenRoom { room, settings } => return self.open_room(now, room, settings),
            CloseRoom { room } => return self.close_room(now, room),
            ClosePeer { room, peer } => return self.close_peer(now, room, peer),
            CloseTransport { transport } => return self.close_transport_named(now, transport),
            CloseProducer { producer } => return self.close_producer_named(now, producer),
            CloseConsumer { consumer } => return self.close_consumer_named(consumer),

            CreateTransport { token, room, peer, transport, direction } => {
                (token, self.create_transport(room, peer, transport, direction))
            }
            ConnectTransport { token, transport, role, fingerprints } => {
                (token, self.connect_transport(now, transport, role, fingerprints))
            }
            RestartIce { token, transport } => (token, self.restart_ice(transport)),
            Produce { token, transport, producer } => (token, self.produce(now, transport, *producer)),
            PauseProducer { token, producer } => (token, self.pause_producer(producer)),
            ResumeProducer { token, producer } => (token, self.resume_producer(now, producer)),
            Consume { token, transport, consumer } => (token, self.consume(now, transport, *consumer)),
            PauseConsumer { token, consumer } => (token, self.pause_consumer(consumer)),
            ResumeConsumer { token, consumer } => (token, self.resume_consumer(now, consumer)),
            SetPreferredLayers { token, consumer, spatial, temporal } => {
                (token, self.set_preferred_layers(now, consumer, spatial, temporal))
            }
            SetConsumerPriority { token, consumer, priority } => {
                (token, self.set_consumer_priority(now, consumer, priority))
            }
            RequestKeyFrame { token, consumer } => (token, self.request_key_frame(now, consumer)),
            TransportStats { token, transport } => (token, self.transport_stats(now, transport)),
            ProducerStats { token, producer } => (token, self.producer_stats(now, producer)),
            ConsumerStats { token, consumer } => (token, self.consumer_stats(now, consumer)),
            RoomStats { token, room } => (token, self.room_stats(now, room)),
            WorkerStats { token } => (token, Ok(Reply::WorkerStats(Box::new(self.worker_stats())))),
        };
        self.tell(Event::Reply { token, result });
    }

    fn open_room(&mut self, now: Instant, id: RoomId, settings: RoomSettings) {
        if let Some(key) = self.names.rooms.get(&id) {
            if let Some(room) = self.rooms.at_mut(*key) {
                room.audio.set_top_n(settings.audio_top_n);
                room.settings = settings;
            }
            return;
        }
        if let Ok(key) = self.rooms.insert(Room::new(id, settings, now)) {
            self.names.rooms.insert(id, key);
        }
    }

    fn close_room(&mut self, now: Instant, id: RoomId) {
        let Some(key) = self.names.rooms.remove(&id) else { return };
        let transports = self.rooms.at(key).map(|room| room.transports.clone()).unwrap_or_default();
        for transport in transports {
            self.close_transport(now, transport);
        }
        self.rooms.remove(key);
    }

    fn close_peer(&mut self, now: Instant, room: RoomId, peer: PeerId) {
        let Some(room) = self.names.rooms.get(&room).and_then(|key| self.rooms.at(*key)) else { return };
        for transport in room.transports.clone() {
            if self.transports.at(transport).is_some_and(|transport| transport.peer == peer) {
                self.close_transport(now, transport);
            }
        }
    }

    fn create_transport(
        &mut self,
        room: RoomId,
        peer: PeerId,
        id: TransportId,
        direction: Direction,
    ) -> Result<Reply, Refusal> {
        let room = *self.names.rooms.get(&room).ok_or(Refusal::NotFound)?;
        if self.names.transports.contains_key(&id) {
            return Err(Refusal::Conflict);
        }
        let ice = IceLite::new(self.new_credentials());
        let (ufrag, password) = (ice.credentials().ufrag().to_owned(), ice.credentials().password().to_owned());
        let transport = Transport {
            id,
            peer,
            room,
            direction,
            told: (ice.state(), DtlsState::New),
            ice,
            dtls: Endpoint::new(&self.config.identity),
            keys: None,
            destination: None,
            streams: Vec::new(),
            producers: Vec::new(),
            arrivals: None,
            reference_times: Vec::new(),
            own_references: [None; 2],
            consumers: Vec::new(),
            sent_ssrcs: HashMap::new(),
            estimator: None,
            next_allocation: None,
            probator: None,
            pacer: Pacer::default(),
            awaited: Awaited::default(),
            transport_sequence: 0,
            due: Vec::with_capacity(limits::RUN_FORESEEN),
            armed: Armed::default(),
            next_report: None,
            next_check: None,
            rtt: None,
            received: Traffic::default(),
            sent: Traffic::default(),
            padding_bytes_sent: 0,
            last_left: None,
            resent: Resent::default(),
            resends_waiting: 0,
        };
        let key = self.transports.insert(transport).map_err(|_| Refusal::TooMany)?;
        self.names.transports.insert(id, key);
        self.demux.add_ufrag(&ufrag, key);
        if let Some(room) = self.rooms.at_mut(room) {
            room.transports.push(key);
        }
        let local = (key.index() % u32::from(self.config.ports.max(1))) as u8;
        Ok(Reply::TransportCreated { ufrag, password, local })
    }

    fn new_credentials(&mut self) -> Credentials {
        let mut random = [0; Credentials::RANDOM_BYTES];
        self.rng.fill(&mut random);
        Credentials::from_random(&random)
    }

    fn connect_transport(
        &mut self,
        now: Instant,
        id: TransportId,
        role: DtlsRole,
        fingerprints: Vec<Fingerprint>,
    ) -> Result<Reply, Refusal> {
        let (key, transport) = self.transport_named(id)?;
        transport.dtls.start(now, role, fingerprints).map_err(|error| match error {
            StartError::AlreadyStarted => Refusal::AlreadyConnected,
            StartError::NoFingerprint => Refusal::NoFingerprint,
        })?;
        self.advance_dtls(now, key);
        self.arm(now, key);
        Ok(Reply::Done)
    }

    fn restart_ice(&mut self, id: TransportId) -> Result<Reply, Refusal> {
        let credentials = self.new_credentials();
        let (ufrag, password) = (credentials.ufrag().to_owned(), credentials.password().to_owned());
        let (key, transport) = self.transport_named(id)?;
        let retired = transport.ice.restart(credentials);
        if let Some(retired) = retired {
            self.demux.remove_ufrag(&retired);
        }
        self.demux.add_ufrag(&ufrag, key);
        Ok(Reply::IceRestarted { ufrag, password })
    }

    fn produce(&mut self, now: Instant, id: TransportId, spec: ProducerSpec) -> Result<Reply, Refusal> {
        if self.names.producers.contains_key(&spec.id) {
            return Err(Refusal::Conflict);
        }
        let (transport_key, transport) = self.transport_named(id)?;
        if transport.direction != Direction::Send {
            return Err(Refusal::WrongDirection);
        }
        if transport.producers.len() == limits::PRODUCERS_PER_TRANSPORT {
            return Err(Refusal::TooMany);
        }
        let ssrcs = spec.encodings.iter().flat_map(|encoding| [encoding.ssrc, encoding.rtx_ssrc]).flatten();
        if ssrcs.clone().any(|ssrc| transport.stream(ssrc).is_some()) {
            return Err(Refusal::Conflict);
        }
        let (room, peer) = (transport.room, transport.peer);
        let (id, encodings) = (spec.id, spec.encodings.clone());
        let mut producer = Producer::new(spec, room, peer, transport_key);
        if producer.class == SourceClass::Microphone && producer.kind == Kind::Audio {
            producer.audio_source = self.rooms.at_mut(room).map(|room| room.audio.open());
        }
        let key = self.producers.insert(producer).map_err(|_| Refusal::TooMany)?;
        self.names.producers.insert(id, key);
        if let Some(room) = self.rooms.at_mut(room) {
            room.producers.push(key);
        }
        if let Some(transport) = self.transports.at_mut(transport_key) {
            transport.producers.push(key);
            for (layer, encoding) in encodings.iter().enumerate() {
                for (ssrc, is_rtx) in [(encoding.ssrc, false), (encoding.rtx_ssrc, true)] {
                    if let Some(ssrc) = ssrc {
                        transport.add_stream(Stream { ssrc, producer: key, layer: layer as u8, is_rtx });
                    }
                }
            }
            transport.next_report.get_or_insert(now);
        }
        self.arm(now, transport_key);
        Ok(Reply::Done)
    }

    fn pause_producer(&mut self, id: ProducerId) -> Result<Reply, Refusal> {
        let (key, producer) = self.producer_named(id)?;
        producer.paused = true;
        let (room, source) = (producer.room, producer.audio_source);
        if let (Some(room), Some(source)) = (self.rooms.at_mut(room), source) {
            room.audio.silence(source);
        }
        self.stop_consumers_of(key, Discard::ProducerPaused);
        Ok(Reply::Done)
    }

    fn resume_producer(&mut self, now: Instant, id: ProducerId) -> Result<Reply, Refusal> {
        let (key, producer) = self.producer_named(id)?;
        if std::mem::replace(&mut producer.paused, false) {
            for layer in &mut producer.layers {
                layer.reception.resume();
                layer.nack.resume();
                layer.bounds.restart();
            }
        }
        let wanted = producer.paused_consumers as usize != producer.consumers.len();
        let consumers = self.producers.at(key).map(|producer| &producer.consumers);
        self.changed.extend(consumers.into_iter().flatten());
        self.choose_layers(now, key, true);
        if wanted {
            self.ask_key_frames_for_all(now, key);
        }
        Ok(Reply::Done)
    }

    /// The receivers' streams end here; each starts anew when packets come again, and not with one that still waits: that
    /// would be a start of which nobody knows. Those are counted as `why`.
    pub(super) fn stop_consumers_of(&mut self, key: Key<Producer>, why: Discard) {
        let Some(producer) = self.producers.at_mut(key) else { return };
        let dropped = producer.layers.iter_mut().map(Layer::drop_pending).sum();
        self.discards.add(why, dropped);
        for consumer_key in &producer.consumers {
            if let Some(consumer) = self.consumers.at_mut(*consumer_key) {
                consumer.selector.stop();
                self.changed.push(*consumer_key);
            }
        }
    }

    fn consume(&mut self, now: Instant, id: TransportId, spec: ConsumerSpec) -> Result<Reply, Refusal> {
        if self.names.consumers.contains_key(&spec.id) {
            return Err(Refusal::Conflict);
        }
        let (transport_key, transport) = self.transport_named(id)?;
        if transport.direction != Direction::Recv {
            return Err(Refusal::WrongDirection);
        }
        if transport.consumers.len() == limits::CONSUMERS_PER_TRANSPORT {
            return Err(Refusal::TooMany);
        }
        let (room, peer, others) = (transport.room, transport.peer, transport.consumers.clone());
        let is_taken = |ssrc: &Ssrc| transport.sent_ssrcs.contains_key(ssrc);
        if is_taken(&spec.ssrc) || spec.rtx_ssrc.as_ref().is_some_and(is_taken) {
            return Err(Refusal::Conflict);
        }
        let taken = |other: &Consumer| other.rest.mid == spec.mid;
        if others.iter().any(|other| self.consumers.at(*other).is_some_and(taken)) {
            return Err(Refusal::Conflict);
        }
        let (first, first_rtx) = (self.rng.random(), self.rng.random());
        let producer_key = *self.names.producers.get(&spec.producer).ok_or(Refusal::NotFound)?;
        let producer = self.producers.at_mut(producer_key).ok_or(Refusal::NotFound)?;
        if producer.room != room {
            return Err(Refusal::NotFound);
        }
        let (id, paused, ssrc, rtx_ssrc) = (spec.id, spec.paused, spec.ssrc, spec.rtx_ssrc);
        let consumer = Consumer::new(spec, producer, producer_key, transport_key, peer, first, first_rtx);
        let key = self.consumers.insert(consumer).map_err(|_| Refusal::TooMany)?;
        self.names.consumers.insert(id, key);
        producer.consumers.push(key);
        producer.paused_consumers += u32::from(paused);
        if let Some(transport) = self.transports.at_mut(transport_key) {
            transport.consumers.push(key);
            transport.sent_ssrcs.insert(ssrc, key);
            if let Some(ssrc) = rtx_ssrc {
                transport.sent_ssrcs.insert(ssrc, key);
            }
            transport.next_report.get_or_insert(now);
        }
        if !paused {
            self.start_consumer(now, key);
        }
        self.arm(now, transport_key);
        Ok(Reply::Done)
    }

    fn pause_consumer(&mut self, id: ConsumerId) -> Result<Reply, Refusal> {
        let (key, consumer) = self.consumer_named(id)?;
        if !consumer.paused {
            consumer.paused = true;
            consumer.selector.stop();
            let producer_key = consumer.producer;
            if let Some(producer) = self.producers.at_mut(producer_key) {
                producer.paused_consumers += 1;
                producer.layers.iter_mut().for_each(|layer| layer.unfollow(key));
            }
            self.changed.push(key);
        }
        Ok(Reply::Done)
    }

    fn resume_consumer(&mut self, now: Instant, id: ConsumerId) -> Result<Reply, Refusal> {
        let (key, consumer) = self.consumer_named(id)?;
        if consumer.paused {
            consumer.paused = false;
            let producer = consumer.producer;
            if let Some(producer) = self.producers.at_mut(producer) {
                producer.paused_consumers -= 1;
            }
            self.start_consumer(now, key);
        }
        Ok(Reply::Done)
    }

    /// A consumer that gets nothing begins: it follows the layer it should get, from the next key frame on. Where bandwidth
    /// decides which, it waits for that decision: a picture that is refused must not be seen first, nor cost a key frame.
    pub(super) fn start_consumer(&mut self, now: Instant, key: Key<Consumer>) {
        let Some(consumer) = self.consumers.at_mut(key) else { return };
        consumer.selector.stop();
        let transport = consumer.transport;
        self.begin_estimate(now, key);
        self.want_allocation(now, transport);
        let is_decided = self.is_decided_by_bandwidth(key);
        let Some(consumer) = self.consumers.at_mut(key) else { return };
        consumer.rest.begins = is_decided;
        if is_decided {
            self.arm(now, transport);
        } else {
            self.begin(now, key);
        }
    }

    /// Follows a layer and asks for its key frame.
    pub(super) fn begin(&mut self, now: Instant, key: Key<Consumer>) {
        self.choose_layer(now, key);
        self.ask_key_frame(now, key);
        self.changed.push(key);
    }

    fn set_preferred_layers(
        &mut self,
        now: Instant,
        id: ConsumerId,
        spatial: u8,
        temporal: Option<u8>,
    ) -> Result<Reply, Refusal> {
        let (key, consumer) = self.consumer_named(id)?;
        consumer.selector.prefer(Layers { spatial, temporal: temporal.unwrap_or(u8::MAX) });
        let transport = consumer.transport;
        self.want_allocation(now, transport);
        self.choose_layer(now, key);
        self.arm(now, transport);
        self.changed.push(key);
        Ok(Reply::Done)
    }

    fn set_consumer_priority(&mut self, now: Instant, id: ConsumerId, priority: u8) -> Result<Reply, Refusal> {
        let (_, consumer) = self.consumer_named(id)?;
        consumer.rest.priority = priority.max(1);
        let transport = consumer.transport;
        self.want_allocation(now, transport);
        self.arm(now, transport);
        Ok(Reply::Done)
    }

    fn request_key_frame(&mut self, now: Instant, id: ConsumerId) -> Result<Reply, Refusal> {
        let (key, _) = self.consumer_named(id)?;
        self.ask_key_frame(now, key);
        Ok(Reply::Done)
    }

    fn close_transport_named(&mut self, now: Instant, id: TransportId) {
        if let Ok((key, _)) = self.transport_named(id) {
            self.close_transport(now, key);
        }
    }

    pub(super) fn close_transport(&mut self, now: Instant, key: Key<Transport>) {
        let Some(transport) = self.transports.at_mut(key) else { return };
        let (producers, consumers) = (transport.producers.clone(), transport.consumers.clone());
        transport.dtls.close();
        self.advance_dtls(now, key);
        producers.into_iter().for_each(|producer| self.close_producer(now, producer));
        consumers.into_iter().for_each(|consumer| self.close_consumer(consumer));
        let Some(transport) = self.transports.remove(key) else { return };
        self.names.transports.remove(&transport.id);
        self.pacing.forget(transport.pacer.len());
        self.demux.forget(key);
        if let Some(room) = self.rooms.at_mut(transport.room) {
            room.transports.retain(|other| *other != key);
        }
    }

    fn close_producer_named(&mut self, now: Instant, id: ProducerId) {
        if let Ok((key, _)) = self.producer_named(id) {
            self.close_producer(now, key);
        }
    }

    fn close_producer(&mut self, _now: Instant, key: Key<Producer>) {
        let Some(producer) = self.producers.at(key) else { return };
        producer.consumers.clone().into_iter().for_each(|consumer| self.close_consumer(consumer));
        let Some(producer) = self.producers.remove(key) else { return };
        self.repairs.add(&producer);
        self.names.producers.remove(&producer.id);
        if let Some(room) = self.rooms.at_mut(producer.room) {
            room.producers.retain(|other| *other != key);
            if let Some(source) = producer.audio_source {
                room.audio.close(source);
            }
        }
        if let Some(transport) = self.transports.at_mut(producer.transport) {
            transport.producers.retain(|other| *other != key);
            transport.streams.retain(|stream| stream.producer != key);
        }
    }

    fn close_consumer_named(&mut self, id: ConsumerId) {
        if let Ok((key, _)) = self.consumer_named(id) {
            self.close_consumer(key);
        }
    }

    fn close_consumer(&mut self, key: Key<Consumer>) {
        let Some(consumer) = self.consumers.remove(key) else { return };
        self.names.consumers.remove(&consumer.rest.id);
        if let Some(producer) = self.producers.at_mut(consumer.producer) {
            producer.consumers.retain(|other| *other != key);
            producer.paused_consumers -= u32::from(consumer.paused);
            producer.layers.iter_mut().for_each(|layer| layer.unfollow(key));
        }
        if let Some(transport) = self.transports.at_mut(consumer.transport) {
            transport.consumers.retain(|other| *other != key);
            transport.sent_ssrcs.retain(|_, other| *other != key);
        }
    }

    fn transport_named(&mut self, id: TransportId) -> Result<(Key<Transport>, &mut Transport), Refusal> {
        let key = *self.names.transports.get(&id).ok_or(Refusal::NotFound)?;
        Ok((key, self.transports.at_mut(key).ok_or(Refusal::NotFound)?))
    }

    fn producer_named(&mut self, id: ProducerId) -> Result<(Key<Producer>, &mut Producer), Refusal> {
        let key = *self.names.producers.get(&id).ok_or(Refusal::NotFound)?;
        Ok((key, self.producers.at_mut(key).ok_or(Refusal::NotFound)?))
    }

    fn consumer_named(&mut self, id: ConsumerId) -> Result<(Key<Consumer>, &mut Consumer), Refusal> {
        let key = *self.names.consumers.get(&id).ok_or(Refusal::NotFound)?;
        Ok((key, self.consumers.at_mut(key).ok_or(Refusal::NotFound)?))
    }
}
