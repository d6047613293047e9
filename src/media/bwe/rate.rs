//! The estimate that follows delay: additive or multiplicative increase while the path is calm, a step below
//! what it delivers when a queue builds up (draft-ietf-rmcat-gcc-02 section 5.5).

use super::delay::Usage;
use crate::limits::{ESTIMATE_MAX_BPS, ESTIMATE_MIN_BPS};

/// After overuse: this share of what was delivered, so that the queue drains.
const BACKOFF: f64 = 0.85;

/// Growth per second while the path's capacity is unknown.
const GROWTH_PER_S: f64 = 1.08;

/// Near the known capacity: one packet more per response time, at least this per second.
const PACKET_BITS: f64 = 9600.0;
const LEAST_GROWTH_BPS_PER_S: f64 = 4_000.0;
/// Feedback interval and processing on top of the round trip.
const RESPONSE_US: f64 = 100_000.0;

/// The estimate may exceed what is proven by this factor and constant, not more.
const PROOF_FACTOR: f64 = 1.5;
const PROOF_EXTRA_BPS: f64 = 10_000.0;

/// While little is sent, a queue is not ours: at most one step per this, and from the estimate.
const LIMITED_STEP_US: u64 = 1_000_000;

#[derive(Clone, Debug)]
pub(super) struct DelayRate {
    bps: f64,
    phase: Phase,
    changed_us: u64,
    lowered_us: Option<u64>,
    capacity: Capacity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A queue drains, or did until just now.
    Hold,
    Increase,
}

/// What the moment looks like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub usage: Usage,
    pub delivered_bps: Option<u64>,
    /// The rate at which the last bursts came out of the bottleneck.
    pub burst_bps: Option<u64>,
    pub rtt_us: u64,
    /// So little is sent that the path cannot be judged by it.
    pub limited: bool,
    /// Something else holds the rate down.
    pub bounded: bool,
    pub now_us: u64,
}

impl DelayRate {
    pub(super) fn new(bps: u64, now_us: u64) -> DelayRate {
        DelayRate {
            bps: bps as f64,
            phase: Phase::Increase,
            changed_us: now_us,
            lowered_us: None,
            capacity: Capacity::default(),
        }
    }

    pub(super) fn bps(&self) -> u64 {
        self.bps as u64
    }

    /// Whether more made a queue, and nothing more has come through since.
    pub(super) fn is_capacity_known(&self) -> bool {
        self.capacity.known().is_some()
    }

    /// A probe measured this much.
    pub(super) fn set(&mut self, bps: u64, now_us: u64) {
        self.bps = (bps as f64).clamp(ESTIMATE_MIN_BPS as f64, ESTIMATE_MAX_BPS as f64);
        self.changed_us = now_us;
        self.capacity.exceeded(self.bps);
    }

    /// Returns whether the estimate was lowered.
    pub(super) fn update(&mut self, moment: &Moment) -> bool {
        if let Some(delivered) = moment.delivered_bps {
            self.capacity.exceeded(delivered as f64);
        }
        let lowered = match moment.usage {
            Usage::Over => self.back_off(moment),
            Usage::Under => {
                self.phase = Phase::Hold;
                false
            }
            Usage::Normal if self.phase == Phase::Hold => {
                self.phase = Phase::Increase;
                false
            }
            Usage::Normal => {
                self.increase(moment);
                false
            }
        };
        if !lowered && (moment.usage != Usage::Over) {
            self.changed_us = moment.now_us;
        }
        self.bps = self.bps.clamp(ESTIMATE_MIN_BPS as f64, ESTIMATE_MAX_BPS as f64);
        lowered
    }

    /// The path is known to carry this much, and far less than is sent. Returns whether that lowers the estimate.
    pub(super) fn fall(&mut self, bps: u64, now_us: u64) -> bool {
        let lower = (BACKOFF * bps as f64).max(ESTIMATE_MIN_BPS as f64);
        let lowered = lower < self.bps;
        self.bps = self.bps.min(lower);
        self.phase = Phase::Hold;
        (self.changed_us, self.lowered_us) = (now_us, Some(now_us));
        self.capacity.reached(bps as f64);
        lowered
    }

    fn increase(&mut self, moment: &Moment) {
        if moment.limited || moment.bounded {
            return;
        }
        let seconds = (moment.now_us.saturating_sub(self.changed_us) as f64 / 1e6).min(1.0);
        let grown = match self.capacity.known() {
            Some(_) => {
                // The smallest whole number of packets that a frame of this rate fills.
                let frame_bits = self.bps / 30.0;
                let packet_bits = frame_bits / (frame_bits / PACKET_BITS).ceil().max(1.0);
                let per_second = packet_bits * 1e6 / (moment.rtt_us as f64 + RESPONSE_US);
                self.bps + per_second.max(LEAST_GROWTH_BPS_PER_S) * seconds
            }
            None => self.bps * GROWTH_PER_S.powf(seconds) + 1000.0 * seconds,
        };
        let proven = moment.delivered_bps.map(|delivered| PROOF_FACTOR * delivered as f64 + PROOF_EXTRA_BPS);
        self.bps = grown.min(proven.unwrap_or(grown).max(self.bps));
    }

