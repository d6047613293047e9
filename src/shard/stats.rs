//! The shapes of statistics, as the client and the operator read them (JSON in camelCase).
//!
//! Counters never go back while the thing that they describe lives. Bitrates are over the last second.

use serde::Serialize;

use crate::ids::{ConsumerId, PeerId, ProducerId, Ssrc, TransportId};
use crate::shard::command::{DtlsState, IceState, Kind, Layers, Reason};

/// One row of a `get-stats` answer.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Stats {
    Transport(TransportStats),
    Producer(ProducerStats),
    Consumer(ConsumerStats),
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TransportStats {
    pub transport_id: TransportId,
    pub peer_id: PeerId,
    pub ice_state: IceState,
    pub dtls_state: DtlsState,
    pub srtp_profile: Option<&'static str>,
    /// `address:port` of the remote end in use.
    pub selected_tuple: Option<String>,
    pub tuples: usize,
    pub packets_received: u64,
    pub bytes_received: u64,
    pub packets_sent: u64,
    pub bytes_sent: u64,
    pub recv_bitrate_bps: u64,
    pub send_bitrate_bps: u64,
    /// Of these, what left as padding of probes for more bandwidth.
    pub padding_bytes_sent: u64,
    /// From the newest RTCP report of the peer about what it receives; there is none of a peer that only sends.
    pub rtt_ms: Option<f64>,
    /// What the send-side estimate allows, where there is one.
    pub available_outgoing_bitrate_bps: Option<u64>,
}

/// One encoding (layer) of a producer.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProducerStats {
    pub producer_id: ProducerId,
    pub peer_id: PeerId,
    pub kind: Kind,
    pub paused: bool,
    pub ssrc: Option<Ssrc>,
    pub rtx_ssrc: Option<Ssrc>,
    pub rid: Option<String>,
    pub packets_received: u64,
    pub bytes_received: u64,
    pub packets_lost: i64,
    pub fraction_lost: f64,
    pub packets_repaired: u64,
    pub packets_duplicated: u64,
    pub jitter_ms: f64,
    pub rtt_ms: Option<f64>,
    pub bitrate_bps: u64,
    pub frames_received: u64,
    pub key_frames_received: u64,
    pub nack_count: u64,
    pub nack_packet_count: u64,
    pub pli_count: u64,
    pub fir_count: u64,
    pub key_frames_asked: u64,
    pub key_frames_coalesced: u64,
    pub score: u8,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerStats {
    pub consumer_id: ConsumerId,
    pub producer_id: ProducerId,
    pub peer_id: PeerId,
    pub kind: Kind,
    pub paused: bool,
    pub producer_paused: bool,
    pub ssrc: Ssrc,
    pub rtx_ssrc: Option<Ssrc>,
    pub packets_sent: u64,
    pub bytes_sent: u64,
    pub packets_retransmitted: u64,
    /// As the receiver reports it.
    pub packets_lost: i64,
    pub fraction_lost: f64,
    pub jitter_ms: f64,
    pub rtt_ms: Option<f64>,
    pub bitrate_bps: u64,
    pub nack_count: u64,
    pub nack_packet_count: u64,
    pub pli_count: u64,
    pub fir_count: u64,
    pub layers: Option<Layers>,
    pub preferred_layers: Option<Layers>,
    pub reason: Reason,
    pub score: u8,
}

/// What one worker did since its start.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerStats {
    /// From 1, as in the log ("worker 1/2").
    pub worker: usize,
    pub core: Option<usize>,
    pub ports: Vec<u16>,
    pub rooms: usize,
    pub peers: usize,
    pub transports: usize,
    pub producers: usize,
    pub consumers: usize,
    pub packets_received: u64,
    pub bytes_received: u64,
    pub packets_sent: u64,
    pub bytes_sent: u64,
    /// GSO messages handed to the kernel.
    pub messages_sent: u64,
    /// Of what was sent, padding of probes for more bandwidth.
    pub padding_packets_sent: u64,
    pub padding_bytes_sent: u64,
    pub ticks: u64,
    /// CPU time of the worker's thread over the last second, as a share of it, 0 to 1: its own work, and the kernel's
    /// while it receives and sends for it.
    pub busy: f64,
    pub repairs: RepairStats,
    /// Memory in use for packets that can be asked for again, and those that had to go before their time.
    pub history_bytes: u64,
    pub history_packets_cut_short: u64,
    /// Every refusal by name; zero rows are left in, so that a dashboard knows them.
    pub discards: Vec<(&'static str, u64)>,
    /// Kernel receive to submitted send in microseconds, of each frame and sound; estimated from a sample where many leave.
    pub forwarding_us: Distribution,
    pub tick_us: Distribution,
    pub batch_packets: Distribution,
    pub run_segments: Distribution,
    /// Takes nobody new; the control plane says so.
    pub overloaded: bool,
    /// How many seconds were measured. Of the last one are `busy` and what is called recent.
    #[serde(skip)]
    pub seconds: u64,
    /// p99 of the forwarding latency over the last second, in microseconds, and of how many samples.
    pub recent_p99_us: u64,
    pub recent_samples: u64,
    /// What the slowest of the last second took at least, in microseconds: one in a hundred, and
    /// [`OVERLOAD_LATE_RUNS`](crate::limits::OVERLOAD_LATE_RUNS) at least. Zero where fewer left.
    #[serde(skip)]
    pub recent_late_us: u64,
    /// p99 of the ticks of the last second, in microseconds.
    pub recent_tick_p99_us: u64,
}

/// What key frames and losses cost a worker since its start, over everything that it carried: never goes back when
/// something is closed. Uplink is from senders, downlink to receivers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RepairStats {
    /// By receivers and for them: of these, coalesced with one that was under way; and what was sent for the rest.
    pub key_frames_asked: u64,
    pub key_frames_coalesced: u64,
    pub key_frame_requests_sent: u64,
    pub key_frames_received: u64,
    /// Packets that were missing from senders and asked for, one count for each time.
    pub uplink_packets_asked: u64,
    /// Packets that came as retransmissions and were missing.
    pub uplink_packets_repaired: u64,
    pub uplink_packets_duplicated: u64,
    /// Packets that receivers asked for again, and those that they were sent again.
    pub downlink_packets_asked: u64,
    pub downlink_packets_resent: u64,
    /// Transport-wide feedback of receivers about packets that were never sent to them: a liar, or a bug.
    pub invented_feedback: u64,
}

/// What was measured since the worker's start: `/api/stats` shows the quantiles, `/metrics` the buckets, which can
/// be added up over workers and compared over time.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Distribution {
    pub count: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
    #[serde(skip)]
    pub sum: u64,
    /// Upper bounds, ascending, each with the number of values up to it and above the one before. The last is `u64::MAX`.
    #[serde(skip)]
    pub buckets: Vec<(u64, u64)>,
}
