//! One peer's secured path as a shard keeps it: the ICE, DTLS and SRTP machines, the SSRCs that arrive on it,
//! and the consumers that leave on it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::ids::{PeerId, Ssrc, TransportId};
use crate::limits::{DATAGRAM_BYTES, REFERENCE_TIMES, STREAMS_PER_TRANSPORT};
use crate::media::allocation::RESENT_PERCENT;
use crate::media::bwe::Estimator;
use crate::media::pacer::{Pacer, Path};
use crate::media::report::{Echo, RateMeter, round_trip};
use crate::media::transport_cc::ArrivalRecord;
use crate::packet::rtcp::DlrrReport;
use crate::shard::awaited::Awaited;
use crate::shard::command::{Direction, DtlsState, IceState};
use crate::shard::consumer::Consumer;
use crate::shard::outbox::Destination;
use crate::shard::pacing::Held;
use crate::shard::probator::Probator;
use crate::shard::producer::Producer;
use crate::shard::room::Room;
use crate::shard::table::Key;
use crate::shard::timers::Armed;
use crate::transport::dtls::Endpoint;
use crate::transport::ice::IceLite;
use crate::transport::srtp::{Inbound, Outbound, Profile};

/// What is sent touches comes first, and together; then what is received; then what is seldom needed.
#[repr(C)]
pub struct Transport {
    /// Runs of this tick: index of the run, and whose copy of it.
    pub due: Vec<(u32, Key<Consumer>)>,
    pub keys: Option<Box<Keys>>,
    pub destination: Option<Destination>,
    /// What the downlink carries; begins with the first video consumer.
    pub estimator: Option<Box<Estimator>>,
    /// Sequence number of the next packet that carries one (transport-wide congestion control).
    pub transport_sequence: u64,
    pub sent: Traffic,
    /// How fast media may leave, and what waits.
    pub pacer: Pacer<Held>,
    /// Packets that leave again when feedback calls them lost.
    pub awaited: Awaited,
    pub armed: Armed,

    pub streams: Vec<Stream>,
    /// When packets arrived, for transport-wide feedback; begins with the first that carries a number.
    pub arrivals: Option<Box<ArrivalRecord>>,
    pub received: Traffic,

    pub id: TransportId,
    pub peer: PeerId,
    pub room: Key<Room>,
    pub direction: Direction,
    pub ice: IceLite,
    pub dtls: Endpoint,
    /// What was last told to the control plane.
    pub told: (IceState, DtlsState),
    pub producers: Vec<Key<Producer>>,
    /// The peer's reference times, to be answered with the next report (RFC 3611 section 4.4).
    pub reference_times: Vec<(Ssrc, Echo)>,
    /// The last two that were sent to the peer, newest first.
    pub own_references: [Option<Echo>; 2],
    pub consumers: Vec<Key<Consumer>>,
    /// By the SSRCs that they are sent under, retransmissions included: feedback names those.
    pub sent_ssrcs: HashMap<Ssrc, Key<Consumer>>,
    pub next_allocation: Option<Instant>,
    /// Begins with the estimator.
    pub probator: Option<Box<Probator>>,
    /// When reports and slower housekeeping are due; `None` while no media flows.
    pub next_report: Option<Instant>,
    pub next_check: Option<Instant>,
    /// Of a path out by receiver reports, of a path in by the peer's answers to our reference times.
    pub rtt: Option<Duration>,
    /// Of probes, among what was sent.
    pub padding_bytes_sent: u64,
    /// How many packets had left by the last report before which some did, and when that was.
    pub last_left: Option<(u64, Instant)>,
    pub resent: Resent,
    /// How many packets are to leave again with this tick.
    pub resends_waiting: usize,
}

/// The SRTP halves of a connected transport.
pub struct Keys {
    pub profile: Profile,
    pub inbound: Inbound,
    pub outbound: Outbound,
}

/// An SSRC that arrives, and what it carries.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    pub ssrc: Ssrc,
    pub producer: Key<Producer>,
    pub layer: u8,
    /// Its packets are retransmissions (RFC 4588).
    pub is_rtx: bool,
}

/// Packets and bytes of UDP payload, and their rate.
#[derive(Debug, Default)]
pub struct Traffic {
    pub packets: u64,
    pub bytes: u64,
    pub rate: RateMeter,
}

/// How much leaves again, as far as it lasts, and how much more may.
#[derive(Debug, Default)]
pub struct Resent {
    rate: RateMeter,
    /// Taken of the room of the last moments, which time gives back.
    taken_bytes: u64,
    room_at: Option<Instant>,
    /// Bits per second when they were last taken, newest first.
    taken: [u64; 3],
    taken_at: Option<Instant>,
}

/// Between two of [`Resent`]'s values; its rate is that of a second.
const RESENT_INTERVAL: Duration = Duration::from_secs(1);

/// Resends that may leave at once: what they may take in so long, and some packets however narrow the path is.
const RESENT_BURST_MS: u64 = 250;
/// The same where no queue has shown what the path carries: then a burst of loss is a radio's, and all of it is to leave again
/// before its receiver gives up asking.
const RESENT_OPEN_BURST_MS: u64 = 500;
const RESENT_BURST_BYTES: u64 = 8 * 1_250;

