//! What a peer may do, and what follows from it: the control plane as a pure value.
//!
//! Connections, requests and the workers' events go in, with the time; answers, notifications,
//! commands and closings come out of [`Control::poll_output`]. A request that waits for its worker
//! leaves a continuation behind, found again by its token. Framings and the hub drive it; here is no
//! socket, no clock, no task and no randomness but what was handed in. Each method has its own handler:
//! [`enter`] (connecting, `join`, `leave`), [`transport`], [`produce`], [`consume`], [`stats`]; what
//! workers report is told on in [`events`].

mod consume;
mod enter;
mod events;
mod produce;
mod rooms;
mod stats;
#[cfg(test)]
mod tests;
mod transport;
mod waiting;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use crate::ids::{PeerId, RoomId, Token};
use crate::limits;
use crate::shard::command::{Command, Event, Fingerprint, Reply};
use crate::signaling::counters::Counters;
use crate::signaling::error::{ErrorCode, Failure};
use crate::signaling::message::{Call, METHODS, Request};
use crate::signaling::negotiation;
use crate::signaling::notification::Notification;
use crate::signaling::registry::{Random, Registry};
use crate::signaling::settings::SignalingConfig;

pub use enter::Hello;
use enter::Joining;
pub use rooms::NewRoom;
use waiting::{Asker, Pending, Then, Waiting};

/// One signaling connection, for as long as it lasts. Its peer may outlive it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// A question of the HTTP side that waits for a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueryId(pub u64);

/// What clients must know of a worker to reach it.
#[derive(Clone, Debug)]
pub struct WorkerFacts {
    /// Its UDP ports; a transport names one by its index.
    pub ports: Vec<u16>,
    /// Of its DTLS certificate; clients take the last.
    pub fingerprints: Vec<Fingerprint>,
}

/// What is to be done now, in this order.
#[derive(Clone, Debug)]
pub enum Output {
    /// `serial` is the framing's own name of the request; `None` answers what carried none.
    Respond {
        connection: ConnectionId,
        serial: Option<u64>,
        result: Result<Value, Failure>,
    },
    Notify {
        connection: ConnectionId,
        notification: Notification,
    },
    Close {
        connection: ConnectionId,
        reason: CloseReason,
    },
    Command {
        worker: usize,
        command: Command,
    },
    Answer {
        query: QueryId,
        result: Result<Reply, Failure>,
    },
}

/// Why the server ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The peer asked for it.
    Left,
    /// Another connection took the peer over.
    Replaced,
    /// The operator closed the room.
    RoomClosed,
    /// It was never let in.
    Refused(ErrorCode),
    /// Too many messages for too long.
    Flood,
    /// A message over the size limit.
    TooLarge,
    /// It does not read what it is sent.
    Slow,
    /// No sign of life.
    Silent,
    /// Not a WebSocket that follows RFC 6455.
    Violation,
    /// The server stops.
    GoingDown,
}

/// The whole control plane; see the module.
pub struct Control {
    config: Arc<SignalingConfig>,
    workers: Vec<WorkerFacts>,
    registry: Registry,
    waiting: Waiting,
    joins: HashMap<u64, Joining>,
    /// Peers without a connection, by the end of their grace.
    away: VecDeque<(Instant, PeerId)>,
    draining: bool,
    outputs: VecDeque<Output>,
    pub counters: Counters,
}

