//! When the packets of an uplink arrived, for transport-wide congestion control feedback to its sender
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01).
//!
//! One [`ArrivalRecord`] per transport that carries producers with the extension. The shard reports each
//! packet's transport-wide number, takes a [`Draft`] at [`ArrivalRecord::next_deadline`], and
//! `packet::rtcp` writes it. The browser's estimate of its uplink is only as good as these times: give the
//! kernel's receive time where there is one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::limits::TRANSPORT_CC_ARRIVALS;
use crate::packet::seq::{SeqNo, SeqUnwrapper};

/// Between feedbacks. Browsers expect 50 to 250 ms; feedback is 20 to 100 bytes each time.
const INTERVAL: Duration = Duration::from_millis(100);

/// From this many packets in the interval on (4 Mbit/s of 1,200 bytes), feedback comes twice as often: the
/// sender's queue grows faster, so it must learn of it sooner.
const BUSY_PACKETS: u32 = 40;
const BUSY_INTERVAL: Duration = Duration::from_millis(50);

/// With so many packets there is no waiting: it is what one feedback packet can tell.
const FULL_PACKETS: u32 = 200;

/// Statuses in one feedback. In the worst case (no two alike) a status takes 2 bits and a delta 2 bytes, so
/// 400 fit into a datagram of 1,200 bytes with room to spare.
const DRAFT_PACKETS: u64 = 400;

/// Packets already reported that are kept, so that one which comes late can still be reported as come.
const REORDERING: u64 = 128;

/// A jump further than this is not loss: the record starts over there.
const JUMP: u64 = TRANSPORT_CC_ARRIVALS as u64;

/// Arrival times are kept in the unit of the wire format.
const TICK: Duration = Duration::from_micros(250);

/// Deltas of the wire format are 16 bits signed; arrivals further apart go into separate feedbacks.
const DELTA_MAX: u64 = i16::MAX as u64;

const MISSING: u32 = u32::MAX;

/// The arrivals of one transport.
#[derive(Clone, Debug)]
pub struct ArrivalRecord {
    epoch: Instant,
    numbers: SeqUnwrapper,
    /// Arrival ticks (modulo 2^32) of the numbers from `start` on.
    arrivals: VecDeque<u32>,
    start: u64,
    /// First number of the next feedback.
    next: u64,
    /// Arrivals since the last feedback.
    pending: u32,
    deadline: Option<Instant>,
    feedbacks: u8,
}

/// One feedback: which numbers came, and when.
#[derive(Debug)]
pub struct Draft<'a> {
    /// Counts feedbacks, modulo 256.
    pub count: u8,
    pub base: SeqNo,
    arrivals: std::collections::vec_deque::Iter<'a, u32>,
    now_ticks: u64,
}

impl Draft<'_> {
    /// Each number from [`base`](Draft::base) on, with its arrival since the record's beginning, in whole
    /// units of 250 us. The last one has arrived; neighbours that arrived are less than 8 s apart.
    pub fn arrivals(&self) -> impl Iterator<Item = (SeqNo, Option<Duration>)> + Clone + '_ {
        let base = self.base;
        self.arrivals.clone().enumerate().map(move |(n, ticks)| {
            let at = (*ticks != MISSING)
                .then(|| Duration::from_micros(full(*ticks, self.now_ticks) * TICK.as_micros() as u64));
            (base + n as u16, at)
        })
    }

    pub fn len(&self) -> usize {
        self.arrivals.len()
    }

    pub fn is_empty(&self) -> bool {
        self.arrivals.len() == 0
    }
}

/// The tick count whose low half is `ticks`, within six days of `now`.
fn full(ticks: u32, now: u64) -> u64 {
    now.saturating_add_signed(ticks.wrapping_sub(now as u32) as i32 as i64)
}

impl ArrivalRecord {
    pub fn new(now: Instant) -> ArrivalRecord {
        ArrivalRecord {
            epoch: now,
            numbers: SeqUnwrapper::default(),
            arrivals: VecDeque::new(),
            start: 0,
            next: 0,
            pending: 0,
            deadline: None,
            feedbacks: 0,
        }
    }

    /// A packet with this transport-wide number arrived. Duplicates keep the first time.
    pub fn receive(&mut self, number: SeqNo, arrival: Instant) {
        let place = self.numbers.place(number);
        let ticks = self.ticks(arrival) as u32;
        let ticks = if ticks == MISSING { ticks - 1 } else { ticks };
        match self.numbers.highest() {
            Some(highest) if place <= highest => {
                if place < self.start || self.arrivals[(place - self.start) as usize] != MISSING {
                    return;
                }
                self.arrivals[(place - self.start) as usize] = ticks;
                self.next = self.next.min(place);
            }
            Some(highest) if place - highest <= JUMP => {
                for _ in highest + 1..place {
                    self.push(MISSING);
                }
                self.push(ticks);
            }
            _ => {
                self.arrivals.clear();
                (self.start, self.next, self.pending) = (place, place, 0);
                self.push(ticks);
            }
        }
        self.numbers.unwrap(number);
        self.schedule(arrival);
    }

