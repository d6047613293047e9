//! Who is here and what they own: rooms, peers, transports, producers, consumers, and on which worker
//! each room lives.
//!
//! Plain tables with their bounds and their bookkeeping (load per worker, who owns what); the session
//! decides what is allowed and tells the others. Ids are random, so that nobody can guess another's.
//! Must never send anything, and never keep an entry whose owner is gone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;

use crate::ids::{ConsumerId, PeerId, ProducerId, RoomId, Ssrc, TransportId};
use crate::shard::command::{Direction, RoomSettings};
use crate::signaling::bucket::Bucket;
use crate::signaling::negotiation::{NegotiatedProducer, PROBATOR_SSRC, RtpCapabilities};
use crate::signaling::placement::Placement;
use crate::signaling::session::ConnectionId;

/// Random numbers, from the system in production and from a seed in tests.
pub type Random = Box<dyn FnMut() -> u64 + Send>;

pub struct Registry {
    pub rooms: HashMap<RoomId, Room>,
    room_names: HashMap<Arc<str>, RoomId>,
    pub peers: HashMap<PeerId, Peer>,
    connections: HashMap<ConnectionId, PeerId>,
    pub transports: HashMap<TransportId, Transport>,
    pub producers: HashMap<ProducerId, Producer>,
    pub consumers: HashMap<ConsumerId, Consumer>,
    pub placement: Placement,
    random: Random,
}

pub struct Room {
    pub name: Arc<str>,
    pub worker: usize,
    pub max_peers: usize,
    /// What its worker was told.
    pub settings: RoomSettings,
    /// In the order of their coming.
    pub peers: Vec<PeerId>,
    /// Opened by the API: stays when its last peer leaves.
    pub kept: bool,
    pub opened_at: Instant,
}

pub struct Peer {
    pub name: Arc<str>,
    pub room: RoomId,
    /// `None` while the peer is away and its grace lasts.
    pub connection: Option<ConnectionId>,
    pub resume_token: Arc<str>,
    pub display_name: Option<Arc<str>>,
    /// As given to `join`, for later `consume` requests without any.
    pub rtp_capabilities: Option<RtpCapabilities>,
    pub transports: Vec<TransportId>,
    pub producers: Vec<ProducerId>,
    pub consumers: HashSet<ConsumerId>,
    pub requests_in_flight: usize,
    pub messages: Bucket,
    pub flood: Bucket,
}

pub struct Transport {
    pub peer: PeerId,
    pub direction: Direction,
    pub producers: Vec<ProducerId>,
    pub consumers: HashSet<ConsumerId>,
    /// The CNAME of the first producer, which later ones share for lip sync.
    pub cname: Option<String>,
    next_mid: u64,
    ssrcs: HashSet<Ssrc>,
    /// The worker has it; until then nobody else may.
    pub ready: bool,
}

pub struct Producer {
    pub peer: PeerId,
    pub transport: TransportId,
    pub negotiated: NegotiatedProducer,
    pub paused: bool,
    pub app_data: Arc<Value>,
    pub consumers: HashSet<ConsumerId>,
    pub ready: bool,
}

pub struct Consumer {
    pub peer: PeerId,
    pub transport: TransportId,
    pub producer: ProducerId,
    pub ssrc: Ssrc,
    pub paused: bool,
    pub ready: bool,
}

/// What went with something that was closed, for those who must hear of it.
#[derive(Default)]
pub struct Closed {
    pub producers: Vec<(ProducerId, Producer)>,
    /// Consumers whose own peer did not close them.
    pub consumers: Vec<(ConsumerId, Consumer)>,
}

impl Registry {
    pub fn new(workers: usize, random: Random) -> Registry {
        Registry {
            rooms: HashMap::new(),
            room_names: HashMap::new(),
            peers: HashMap::new(),
            connections: HashMap::new(),
            transports: HashMap::new(),
            producers: HashMap::new(),
            consumers: HashMap::new(),
            placement: Placement::new(workers),
            random,
        }
    }

