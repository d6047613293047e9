//! Servers that a load can go to: how to speak with each, and how to start one on this machine.

pub mod janus;
mod sdp;
pub mod start;

use crate::client::protoo::Protoo;
use crate::swarm::Protocol;

/// Ringside's own signaling, which the mediasoup peer speaks too.
pub fn protoo() -> Protocol {
    Protocol {
        name: "protoo",
        path: |room, name| format!("/room/{room}?peerId={name}"),
        signaling: |_, _, offer| Box::new(Protoo::new(offer)),
    }
}