    fn push(&mut self, ticks: u32) {
        if self.arrivals.len() == TRANSPORT_CC_ARRIVALS {
            self.arrivals.pop_front();
            self.start += 1;
            self.next = self.next.max(self.start);
        }
        self.arrivals.push_back(ticks);
    }

    fn schedule(&mut self, now: Instant) {
        self.pending += 1;
        let at = match self.pending {
            1 => now + INTERVAL,
            BUSY_PACKETS => self.deadline.map_or(now, |deadline| deadline - (INTERVAL - BUSY_INTERVAL)),
            FULL_PACKETS.. => now,
            _ => return,
        };
        self.deadline = Some(self.deadline.map_or(at, |deadline| deadline.min(at)));
    }

    /// When to [`take`](ArrivalRecord::take) next; `None` while nothing arrived since the last feedback.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The feedback that is due at `now`, which counts as sent. Call until it is `None`.
    pub fn take(&mut self, now: Instant) -> Option<Draft<'_>> {
        if self.deadline.is_none_or(|at| at > now) {
            return None;
        }
        self.trim();
        let Some(first) = self.first_arrived() else {
            (self.deadline, self.pending) = (None, 0);
            return None;
        };
        // More missing in a row than a feedback holds: the oldest go untold, and the sender counts them lost.
        self.next = self.next.max(first.saturating_sub(DRAFT_PACKETS / 2));
        let from = (self.next - self.start) as usize;
        let len = self.draft_len(from, now);
        let base = SeqNo(self.next as u16);
        self.next += len as u64;
        let count = self.feedbacks;
        self.feedbacks = self.feedbacks.wrapping_add(1);
        let now_ticks = self.ticks(now);
        Some(Draft { count, base, arrivals: self.arrivals.range(from..from + len), now_ticks })
    }

    fn first_arrived(&self) -> Option<u64> {
        let from = (self.next - self.start) as usize;
        let waiting = self.arrivals.range(from..).position(|ticks| *ticks != MISSING)?;
        Some(self.next + waiting as u64)
    }

    /// How many numbers the feedback covers: up to the last that arrived, that fits, and whose distance to the
    /// one before can be written.
    fn draft_len(&self, from: usize, now: Instant) -> usize {
        let now_ticks = self.ticks(now);
        let (mut len, mut last) = (0, None);
        for (n, ticks) in self.arrivals.range(from..).take(DRAFT_PACKETS as usize).enumerate() {
            if *ticks == MISSING {
                continue;
            }
            let at = full(*ticks, now_ticks);
            if last.is_some_and(|last| at.abs_diff(last) > DELTA_MAX) {
                break;
            }
            (len, last) = (n + 1, Some(at));
        }
        len
    }

    fn trim(&mut self) {
        let keep = self.next.saturating_sub(REORDERING).max(self.start);
        self.arrivals.drain(..(keep - self.start) as usize);
        self.start = keep;
    }

    fn ticks(&self, at: Instant) -> u64 {
        (at.saturating_duration_since(self.epoch).as_micros() / TICK.as_micros()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    type Told = Vec<(u16, Option<u32>)>;

    struct Uplink {
        start: Instant,
        record: ArrivalRecord,
    }

    impl Uplink {
        fn new() -> Uplink {
            let start = Instant::now();
            Uplink { start, record: ArrivalRecord::new(start) }
        }

        fn receive(&mut self, number: u16, at_ms: u32) {
            self.record.receive(SeqNo(number), self.start + MS * at_ms);
        }

        /// Feedbacks due at a moment, times in ms.
        fn told(&mut self, at_ms: u32) -> Vec<Told> {
            let mut all = Vec::new();
            while let Some(draft) = self.record.take(self.start + MS * at_ms) {
                assert_eq!(draft.len(), draft.arrivals().count());
                let told: Told = draft.arrivals().map(|(n, at)| (n.0, at.map(|at| at.as_millis() as u32))).collect();
                assert!(told.last().unwrap().1.is_some(), "ends with an arrival");
                all.push(told);
            }
            all
        }

        fn deadline_ms(&self) -> Option<u32> {
            self.record.next_deadline().map(|at| (at - self.start).as_millis() as u32)
        }
    }

    #[test]
    fn feedback_is_due_a_tenth_of_a_second_after_the_first_packet() {
        let mut uplink = Uplink::new();
        assert_eq!(uplink.deadline_ms(), None);
        uplink.receive(65534, 10);
        uplink.receive(65535, 20);
        uplink.receive(1, 35);
        assert_eq!(uplink.deadline_ms(), Some(110));
        assert!(uplink.told(109).is_empty());
        assert_eq!(uplink.told(110), [vec![(65534, Some(10)), (65535, Some(20)), (0, None), (1, Some(35))]]);
        assert_eq!(uplink.deadline_ms(), None, "nothing arrives, nothing is sent");
    }

    #[test]
    fn each_feedback_goes_on_where_the_last_ended() {
        let mut uplink = Uplink::new();
        uplink.receive(5, 0);
        uplink.receive(6, 1);
        assert_eq!(uplink.told(100), [vec![(5, Some(0)), (6, Some(1))]]);
        uplink.receive(9, 150);
        assert_eq!(uplink.told(250), [vec![(7, None), (8, None), (9, Some(150))]]);
    }

    #[test]
    fn a_packet_that_comes_after_its_feedback_is_told_after_all() {
        let mut uplink = Uplink::new();
        uplink.receive(5, 0);
        uplink.receive(7, 1);
        uplink.told(100);
        uplink.receive(6, 110);
        assert_eq!(uplink.told(210), [vec![(6, Some(110)), (7, Some(1))]]);
    }

    #[test]
    fn a_duplicate_changes_nothing() {
        let mut uplink = Uplink::new();
        uplink.receive(5, 0);
        uplink.receive(5, 40);
        assert_eq!(uplink.told(100), [vec![(5, Some(0))]]);
        uplink.receive(5, 120);
        assert_eq!(uplink.deadline_ms(), None);
    }

    #[test]
    fn high_rates_are_told_sooner() {
        let mut uplink = Uplink::new();
        (0..50).for_each(|n| uplink.receive(n, n as u32));
        assert_eq!(uplink.deadline_ms(), Some(50));
        let mut uplink = Uplink::new();
        (0..200).for_each(|n| uplink.receive(n, n as u32 / 8));
        assert!(uplink.deadline_ms().unwrap() <= 25);
    }

    #[test]
    fn feedbacks_are_counted_and_none_is_too_long_for_a_datagram() {
        let mut uplink = Uplink::new();
        for n in 0..900u32 {
            uplink.record.receive(SeqNo((n * 2) as u16), uplink.start);
        }
        let mut counts = Vec::new();
        while let Some(draft) = uplink.record.take(uplink.start + 100 * MS) {
            counts.push(draft.count);
            assert!(draft.len() <= DRAFT_PACKETS as usize);
        }
        assert_eq!(counts, [0, 1, 2]);
    }

    #[test]
    fn arrivals_too_far_apart_for_a_delta_go_into_two_feedbacks() {
        let mut uplink = Uplink::new();
        uplink.receive(1, 0);
        uplink.receive(2, 8500);
        assert_eq!(uplink.told(9000), [vec![(1, Some(0))], vec![(2, Some(8500))]]);
    }

    #[test]
    fn a_jump_starts_the_record_over_and_costs_no_more_than_its_bound() {
        let mut uplink = Uplink::new();
        uplink.receive(1, 0);
        uplink.receive(20_000, 1);
        assert_eq!(uplink.told(101), [vec![(20_000, Some(1))]]);
        let mut number = 0u16;
        for n in 0..5000u32 {
            number = number.wrapping_mul(31_421).wrapping_add(6927);
            uplink.receive(number, 200 + n);
            assert!(uplink.record.arrivals.len() <= TRANSPORT_CC_ARRIVALS);
            uplink.told(200 + n);
        }
    }

    #[test]
    fn a_long_gap_is_told_by_its_end() {
        let mut uplink = Uplink::new();
        uplink.receive(0, 0);
        uplink.told(100);
        uplink.receive(1000, 300);
        let told = uplink.told(400);
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].last(), Some(&(1000, Some(300))));
        assert!(told[0].len() <= DRAFT_PACKETS as usize);
    }

    #[test]
    fn arrivals_are_right_after_a_fortnight() {
        let mut uplink = Uplink::new();
        let fortnight = 14 * 24 * 3600 * 1000;
        uplink.receive(1, fortnight);
        uplink.receive(2, fortnight + 7);
        assert_eq!(uplink.told(fortnight + 100), [vec![(1, Some(fortnight)), (2, Some(fortnight + 7))]]);
    }
}
