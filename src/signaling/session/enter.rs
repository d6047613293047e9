//! Coming and going: a connection enters a room as a peer, takes its place back after a loss, leaves.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use super::waiting::{Asker, Then};
use super::{CloseReason, ConnectionId, Control};
use crate::ids::{PeerId, RoomId, TransportId};
use crate::limits;
use crate::shard::command::{Command, Direction, Reply};
use crate::signaling::bucket::Bucket;
use crate::signaling::error::{ErrorCode, Failure};
use crate::signaling::message::Join;
use crate::signaling::negotiation;
use crate::signaling::notification::{Notification, ProducerInfo};
use crate::signaling::registry::{Closed, Peer};

/// What a connection says when it comes.
#[derive(Clone, Debug, Default)]
pub struct Hello {
    pub room: String,
    /// Absent: the server chooses one.
    pub peer: Option<String>,
    /// The resume token of the peer whose place it wants to take.
    pub resume: Option<String>,
    pub display_name: Option<String>,
}

/// A `join` of which a transport is still being made.
pub(super) struct Joining {
    asker: Asker,
    peer: PeerId,
    outstanding: usize,
    send: Option<Value>,
    recv: Option<Value>,
    failure: Option<Failure>,
}

impl Control {
    /// Lets a connection into a room: it hears `welcome`, then `new-producer` for each producer there is.
    /// A refused connection is to be closed by the framing; nothing of it stays.
    pub fn connect(&mut self, now: Instant, connection: ConnectionId, hello: Hello) -> Result<(), Failure> {
        self.counters.connections_opened += 1;
        let entered = self.enter(now, connection, hello);
        if let Err(failure) = &entered {
            self.counters.error(failure.code);
        }
        entered
    }

    fn enter(&mut self, now: Instant, connection: ConnectionId, hello: Hello) -> Result<(), Failure> {
        check_name("the room's name", &hello.room)?;
        hello.peer.as_deref().map_or(Ok(()), |name| check_name("peerId", name))?;
        let display_name = hello.display_name.as_deref().map(checked_display_name).transpose()?;
        let room = self.registry.room_named(&hello.room);
        if let (Some(room), Some(name)) = (room, &hello.peer)
            && let Some(peer) = self.registry.peer_named(room, name)
        {
            return self.take_over(connection, peer, hello.resume.as_deref());
        }
        if self.draining {
            return Err(ErrorCode::Draining.into());
        }
        let room = self.room_to_enter(now, room, &hello.room)?;
        let name: Arc<str> = match hello.peer {
            Some(name) => name.into(),
            None => format!("{:016x}", self.registry.random()).into(),
        };
        let peer = self.add_peer(now, connection, room, name.clone(), display_name.clone());
        self.welcome(peer, false);
        self.notify_room(room, Some(peer), &Notification::peer_joined(&name, display_name.as_deref()));
        Ok(())
    }

    /// The room if it takes one more; opened if it may be. Nothing is opened in vain.
    fn room_to_enter(&mut self, now: Instant, found: Option<RoomId>, name: &str) -> Result<RoomId, Failure> {
        let Some(id) = found else {
            if self.config.rooms_by_api_only {
                return Err(Failure::new(ErrorCode::NotFound, "this server's rooms are opened by its operator"));
            }
            return self.open_room(now, name, self.config.peers_per_room, self.config.room.clone(), false);
        };
        let room = &self.registry.rooms[&id];
        if room.peers.len() >= room.max_peers {
            return Err(ErrorCode::RoomFull.into());
        }
        if room.kept && room.peers.is_empty() {
            return self.place_again(now, id);
        }
        let worker = room.worker;
        if self.registry.placement.worker(worker).overload.is_on() {
            return Err(ErrorCode::Overloaded.into());
        }
        Ok(id)
    }

    fn add_peer(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        room: RoomId,
        name: Arc<str>,
        display_name: Option<Arc<str>>,
    ) -> PeerId {
        let resume_token = format!("{:016x}{:016x}", self.registry.random(), self.registry.random()).into();
        self.registry.add_peer(Peer {
            name,
            room,
            connection: Some(connection),
            resume_token,
            display_name,
            rtp_capabilities: None,
            transports: Vec::new(),
            producers: Vec::new(),
            consumers: HashSet::new(),
            requests_in_flight: 0,
            messages: Bucket::new(self.config.message_burst, self.config.messages_per_s, now),
            flood: Bucket::new(limits::FLOOD_BURST, self.config.messages_per_s, now),
        })
    }

