//! What the control plane asks of a shard, and what a shard tells it.
//!
//! Commands arrive validated and negotiated: a shard refuses what its own state forbids (an unknown
//! id, a full table) and never parses JSON. Every command that carries a [`Token`] is answered by
//! exactly one [`Event::Reply`] with the same token; the others are not answered.

use crate::ids::{ConsumerId, PeerId, ProducerId, RoomId, Token, TransportId};
use crate::shard::stats::{Stats, WorkerStats};
pub use crate::transport::dtls::{DtlsRole, DtlsState, Fingerprint, FingerprintHash};
pub use crate::transport::ice::IceState;

pub use crate::media::spec::{
    Codec, ConsumerSpec, EncodingSpec, Feedback, Kind, Layers, ProducerSpec, Reason, SourceClass,
};

#[derive(Clone, Debug)]
pub enum Command {
    OpenRoom {
        room: RoomId,
        settings: RoomSettings,
    },
    /// Closes everything in the room.
    CloseRoom {
        room: RoomId,
    },
    /// Closes every transport of the peer, with its producers and consumers.
    ClosePeer {
        room: RoomId,
        peer: PeerId,
    },

    CreateTransport {
        token: Token,
        room: RoomId,
        peer: PeerId,
        transport: TransportId,
        direction: Direction,
    },
    /// The peer's DTLS role and certificate fingerprints; once per transport.
    ConnectTransport {
        token: Token,
        transport: TransportId,
        role: DtlsRole,
        fingerprints: Vec<Fingerprint>,
    },
    /// Gives the transport a new ICE ufrag and password; media goes on over the old tuple meanwhile.
    RestartIce {
        token: Token,
        transport: TransportId,
    },
    CloseTransport {
        transport: TransportId,
    },

    Produce {
        token: Token,
        transport: TransportId,
        producer: Box<ProducerSpec>,
    },
    PauseProducer {
        token: Token,
        producer: ProducerId,
    },
    ResumeProducer {
        token: Token,
        producer: ProducerId,
    },
    CloseProducer {
        producer: ProducerId,
    },

    Consume {
        token: Token,
        transport: TransportId,
        consumer: Box<ConsumerSpec>,
    },
    PauseConsumer {
        token: Token,
        consumer: ConsumerId,
    },
    /// Media flows from here on; a video consumer asks its producer for a key frame.
    ResumeConsumer {
        token: Token,
        consumer: ConsumerId,
    },
    SetPreferredLayers {
        token: Token,
        consumer: ConsumerId,
        spatial: u8,
        temporal: Option<u8>,
    },
    /// 1 (least) to 255 (most).
    SetConsumerPriority {
        token: Token,
        consumer: ConsumerId,
        priority: u8,
    },
    RequestKeyFrame {
        token: Token,
        consumer: ConsumerId,
    },
    CloseConsumer {
        consumer: ConsumerId,
    },

    TransportStats {
        token: Token,
        transport: TransportId,
    },
    ProducerStats {
        token: Token,
        producer: ProducerId,
    },
    ConsumerStats {
        token: Token,
        consumer: ConsumerId,
    },
    RoomStats {
        token: Token,
        room: RoomId,
    },
    WorkerStats {
        token: Token,
    },
}

impl Command {
    /// Of a command that is answered.
    pub fn token(&self) -> Option<Token> {
        use Command::*;
        match self {
            CreateTransport { token, .. }
            | ConnectTransport { token, .. }
            | RestartIce { token, .. }
            | Produce { token, .. }
            | PauseProducer { token, .. }
            | ResumeProducer { token, .. }
            | Consume { token, .. }
            | PauseConsumer { token, .. }
            | ResumeConsumer { token, .. }
            | SetPreferredLayers { token, .. }
            | SetConsumerPriority { token, .. }
            | RequestKeyFrame { token, .. }
            | TransportStats { token, .. }
            | ProducerStats { token, .. }
            | ConsumerStats { token, .. }
            | RoomStats { token, .. }
            | WorkerStats { token } => Some(*token),
            OpenRoom { .. }
            | CloseRoom { .. }
            | ClosePeer { .. }
            | CloseTransport { .. }
            | CloseProducer { .. }
            | CloseConsumer { .. } => None,
        }
    }
}

#[derive(Clone, Debug)]
pub enum Event {
    Reply {
        token: Token,
        result: Result<Reply, Refusal>,
    },
    TransportState {
        transport: TransportId,
        ice: IceState,
        dtls: DtlsState,
    },
    /// The peer said goodbye on the transport itself (DTLS close_notify). A peer whose consent ran out is
    /// `Disconnected` and may come back by an ICE restart.
    TransportClosed {
        transport: TransportId,
    },
    ConsumerLayers {
        consumer: ConsumerId,
        layers: Option<Layers>,
        reason: Reason,
    },
    /// 0 (nothing arrives) to 10 (no loss).
    ProducerScore {
        producer: ProducerId,
        score: u8,
    },
    ConsumerScore {
        consumer: ConsumerId,
        score: u8,
        producer_score: u8,
    },
    ActiveSpeaker {
        room: RoomId,
        peer: PeerId,
    },
    /// Peers that speak, with their level in -dBov (0 loudest, 127 silence), loudest first.
    AudioLevels {
        room: RoomId,
        levels: Vec<(PeerId, u8)>,
    },
}

#[derive(Clone, Debug)]
pub enum Reply {
    Done,
    TransportCreated { ufrag: String, password: String, local: u8 },
    IceRestarted { ufrag: String, password: String },
    Stats(Vec<Stats>),
    WorkerStats(Box<WorkerStats>),
}

/// Why a shard said no. The control plane turns it into a code of the closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("there is no such room, transport, producer or consumer")]
    NotFound,
    #[error("the transport is connected already")]
    AlreadyConnected,
    #[error("a table of this worker is full")]
    TooMany,
    #[error("an SSRC, mid or id of the request is taken on this transport")]
    Conflict,
    #[error("the transport is of the other direction")]
    WrongDirection,
    #[error("no fingerprint of a supported hash (sha-256, sha-384, sha-512)")]
    NoFingerprint,
}

#[derive(Clone, Debug, Default)]
pub struct RoomSettings {
    /// Loudest speakers whose audio is forwarded; 0 forwards everybody's.
    pub audio_top_n: u8,
    /// Cap on each peer's uplink, told to it by REMB; `None` is no cap.
    pub uplink_bitrate_bps: Option<u32>,
}

/// Seen from the client, as in the request: a `Send` transport carries producers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Send,
    Recv,
}