impl Control {
    pub fn new(config: Arc<SignalingConfig>, workers: Vec<WorkerFacts>, random: Random) -> Control {
        Control {
            registry: Registry::new(workers.len(), random),
            config,
            workers,
            waiting: Waiting::default(),
            joins: HashMap::new(),
            away: VecDeque::new(),
            draining: false,
            outputs: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// The next thing to do; `None` when all is done.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// A request of a connected peer. It is answered exactly once, now or after its worker did.
    pub fn handle_request(&mut self, now: Instant, connection: ConnectionId, serial: u64, request: Request) {
        let Some(peer) = self.admitted(now, connection, Some(serial)) else { return };
        self.counters.request(METHODS.iter().position(|method| *method == request.method));
        let asker = Asker::Peer { peer, connection, serial };
        match self.call(now, peer, asker, request) {
            Ok(Some(answer)) => self.respond(connection, Some(serial), Ok(answer)),
            Ok(None) => {}
            Err(failure) => self.respond(connection, Some(serial), Err(failure)),
        }
    }

    /// A frame that is no request. `serial` is what it carried of an id.
    pub fn handle_malformed(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        serial: Option<u64>,
        detail: &'static str,
    ) {
        if self.admitted(now, connection, serial).is_some() {
            self.respond(connection, serial, Err(Failure::bad_request(detail)));
        }
    }

    /// A frame that asks for nothing (a ping, a notification of a client): it only counts.
    pub fn handle_idle_frame(&mut self, now: Instant, connection: ConnectionId) {
        if let Some(peer) = self.registry.peer_of(connection) {
            self.allowed(now, connection, peer);
        }
    }

    /// What a worker says.
    pub fn handle_event(&mut self, event: Event) {
        match event {
            Event::Reply { token, result } => self.resume(token, result.map_err(Failure::from)),
            event => self.tell_on(event),
        }
    }

    /// The worker's queue had no room for the command with this token.
    pub fn command_refused(&mut self, token: Token) {
        self.resume(token, Err(ErrorCode::Overloaded.into()));
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn next_deadline(&self) -> Option<Instant> {
        let away = self.away.front().map(|(deadline, _)| *deadline);
        self.waiting.next_deadline().into_iter().chain(away).min()
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(token) = self.waiting.overdue(now) {
            self.counters.reply_timeouts += 1;
            self.resume(token, Err(ErrorCode::Internal.into()));
        }
        self.end_graces(now);
    }

    /// Takes nobody new from here on, and tells everybody when the end comes.
    pub fn drain(&mut self, deadline_ms: u64) {
        self.draining = true;
        let rooms: Vec<RoomId> = self.registry.rooms.keys().copied().collect();
        for room in rooms {
            self.notify_room(room, None, &Notification::server_draining(deadline_ms));
        }
    }

    pub fn is_draining(&self) -> bool {
        self.draining
    }

    pub fn peers(&self) -> usize {
        self.registry.peers.len()
    }

    /// The peer of a connection, if the message may be looked at. Otherwise it is answered already.
    fn admitted(&mut self, now: Instant, connection: ConnectionId, serial: Option<u64>) -> Option<PeerId> {
        let peer = self.registry.peer_of(connection)?;
        if !self.allowed(now, connection, peer) {
            self.respond(connection, serial, Err(ErrorCode::RateLimited.into()));
            return None;
        }
        Some(peer)
    }

    /// Counts a message against the peer's rate; a flood ends the connection.
    fn allowed(&mut self, now: Instant, connection: ConnectionId, peer: PeerId) -> bool {
        let Some(entry) = self.registry.peers.get_mut(&peer) else { return false };
        if entry.messages.take(now) {
            return true;
        }
        if !entry.flood.take(now) {
            self.close(connection, CloseReason::Flood);
        }
        false
    }

    /// The handler of a method: an answer, nothing yet, or a refusal.
    fn call(&mut self, now: Instant, peer: PeerId, asker: Asker, request: Request) -> Result<Option<Value>, Failure> {
        let at_once = |answer: Value| Ok(Some(answer));
        match Call::parse(request)? {
            Call::RouterCapabilities => at_once(json!({ "rtpCapabilities": negotiation::router_capabilities() })),
            Call::Join(join) => self.join(now, peer, asker, *join),
            Call::Leave => self.leave(peer, asker),
            Call::Producers => at_once(json!({ "producers": self.producers_for(peer) })),
            Call::CreateTransport(body) => self.create_transport(now, peer, asker, body),
            Call::ConnectTransport(body) => self.connect_transport(now, peer, asker, body),
            Call::RestartIce(body) => self.restart_ice(now, peer, asker, body.transport_id),
            Call::CloseTransport(body) => self.close_transport(peer, body.transport_id),
            Call::Produce(body) => self.produce(now, peer, asker, *body),
            Call::PauseProducer(body) => self.pause_producer(now, peer, asker, body.producer_id, true),
            Call::ResumeProducer(body) => self.pause_producer(now, peer, asker, body.producer_id, false),
            Call::CloseProducer(body) => self.close_producer(peer, body.producer_id),
            Call::Consume(body) => self.consume(now, peer, asker, *body),
            Call::PauseConsumer(body) => self.pause_consumer(now, peer, asker, body.consumer_id, true),
            Call::ResumeConsumer(body) => self.pause_consumer(now, peer, asker, body.consumer_id, false),
            Call::CloseConsumer(body) => self.close_consumer(peer, body.consumer_id),
            Call::SetPreferredLayers(body) => self.set_preferred_layers(now, peer, asker, body),
            Call::SetConsumerPriority(body) => self.set_consumer_priority(now, peer, asker, body),
            Call::RequestKeyFrame(body) => self.request_key_frame(now, peer, asker, body.consumer_id),
            Call::Stats(subject) => self.stats(now, peer, asker, subject),
        }
    }

    // ---- waiting for workers

    /// Sends a command whose reply continues the request.
    fn ask(
        &mut self,
        now: Instant,
        asker: Asker,
        worker: usize,
        then: Then,
        command: impl FnOnce(Token) -> Command,
    ) -> Result<Option<Value>, Failure> {
        if let Asker::Peer { peer, .. } = asker
            && let Some(entry) = self.registry.peers.get_mut(&peer)
        {
            if entry.requests_in_flight >= limits::REQUESTS_IN_FLIGHT_PER_PEER {
                return Err(Failure::new(ErrorCode::RateLimited, "too many requests wait for an answer"));
            }
            entry.requests_in_flight += 1;
        }
        let token = self.waiting.push(now + limits::REPLY_TIMEOUT, Pending { asker, then });
        self.outputs.push_back(Output::Command { worker, command: command(token) });
        Ok(None)
    }

    /// Goes on where the command with this token was asked. A late reply finds nothing and is dropped.
    fn resume(&mut self, token: Token, result: Result<Reply, Failure>) {
        let Some(Pending { asker, then }) = self.waiting.take(token) else { return };
        if let Asker::Peer { peer, .. } = asker
            && let Some(entry) = self.registry.peers.get_mut(&peer)
        {
            entry.requests_in_flight = entry.requests_in_flight.saturating_sub(1);
        }
        let answer = match then {
            Then::Answered => result.map(|_| json!({})),
            Then::TransportCreated(transport) => self.transport_created(transport, result),
            Then::JoinTransportCreated { join, transport } => return self.join_went_on(join, transport, result),
            Then::IceRestarted => transport::ice_restarted(result),
            Then::Produced(producer) => self.produced(producer, result),
            Then::ProducerPaused(producer, paused) => self.producer_paused(producer, paused, result),
            Then::Consumed(consumer, answer) => self.consumed(consumer, *answer, result),
            Then::ConsumerPaused(consumer, paused) => self.consumer_paused(consumer, paused, result),
            Then::Stats => result.and_then(|reply| self.stats_answer(reply)),
            Then::Query => {
                if let Asker::Query(query) = asker {
                    self.outputs.push_back(Output::Answer { query, result });
                }
                return;
            }
        };
        if let Asker::Peer { connection, serial, .. } = asker {
            self.respond(connection, Some(serial), answer);
        }
    }

    // ---- saying things

    fn respond(&mut self, connection: ConnectionId, serial: Option<u64>, result: Result<Value, Failure>) {
        if let Err(failure) = &result {
            self.counters.error(failure.code);
        }
        self.outputs.push_back(Output::Respond { connection, serial, result });
    }

    fn notify(&mut self, peer: PeerId, notification: &Notification) {
        if let Some(connection) = self.registry.peers.get(&peer).and_then(|peer| peer.connection) {
            self.counters.notifications += 1;
            self.outputs.push_back(Output::Notify { connection, notification: notification.clone() });
        }
    }

    /// To everybody in the room but one.
    fn notify_room(&mut self, room: RoomId, except: Option<PeerId>, notification: &Notification) {
        let Some(room) = self.registry.rooms.get(&room) else { return };
        for id in room.peers.iter().filter(|id| Some(**id) != except) {
            if let Some(connection) = self.registry.peers.get(id).and_then(|peer| peer.connection) {
                self.counters.notifications += 1;
                self.outputs.push_back(Output::Notify { connection, notification: notification.clone() });
            }
        }
    }

    fn command(&mut self, worker: usize, command: Command) {
        self.outputs.push_back(Output::Command { worker, command });
    }

    fn close(&mut self, connection: ConnectionId, reason: CloseReason) {
        self.outputs.push_back(Output::Close { connection, reason });
    }
}

impl CloseReason {
    pub const LABELS: [&str; 10] = [
        "left",
        "session-replaced",
        "room-closed",
        "refused",
        "rate-limited",
        "too-large",
        "slow-client",
        "silent",
        "protocol-violation",
        "server-going-down",
    ];

    /// Which of [`LABELS`](Self::LABELS).
    pub fn index(self) -> usize {
        match self {
            CloseReason::Left => 0,
            CloseReason::Replaced => 1,
            CloseReason::RoomClosed => 2,
            CloseReason::Refused(_) => 3,
            CloseReason::Flood => 4,
            CloseReason::TooLarge => 5,
            CloseReason::Slow => 6,
            CloseReason::Silent => 7,
            CloseReason::Violation => 8,
            CloseReason::GoingDown => 9,
        }
    }

    /// What the client reads: an error code where it was refused.
    pub fn text(self) -> &'static str {
        match self {
            CloseReason::Refused(code) => code.as_str(),
            reason => Self::LABELS[reason.index()],
        }
    }

    /// The WebSocket close code (RFC 6455 section 7.4). protoo-client connects again unless it is 4000.
    pub fn code(self) -> u16 {
        match self {
            CloseReason::Refused(ErrorCode::Draining | ErrorCode::Overloaded) => 1013,
            CloseReason::Left | CloseReason::Replaced | CloseReason::RoomClosed | CloseReason::Refused(_) => 4000,
            CloseReason::Flood => 1008,
            CloseReason::TooLarge => 1009,
            CloseReason::Slow => 1013,
            CloseReason::Silent => 1001,
            CloseReason::Violation => 1002,
            CloseReason::GoingDown => 1012,
        }
    }
}
