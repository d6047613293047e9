//! Rooms as their operator sees them: opened and closed by the API or by their peers.

use std::time::Instant;

use serde_json::{Value, json};

use super::enter::check_name;
use super::{CloseReason, Control};
use crate::ids::RoomId;
use crate::shard::command::Command;
use crate::signaling::error::{ErrorCode, Failure};

impl Control {
    /// Opens a room that stays until it is deleted; a name that is taken is refused.
    pub fn create_room(
        &mut self,
        now: Instant,
        name: Option<&str>,
        max_peers: Option<usize>,
    ) -> Result<Value, Failure> {
        let chosen = format!("{:016x}", self.registry.random());
        let name = name.unwrap_or(&chosen);
        check_name("id", name)?;
        let max_peers = max_peers.unwrap_or(self.config.peers_per_room);
        if max_peers == 0 {
            return Err(Failure::bad_request("maxPeers: a room holds one peer at least"));
        }
        if self.draining {
            return Err(ErrorCode::Draining.into());
        }
        if let Some(found) = self.registry.room_named(name) {
            let room = self.registry.rooms.get_mut(&found).ok_or(ErrorCode::Internal)?;
            if room.kept {
                return Err(Failure::new(ErrorCode::TooMany, "a room of this id is open already"));
            }
            (room.kept, room.max_peers) = (true, max_peers);
            return Ok(self.room_value(now, found));
        }
        let room = self.open_room(now, name, max_peers, true)?;
        Ok(self.room_value(now, room))
    }

    pub fn delete_room(&mut self, name: &str) -> Result<(), Failure> {
        let id = self.registry.room_named(name).ok_or(ErrorCode::NotFound)?;
        if let Some(room) = self.registry.rooms.get_mut(&id) {
            room.kept = false;
        }
        let peers = self.registry.rooms[&id].peers.clone();
        for peer in &peers {
            if let Some(connection) = self.registry.peers[peer].connection {
                self.close(connection, CloseReason::RoomClosed);
            }
            self.depart(*peer);
        }
        if peers.is_empty() {
            self.forget_room(id);
        }
        Ok(())
    }

    pub fn room(&self, now: Instant, name: &str) -> Result<Value, Failure> {
        let id = self.registry.room_named(name).ok_or(ErrorCode::NotFound)?;
        let mut value = self.room_value(now, id);
        let peers = self.registry.rooms[&id].peers.iter().map(|peer| &self.registry.peers[peer]);
        let rows = peers.map(|peer| {
            json!({
                "peerId": peer.name,
                "displayName": peer.display_name,
                "connected": peer.connection.is_some(),
                "transports": peer.transports.len(),
                "producers": peer.producers.len(),
                "consumers": peer.consumers.len(),
            })
        });
        value["peerList"] = rows.collect();
        Ok(value)
    }

    /// By name.
    pub fn rooms(&self, now: Instant) -> Vec<Value> {
        let mut ids: Vec<RoomId> = self.registry.rooms.keys().copied().collect();
        ids.sort_by(|a, b| self.registry.rooms[a].name.cmp(&self.registry.rooms[b].name));
        ids.into_iter().map(|id| self.room_value(now, id)).collect()
    }

    /// Rooms, peers, transports, producers, consumers.
    pub fn totals(&self) -> [(&'static str, usize); 5] {
        [
            ("rooms", self.registry.rooms.len()),
            ("peers", self.registry.peers.len()),
            ("transports", self.registry.transports.len()),
            ("producers", self.registry.producers.len()),
            ("consumers", self.registry.consumers.len()),
        ]
    }

    fn room_value(&self, now: Instant, id: RoomId) -> Value {
        let room = &self.registry.rooms[&id];
        let peers = || room.peers.iter().map(|peer| &self.registry.peers[peer]);
        json!({
            "id": room.name,
            "peers": room.peers.len(),
            "maxPeers": room.max_peers,
            "producers": peers().map(|peer| peer.producers.len()).sum::<usize>(),
            "consumers": peers().map(|peer| peer.consumers.len()).sum::<usize>(),
            // As people count them, from 1.
            "worker": room.worker + 1,
            "kept": room.kept,
            "ageSeconds": now.saturating_duration_since(room.opened_at).as_secs(),
        })
    }

    pub(super) fn open_room(
        &mut self,
        now: Instant,
        name: &str,
        max_peers: usize,
        kept: bool,
    ) -> Result<RoomId, Failure> {
        if self.registry.rooms.len() >= self.config.rooms {
            return Err(Failure::new(ErrorCode::TooMany, "rooms"));
        }
        let room = self.registry.open_room(name, max_peers, kept, now).ok_or(ErrorCode::Overloaded)?;
        let worker = self.registry.rooms[&room].worker;
        let settings = self.config.room.clone();
        self.command(worker, Command::OpenRoom { room, settings });
        Ok(room)
    }

    /// An empty room that was opened long ago goes to whoever is the least loaded now.
    pub(super) fn place_again(&mut self, now: Instant, id: RoomId) -> Result<RoomId, Failure> {
        let Some((name, max_peers)) = self.registry.rooms.get(&id).map(|room| (room.name.clone(), room.max_peers))
        else {
            return Err(ErrorCode::NotFound.into());
        };
        if self.is_overloaded() {
            return Err(ErrorCode::Overloaded.into());
        }
        self.forget_room(id);
        self.open_room(now, &name, max_peers, true)
    }

    pub(super) fn forget_room(&mut self, id: RoomId) {
        if let Some(room) = self.registry.close_room(id) {
            self.command(room.worker, Command::CloseRoom { room: id });
        }
    }
}
