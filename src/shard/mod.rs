//! One core's world as a pure value: rooms, peers, transports, producers, consumers.
//!
//! Datagrams, commands and the time go in; datagrams (written into an [`Outbox`]), events and a deadline come
//! out. There is no socket, clock, channel or task inside, so a whole call with loss, joins and layer switches
//! runs in a test in milliseconds from one seed.
//!
//! | a step | where |
//! |---|---|
//! | a datagram in: classified, its transport found | here, [`demux`] |
//! | media in: opened, understood, recorded | `ingress` |
//! | media out: decided, sealed, joined into messages | [`egress`] |
//! | what would leave in too large a burst | `pacing` |
//! | STUN, DTLS, and what follows when a path changes | `path` |
//! | feedback from receivers and senders | `feedback` |
//! | what receivers ask for again, and what is known to be lost again | `resend`, `awaited` |
//! | what is due by the clock: repairs, key frames, silent layers | `upkeep` |
//! | reports to senders and receivers | `reports` |
//! | bandwidth: feedback, allocation, probes | `bandwidth`, `probator` |
//! | who speaks | `speakers` |
//! | commands | `control` |

mod awaited;
mod bandwidth;
pub mod command;
mod consumer;
mod control;
pub mod demux;
pub mod egress;
mod feedback;
pub mod fuzz;
mod ingress;
mod layers;
pub mod outbox;
mod pacing;
mod packing;
mod path;
mod probator;
mod producer;
mod reports;
mod resend;
mod room;
mod speakers;
mod staged;
mod statistics;
pub mod stats;
pub mod table;
pub mod timers;
mod transport;
mod upkeep;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::discard::{Discard, Discards};
use crate::ids::{ConsumerId, ProducerId, RoomId, Ssrc, TransportId};
use crate::limits;
use crate::media::allocation::{Allocator, Demand};
use crate::media::history::History;
use crate::packet::classify::{DatagramKind, classify};
use crate::packet::extension::AbsSendTime;
use crate::packet::seq::SeqNo;
use crate::transport::dtls::Identity;

use command::Event;
use consumer::Consumer;
use demux::Demux;
use egress::Egress;
use outbox::Outbox;
use pacing::Pacing;
use packing::Packing;
use producer::Producer;
use resend::Wanted;
use room::Room;
use staged::Staged;
use stats::RepairStats;
use table::{Key, Table};
use timers::Timers;
use transport::Transport;

/// What a shard is told at its start.
#[derive(Clone)]
pub struct ShardConfig {
    /// The certificate that every transport of the process shows.
    pub identity: Identity,
    /// From a secure source: ICE passwords come from it.
    pub seed: [u8; 32],
    /// Time since 1970 at the `now` of [`Shard::new`].
    pub unix_time: Duration,
    /// How many UDP ports the worker has; transports are spread over them.
    pub ports: u8,
    /// Bytes that may be kept of what arrived, for forwarding and retransmission.
    pub history_bytes: usize,
    /// How long the first packet of a video frame may wait for the last one.
    pub hold: Duration,
}

/// One datagram as it came; the shard may overwrite its bytes (RTCP is opened in place).
pub struct Datagram<'a> {
    pub source: SocketAddr,
    /// Index of the worker's port that it came to.
    pub local: u8,
    pub bytes: &'a mut [u8],
    /// When the kernel received it, where it says so.
    pub received_at: Option<Instant>,
}

pub struct Shard {
    config: ShardConfig,
    clock: Clock,
    rng: StdRng,
    rooms: Table<Room>,
    transports: Table<Transport>,
    producers: Table<Producer>,
    consumers: Table<Consumer>,
    names: Names,
    demux: Demux,
    history: History,
    egress: Egress,
    packing: Packing,
    gather: Duration,
    staged: Staged,
    timers: Timers<Transport>,
    speaker_timers: Timers<Room>,
    /// Packets that are to leave again with this tick.
    resends: Vec<Wanted>,
    pacing: Pacing,
    /// Transports whose estimator wants padding sent.
    probes: Vec<Key<Transport>>,
    allocator: Allocator,
    /// Buffers that are used again.
    demands: Vec<Demand>,
    levels: Vec<(usize, u8)>,
    missing: Vec<(Ssrc, SeqNo)>,
    /// Consumers whose layer or reason may be other than was last told.
    changed: Vec<Key<Consumer>>,
    events: VecDeque<Event>,
    discards: Discards,
    counters: Counters,
    /// Of everything that is closed, and what is counted for the whole worker.
    repairs: RepairStats,
}

/// From the ids of the control plane to rows.
#[derive(Default)]
struct Names {
    rooms: HashMap<RoomId, Key<Room>>,
    transports: HashMap<TransportId, Key<Transport>>,
    producers: HashMap<ProducerId, Key<Producer>>,
    consumers: HashMap<ConsumerId, Key<Consumer>>,
}

/// What a shard did since its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    pub packets_received: u64,
    pub bytes_received: u64,
    pub packets_sent: u64,
    pub bytes_sent: u64,
    pub messages_sent: u64,
    /// Padding of probes, which is among what was sent.
    pub padding_packets_sent: u64,
    pub padding_bytes_sent: u64,
    pub events_lost: u64,
}

/// What one step sent.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    packets: u64,
    bytes: u64,
    messages: u64,
}

impl Counters {
    fn pad(&mut self, sent: Sent) {
        self.padding_packets_sent += sent.packets;
        self.padding_bytes_sent += sent.bytes;
        self.packets_sent += sent.packets;
        self.bytes_sent += sent.bytes;
        self.messages_sent += sent.messages;
    }
}

/// Wall-clock time from the monotonic one.
struct Clock {
    start: Instant,
    unix_at_start: Duration,
}

