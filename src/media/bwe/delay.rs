//! Whether a queue builds up on the path: the trend of one-way delay variation
//! (draft-ietf-rmcat-gcc-02 section 5, with the trendline filter that replaced its Kalman filter).
//!
//! Packets sent within 5 ms of each other are one group. Between groups, the arrival interval less the
//! sending interval is how much the queue grew. These differences are summed, smoothed, and a line is fitted
//! through the last twenty sums; its slope is held against a threshold that adapts to the path's own jitter.

use crate::limits::DATAGRAM_BYTES;

use super::least::Least;

/// Packets sent within this are one group; a tick's GSO run is one.
const GROUP_US: u64 = 5_000;
/// A batch released by a radio or a busy receiver: arrivals this close to the last belong to its group if they
/// were sped up on the way, as long as the batch is not longer than this.
const BATCH_US: u64 = 5_000;
const BATCH_MAX_US: u64 = 100_000;

const WINDOW: usize = 20;
const SMOOTHING: f64 = 0.9;
const GAIN: f64 = 4.0;
/// Trends count in full after so many differences.
const TRUST: u32 = 60;

const THRESHOLD_START: f64 = 12.5;
const THRESHOLD_MIN: f64 = 6.0;
const THRESHOLD_MAX: f64 = 600.0;
/// Per ms. Up slowly, down faster: a path that became calm must be sensed finely again within a second.
const THRESHOLD_RISE: f64 = 0.0087;
const THRESHOLD_FALL: f64 = 0.039;
/// A spike beyond the threshold by this is not jitter to adapt to.
const THRESHOLD_SPIKE: f64 = 15.0;

/// Beyond the threshold for this long, and not falling: overuse.
const OVERUSE_MS: f64 = 10.0;

/// A queue that neither grows nor drains has no trend. It is seen by its height over the least delay of the
/// last ten to twenty seconds, looked at this often.
const STANDING_US: i64 = 80_000;
const LOOK_US: u64 = 500_000;
const BASE_US: u64 = 10_000_000;
/// A look that finds the queue lower by this finds it draining: no reason for another step.
const DRAINING_US: i64 = 5_000;
/// A group whose first packet waited less than this found the queue empty.
const DRAINED_US: i64 = 10_000;
/// Half of the queue that a key frame of a camera makes on the slowest path that carries its layer.
const SHORT_US: i64 = 100_000;
/// If so many steps in a row did not lower it, it is not a queue: the path became longer.
const STEPS_IN_VAIN: u8 = 3;

/// The receiver's clock jumped against ours by more than this: begin again.
const JUMP_US: i64 = 3_000_000;
const REORDERED_RESET: u8 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usage {
    Normal,
    /// A queue builds up.
    Over,
    /// A queue drains.
    Under,
}

#[derive(Clone, Debug)]
pub(super) struct DelayTrend {
    current: Option<Group>,
    previous: Option<Group>,
    reordered: u8,

    differences: u32,
    sum_ms: f64,
    smoothed_ms: f64,
    points: [(f64, f64); WINDOW],
    len: usize,
    next: usize,
    first_arrival_us: u64,

    threshold: f64,
    threshold_at_us: Option<u64>,
    over_ms: f64,
    over_count: u32,
    last_trend: f64,
    usage: Usage,
    standing: Standing,
    stands: bool,
}

/// The height of the queue, by delays relative to the least seen. Clocks drift by 0.1 ms/s at most: nothing
/// within the memory of the least.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    /// Least arrival - sending of this and the last stretch of [`BASE_US`], and of this look.
    base_us: Least,
    least_us: Option<i64>,
    look_until_us: u64,
    last_height_us: i64,
    in_vain: u8,
    /// What the first packet of the newest group found, and the newest packet.
    height_us: i64,
    newest_us: i64,
}

