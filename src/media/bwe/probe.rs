//! Probes: short bursts at a higher rate than media needs, to learn whether the path carries it.
//!
//! An SFU sends whole layers, so its rate has steps and the estimate cannot grow by sending a little more.
//! A probe makes up the difference with padding for some tens of ms; the rate at which its packets arrive is
//! the answer. Media packets that leave meanwhile are part of it.

use super::sent::SentPacket;

/// A probe is at least so long, so many packets, and so many bytes.
const DURATION_US: u64 = 40_000;
const LEAST_PACKETS: u32 = 5;
const LEAST_BYTES: u64 = 1_500;

/// Where the receiver answers with REMB alone: it believes in half more than arrives and adds 8 % a second, so what it is
/// to allow has to arrive for a while.
const UNANSWERED_US: u64 = 6_000_000;

/// Padding leaves in portions this far apart: a tick of the shard, not a timer per packet.
const PORTION_US: u64 = 5_000;

/// If not everything was sent in so many times the duration, there is nothing to send: give up.
const SLOWEST: u64 = 3;

/// Share of the probe that must have arrived before it is judged, and when it is lost for good.
const ENOUGH_PERCENT: u64 = 80;
const ANSWER_US: u64 = 1_000_000;

/// Arriving at more than twice the rate of sending is no measurement.
const BELIEVABLE: u64 = 2;
/// Arriving slower than this share of the sending rate, the path was saturated: stay below what arrived.
const SATURATED: f64 = 0.9;
const BELOW_SATURATION: f64 = 0.95;

/// Each answer that held at least this share of the probed rate calls for the next probe at once.
const ANSWERED: f64 = 0.7;

/// Between probes that found nothing; grows to the larger.
const PAUSE_US: u64 = 3_000_000;
const PAUSE_MAX_US: u64 = 6_000_000;
/// A new wish is a new question: it waits no longer than this since the last probe, unless that one found the path full.
const PAUSE_ANEW_US: u64 = 500_000;
/// After overuse the path is left alone so long.
const CALM_US: u64 = 2_000_000;

/// First probes by multiples of the estimate, then doubling.
const FIRST_FACTORS: [u64; 2] = [3, 6];
const FACTOR: u64 = 2;

#[derive(Clone, Debug)]
pub(super) struct Prober {
    cluster: Option<Cluster>,
    last_id: u8,
    next_us: u64,
    pause_us: u64,
    /// When the last probe began, unless it found the path full.
    free_since_us: Option<u64>,
    /// How many of the first probes were made.
    first: u8,
    sent: u64,
}

#[derive(Clone, Debug)]
struct Cluster {
    id: u8,
    bps: u64,
    duration_us: u64,
    began_us: u64,
    bytes: u64,
    sent_bytes: u64,
    sent_packets: u32,
    /// Everything left.
    complete_us: Option<u64>,

    arrived_bytes: u64,
    arrived_packets: u32,
    first_sent_us: u64,
    last_sent_us: u64,
    first_arrival_us: u64,
    first_bytes: u64,
    last_arrival_us: u64,
}

/// What decides about a probe.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub estimate_bps: u64,
    /// Where the next layer begins, and what everything would cost.
    pub next_bps: u64,
    pub all_bps: u64,
    pub last_overuse_us: Option<u64>,
    /// By transport-cc feedback, packet by packet.
    pub is_answered: bool,
}

/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub probed_bps: u64,
    pub measured_bps: u64,
}

impl Prober {
    pub(super) fn new() -> Prober {
        Prober { cluster: None, last_id: 0, next_us: 0, pause_us: PAUSE_US, free_since_us: Some(0), first: 0, sent: 0 }
    }

    pub(super) fn count(&self) -> u64 {
        self.sent
    }

    /// The number that packets sent at the moment carry in the record; 0 for none.
    #[inline]
    pub(super) fn tag(&self) -> u8 {
        match &self.cluster {
            Some(cluster) if cluster.complete_us.is_none() => cluster.id,
            _ => 0,
        }
    }

