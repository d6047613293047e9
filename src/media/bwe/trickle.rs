//! Whether the path carries far less than is sent, told by the packets of one frame: they leave together, and come out
//! of the bottleneck one by one, at its rate.
//!
//! A link that shrinks to a fifth delivers three frames in the time in which the delay's trend can be known. This knows after
//! half a frame. It says only what cannot be anything else: the queue is high and ours, its packets come out at far less than
//! what is sent all the time, and no single pause accounts for that (a radio that was silent for a moment).

/// Packets that left within this of each other stood in the queue one behind the other, whatever others send.
const TOGETHER_US: u64 = 5_000;

/// A packet that waited less than this found no queue worth the name: what came before says nothing of one.
const EMPTY_US: i64 = 30_000;
/// Less of a queue is no harm yet, and may be a key frame's.
const HIGH_US: i64 = 100_000;

/// Fewer or shorter distances between packets say nothing.
const LEAST_DISTANCES: u32 = 4;
const LEAST_US: u64 = 80_000;
/// Beyond these older ones count half.
const MANY_DISTANCES: u32 = 8;
/// One distance that makes up more of them than this share is a pause.
const PAUSE_PERCENT: u64 = 40;

/// Far less: this share of what is sent. A key frame or an encoder's swing stays above.
const FAR_LESS_PERCENT: u64 = 75;

#[derive(Clone, Debug, Default)]
pub(super) struct Trickle {
    last: Option<(u64, u64)>,
    height_us: i64,
    distances: u32,
    bytes: u64,
    span_us: u64,
    longest_us: u64,
}

/// What is sent all the time, in bits per second: no key frame swells it.
#[derive(Clone, Debug, Default)]
pub(super) struct Lasting {
    bps: [u64; 2],
    taken_us: u64,
}

/// Between two of [`Lasting`]'s values.
const INTERVAL_US: u64 = 1_000_000;

impl Lasting {
    /// The least of `leaving_bps`, what left within the last second, and its last two values.
    pub(super) fn update(&mut self, leaving_bps: u64, now_us: u64) -> u64 {
        let lasting_bps = self.bps.into_iter().fold(leaving_bps, u64::min);
        if now_us.saturating_sub(self.taken_us) >= INTERVAL_US {
            (self.bps, self.taken_us) = ([leaving_bps, self.bps[0]], now_us);
        }
        lasting_bps
    }
}

impl Trickle {
    /// A packet that arrived, `height_us` later than it would have through an empty queue.
    pub(super) fn packet(&mut self, sent_us: u64, arrival_us: u64, bytes: u16, height_us: i64) {
        let last = self.last.replace((sent_us, arrival_us));
        self.height_us = height_us;
        if height_us < EMPTY_US {
            return self.forget();
        }
        let Some((last_sent_us, last_arrival_us)) = last else { return };
        let was_together = last_sent_us.abs_diff(sent_us) <= TOGETHER_US;
        if let Some(distance_us) = arrival_us.checked_sub(last_arrival_us).filter(|_| was_together) {
            if self.distances == MANY_DISTANCES {
                (self.distances, self.bytes) = (self.distances / 2, self.bytes / 2);
                (self.span_us, self.longest_us) = (self.span_us / 2, self.longest_us / 2);
            }
            self.distances += 1;
            self.bytes += u64::from(bytes);
            self.span_us += distance_us;
            self.longest_us = self.longest_us.max(distance_us);
        }
    }

    /// What the path carries, if that is far less than what is sent all the time.
    pub(super) fn bps(&self, lasting_bps: u64) -> Option<u64> {
        let is_known = self.distances >= LEAST_DISTANCES && self.span_us >= LEAST_US;
        if self.height_us < HIGH_US || !is_known || self.longest_us * 100 > self.span_us * PAUSE_PERCENT {
            return None;
        }
        let bps = self.bytes * 8_000_000 / self.span_us;
        (bps * 100 < lasting_bps * FAR_LESS_PERCENT).then_some(bps)
    }

    fn forget(&mut self) {
        (self.distances, self.bytes, self.span_us, self.longest_us) = (0, 0, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT_BPS: u64 = 1_400_000;

    /// Frames of five packets, 33 ms apart, through a path that delays each packet's arrival by this (ms) beyond its frame;
    /// what is told after each packet.
    fn told(trickle: &mut Trickle, delays_ms: impl IntoIterator<Item = u64>) -> Vec<Option<u64>> {
        let each = delays_ms.into_iter().enumerate().map(|(n, delay_ms)| {
            let sent_us = 3_000_000 + n as u64 / 5 * 33_000;
            trickle.packet(sent_us, sent_us + 50_000 + delay_ms * 1000, 1_100, delay_ms as i64 * 1000);
            trickle.bps(SENT_BPS)
        });
        each.collect()
    }

    #[test]
    fn a_path_that_became_a_fifth_is_known_within_a_frame() {
        // 1,100 bytes each 30 ms.
        let seen = told(&mut Trickle::default(), [0, 30, 60, 90, 120, 117, 147, 177]);
        let bps = seen.iter().flatten().next().expect("it is told");
        assert!((280_000..300_000).contains(bps), "{bps}");
        assert_eq!(seen.iter().position(Option::is_some), Some(4), "{seen:?}");
    }

    #[test]
    fn a_key_frame_on_a_path_that_carries_what_is_sent_is_no_sign() {
        // 1,100 bytes each 5 ms are 1.8 Mbit/s.
        let seen = told(&mut Trickle::default(), (0..60).map(|n| n * 5));
        assert!(seen.iter().all(Option::is_none));
    }

    #[test]
    fn a_pause_of_the_radio_is_no_sign() {
        for before in 1..5 {
            let delays = (0..30).map(|n| if n < before { 0 } else { 250 - n / 5 * 33 });
            let seen = told(&mut Trickle::default(), delays);
            assert!(seen.iter().all(Option::is_none), "{seen:?}");
        }
    }

    #[test]
    fn a_key_frame_is_not_what_is_sent_all_the_time() {
        let mut lasting = Lasting::default();
        let seen: Vec<_> = (0..100u64)
            .map(|n| lasting.update(if (50..60).contains(&n) { 3_000_000 } else { SENT_BPS }, n * 100_000))
            .collect();
        assert!(seen[30..].iter().all(|bps| *bps == SENT_BPS));
        assert_eq!(seen[0], 0, "who begins has sent nothing all the time");
    }
}
