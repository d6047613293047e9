//! How fast packets may leave for one receiver, and those that have to wait.
//!
//! A key frame of a hundred packets is ready at once. Sent at once it fills the buffer in front of a narrow link and
//! loses its own tail, and the sound behind it waits as long. So beyond a burst packets leave at up to two and a half times the
//! estimate, and no later than 200 ms, or where it is known how little the path carries so fast that its buffer holds
//! them. What may leave goes in whole messages, at ticks apart, so that pacing costs no
//! system call more than the messages that are sent anyway. No clock, and nothing per packet where nothing waits.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::limits::DATAGRAM_BYTES;

/// A burst is so long at the fastest: a tenth of a second of the estimate, and more than ordinary frames are.
const BURST: Duration = Duration::from_millis(40);

/// The least burst: what the buffer of any path takes of which nothing worse is known, and what one of 400 kbit/s takes.
const BURST_BYTES: i64 = 16 * 1_250;
const NARROW_BURST_BYTES: i64 = 4 * 1_250;

/// In a jam: whatever is sent at once finds the buffer full.
const JAM_BURST: Duration = Duration::from_millis(20);

/// Packets leave at this times the estimate, in percent.
const FASTEST_PERCENT: u64 = 250;

/// Nothing waits for longer: then it is congestion's turn, not pacing's. Where it is known what the path carries the bound is
/// further, for beyond what its buffer holds there is nothing to gain.
const LONGEST_MS: u64 = 200;
const LONGEST_NARROW_MS: u64 = 1_000;

/// The buffer in front of a path holds this much of what the path carries; paths of 300 ms are common.
const BUFFER_MS: u64 = 200;

/// What leaves at a time, unless less is left: fewer would cost a message each.
const QUANTUM: usize = 6;

/// What is known of the path besides its estimate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Path {
    /// It may carry more than was ever tried.
    #[default]
    Open,
    /// More than the estimate made a queue.
    Narrow,
    /// A queue stands in front of it that has to drain.
    Jammed,
}

/// Packets `P` with their sizes.
pub struct Pacer<P> {
    /// What may leave at once; less than nothing where something could not wait.
    credit_bytes: i64,
    refilled_at: Option<Instant>,
    path: Path,
    estimate_bps: u64,
    backlog: VecDeque<(P, u16)>,
    backlog_bytes: u64,
    /// The most that waited since nothing did.
    most_bytes: u64,
    /// Its deadline was noticed, and is over with the next refill.
    is_called: bool,
}