    /// A number that nobody can guess, and never 0.
    pub fn random(&mut self) -> u64 {
        loop {
            let number = (self.random)();
            if number != 0 {
                return number;
            }
        }
    }

    // ---- rooms

    pub fn room_named(&self, name: &str) -> Option<RoomId> {
        self.room_names.get(name).copied()
    }

    /// Opens a room on the least loaded worker; `None` if no worker takes any.
    pub fn open_room(
        &mut self,
        name: &str,
        max_peers: usize,
        settings: RoomSettings,
        kept: bool,
        now: Instant,
    ) -> Option<RoomId> {
        let worker = self.placement.choose()?;
        let id = RoomId(self.random());
        let name: Arc<str> = name.into();
        self.room_names.insert(name.clone(), id);
        let room = Room { name, worker, max_peers, settings, peers: Vec::new(), kept, opened_at: now };
        self.rooms.insert(id, room);
        self.placement.worker(worker).rooms += 1;
        Some(id)
    }

    /// The room must be empty.
    pub fn close_room(&mut self, id: RoomId) -> Option<Room> {
        let room = self.rooms.remove(&id)?;
        self.room_names.remove(&room.name);
        self.placement.worker(room.worker).rooms -= 1;
        Some(room)
    }

    // ---- peers

    pub fn peer_of(&self, connection: ConnectionId) -> Option<PeerId> {
        self.connections.get(&connection).copied()
    }

    pub fn peer_named(&self, room: RoomId, name: &str) -> Option<PeerId> {
        self.rooms.get(&room)?.peers.iter().copied().find(|id| *self.peers[id].name == *name)
    }

    pub fn add_peer(&mut self, peer: Peer) -> PeerId {
        let id = PeerId(self.random());
        if let Some(connection) = peer.connection {
            self.connections.insert(connection, id);
        }
        if let Some(room) = self.rooms.get_mut(&peer.room) {
            room.peers.push(id);
        }
        self.peers.insert(id, peer);
        id
    }

    /// Gives the peer another connection or none; returns the one that it had.
    pub fn reconnect(&mut self, id: PeerId, connection: Option<ConnectionId>) -> Option<ConnectionId> {
        let peer = self.peers.get_mut(&id)?;
        let old = std::mem::replace(&mut peer.connection, connection);
        if let Some(old) = old {
            self.connections.remove(&old);
        }
        if let Some(connection) = connection {
            self.connections.insert(connection, id);
        }
        old
    }

    pub fn remove_peer(&mut self, id: PeerId) -> Option<(Peer, Closed)> {
        self.reconnect(id, None);
        let mut closed = Closed::default();
        for transport in self.peers.get(&id)?.transports.clone() {
            closed.append(self.remove_transport(transport));
        }
        let peer = self.peers.remove(&id)?;
        if let Some(room) = self.rooms.get_mut(&peer.room) {
            room.peers.retain(|other| *other != id);
        }
        Some((peer, closed))
    }

    pub fn worker_of(&self, peer: PeerId) -> Option<usize> {
        Some(self.rooms.get(&self.peers.get(&peer)?.room)?.worker)
    }

    // ---- transports

    pub fn add_transport(&mut self, peer: PeerId, direction: Direction) -> TransportId {
        let id = TransportId(self.random());
        let transport = Transport {
            peer,
            direction,
            producers: Vec::new(),
            consumers: HashSet::new(),
            cname: None,
            next_mid: 0,
            ssrcs: HashSet::new(),
            ready: false,
        };
        self.transports.insert(id, transport);
        if let Some(owner) = self.peers.get_mut(&peer) {
            owner.transports.push(id);
        }
        self.load(peer, 1);
        id
    }

    pub fn remove_transport(&mut self, id: TransportId) -> Closed {
        let mut closed = Closed::default();
        let Some(transport) = self.transports.get(&id) else { return closed };
        let (producers, consumers) = (transport.producers.clone(), transport.consumers.clone());
        let peer = transport.peer;
        for producer in producers {
            closed.append(self.remove_producer(producer));
        }
        for consumer in consumers {
            closed.consumers.extend(self.remove_consumer(consumer).map(|entry| (consumer, entry)));
        }
        self.transports.remove(&id);
        if let Some(owner) = self.peers.get_mut(&peer) {
            owner.transports.retain(|other| *other != id);
        }
        self.load(peer, -1);
        closed
    }