impl Standing {
    /// Whether a look ended just now and found a queue that stands.
    fn packet(&mut self, sent_us: u64, arrival_us: u64) -> bool {
        let delay_us = arrival_us as i64 - sent_us as i64;
        self.base_us.add(delay_us, sent_us, BASE_US);
        self.least_us = Some(self.least_us.map_or(delay_us, |held| held.min(delay_us)));
        self.newest_us = self.height_of(sent_us, arrival_us);
        if sent_us < self.look_until_us {
            return false;
        }
        self.look_until_us = sent_us + LOOK_US;
        self.look()
    }

    /// A group begins with this packet.
    fn group(&mut self, sent_us: u64, arrival_us: u64) {
        self.height_us = self.height_of(sent_us, arrival_us);
    }

    fn height_of(&self, sent_us: u64, arrival_us: u64) -> i64 {
        let base_us = self.base_us.get().unwrap_or(0);
        arrival_us as i64 - sent_us as i64 - base_us
    }

    fn look(&mut self) -> bool {
        let base_us = self.base_us.get();
        let (Some(least_us), Some(base_us)) = (self.least_us.take(), base_us) else { return false };
        let height_us = least_us - base_us;
        let draining = height_us <= self.last_height_us - DRAINING_US;
        self.last_height_us = height_us;
        if height_us < STANDING_US || draining {
            self.in_vain = 0;
            return false;
        }
        self.in_vain += 1;
        if self.in_vain > STEPS_IN_VAIN {
            let mut base_us = self.base_us;
            base_us.forget_all_but(least_us);
            *self = Standing { base_us, ..Standing::default() };
            return false;
        }
        true
    }
}

/// A packet's own time on a path that carries so much: on a narrow one more than a queue that is none.
fn packet_us(bps: u64) -> i64 {
    (DATAGRAM_BYTES as u64 * 8_000_000 / bps.max(1)) as i64
}

#[derive(Clone, Copy, Debug)]
struct Group {
    first_sent_us: u64,
    last_sent_us: u64,
    first_arrival_us: u64,
    last_arrival_us: u64,
    told_us: u64,
}

impl DelayTrend {
    pub(super) fn new() -> DelayTrend {
        DelayTrend {
            current: None,
            previous: None,
            reordered: 0,
            differences: 0,
            sum_ms: 0.0,
            smoothed_ms: 0.0,
            points: [(0.0, 0.0); WINDOW],
            len: 0,
            next: 0,
            first_arrival_us: 0,
            threshold: THRESHOLD_START,
            threshold_at_us: None,
            over_ms: 0.0,
            over_count: 0,
            last_trend: 0.0,
            usage: Usage::Normal,
            standing: Standing::default(),
            stands: false,
        }
    }

    /// What the packets since the last call say, on a path that carries about `bps`.
    pub(super) fn usage(&mut self, bps: u64) -> Usage {
        if std::mem::take(&mut self.stands) {
            return Usage::Over;
        }
        match self.usage {
            // A key frame's queue that is gone when its trend becomes known asks for no step, only for calm.
            Usage::Over if self.standing.height_us < DRAINED_US.max(packet_us(bps)) => Usage::Under,
            usage => usage,
        }
    }

    /// A queue that a key frame can make; a longer one means that the path itself became slower.
    pub(super) fn queue_is_short(&self) -> bool {
        self.standing.height_us < SHORT_US
    }

    /// How long the newest packet stood in the queue.
    pub(super) fn newest_height_us(&self) -> i64 {
        self.standing.newest_us
    }

    /// One packet that arrived, in the order of sending; `now_us` is when the feedback came.
    pub(super) fn packet(&mut self, sent_us: u64, arrival_us: u64, now_us: u64) {
        self.stands |= self.standing.packet(sent_us, arrival_us);
        let Some(current) = &mut self.current else {
            self.current = Some(Group::of(sent_us, arrival_us, now_us));
            self.first_arrival_us = arrival_us;
            return;
        };
        if sent_us < current.first_sent_us {
            return;
        }
        if current.takes(sent_us, arrival_us) {
            current.last_sent_us = current.last_sent_us.max(sent_us);
            current.last_arrival_us = current.last_arrival_us.max(arrival_us);
            current.told_us = now_us;
            return;
        }
        let complete = *current;
        self.standing.group(sent_us, arrival_us);
        self.current = Some(Group::of(sent_us, arrival_us, now_us));
        if let Some(previous) = self.previous.replace(complete) {
            self.compare(previous, complete);
        }
    }