    /// Another connection for a peer that is here: its own after a change of network, by the resume token.
    fn take_over(&mut self, connection: ConnectionId, peer: PeerId, token: Option<&str>) -> Result<(), Failure> {
        let own = self.registry.peers[&peer].resume_token.clone();
        let same =
            |token: &str| aws_lc_rs::constant_time::verify_slices_are_equal(token.as_bytes(), own.as_bytes()).is_ok();
        if !token.is_some_and(same) {
            return Err(ErrorCode::PeerIdTaken.into());
        }
        if let Some(old) = self.registry.reconnect(peer, Some(connection)) {
            self.close(old, CloseReason::Replaced);
        }
        self.away.retain(|(_, away)| *away != peer);
        self.counters.connections_resumed += 1;
        self.welcome(peer, true);
        Ok(())
    }

    /// Who the peer is and what it has, then everything that it could consume.
    fn welcome(&mut self, id: PeerId, resumed: bool) {
        let peer = &self.registry.peers[&id];
        let room = peer.room;
        let welcome = json!({
            "peerId": peer.name,
            "roomId": self.registry.rooms[&room].name,
            "resumeToken": peer.resume_token,
            "resumed": resumed,
            "transports": peer.transports,
            "producers": peer.producers,
            "consumers": peer.consumers,
            "peers": self.others(id),
        });
        self.notify(id, &Notification::welcome(welcome));
        for producer in self.producers_for(id) {
            self.notify(id, &Notification::new_producer(&producer));
        }
    }

    /// The others in the room, without their producers.
    fn others(&self, id: PeerId) -> Vec<Value> {
        let Some(room) = self.registry.peers.get(&id).and_then(|peer| self.registry.rooms.get(&peer.room)) else {
            return Vec::new();
        };
        let others = room.peers.iter().filter(|other| **other != id).map(|other| &self.registry.peers[other]);
        others.map(|peer| json!({ "peerId": peer.name, "displayName": peer.display_name })).collect()
    }

    // ---- join

    pub(super) fn join(
        &mut self,
        now: Instant,
        peer: PeerId,
        asker: Asker,
        join: Join,
    ) -> Result<Option<Value>, Failure> {
        let display_name = join.display_name.as_deref().map(checked_display_name).transpose()?;
        if let Some(capabilities) = &join.rtp_capabilities {
            negotiation::capabilities_problem(capabilities)?;
        }
        let directions: Vec<Direction> = [(join.produce, Direction::Send), (join.consume, Direction::Recv)]
            .into_iter()
            .filter_map(|(wanted, direction)| wanted.then_some(direction))
            .collect();
        let entry = self.registry.peers.get_mut(&peer).ok_or(ErrorCode::NotFound)?;
        if entry.transports.len() + directions.len() > self.config.transports_per_peer {
            return Err(Failure::new(ErrorCode::TooMany, "transports of this peer"));
        }
        if let Some(capabilities) = join.rtp_capabilities {
            entry.rtp_capabilities = Some(capabilities);
        }
        if display_name.is_some() && entry.display_name != display_name {
            entry.display_name = display_name.clone();
            let (room, name) = (entry.room, entry.name.clone());
            self.notify_room(room, Some(peer), &Notification::peer_joined(&name, display_name.as_deref()));
        }
        let joining = Joining { asker, peer, outstanding: directions.len(), send: None, recv: None, failure: None };
        if directions.is_empty() {
            return Ok(Some(self.join_answer(&joining)));
        }
        let id = self.registry.random();
        self.joins.insert(id, joining);
        for direction in directions {
            self.join_transport(now, id, peer, asker, direction);
        }
        Ok(None)
    }

    fn join_transport(&mut self, now: Instant, join: u64, peer: PeerId, asker: Asker, direction: Direction) {
        let transport = self.registry.add_transport(peer, direction);
        let then = Then::JoinTransportCreated { join, transport };
        if let Err(failure) = self.ask_for_transport(now, peer, asker, transport, direction, then) {
            self.join_went_on(join, transport, Err(failure));
        }
    }

    /// One of the transports is there or refused; the last one brings the answer.
    pub(super) fn join_went_on(&mut self, id: u64, transport: TransportId, result: Result<Reply, Failure>) {
        let direction = self.registry.transports.get(&transport).map(|transport| transport.direction);
        let made = self.transport_created(transport, result);
        let Some(join) = self.joins.get_mut(&id) else { return };
        join.outstanding -= 1;
        match (made, direction) {
            (Ok(options), Some(Direction::Send)) => join.send = Some(options),
            (Ok(options), _) => join.recv = Some(options),
            (Err(failure), _) => join.failure = Some(failure),
        }
        if join.outstanding > 0 {
            return;
        }
        let Some(join) = self.joins.remove(&id) else { return };
        let answer = match &join.failure {
            Some(failure) => Err(failure.clone()),
            None => Ok(self.join_answer(&join)),
        };
        if answer.is_err() {
            for options in [&join.send, &join.recv].into_iter().flatten() {
                let made = options["id"].as_str().and_then(|id| id.parse().ok()).unwrap_or(TransportId(0));
                let _ = self.close_transport(join.peer, made);
            }
        }
        if let Asker::Peer { connection, serial, .. } = join.asker {
            self.respond(connection, Some(serial), answer);
        }
    }