impl<P> Default for Pacer<P> {
    fn default() -> Self {
        Pacer {
            credit_bytes: BURST_BYTES,
            refilled_at: None,
            path: Path::default(),
            estimate_bps: 0,
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            most_bytes: 0,
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

    /// Bytes that wait.
    pub fn bytes(&self) -> u64 {
        self.backlog_bytes
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
        self.estimate_bps = estimate_bps;
        self.credit_bytes = self.credit_bytes.saturating_add(bytes_in(self.bps(), elapsed)).min(self.burst());
    }

    pub fn set_path(&mut self, path: Path) {
        if std::mem::replace(&mut self.path, path) != path && self.estimate_bps > 0 {
            self.credit_bytes = self.credit_bytes.min(self.burst());
        }
    }

    /// So fast that all that waits leaves in time. Where nothing waits it is how soon a burst is there again, and what sound and
    /// resends took is paid back.
    fn bps(&self) -> u64 {
        let fastest_bps = self.estimate_bps * FASTEST_PERCENT / 100;
        let bits = self.most_bytes * 8;
        match self.path {
            Path::Open => fastest_bps.max(bits * 1000 / LONGEST_MS),
            Path::Narrow if bits == 0 => fastest_bps,
            Path::Narrow => {
                // The path takes so long for it and the burst before it; what it has not taken when the last of it leaves is in its
                // buffer.
                let ms = (bits + self.burst() as u64 * 8) * 1000 / self.estimate_bps.max(1);
                let fits_bps = (bits * 1000).checked_div(ms.saturating_sub(BUFFER_MS)).unwrap_or(u64::MAX);
                fits_bps.clamp(self.estimate_bps, fastest_bps).max(bits * 1000 / LONGEST_NARROW_MS)
            }
            Path::Jammed => self.estimate_bps.max(bits * 1000 / LONGEST_NARROW_MS),
        }
    }

    fn burst(&self) -> i64 {
        let fastest_bps = self.estimate_bps * FASTEST_PERCENT / 100;
        match self.path {
            Path::Open => BURST_BYTES.max(bytes_in(fastest_bps, BURST)),
            Path::Narrow => NARROW_BURST_BYTES.max(bytes_in(fastest_bps, BURST)),
            Path::Jammed => (DATAGRAM_BYTES as i64).max(bytes_in(self.estimate_bps, JAM_BURST)),
        }
    }

    /// A packet waits behind all that wait.
    pub fn hold(&mut self, packet: P, bytes: u16) {
        self.backlog.push_back((packet, bytes));
        self.backlog_bytes += u64::from(bytes);
        self.most_bytes = self.most_bytes.max(self.backlog_bytes);
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
            self.most_bytes = 0;
        }
        Some(packet)
    }

    /// What is not to leave any more is forgotten; returns how many packets that is.
    pub fn retain(&mut self, stays: impl Fn(&P) -> bool) -> usize {
        let before = self.backlog.len();
        self.backlog.retain(|(packet, _)| stays(packet));
        self.backlog_bytes = self.backlog.iter().map(|(_, bytes)| u64::from(*bytes)).sum();
        self.most_bytes = self.backlog_bytes;
        before - self.backlog.len()
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
        Some(at + Duration::from_micros((missing * 8_000_000).div_ceil(self.bps().max(1))))
    }

    /// No more than the burst, which would never be reached.
    fn quantum(&self) -> i64 {
        let packets = if self.path == Path::Jammed { 1 } else { QUANTUM };
        let bytes: i64 = self.backlog.iter().take(packets).map(|(_, bytes)| i64::from(*bytes)).sum();
        bytes.min(self.burst())
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
        send_on(Path::Open, packets, estimate_bps)
    }

    fn send_on(path: Path, packets: usize, estimate_bps: u64) -> Vec<(u32, usize)> {
        let start = Instant::now();
        let mut pacer = Pacer::default();
        pacer.set_path(path);
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

    /// The highest that a queue gets in front of a path, in ms of what it carries.
    fn highest_ms(left: &[(u32, usize)], bps: u64) -> f64 {
        let (mut queue, mut before, mut highest) = (0f64, 0, 0f64);
        for (at_ms, packets) in left {
            queue = (queue - f64::from(at_ms - before)).max(0.0)
                + *packets as f64 * f64::from(PACKET) * 8000.0 / bps as f64;
            (before, highest) = (*at_ms, highest.max(queue));
        }
        highest
    }

    #[test]
    fn where_it_is_known_how_little_a_path_carries_its_buffer_holds_a_key_frame() {
        for (packets, estimate_bps) in [(10, 200_000), (20, 300_000), (40, 600_000), (100, 2_000_000)] {
            let left = send_on(Path::Narrow, packets, estimate_bps);
            let highest = highest_ms(&left, estimate_bps);
            assert!(highest < 300.0, "{packets} packets at {estimate_bps}: {highest} ms");
            assert!(left.last().unwrap().0 <= 1_000, "{left:?}");
        }
        assert_eq!(send_on(Path::Narrow, 4, 300_000), [(0, 4)], "an ordinary frame leaves at once");
    }

    #[test]
    fn in_a_jam_no_more_leaves_than_the_path_carries() {
        for estimate_bps in [200_000, 600_000, 2_000_000] {
            let left = send_on(Path::Jammed, 15, estimate_bps);
            let highest = highest_ms(&left, estimate_bps);
            assert!(highest < 65.0, "at {estimate_bps}: {highest} ms");
        }
    }

    #[test]
    fn what_sound_takes_is_paid_back_on_the_narrowest_path_though_nothing_waits() {
        let start = Instant::now();
        for path in [Path::Open, Path::Narrow, Path::Jammed] {
            for estimate_bps in [60_000, 150_000, 2_000_000] {
                let mut pacer = Pacer::<()>::default();
                pacer.set_path(path);
                pacer.refill(Some(estimate_bps), start);
                // A voice of 40 kbit/s.
                for n in 1..=50 {
                    pacer.debit(100);
                    pacer.refill(Some(estimate_bps), start + 20 * MS * n);
                }
                assert!(pacer.credit() >= 0, "{path:?} of {estimate_bps}: {}", pacer.credit());
            }
        }
    }

    #[test]
    fn what_is_not_to_leave_any_more_neither_leaves_nor_hurries_the_rest() {
        let start = Instant::now();
        let mut pacer = Pacer::default();
        pacer.refill(Some(1_000_000), start);
        pacer.debit(20_000);
        (0..100).for_each(|packet| pacer.hold(packet, PACKET));
        assert_eq!(pacer.retain(|packet| packet % 10 == 0), 90);
        let in_a_while = start + 20 * MS;
        pacer.refill(Some(1_000_000), in_a_while);
        assert!(pacer.credit() <= 20 * 1_000_000 * 5 / 2 / 8_000, "as slow as ten packets may be");
        assert_eq!(std::iter::from_fn(|| pacer.pop()).collect::<Vec<_>>(), (0..100).step_by(10).collect::<Vec<_>>());
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
