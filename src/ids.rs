//! Names of things: what signaling and shards call rooms, peers, transports, producers, consumers.
//!
//! Ids are handed out by the control plane, unique for the life of the process, and mean the same
//! thing on both sides of the command queue. On the wire to a client they are their lower-case hex form.

use std::fmt;
use std::str::FromStr;

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                u64::from_str_radix(text, 16).map($name)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )+};
}

id! {
    /// A room: the peers that see each other. Lives whole on one worker.
    RoomId,
    /// A participant of a room, for as long as its signaling connection (and grace) lasts.
    PeerId,
    /// One peer's secured path in one direction (mediasoup-client opens a send and a recv transport).
    TransportId,
    /// One media source of a peer: a microphone, a camera, a screen.
    ProducerId,
    /// One receiver's copy of a producer.
    ConsumerId,
}

/// Matches a [`Command`](crate::shard::command::Command) with its
/// [`Reply`](crate::shard::command::Reply).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// A synchronisation source of RTP (RFC 3550 section 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct Ssrc(pub u32);

impl fmt::Display for Ssrc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