    fn compare(&mut self, previous: Group, group: Group) {
        let sent_us = group.last_sent_us as i64 - previous.last_sent_us as i64;
        let arrived_us = group.last_arrival_us as i64 - previous.last_arrival_us as i64;
        let told_us = group.told_us as i64 - previous.told_us as i64;
        if (arrived_us - told_us).abs() >= JUMP_US {
            *self = DelayTrend { threshold: self.threshold, ..DelayTrend::new() };
            return;
        }
        // A packet that came late is told of late: the group that it begins may lie within the one before.
        if arrived_us < 0 || sent_us < 0 {
            self.reordered += 1;
            if self.reordered >= REORDERED_RESET {
                *self = DelayTrend { threshold: self.threshold, ..DelayTrend::new() };
            }
            return;
        }
        self.reordered = 0;
        let (sent_ms, grown_ms) = (sent_us as f64 / 1000.0, (arrived_us - sent_us) as f64 / 1000.0);
        self.differences = (self.differences + 1).min(1000);
        self.sum_ms += grown_ms;
        self.smoothed_ms = SMOOTHING * self.smoothed_ms + (1.0 - SMOOTHING) * self.sum_ms;
        let at_ms = group.last_arrival_us.saturating_sub(self.first_arrival_us) as f64 / 1000.0;
        self.points[self.next] = (at_ms, self.smoothed_ms);
        self.next = (self.next + 1) % WINDOW;
        self.len = (self.len + 1).min(WINDOW);
        let trend = if self.len == WINDOW { self.slope().unwrap_or(self.last_trend) } else { self.last_trend };
        self.detect(trend, sent_ms, group.told_us);
    }

    /// Least squares through the window.
    fn slope(&self) -> Option<f64> {
        // Relative to one of them, or the squares of hours in ms drown the differences.
        let (x0, y0) = self.points[self.next];
        let points = || self.points.iter().map(move |(x, y)| (x - x0, y - y0));
        let n = WINDOW as f64;
        let (mean_x, mean_y) = points().fold((0.0, 0.0), |(a, b), (x, y)| (a + x / n, b + y / n));
        let (above, below) = points()
            .fold((0.0, 0.0), |(a, b), (x, y)| (a + (x - mean_x) * (y - mean_y), b + (x - mean_x) * (x - mean_x)));
        (below > 0.0).then(|| above / below)
    }

    fn detect(&mut self, trend: f64, sent_ms: f64, now_us: u64) {
        let weighted = self.differences.min(TRUST) as f64 * trend * GAIN;
        if weighted > self.threshold {
            self.over_ms += if self.over_count == 0 { sent_ms / 2.0 } else { sent_ms };
            self.over_count += 1;
            if self.over_ms > OVERUSE_MS && self.over_count > 1 && trend >= self.last_trend {
                (self.over_ms, self.over_count) = (0.0, 0);
                self.usage = Usage::Over;
            }
        } else {
            (self.over_ms, self.over_count) = (0.0, 0);
            self.usage = if weighted < -self.threshold { Usage::Under } else { Usage::Normal };
        }
        self.last_trend = trend;
        self.adapt(weighted.abs(), now_us);
    }

    fn adapt(&mut self, weighted: f64, now_us: u64) {
        let since_ms = now_us.saturating_sub(self.threshold_at_us.unwrap_or(now_us)) as f64 / 1000.0;
        self.threshold_at_us = Some(now_us);
        if weighted > self.threshold + THRESHOLD_SPIKE {
            return;
        }
        let rate = if weighted < self.threshold { THRESHOLD_FALL } else { THRESHOLD_RISE };
        self.threshold += rate * (weighted - self.threshold) * since_ms.min(100.0);
        self.threshold = self.threshold.clamp(THRESHOLD_MIN, THRESHOLD_MAX);
    }
}

