//! How fast packets may leave for one receiver, and those that have to wait.
//!
//! A key frame of a hundred packets is ready at once. Sent at once it fills the buffer in front of a narrow link and
//! loses its own tail, and the sound behind it waits as long. So beyond a burst packets leave at two and a half times the
//! estimate, and no later than 200 ms. What may leave goes in whole messages, at ticks apart, so that pacing costs no
//! system call more than the messages that are sent anyway. No clock, and nothing per packet where nothing waits.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::limits::DATAGRAM_BYTES;

/// The least burst: what the buffer of any path takes, and more than ordinary frames are.
const BURST_BYTES: i64 = 16 * 1_250;
const BURST: Duration = Duration::from_millis(40);

/// Nothing waits for longer, however narrow the path: then it is congestion's turn, not pacing's.
const LONGEST_MS: u64 = 200;

/// What leaves at a time, unless less is left: fewer would cost a message each.
const QUANTUM: usize = 6;

/// Packets `P` with their sizes.
pub struct Pacer<P> {
    /// What may leave at once; less than nothing where something could not wait.
    credit_bytes: i64,
    refilled_at: Option<Instant>,
    bps: u64,
    backlog: VecDeque<(P, u16)>,
    backlog_bytes: u64,
    /// What empties the backlog in time.
    least_bps: u64,
    /// Its deadline was noticed, and is over with the next refill.
    is_called: bool,
}

impl<P> Default for Pacer<P> {
    fn default() -> Self {
        Pacer {
            credit_bytes: BURST_BYTES,
            refilled_at: None,
            bps: 0,
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            least_bps: 0,
            is_called: false,
        }
    }
}

impl<P> Pacer<P> {
    /// Whether so many packets of any size can leave at once. A cheap look: `false` may mean that
    /// [`refill`](Self::refill) was not called for long.
    #[inline]
    pub fn has_room(&self, packets: usize) -> bool {
        self.credit_bytes >= (packets * DATAGRAM_BYTES) as i64 && self.backlog.is_empty()
    }

    pub fn is_empty(&self) -> bool {
        self.backlog.is_empty()
    }

    pub fn len(&self) -> usize {
        self.backlog.len()
    }

    /// Bytes that may leave at `now`, before anything that waits.
    pub fn credit(&self) -> i64 {
        self.credit_bytes
    }

    /// So much left, whether there was credit for it or not.
    #[inline]
    pub fn debit(&mut self, bytes: usize) {
        self.credit_bytes = (self.credit_bytes - bytes as i64).max(-BURST_BYTES);
    }

    /// Time has passed on a path that carries `estimate_bps`; `None`: nothing is known of it, and nothing waits.
    pub fn refill(&mut self, estimate_bps: Option<u64>, now: Instant) {
        self.is_called = false;
        // Before the first time nothing was sent: a whole burst is there.
        let elapsed = self.refilled_at.replace(now).map_or(BURST, |at| now.saturating_duration_since(at));
        let Some(estimate_bps) = estimate_bps else {
            self.credit_bytes = BURST_BYTES;
            return;
        };
        self.bps = (estimate_bps * 5 / 2).max(self.least_bps);
        let burst = BURST_BYTES.max(bytes_in(self.bps, BURST));
        self.credit_bytes = self.credit_bytes.saturating_add(bytes_in(self.bps, elapsed)).min(burst);
    }

    /// A packet waits behind all that wait.
    pub fn hold(&mut self, packet: P, bytes: u16) {
        self.backlog.push_back((packet, bytes));
        self.backlog_bytes += u64::from(bytes);
        self.least_bps = self.least_bps.max(self.backlog_bytes * 8 * 1000 / LONGEST_MS);
        self.bps = self.bps.max(self.least_bps);
    }

    /// How many of those that wait may leave: none, or a message of some size.
    pub fn due(&self) -> usize {
        if self.credit_bytes < self.quantum() {
            return 0;
        }
        let mut credit = self.credit_bytes;
        let fits = |(_, bytes): &&(P, u16)| {
            credit -= i64::from(*bytes);
            credit >= 0
        };
        self.backlog.iter().take_while(fits).count()
    }

    /// The packet that waits for longest leaves. Follow with [`debit`](Self::debit).
    pub fn pop(&mut self) -> Option<P> {
        let (packet, bytes) = self.backlog.pop_front()?;
        self.backlog_bytes -= u64::from(bytes);
        if self.backlog.is_empty() {
            self.least_bps = 0;
        }
        Some(packet)
    }