    /// A mid and an SSRC (with the one after it for RTX) that nothing else on the transport has. They are taken when
    /// the consumer is added.
    pub fn consumer_numbers(&mut self, id: TransportId) -> Option<(String, Ssrc, Ssrc)> {
        loop {
            let ssrc = Ssrc(self.random() as u32);
            let rtx = Ssrc(ssrc.0.wrapping_add(1));
            let transport = self.transports.get_mut(&id)?;
            let reserved = |ssrc: Ssrc| ssrc.0 == 0 || ssrc == PROBATOR_SSRC || transport.ssrcs.contains(&ssrc);
            if reserved(ssrc) || reserved(rtx) {
                continue;
            }
            let mid = transport.next_mid;
            transport.next_mid += 1;
            return Some((mid.to_string(), ssrc, rtx));
        }
    }

    // ---- producers

    pub fn add_producer(&mut self, id: ProducerId, producer: Producer) {
        if let Some(peer) = self.peers.get_mut(&producer.peer) {
            peer.producers.push(id);
        }
        if let Some(transport) = self.transports.get_mut(&producer.transport) {
            transport.producers.push(id);
        }
        self.producers.insert(id, producer);
    }

    pub fn remove_producer(&mut self, id: ProducerId) -> Closed {
        let mut closed = Closed::default();
        let Some(producer) = self.producers.remove(&id) else { return closed };
        if let Some(peer) = self.peers.get_mut(&producer.peer) {
            peer.producers.retain(|other| *other != id);
        }
        if let Some(transport) = self.transports.get_mut(&producer.transport) {
            transport.producers.retain(|other| *other != id);
        }
        for consumer in producer.consumers.iter().copied() {
            closed.consumers.extend(self.remove_consumer(consumer).map(|entry| (consumer, entry)));
        }
        closed.producers.push((id, producer));
        closed
    }

    // ---- consumers

    pub fn add_consumer(&mut self, id: ConsumerId, consumer: Consumer) {
        if let Some(peer) = self.peers.get_mut(&consumer.peer) {
            peer.consumers.insert(id);
        }
        if let Some(transport) = self.transports.get_mut(&consumer.transport) {
            transport.consumers.insert(id);
            transport.ssrcs.extend([consumer.ssrc, Ssrc(consumer.ssrc.0.wrapping_add(1))]);
        }
        if let Some(producer) = self.producers.get_mut(&consumer.producer) {
            producer.consumers.insert(id);
        }
        self.load(consumer.peer, 1);
        self.consumers.insert(id, consumer);
    }

    pub fn remove_consumer(&mut self, id: ConsumerId) -> Option<Consumer> {
        let consumer = self.consumers.remove(&id)?;
        if let Some(peer) = self.peers.get_mut(&consumer.peer) {
            peer.consumers.remove(&id);
        }
        if let Some(transport) = self.transports.get_mut(&consumer.transport) {
            transport.consumers.remove(&id);
            transport.ssrcs.remove(&consumer.ssrc);
            transport.ssrcs.remove(&Ssrc(consumer.ssrc.0.wrapping_add(1)));
        }
        if let Some(producer) = self.producers.get_mut(&consumer.producer) {
            producer.consumers.remove(&id);
        }
        self.load(consumer.peer, -1);
        Some(consumer)
    }

    fn load(&mut self, peer: PeerId, change: isize) {
        if let Some(worker) = self.worker_of(peer) {
            let load = &mut self.placement.worker(worker).load;
            *load = load.saturating_add_signed(change);
        }
    }
}

impl Closed {
    fn append(&mut self, mut other: Closed) {
        self.producers.append(&mut other.producers);
        self.consumers.append(&mut other.consumers);
    }
}