    fn back_off(&mut self, moment: &Moment) -> bool {
        if !self.may_lower(moment) {
            return false;
        }
        let mut delivered = moment.delivered_bps.map_or(self.bps / 2.0, |bps| bps as f64);
        // The queue of a key frame on a path that carries more than is sent: one step from what the path
        // carries, not from what was sent. If the queue stays, the next step comes a round trip later.
        if let Some(burst) = moment.burst_bps {
            delivered = delivered.max((burst as f64).min(self.bps));
        }
        let mut lower = BACKOFF * delivered;
        if lower >= self.bps {
            // More was delivered than estimated: the burst of a key frame. The known capacity is the judge.
            lower = self.capacity.known().map_or(self.bps, |capacity| BACKOFF * capacity);
        }
        if moment.limited {
            lower = lower.max(BACKOFF * self.bps);
        } else if moment.delivered_bps.is_some() {
            self.capacity.reached(delivered);
        }
        let lowered = lower < self.bps;
        self.bps = self.bps.min(lower);
        self.phase = Phase::Hold;
        (self.changed_us, self.lowered_us) = (moment.now_us, Some(moment.now_us));
        lowered
    }

    /// One step per round trip, for the last one shows its effect no sooner; at once if far too high.
    fn may_lower(&self, moment: &Moment) -> bool {
        let Some(lowered_us) = self.lowered_us else { return true };
        let since_us = moment.now_us.saturating_sub(lowered_us);
        if moment.limited {
            return since_us >= LIMITED_STEP_US;
        }
        since_us >= moment.rtt_us.clamp(10_000, 200_000)
            || moment.delivered_bps.is_some_and(|delivered| (delivered as f64) < 0.5 * self.bps)
    }
}

/// Where queues began: an average of what was delivered at overuse, with its spread.
#[derive(Clone, Copy, Debug, Default)]
struct Capacity {
    kbps: Option<f64>,
    /// Variance over the mean.
    spread: f64,
}

impl Capacity {
    const WEIGHT: f64 = 0.05;

    fn known(&self) -> Option<f64> {
        self.kbps.map(|kbps| kbps * 1000.0)
    }

    fn deviation(&self) -> f64 {
        self.kbps.map_or(0.0, |kbps| (self.spread * kbps).sqrt())
    }

    fn reached(&mut self, bps: f64) {
        let sample = bps / 1000.0;
        let Some(kbps) = self.kbps else {
            (self.kbps, self.spread) = (Some(sample), 0.4);
            return;
        };
        // A fall far below is another path, not a sample of this one.
        if sample < kbps - 3.0 * self.deviation() {
            (self.kbps, self.spread) = (Some(sample), 0.4);
            return;
        }
        let mean = kbps + Self::WEIGHT * (sample - kbps);
        let error = (kbps - sample).powi(2) / kbps.max(1.0);
        self.spread = (self.spread + Self::WEIGHT * (error - self.spread)).clamp(0.4, 2.5);
        self.kbps = Some(mean);
    }

    /// More than the capacity went through: it is not that any more.
    fn exceeded(&mut self, bps: f64) {
        if self.kbps.is_some_and(|kbps| bps / 1000.0 > kbps + 3.0 * self.deviation()) {
            self.kbps = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(usage: Usage, delivered_bps: u64, now_us: u64) -> Moment {
        Moment {
            usage,
            delivered_bps: Some(delivered_bps),
            burst_bps: None,
            rtt_us: 100_000,
            limited: false,
            bounded: false,
            now_us,
        }
    }

    #[test]
    fn it_grows_by_a_twelfth_each_second_and_no_further_than_is_proven() {
        let mut rate = DelayRate::new(1_000_000, 0);
        (1..=10).for_each(|n| {
            rate.update(&moment(Usage::Normal, 1_000_000, n * 100_000));
        });
        assert!((1_070_000..1_090_000).contains(&rate.bps()), "{}", rate.bps());
        (11..=1000).for_each(|n| {
            rate.update(&moment(Usage::Normal, 1_000_000, n * 100_000));
        });
        assert_eq!(rate.bps(), 1_510_000);
    }

    #[test]
    fn overuse_goes_below_what_was_delivered_once_per_round_trip() {
        let mut rate = DelayRate::new(2_000_000, 0);
        assert!(rate.update(&moment(Usage::Over, 1_500_000, 1_000_000)));
        assert_eq!(rate.bps(), 1_275_000);
        assert!(!rate.update(&moment(Usage::Over, 1_400_000, 1_050_000)));
        assert!(rate.update(&moment(Usage::Over, 1_400_000, 1_101_000)));
        assert_eq!(rate.bps(), 1_190_000);
        assert!(rate.update(&moment(Usage::Over, 300_000, 1_110_000)), "far too high does not wait");
    }

    #[test]
    fn near_the_known_capacity_it_grows_by_packets() {
        let mut rate = DelayRate::new(1_200_000, 0);
        rate.update(&moment(Usage::Over, 1_000_000, 1_000_000));
        let low = rate.bps();
        for n in 1..=10 {
            rate.update(&moment(Usage::Normal, 900_000, 1_000_000 + n * 100_000));
        }
        let grown = rate.bps() - low;
        assert!((25_000..60_000).contains(&grown), "{grown} bit/s in a second");
    }

    #[test]
    fn a_queue_that_is_not_ours_lowers_gently() {
        let mut rate = DelayRate::new(3_000_000, 0);
        for n in 0..30 {
            rate.update(&Moment { limited: true, ..moment(Usage::Over, 60_000, n * 100_000) });
        }
        assert!(rate.bps() > 1_800_000, "three seconds of somebody else's queue: {}", rate.bps());
        let before = rate.bps();
        for n in 30..600 {
            rate.update(&Moment { limited: true, ..moment(Usage::Normal, 60_000, n * 100_000) });
        }
        assert_eq!(rate.bps(), before, "little sent proves nothing");
    }
}