    /// Whether its deadline has come; said once, until the next [`refill`](Self::refill).
    pub fn call(&mut self, now: Instant) -> bool {
        let calls = self.next_deadline().is_some_and(|at| at <= now);
        self.is_called |= calls;
        calls
    }

    /// When some of those that wait may leave.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.backlog.is_empty() || self.is_called {
            return None;
        }
        let (at, missing) = (self.refilled_at?, (self.quantum() - self.credit_bytes).max(0) as u64);
        Some(at + Duration::from_micros((missing * 8_000_000).div_ceil(self.bps.max(1))))
    }

    fn quantum(&self) -> i64 {
        self.backlog.iter().take(QUANTUM).map(|(_, bytes)| i64::from(*bytes)).sum()
    }
}

fn bytes_in(bps: u64, time: Duration) -> i64 {
    (bps.saturating_mul(time.as_micros().min(1_000_000) as u64) / 8_000_000) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const PACKET: u16 = 1_200;

    /// A frame of so many packets on a path of so much; returns when each message of how many packets left.
    fn send(packets: usize, estimate_bps: u64) -> Vec<(u32, usize)> {
        let start = Instant::now();
        let mut pacer = Pacer::default();
        pacer.refill(Some(estimate_bps), start);
        let at_once = (pacer.credit() / i64::from(PACKET)).min(packets as i64) as usize;
        pacer.debit(at_once * usize::from(PACKET));
        (at_once..packets).for_each(|packet| pacer.hold(packet, PACKET));
        let (mut left, mut next) = (vec![(0, at_once)], at_once);
        while let Some(at) = pacer.next_deadline() {
            pacer.refill(Some(estimate_bps), at);
            let due = pacer.due();
            assert!(due > 0, "its deadline came, and nothing may leave");
            for _ in 0..due {
                assert_eq!(pacer.pop(), Some(next), "in order");
                pacer.debit(usize::from(PACKET));
                next += 1;
            }
            left.push(((at - start).as_millis() as u32, due));
        }
        assert_eq!(next, packets);
        left
    }

    #[test]
    fn a_key_frame_leaves_within_two_hundred_milliseconds_however_narrow_the_path() {
        for estimate_bps in [100_000, 600_000, 2_000_000, 20_000_000] {
            let left = send(100, estimate_bps);
            let (last, _) = left.last().unwrap();
            assert!(*last <= 200, "at {estimate_bps}: {left:?}");
            let mut quanta = left.iter().skip(1).rev().skip(1);
            assert!(quanta.all(|(_, packets)| *packets >= QUANTUM), "whole messages: {left:?}");
        }
    }

    #[test]
    fn an_ordinary_frame_leaves_at_once() {
        assert_eq!(send(10, 300_000), [(0, 10)]);
        assert_eq!(send(80, 20_000_000), [(0, 80)]);
    }

    #[test]
    fn at_two_megabits_per_second_a_key_frame_never_fills_a_buffer_of_64_kilobytes() {
        let (mut queue, mut before, mut highest) = (0f64, 0, 0f64);
        for (at_ms, packets) in send(75, 2_000_000) {
            queue = (queue - f64::from(at_ms - before) * 250.0).max(0.0) + packets as f64 * f64::from(PACKET);
            (before, highest) = (at_ms, highest.max(queue));
        }
        assert!(highest < 64.0 * 1024.0, "{highest} of 90,000 bytes");
    }

    #[test]
    fn what_cannot_wait_is_paid_back_by_what_can_but_not_for_ever() {
        let start = Instant::now();
        let mut pacer = Pacer::default();
        pacer.refill(Some(1_000_000), start);
        pacer.debit(10_000_000);
        assert!(!pacer.has_room(1));
        pacer.hold((), PACKET);
        assert!(pacer.next_deadline().unwrap() < start + 80 * MS);
    }

    #[test]
    fn nothing_waits_on_a_path_of_which_nothing_is_known() {
        let mut pacer = Pacer::<()>::default();
        for ms in 0..100 {
            pacer.refill(None, Instant::now() + MS * ms);
            assert!(pacer.has_room(10));
            pacer.debit(15_000);
        }
    }
}