    /// Begins a probe if one is due and worth it.
    pub(super) fn plan(&mut self, wish: &Wish, now_us: u64) {
        let calm = wish.last_overuse_us.is_none_or(|at| now_us.saturating_sub(at) >= CALM_US);
        if self.cluster.is_some() || now_us < self.next_us || !calm || wish.next_bps <= wish.estimate_bps {
            return;
        }
        let factor = FIRST_FACTORS.get(self.first as usize).copied().unwrap_or(FACTOR);
        self.first = self.first.saturating_add(1);
        // A little more than what is wanted, for the answer may be a little less than the probe.
        let useful_bps = wish.all_bps.max(wish.next_bps) * 5 / 4;
        let (bps, duration_us) = match wish.is_answered {
            true => ((wish.estimate_bps * factor).min(useful_bps), DURATION_US),
            false => (wish.next_bps.min(wish.estimate_bps * 2), UNANSWERED_US),
        };
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        self.sent += 1;
        self.cluster = Some(Cluster::new(self.last_id, bps, duration_us, now_us));
        self.next_us = now_us + self.pause_us;
        self.free_since_us = Some(now_us);
    }

    /// Somebody could use more, and nobody could before.
    pub(super) fn wished_anew(&mut self) {
        if let Some(at_us) = self.free_since_us {
            self.next_us = self.next_us.min(at_us + PAUSE_ANEW_US);
        }
    }

    /// Bytes of padding that should leave at `now_us`; `None` when there is nothing to do.
    pub(super) fn padding(&self, now_us: u64) -> Option<u64> {
        let cluster = self.cluster.as_ref().filter(|cluster| cluster.complete_us.is_none())?;
        let elapsed_us = now_us.saturating_sub(cluster.began_us) + PORTION_US;
        let due = cluster.bps * elapsed_us / 8_000_000;
        due.checked_sub(cluster.sent_bytes).filter(|bytes| *bytes > 0)
    }

    #[inline]
    pub(super) fn sent(&mut self, bytes: u16, now_us: u64) {
        let Some(cluster) = self.cluster.as_mut().filter(|cluster| cluster.complete_us.is_none()) else { return };
        cluster.sent_bytes += bytes as u64;
        cluster.sent_packets += 1;
        let long = now_us.saturating_sub(cluster.began_us) >= cluster.duration_us;
        if cluster.sent_bytes >= cluster.bytes && cluster.sent_packets >= LEAST_PACKETS && long {
            cluster.complete_us = Some(now_us);
        }
    }

    pub(super) fn arrived(&mut self, packet: &SentPacket, arrival_us: u64) {
        if let Some(cluster) = self.cluster.as_mut().filter(|cluster| cluster.id == packet.probe) {
            cluster.arrived(packet, arrival_us);
        }
    }

    /// The answer of the probe, once enough of it arrived.
    pub(super) fn answer(&mut self) -> Option<Answer> {
        let cluster = self.cluster.as_ref()?;
        cluster.complete_us?;
        let arrived = cluster.arrived_bytes * 100 >= cluster.sent_bytes * ENOUGH_PERCENT;
        if !arrived || cluster.arrived_packets < LEAST_PACKETS - 1 {
            return None;
        }
        let answer = cluster.measure().map(|measured_bps| Answer { probed_bps: cluster.bps, measured_bps });
        self.cluster = None;
        answer
    }

    /// The answer was put to use: go on at once, or wait for longer. Where something else than delay holds the estimate down
    /// an answer raises it little or later, and the next would be the same.
    pub(super) fn judge(&mut self, answer: &Answer, before_bps: u64, after_bps: u64, now_us: u64) {
        let held = answer.measured_bps as f64 >= ANSWERED * answer.probed_bps as f64;
        let learnt = after_bps > before_bps * 11 / 10;
        self.free_since_us = self.free_since_us.filter(|_| held);
        if held && learnt {
            (self.next_us, self.pause_us) = (now_us, PAUSE_US);
        } else {
            self.pause_us = if learnt { PAUSE_US } else { (self.pause_us * 3 / 2).min(PAUSE_MAX_US) };
            self.next_us = now_us + self.pause_us;
        }
    }