    fn join_answer(&self, join: &Joining) -> Value {
        let Some(peer) = self.registry.peers.get(&join.peer) else { return json!({}) };
        let producers = self.producers_for(join.peer);
        let mut peers = self.others(join.peer);
        for other in &mut peers {
            let own = |info: &&ProducerInfo| other["peerId"] == *info.peer_id;
            other["producers"] = json!(producers.iter().filter(own).collect::<Vec<_>>());
        }
        let mut answer = json!({
            "peerId": peer.name,
            "resumeToken": peer.resume_token,
            "rtpCapabilities": negotiation::router_capabilities(),
            "peers": peers,
            "producers": producers,
        });
        for (name, options) in [("sendTransport", &join.send), ("recvTransport", &join.recv)] {
            if let Some(options) = options {
                answer[name] = options.clone();
            }
        }
        answer
    }

    // ---- leaving

    pub(super) fn leave(&mut self, peer: PeerId, asker: Asker) -> Result<Option<Value>, Failure> {
        if let Asker::Peer { connection, serial, .. } = asker {
            self.respond(connection, Some(serial), Ok(json!({})));
            self.close(connection, CloseReason::Left);
        }
        self.depart(peer);
        Ok(None)
    }

    /// The connection is gone, whoever ended it. Its peer goes with it, or waits for another one.
    pub fn disconnect(&mut self, now: Instant, connection: ConnectionId) {
        let Some(peer) = self.registry.peer_of(connection) else { return };
        if self.config.reconnect_grace.is_zero() || self.draining {
            return self.depart(peer);
        }
        self.registry.reconnect(peer, None);
        self.away.push_back((now + self.config.reconnect_grace, peer));
    }

    pub(super) fn end_graces(&mut self, now: Instant) {
        while let Some((deadline, peer)) = self.away.front().copied()
            && deadline <= now
        {
            self.away.pop_front();
            self.depart(peer);
        }
    }

    /// Takes the peer and all that it owned out of the room, and the room with its last peer.
    pub(super) fn depart(&mut self, id: PeerId) {
        let Some((peer, closed)) = self.registry.remove_peer(id) else { return };
        self.away.retain(|(_, away)| *away != id);
        self.tell_closed(peer.room, Some(id), &peer.name, &closed);
        self.notify_room(peer.room, None, &Notification::peer_left(&peer.name));
        let room = &self.registry.rooms[&peer.room];
        let worker = room.worker;
        if room.peers.is_empty() && !room.kept {
            self.registry.close_room(peer.room);
            self.command(worker, Command::CloseRoom { room: peer.room });
        } else {
            self.command(worker, Command::ClosePeer { room: peer.room, peer: id });
        }
    }

    /// Tells the others what was closed with something of `owner`; `by` closed it and knows.
    pub(super) fn tell_closed(&mut self, room: RoomId, by: Option<PeerId>, owner: &str, closed: &Closed) {
        for (id, consumer) in &closed.consumers {
            if consumer.ready && Some(consumer.peer) != by {
                self.notify(consumer.peer, &Notification::consumer_closed(*id, consumer.producer));
            }
        }
        for (id, _) in closed.producers.iter().filter(|(_, producer)| producer.ready) {
            self.notify_room(room, by, &Notification::producer_closed(*id, owner));
        }
    }
}

/// Names stand in URLs, logs and metrics: no control characters, and a bounded length.
pub(super) fn check_name(what: &'static str, name: &str) -> Result<(), Failure> {
    if name.is_empty() || name.len() > limits::NAME_BYTES || name.chars().any(char::is_control) {
        let detail = format!("{what} is 1 to {} bytes without control characters", limits::NAME_BYTES);
        return Err(Failure::bad_request(detail));
    }
    Ok(())
}

fn checked_display_name(name: &str) -> Result<Arc<str>, Failure> {
    if name.chars().count() > limits::DISPLAY_NAME_CHARS || name.chars().any(char::is_control) {
        let detail =
            format!("displayName is at most {} characters without control characters", limits::DISPLAY_NAME_CHARS);
        return Err(Failure::bad_request(detail));
    }
    Ok(name.into())
}
