//! The parts of one participant's client, each alone: signaling, ICE, DTLS, SRTP, RTCP, and what a receiver notices
//! about a stream. `swarm` puts them together. Written apart from the server, so that a mistake there cannot hide here.

pub mod dtls;
pub mod ice;
pub mod protoo;
pub mod rtcp;
pub mod sending;
pub mod signaling;
pub mod srtp;
pub mod stream;
pub mod stun;
pub mod transport;
pub mod wire;
