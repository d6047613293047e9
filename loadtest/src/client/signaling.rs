//! What a participant says to a server and hears from it, whatever the server's own protocol: the seam between the
//! swarm and `protoo` (Ringside, mediasoup) or `peers::janus`. Sans-IO: texts in, texts and signals out.

use std::net::SocketAddr;

use super::ice::Credentials;
use super::stun::Role;
use crate::media::source::Class;
use crate::scenario::Feedback;

/// Payload types that these clients use for what they send; Chromium's own numbers.
pub const OPUS: u8 = 111;
pub const VP8: u8 = 96;
pub const VP8_RTX: u8 = 97;

/// One connection's protocol. Calls that ask for something are answered by a [`Signal`] later.
pub trait Signaling {
    /// The connection is open: say what is to be said first.
    fn opened(&mut self, say: &mut Say);
    /// A text came. An error is fatal for this participant.
    fn heard(&mut self, text: &str, say: &mut Say) -> anyhow::Result<()>;
    /// Subscribes to a producer, at a layer of its simulcast if it has layers.
    fn consume(&mut self, producer: &str, layer: Option<u8>, say: &mut Say);
    fn pause(&mut self, consumer: &str, say: &mut Say);
    fn resume(&mut self, consumer: &str, say: &mut Say);
    fn prefer(&mut self, consumer: &str, layer: u8, say: &mut Say);
    /// About every 20 seconds.
    fn keep_alive(&mut self, say: &mut Say);
}

/// What one call to a [`Signaling`] wants done.
#[derive(Default)]
pub struct Say {
    pub texts: Vec<String>,
    pub signals: Vec<Signal>,
}

pub enum Signal {
    /// The server made its end of a transport: ICE may begin.
    Transport(Direction, Box<Remote>),
    /// The source with this place in the [`Offer`] may send.
    Produced(usize),
    /// Somebody sends something.
    Available(Producer),
    /// A producer is gone.
    Gone(String),
    Consuming(Box<Consumer>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Send,
    Receive,
}

/// The server's end of a transport, and what was agreed about it.
pub struct Remote {
    pub address: SocketAddr,
    pub credentials: Credentials,
    pub fingerprints: Vec<String>,
    pub ice_role: Role,
    pub dtls_client: bool,
}

#[derive(Clone, Debug)]
pub struct Producer {
    pub id: String,
    /// The peer's name as the swarm gave it.
    pub peer: String,
    pub class: Class,
}

pub struct Consumer {
    pub id: String,
    pub producer: String,
    pub class: Class,
    pub ssrc: u32,
    pub payload_type: u8,
    pub rtx: Option<(u32, u8)>,
    /// Extension id of the transport-wide sequence number, where agreed.
    pub transport_cc: Option<u8>,
    pub layers: bool,
}

/// What a participant brings: known before its connection opens.
#[derive(Clone)]
pub struct Offer {
    pub sources: Vec<OfferedSource>,
    pub receives: bool,
    pub feedback: Feedback,
    pub nack: bool,
    /// Of the lowest spatial layer, where a view asks for it.
    pub tile_temporal: u8,
    pub fingerprint: String,
    /// Of the sending and of the receiving transport.
    pub credentials: [Credentials; 2],
    pub cname: String,
}

#[derive(Clone)]
pub struct OfferedSource {
    pub class: Class,
    pub mid: String,
    /// One per layer, worst first.
    pub ssrcs: Vec<u32>,
    pub rtx_ssrcs: Vec<u32>,
    /// Names of the layers; empty for a single encoding.
    pub rids: Vec<&'static str>,
}

impl Class {
    pub fn name(self) -> &'static str {
        match self {
            Class::Microphone => "microphone",
            Class::Camera => "camera",
            Class::Share => "screen",
        }
    }

    pub fn is_video(self) -> bool {
        self != Class::Microphone
    }
}
