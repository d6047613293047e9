//! What the operator may choose about the control plane, as plain values: filled by the configuration, read
//! by everything in this module, never changed after the start.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::limits;
use crate::shard::command::RoomSettings;

#[derive(Clone, Debug)]
pub struct SignalingConfig {
    /// Where HTTP, WebSocket and Socket.IO are served, all on one port.
    pub listen: SocketAddr,
    /// Absent: plain HTTP, which browsers accept on localhost only.
    pub tls: Option<TlsFiles>,
    /// Addresses at which browsers reach the workers' UDP ports, best first; one ICE candidate each.
    pub announced: Vec<IpAddr>,
    /// Origins whose pages may use Socket.IO and the API of this server; `*` is all.
    pub cors_origins: Vec<String>,
    /// Passed on to clients as `iceServers` (a JSON array, as `RTCConfiguration` has it).
    pub ice_servers: Option<Value>,
    pub peers_per_room: usize,
    pub rooms: usize,
    pub transports_per_peer: usize,
    pub producers_per_peer: usize,
    pub consumers_per_peer: usize,
    /// Messages of one peer: so many per second, and so many at once.
    pub messages_per_s: u32,
    pub message_burst: u32,
    /// How long a peer's transports outlive its signaling connection. Zero: not at all.
    pub reconnect_grace: Duration,
    /// Only rooms that `POST /api/rooms` opened may be entered.
    pub rooms_by_api_only: bool,
    /// Wanted as `Authorization: Bearer` by `/api/*` when set.
    pub api_token: Option<String>,
    /// Wanted of every peer when set: a JWT (HS256) with this secret.
    pub token_secret: Option<String>,
    /// What every room is opened with.
    pub room: RoomSettings,
    /// How long peers may finish after the server was asked to stop.
    pub drain: Duration,
    /// Silence after which a WebSocket is sent a ping; the same again without an answer closes it.
    pub keep_alive: Duration,
    /// CPU time of a worker's thread, as a share of the time, above which the worker takes nobody new, 0 to 1.
    pub busy_limit: f64,
    /// Forwarding latency (p99 over a second) above which a worker takes nobody new.
    pub latency_limit: Duration,
}

/// Paths of PEM files.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate, then what it was signed with.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Default for SignalingConfig {
    fn default() -> Self {
        SignalingConfig {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8100)),
            tls: None,
            announced: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            cors_origins: vec!["*".to_owned()],
            ice_servers: None,
            peers_per_room: limits::PEERS_PER_ROOM,
            rooms: limits::ROOMS,
            transports_per_peer: limits::TRANSPORTS_PER_PEER,
            producers_per_peer: limits::PRODUCERS_PER_PEER,
            consumers_per_peer: limits::CONSUMERS_PER_PEER,
            messages_per_s: limits::MESSAGES_PER_S,
            message_burst: limits::MESSAGE_BURST,
            reconnect_grace: Duration::ZERO,
            rooms_by_api_only: false,
            api_token: None,
            token_secret: None,
            room: RoomSettings { audio_top_n: 3, uplink_bitrate_bps: None },
            drain: Duration::from_secs(5),
            keep_alive: limits::KEEP_ALIVE,
            busy_limit: 0.9,
            latency_limit: Duration::from_millis(20),
        }
    }
}