    /// The path changed for the worse: what was learnt of it before counts no more.
    pub(super) fn path_changed(&mut self, now_us: u64) {
        // Neither is it a path of which nothing is known.
        self.first = FIRST_FACTORS.len() as u8;
        self.pause_us = PAUSE_US;
        self.free_since_us = None;
        self.next_us = self.next_us.min(now_us + PAUSE_US).max(now_us + CALM_US);
    }

    /// Gives up what was not sent or not answered in time.
    pub(super) fn expire(&mut self, now_us: u64) {
        let Some(cluster) = &self.cluster else { return };
        let dead = match cluster.complete_us {
            None => now_us >= cluster.began_us + SLOWEST * cluster.longest_us(),
            Some(at) => now_us >= at + ANSWER_US,
        };
        if dead {
            self.cluster = None;
            self.free_since_us = None;
            self.pause_us = (self.pause_us * 3 / 2).min(PAUSE_MAX_US);
            self.next_us = now_us + self.pause_us;
        }
    }

    /// When to come back for padding, if a probe is under way.
    pub(super) fn next_portion_us(&self, now_us: u64) -> Option<u64> {
        let sending = self.cluster.as_ref().is_some_and(|cluster| cluster.complete_us.is_none());
        sending.then_some(now_us + PORTION_US)
    }
}

impl Cluster {
    fn new(id: u8, bps: u64, duration_us: u64, now_us: u64) -> Cluster {
        Cluster {
            id,
            bps,
            duration_us,
            began_us: now_us,
            bytes: (bps * duration_us / 8_000_000).max(LEAST_BYTES),
            sent_bytes: 0,
            sent_packets: 0,
            complete_us: None,
            arrived_bytes: 0,
            arrived_packets: 0,
            first_sent_us: 0,
            last_sent_us: 0,
            first_arrival_us: 0,
            first_bytes: 0,
            last_arrival_us: 0,
        }
    }

    fn longest_us(&self) -> u64 {
        (self.bytes * 8_000_000 / self.bps.max(1)).max(self.duration_us)
    }

    fn arrived(&mut self, packet: &SentPacket, arrival_us: u64) {
        let bytes = packet.bytes as u64;
        if self.arrived_packets == 0 {
            (self.first_sent_us, self.first_arrival_us, self.first_bytes) = (packet.sent_us, arrival_us, bytes);
            self.last_arrival_us = arrival_us;
        }
        self.last_sent_us = self.last_sent_us.max(packet.sent_us);
        if arrival_us < self.first_arrival_us {
            (self.first_arrival_us, self.first_bytes) = (arrival_us, bytes);
        }
        self.last_arrival_us = self.last_arrival_us.max(arrival_us);
        self.arrived_bytes += bytes;
        self.arrived_packets += 1;
    }

    fn measure(&self) -> Option<u64> {
        let rate = |bytes: u64, us: u64| (us > 0 && us < ANSWER_US).then(|| bytes * 8_000_000 / us);
        // What left last stands for one portion's time more, however much it was: often it is a whole frame.
        let sent = rate(self.arrived_bytes, self.last_sent_us - self.first_sent_us + PORTION_US)?;
        let received = rate(self.arrived_bytes - self.first_bytes, self.last_arrival_us - self.first_arrival_us)?;
        if received > BELIEVABLE * sent {
            return None;
        }
        let saturated = (received as f64) < SATURATED * sent as f64;
        Some(if saturated { (received as f64 * BELOW_SATURATION) as u64 } else { sent.min(received) })
    }
}