impl Group {
    fn of(sent_us: u64, arrival_us: u64, told_us: u64) -> Group {
        Group {
            first_sent_us: sent_us,
            last_sent_us: sent_us,
            first_arrival_us: arrival_us,
            last_arrival_us: arrival_us,
            told_us,
        }
    }

    fn takes(&self, sent_us: u64, arrival_us: u64) -> bool {
        if sent_us.saturating_sub(self.first_sent_us) <= GROUP_US {
            return true;
        }
        let apart_us = arrival_us as i64 - self.last_arrival_us as i64;
        let sped_up = apart_us < (sent_us as i64 - self.last_sent_us as i64);
        sped_up
            && (0..=BATCH_US as i64).contains(&apart_us)
            && arrival_us.saturating_sub(self.first_arrival_us) < BATCH_MAX_US
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BPS: u64 = 2_000_000;

    /// Sends a group each 20 ms through a delay and returns the usages seen.
    fn usages(delay_ms: impl Fn(u64) -> f64, groups: u64) -> Vec<Usage> {
        let mut trend = DelayTrend::new();
        let mut seen = Vec::new();
        for n in 0..groups {
            let sent_us = n * 20_000;
            let arrival_us = sent_us + ((50.0 + delay_ms(n)) * 1000.0) as u64;
            trend.packet(sent_us, arrival_us, sent_us + 100_000);
            seen.push(trend.usage(BPS));
        }
        seen
    }

    #[test]
    fn an_even_path_is_normal() {
        assert!(usages(|_| 0.0, 500).iter().all(|usage| *usage == Usage::Normal));
    }

    #[test]
    fn a_growing_queue_is_overuse_within_half_a_second_and_a_draining_one_underuse() {
        let seen = usages(|n| if n < 100 { 0.0 } else { (n - 100) as f64 * 4.0 }, 200);
        let first = seen.iter().position(|usage| *usage == Usage::Over).unwrap();
        assert!((101..125).contains(&first), "{first}");
        let seen = usages(|n| if n < 100 { 400.0 } else { 400.0 - (n - 100) as f64 * 4.0 }, 200);
        assert!(seen.contains(&Usage::Under));
        assert!(!seen.contains(&Usage::Over));
    }

    #[test]
    fn jitter_without_a_trend_is_not_overuse() {
        let mut seed = 1u64;
        let noise: Vec<f64> = (0..3000)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (seed >> 33) as f64 / (1u64 << 31) as f64 * 12.0
            })
            .collect();
        let over = usages(|n| noise[n as usize], 3000).iter().filter(|usage| **usage == Usage::Over).count();
        assert!(over <= 15, "12 ms of jitter for a minute: {over} of 3000");
    }

    #[test]
    fn a_receiver_whose_clock_jumps_or_lies_starts_over() {
        let seen = usages(|n| if n < 100 { 0.0 } else { 10_000_000.0 }, 130);
        assert!(seen.iter().all(|usage| *usage != Usage::Over));
        let mut trend = DelayTrend::new();
        for n in 0..1000u64 {
            trend.packet(n * 20_000, u64::MAX / 2 - n * 1_000_000, n * 20_000);
        }
        assert_eq!(trend.usage(BPS), Usage::Normal);
    }

    #[test]
    fn a_queue_that_stands_is_overuse_and_a_longer_path_is_not_for_long() {
        // Fills too slowly for a trend, then stands.
        let seen = usages(|n| (n as f64 - 200.0).clamp(0.0, 250.0), 1000);
        let over: Vec<_> = (0..1000).filter(|n| seen[*n] == Usage::Over).collect();
        assert!(over.len() >= 3 && over[0] < 320, "{over:?}");
        assert!(over.iter().all(|n| *n < 700), "it did not help: another path: {over:?}");
    }

    #[test]
    fn slopes_stay_exact_after_hours() {
        let seen = usages(|n| if n < 500_000 { 0.0 } else { (n - 500_000) as f64 * 4.0 }, 500_040);
        assert!(seen[..500_000].iter().all(|usage| *usage == Usage::Normal));
        assert_eq!(*seen.last().unwrap(), Usage::Over);
    }
}