impl Resent {
    /// Whether another may leave on a path that carries so much. Beyond their share resends do not repair a narrow link, they
    /// fill it: what they push out of its queue is asked for as well, and so on. What is refused is asked for again.
    pub fn has_room(&mut self, estimate_bps: Option<u64>, path: Path, now: Instant) -> bool {
        let Some(estimate_bps) = estimate_bps else { return true };
        let burst_ms = if path == Path::Open { RESENT_OPEN_BURST_MS } else { RESENT_BURST_MS };
        let bytes_in = |ms: u64| estimate_bps * RESENT_PERCENT / 100 / 8 * ms / 1000;
        let elapsed = self.room_at.replace(now).map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        // Parts of a millisecond are not lost.
        self.room_at = Some(now - Duration::from_nanos(u64::from(elapsed.subsec_nanos()) % 1_000_000));
        self.taken_bytes = self.taken_bytes.saturating_sub(bytes_in(elapsed.as_millis().min(10_000) as u64));
        let burst = RESENT_BURST_BYTES.max(bytes_in(burst_ms));
        // The path may have become narrower; the last may have been more than there was room for.
        self.taken_bytes = self.taken_bytes.min(burst + DATAGRAM_BYTES as u64);
        self.taken_bytes < burst
    }

    pub fn count(&mut self, bytes: usize, now: Instant) {
        self.rate.add(bytes, now);
        self.taken_bytes += bytes as u64;
    }

    /// Bits per second of the last second, if no less left again in each of the three before. A link that shrinks loses for
    /// a second what it gets too much of; that ends with the lower layer, which must not pay for it.
    pub fn lasting_bps(&mut self, now: Instant) -> u64 {
        let bps = self.rate.bitrate_bps(now);
        let lasting = self.taken.into_iter().fold(bps, u64::min);
        if self.taken_at.is_none_or(|at| now.saturating_duration_since(at) >= RESENT_INTERVAL) {
            (self.taken, self.taken_at) = ([bps, self.taken[0], self.taken[1]], Some(now));
        }
        lasting
    }
}

impl Traffic {
    #[inline]
    pub fn count(&mut self, packets: u64, bytes: usize, now: Instant) {
        self.packets += packets;
        self.bytes += bytes as u64;
        self.rate.add(bytes, now);
    }
}

impl Transport {
    /// The peer tells its time under one of its SSRCs: Firefox under one for each stream that it receives.
    pub fn note_reference_time(&mut self, ssrc: Ssrc, time: Echo) {
        if let Some((_, known)) = self.reference_times.iter_mut().find(|(other, _)| *other == ssrc) {
            *known = time;
        } else if self.reference_times.len() < REFERENCE_TIMES {
            self.reference_times.push((ssrc, time));
        }
    }

    /// The peer answers a reference time of ours.
    pub fn reference_answered(&mut self, answer: &DlrrReport, now: Instant) {
        let sent = self.own_references.iter().flatten().find(|sent| sent.is_echoed_by(answer.last_rr));
        let Some(sample) = sent.and_then(|sent| round_trip(now, sent.at, answer.delay_since_last_rr)) else { return };
        self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
    }

    pub fn stream(&self, ssrc: Ssrc) -> Option<Stream> {
        self.streams.iter().find(|stream| stream.ssrc == ssrc).copied()
    }

    /// `false` when the transport has as many streams as it may.
    pub fn add_stream(&mut self, stream: Stream) -> bool {
        if self.streams.len() == STREAMS_PER_TRANSPORT {
            return false;
        }
        self.streams.push(stream);
        true
    }

    pub fn is_connected(&self) -> bool {
        self.keys.is_some() && self.destination.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_resent_for_seconds_counts() {
        let start = Instant::now();
        let mut resent = Resent::default();
        let mut at = |ms: u32, is_lossy: bool| {
            let now = start + Duration::from_millis(1) * ms;
            if is_lossy {
                resent.count(1250, now);
            }
            resent.lasting_bps(now)
        };
        let burst: Vec<_> = (0..800).map(|n| at(10 * n, (300..450).contains(&n))).collect();
        // What was first of all resent counts as a tenth of a second's.
        assert!(burst.iter().all(|bps| *bps < 100_000), "a second and a half of loss");
        let lasting: Vec<_> = (800..1300).map(|n| at(10 * n, true)).collect();
        assert!((800_000..1_100_000).contains(lasting.last().unwrap()), "{lasting:?}");
        assert_eq!(lasting[100], 0);
    }

    #[test]
    fn resends_take_half_of_the_path_and_a_few_always_leave() {
        let start = Instant::now();
        let left_in = |estimate_bps: Option<u64>, ms: u32| {
            let mut resent = Resent::default();
            let mut left = 0;
            for n in 0..ms * 4 {
                let now = start + Duration::from_micros(250) * n;
                if resent.has_room(estimate_bps, Path::Narrow, now) {
                    resent.count(1_000, now);
                    left += 1;
                }
            }
            left
        };
        assert_eq!(left_in(Some(100_000), 1), 4);
        assert!((70..78).contains(&left_in(Some(100_000), 10_000)), "{}", left_in(Some(100_000), 10_000));
        assert!((620..650).contains(&left_in(Some(1_000_000), 10_000)), "{}", left_in(Some(1_000_000), 10_000));
        assert_eq!(left_in(None, 1_000), 4_000);
    }
}
