//! How many bits a second a stream carries, for statistics and for the allocation of bandwidth.

use std::time::{Duration, Instant};

/// Bytes per second over the last second, in eight slots: 64 bytes, no division on the packet's way.
#[derive(Clone, Debug, Default)]
pub struct RateMeter {
    slots: [u32; RATE_SLOTS],
    /// When the newest slot began.
    began: Option<Instant>,
    newest: u8,
    /// Slots that hold a whole measurement; the rate of a stream that began just now is not diluted.
    filled: u8,
}

const RATE_SLOTS: usize = 8;
const RATE_SLOT: Duration = Duration::from_millis(125);

impl RateMeter {
    pub fn add(&mut self, bytes: usize, now: Instant) {
        let began = *self.began.get_or_insert(now);
        if now.saturating_duration_since(began) >= RATE_SLOT {
            self.turn(began, now);
        }
        self.slots[self.newest as usize] = self.slots[self.newest as usize].saturating_add(bytes as u32);
    }

    fn turn(&mut self, began: Instant, now: Instant) {
        let passed = (now - began).as_millis() / RATE_SLOT.as_millis();
        if passed >= 2 * RATE_SLOTS as u128 {
            // The last second is known to hold nothing: the window is whole, unlike at the very start.
            *self = RateMeter { began: Some(now), filled: RATE_SLOTS as u8 - 1, ..RateMeter::default() };
            return;
        }
        for _ in 0..passed {
            self.newest = (self.newest + 1) % RATE_SLOTS as u8;
            self.slots[self.newest as usize] = 0;
            self.filled = (self.filled + 1).min(RATE_SLOTS as u8 - 1);
        }
        self.began = Some(began + RATE_SLOT * passed as u32);
    }

    /// Bits per second over the last second, or since the first byte if that is less.
    pub fn bitrate_bps(&self, now: Instant) -> u64 {
        let Some(began) = self.began else { return 0 };
        let age = now.saturating_duration_since(began);
        // Slots that would have been cleared, had a packet come now.
        let stale = (age.as_millis() / RATE_SLOT.as_millis()).min(RATE_SLOTS as u128) as usize;
        let bytes: u64 = (0..RATE_SLOTS - stale)
            .map(|back| self.slots[(self.newest as usize + RATE_SLOTS - back) % RATE_SLOTS] as u64)
            .sum();
        let whole = (self.filled as usize).min(RATE_SLOTS - 1);
        let span = if whole + stale >= RATE_SLOTS - 1 {
            // The window is one second long less the part of the newest slot that is still to come.
            RATE_SLOT * (RATE_SLOTS as u32 - 1) + (age - RATE_SLOT * (age.as_millis() / 125) as u32)
        } else {
            RATE_SLOT * whole as u32 + age
        };
        bytes * 8_000_000 / (span.max(RATE_SLOT).as_micros() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_bitrate_is_of_the_last_second() {
        let (start, mut rate) = (Instant::now(), RateMeter::default());
        for n in 0..300u32 {
            rate.add(1250, start + 10 * MS * n);
            if n >= 20 {
                let bps = rate.bitrate_bps(start + 10 * MS * n);
                assert!((950_000..1_120_000).contains(&bps), "1 Mbit/s at packet {n}: {bps}");
            }
        }
        let end = start + 3000 * MS;
        let half = rate.bitrate_bps(end + 500 * MS);
        assert!((400_000..600_000).contains(&half), "half of the second is silent: {half}");
        assert_eq!(rate.bitrate_bps(end + 1100 * MS), 0);
        rate.add(1250, end + 60_000 * MS);
        assert!(rate.bitrate_bps(end + 60_000 * MS) <= 12_000, "one packet after a minute is one packet a second");
    }
}
