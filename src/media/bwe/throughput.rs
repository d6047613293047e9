//! How fast the path delivers: acknowledged bytes by their time of arrival, on average and in bursts.

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

    /// The newest time of arrival.
    pub(super) fn newest_us(&self) -> u64 {
        self.newest_us
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

/// Packets that left at once: what a frame is, and a key frame above all. They queue at the bottleneck and come
/// out at its rate, which tells more of the path than the average of a sender that has no more to send.
#[derive(Clone, Debug, Default)]
pub(super) struct Bursts {
    first_sent_us: u64,
    first_arrival_us: u64,
    last_arrival_us: u64,
    packets: u32,
    bytes: u64,
    first_bytes: u64,
    /// Rates of the last bursts, newest first, and when the newest ended.
    rates_bps: [u64; BURSTS],
    ended_us: u64,
}

const BURSTS: usize = 3;
/// What left within this is one burst.
const BURST_US: u64 = 5_000;
/// Fewer packets or less time say nothing.
const BURST_PACKETS: u32 = 5;
const BURST_LEAST_US: u64 = 4_000;
/// A burst longer ago is of another path.
const BURST_AGE_US: u64 = 1_500_000;

impl Bursts {
    pub(super) fn add(&mut self, sent_us: u64, arrival_us: u64, bytes: u16) {
        if self.packets == 0 || sent_us < self.first_sent_us || sent_us - self.first_sent_us > BURST_US {
            self.end();
            (self.first_sent_us, self.first_arrival_us, self.last_arrival_us) = (sent_us, arrival_us, arrival_us);
            (self.packets, self.bytes, self.first_bytes) = (0, 0, bytes as u64);
        }
        self.packets += 1;
        self.bytes += bytes as u64;
        self.last_arrival_us = self.last_arrival_us.max(arrival_us);
    }

    fn end(&mut self) {
        let span_us = self.last_arrival_us.saturating_sub(self.first_arrival_us);
        if self.packets >= BURST_PACKETS && span_us >= BURST_LEAST_US {
            self.rates_bps.rotate_right(1);
            self.rates_bps[0] = (self.bytes - self.first_bytes) * 8_000_000 / span_us;
            self.ended_us = self.last_arrival_us;
        }
    }

    /// The slowest of the last bursts: a radio that releases packets in batches makes single ones look fast.
    pub(super) fn bps(&mut self, now_arrival_us: u64) -> Option<u64> {
        self.end();
        self.packets = 0;
        let fresh = now_arrival_us.saturating_sub(self.ended_us) < BURST_AGE_US;
        self.rates_bps.iter().copied().min().filter(|bps| fresh && *bps > 0)
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
    fn bursts_come_out_at_the_rate_of_the_path() {
        let mut bursts = Bursts::default();
        for frame in 0..4u64 {
            (0..8).for_each(|n| bursts.add(frame * 33_000, 1_000_000 + frame * 33_000 + n * 2_500, 1250));
        }
        let bps = bursts.bps(1_150_000).unwrap();
        assert!((3_900_000..4_100_000).contains(&bps), "{bps}");
        assert_eq!(bursts.bps(9_000_000), None, "long ago");
    }

    #[test]
    fn single_packets_are_no_burst() {
        let mut bursts = Bursts::default();
        (0..100).for_each(|n| bursts.add(n * 20_000, 1_000_000 + n * 20_000, 1250));
        assert_eq!(bursts.bps(3_000_000), None);
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
