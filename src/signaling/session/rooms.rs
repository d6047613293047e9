//! Rooms as their operator sees them: opened and closed by the API or by their peers.

use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};

use super::enter::check_name;
use super::{CloseReason, Control};
use crate::ids::RoomId;
use crate::limits::UPLINK_LIMIT_MIN_BPS;
use crate::shard::command::{Command, RoomSettings};
use crate::signaling::error::{ErrorCode, Failure};

/// The body of `POST /api/rooms`. What it leaves out is as for every other room.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NewRoom {
    pub id: Option<String>,
    pub max_peers: Option<usize>,
    pub uplink_limit_bps: Option<u32>,
    pub audio_top_n: Option<u8>,
}

impl Control {
    /// Opens a room that stays until it is deleted; a name that is taken is refused. A room that its peers opened is
    /// taken over with what is asked for.
    pub fn create_room(&mut self, now: Instant, wanted: &NewRoom) -> Result<Value, Failure> {
        let chosen = format!("{:016x}", self.registry.random());
        let name = wanted.id.as_deref().unwrap_or(&chosen);
        check_name("id", name)?;
        if wanted.uplink_limit_bps.is_some_and(|bps| bps < UPLINK_LIMIT_MIN_BPS) {
            return Err(Failure::bad_request(format!("uplinkLimitBps: at least {UPLINK_LIMIT_MIN_BPS}")));
        }
        let usual = &self.config.room;
        let settings = RoomSettings {
            audio_top_n: wanted.audio_top_n.unwrap_or(usual.audio_top_n),
            uplink_bitrate_bps: wanted.uplink_limit_bps.or(usual.uplink_bitrate_bps),
        };
        let max_peers = wanted.max_peers.unwrap_or(self.config.peers_per_room);
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
            (room.kept, room.max_peers, room.settings) = (true, max_peers, settings.clone());
            let worker = room.worker;
            // Of a room that it has, the worker takes the settings.
            self.command(worker, Command::OpenRoom { room: found, settings });
            return Ok(self.room_value(now, found));
        }
        let room = self.open_room(now, name, max_peers, settings, true)?;
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
            "uplinkLimitBps": room.settings.uplink_bitrate_bps,
            "audioTopN": room.settings.audio_top_n,
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
        settings: RoomSettings,
        kept: bool,
    ) -> Result<RoomId, Failure> {
        if self.registry.rooms.len() >= self.config.rooms {
            return Err(Failure::new(ErrorCode::TooMany, "rooms"));
        }
        let opened = self.registry.open_room(name, max_peers, settings.clone(), kept, now);
        let room = opened.ok_or(ErrorCode::Overloaded)?;
        let worker = self.registry.rooms[&room].worker;
        self.command(worker, Command::OpenRoom { room, settings });
        Ok(room)
    }

    /// An empty room that was opened long ago goes to whoever is the least loaded now.
    pub(super) fn place_again(&mut self, now: Instant, id: RoomId) -> Result<RoomId, Failure> {
        let room = self.registry.rooms.get(&id).ok_or(ErrorCode::NotFound)?;
        let (name, max_peers, settings) = (room.name.clone(), room.max_peers, room.settings.clone());
        if self.is_overloaded() {
            return Err(ErrorCode::Overloaded.into());
        }
        self.forget_room(id);
        self.open_room(now, &name, max_peers, settings, true)
    }

    pub(super) fn forget_room(&mut self, id: RoomId) {
        if let Some(room) = self.registry.close_room(id) {
            self.command(room.worker, Command::CloseRoom { room: id });
        }
    }
}