impl Shard {
    pub fn new(config: ShardConfig, now: Instant) -> Self {
        Shard {
            clock: Clock { start: now, unix_at_start: config.unix_time },
            rng: StdRng::from_seed(config.seed),
            rooms: Table::new(limits::ROOMS_PER_WORKER),
            transports: Table::new(limits::TRANSPORTS_PER_WORKER),
            producers: Table::new(limits::PRODUCERS_PER_WORKER),
            consumers: Table::new(limits::CONSUMERS_PER_WORKER),
            names: Names::default(),
            demux: Demux::default(),
            history: History::new(config.history_bytes),
            egress: Egress::default(),
            packing: Packing::default(),
            gather: Duration::ZERO,
            staged: Staged::new(),
            timers: Timers::new(),
            speaker_timers: Timers::new(),
            resends: Vec::new(),
            pacing: Pacing::default(),
            probes: Vec::with_capacity(64),
            allocator: Allocator::new(),
            demands: Vec::with_capacity(64),
            levels: Vec::with_capacity(64),
            missing: Vec::with_capacity(limits::NACKS_PER_MESSAGE),
            changed: Vec::with_capacity(64),
            events: VecDeque::with_capacity(64),
            discards: Discards::default(),
            counters: Counters::default(),
            repairs: RepairStats::default(),
            config,
        }
    }

    /// Takes one datagram. What follows from it leaves with the next [`flush`](Self::flush).
    pub fn handle_datagram(&mut self, now: Instant, datagram: Datagram<'_>) {
        self.counters.packets_received += 1;
        self.counters.bytes_received += datagram.bytes.len() as u64;
        if let Err(discard) = self.receive(now, datagram) {
            self.discards.count(discard);
        }
    }

    fn receive(&mut self, now: Instant, datagram: Datagram<'_>) -> Result<(), Discard> {
        let Datagram { source, local, bytes, received_at } = datagram;
        if bytes.len() > limits::DATAGRAM_BYTES {
            return Err(Discard::Oversized);
        }
        let kind = classify(bytes).ok_or(Discard::Unclassified)?;
        if kind == DatagramKind::Stun {
            return self.receive_stun(now, source, local, bytes);
        }
        let key = self.demux.by_address(source, local).ok_or(Discard::UnknownSource)?;
        match kind {
            DatagramKind::Rtp => self.receive_rtp(now, received_at.unwrap_or(now), key, bytes),
            DatagramKind::Rtcp => self.receive_rtcp(now, key, bytes),
            DatagramKind::Dtls => self.receive_dtls(now, key, bytes),
            DatagramKind::Stun => Ok(()),
        }
    }

    /// Does what is due by the clock. Call it when [`next_deadline`](Self::next_deadline) has come, or at any
    /// other time.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((key, at)) = self.timers.due(now) {
            let Some(transport) = self.transports.at_mut(key) else { continue };
            if transport.armed.fire(at) {
                self.keep_up(now, key);
            }
        }
        while let Some((key, at)) = self.speaker_timers.due(now) {
            let Some(room) = self.rooms.at_mut(key) else { continue };
            if room.armed.fire(at) {
                self.keep_speakers(now, key);
            }
        }
    }

    /// Sends what is due: answers of this tick first, then media.
    pub fn flush(&mut self, now: Instant, outbox: &mut impl Outbox) {
        if !self.staged.is_empty() {
            let (sent, bytes, refused) = self.staged.flush(outbox);
            self.counters.packets_sent += sent;
            self.counters.bytes_sent += bytes as u64;
            self.counters.messages_sent += sent;
            self.discards.add(Discard::StagedFull, refused);
        }
        self.flush_resends(now, outbox);
        self.flush_paced(now, outbox);
        self.flush_media(now, outbox);
        self.flush_probes(now, outbox);
        self.tell_changes(now);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) and [`flush`](Self::flush) if nothing else happens.
    pub fn next_deadline(&self) -> Option<Instant> {
        let timers = [self.timers.next_deadline(), self.speaker_timers.next_deadline()];
        timers.into_iter().chain([self.media_deadline()]).flatten().min()
    }

    /// How long runs that could leave wait for others, so that packets of different producers for one receiver
    /// share a message: latency spent where CPU is scarce. Zero, as at the start, sends them with the tick.
    pub fn set_gather(&mut self, gather: Duration) {
        if gather != self.gather {
            self.gather = gather;
            self.reckon_leaving();
        }
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When the first packet of each run that left with the last flush had arrived.
    pub fn departed(&mut self) -> std::vec::Drain<'_, Instant> {
        self.egress.departed.drain(..)
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    pub fn discards(&self) -> &Discards {
        &self.discards
    }

    /// Full means that the worker does not take them: the control plane is dead, and the worker finds out.
    fn tell(&mut self, event: Event) {
        if self.events.len() == limits::EVENTS {
            self.counters.events_lost += 1;
            return;
        }
        self.events.push_back(event);
    }

    /// Has the transport's earliest deadline come up. Whoever moves a deadline forward calls it, or, for each packet, a
    /// cheaper one that knows what a packet may move (`arm_arrival`).
    fn arm(&mut self, now: Instant, key: Key<Transport>) {
        let deadline = self.deadline_of(now, key);
        if let Some(transport) = self.transports.at_mut(key) {
            self.timers.arm(key, &mut transport.armed, deadline);
        }
    }
}

impl Clock {
    fn unix(&self, now: Instant) -> Duration {
        self.unix_at_start + now.saturating_duration_since(self.start)
    }

    fn abs_send_time(&self, now: Instant) -> u32 {
        AbsSendTime::from_clock(self.unix(now)).0
    }
}
