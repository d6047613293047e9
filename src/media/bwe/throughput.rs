//! How fast the path delivers: acknowledged bytes by their time of arrival.

/// Half a second in slots: long enough for a few frames at 30/s, short enough to follow a drop.
const SLOT_US: u64 = 50_000;
const SLOTS: usize = 10;

/// Before this much of the path was seen there is no rate.
const LEAST_US: u64 = 150_000;

#[derive(Clone, Debug, Default)]
pub(super) struct Throughput {
    bytes: [u32; SLOTS],
    /// Slot of the newest arrival, counted from the receiver's beginning of time.
    slot: u64,
    first_us: u64,
    newest_us: u64,
    seen: bool,
}

impl Throughput {
    pub(super) fn add(&mut self, arrival_us: u64, bytes: u16) {
        let slot = arrival_us / SLOT_US;
        if !self.seen || slot >= self.slot + 2 * SLOTS as u64 {
            *self =
                Throughput { slot, first_us: arrival_us, newest_us: arrival_us, seen: true, ..Throughput::default() };
        }
        while self.slot < slot {
            self.slot += 1;
            self.bytes[(self.slot % SLOTS as u64) as usize] = 0;
        }
        // Reordered by more than the window, or a clock that went back.
        if self.slot - slot >= SLOTS as u64 {
            self.seen = self.slot - slot < 4 * SLOTS as u64;
            return;
        }
        self.newest_us = self.newest_us.max(arrival_us);
        let held = &mut self.bytes[(slot % SLOTS as u64) as usize];
        *held = held.saturating_add(bytes as u32);
    }

    /// `None` until there is enough to tell.
    pub(super) fn bps(&self) -> Option<u64> {
        if !self.seen {
            return None;
        }
        let window_us = (self.slot.saturating_sub(SLOTS as u64 - 1) * SLOT_US).max(self.first_us);
        let span_us = self.newest_us.saturating_sub(window_us);
        let bytes: u64 = self.bytes.iter().map(|bytes| *bytes as u64).sum();
        (span_us >= LEAST_US).then(|| bytes * 8_000_000 / span_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_even_stream_has_its_rate_soon_and_keeps_it() {
        let mut throughput = Throughput::default();
        for n in 0..1000u64 {
            throughput.add(7_000_000 + n * 10_000, 1250);
            match throughput.bps() {
                Some(bps) => assert!((950_000..1_200_000).contains(&bps), "packet {n}: {bps}"),
                None => assert!(n < 16),
            }
        }
    }

    #[test]
    fn a_drop_shows_within_half_a_second() {
        let mut throughput = Throughput::default();
        (0..100).for_each(|n| throughput.add(n * 5_000, 1250));
        (0..10).for_each(|n| throughput.add(500_000 + n * 50_000, 1250));
        let bps = throughput.bps().unwrap();
        assert!((190_000..250_000).contains(&bps), "{bps}");
    }

    #[test]
    fn clocks_that_jump_start_over() {
        let mut throughput = Throughput::default();
        (0..100).for_each(|n| throughput.add(n * 5_000, 1250));
        throughput.add(u64::MAX / 2, 1250);
        assert_eq!(throughput.bps(), None);
        (0..3).for_each(|n| throughput.add(n * 5_000, 1250));
        (0..100).for_each(|n| throughput.add(n * 5_000, 1250));
        assert!(throughput.bps().is_some());
    }
}
