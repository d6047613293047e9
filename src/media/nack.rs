//! Which packets of a received stream are missing and when to ask for them (RFC 4585 generic NACK).
//!
//! One [`NackList`] per producer layer that negotiated `nack`. The shard reports each accepted packet,
//! calls [`NackList::due`] at [`NackList::next_deadline`] and writes what it yields into one RTCP packet.
//! A stream without loss holds no list at all, and its packets cost one comparison.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::limits::{NACK_LIST_PACKETS, NACK_RETRIES};

/// A gap is asked about after this: neighbouring packets swapped by a switch or by two receive queues
/// arrive within a few ms of each other. Grows to the disorder that is seen, up to the second.
const TOLERANCE_MS: u32 = 10;
const TOLERANCE_MAX_MS: u32 = 40;

/// Before any round-trip time is known.
const RTT_DEFAULT_MS: u32 = 100;

/// Retries are at least this far apart, so that a loopback RTT does not turn one loss into ten requests
/// before the sender's pacer let one answer out.
const RETRY_MIN_MS: u32 = 20;
const RETRY_MAX_MS: u32 = 1000;

/// A stream's missing packets. Sequence numbers are the extended ones of
/// [`Arrived`](super::report::Arrived).
#[derive(Clone, Debug, Default)]
pub struct NackList {
    /// Ascending by sequence number; unallocated until the first loss.
    missing: VecDeque<Missing>,
    newest: Option<u64>,
    /// Times are in ms since this; set at the first loss.
    epoch: Option<Instant>,
    /// The earliest of all `due_ms`.
    next_ms: u32,
    tolerance_ms: u32,
    /// From the first request to the answer, where one came: the round trip of a path on which nobody reports.
    answer_ms: Option<u32>,
    key_frame_wanted: bool,
    requests: u64,
    packets_asked: u64,
}

#[derive(Clone, Copy, Debug)]
struct Missing {
    /// Low half of the extended sequence number: the list never spans 2^31.
    sequence: u32,
    since_ms: u32,
    due_ms: u32,
    /// When it was first asked for, once `tries` is not zero.
    asked_ms: u32,
    tries: u8,
}

impl NackList {
    pub fn new() -> NackList {
        NackList::default()
    }

    /// A packet was accepted (not a duplicate). `repaired`: it came over the RTX stream.
    #[inline]
    pub fn receive(&mut self, sequence: u64, now: Instant, repaired: bool) {
        match self.newest {
            Some(newest) if sequence == newest + 1 => self.newest = Some(sequence),
            Some(newest) if sequence > newest => self.gap(newest, sequence, now),
            Some(_) => self.fill(sequence, now, repaired),
            None => self.newest = Some(sequence),
        }
    }

    /// The stream started over ([`Order::Restart`](super::report::Order::Restart)) at this packet.
    pub fn restart(&mut self, sequence: u64) {
        self.missing.clear();
        self.key_frame_wanted = false;
        self.newest = Some(sequence);
    }

    /// The stream is looked at again after a pause: nothing of before is missed any more.
    pub fn resume(&mut self) {
        self.missing.clear();
        self.key_frame_wanted = false;
        self.newest = None;
    }

    /// A key frame begins at this packet: what is missing before it is of no more use to anybody.
    pub fn key_frame(&mut self, sequence: u64) {
        let keep = self.missing.partition_point(|m| before(m.sequence, sequence as u32));
        self.missing.drain(..keep);
        self.key_frame_wanted = false;
    }

    fn gap(&mut self, newest: u64, sequence: u64, now: Instant) {
        self.newest = Some(sequence);
        let lost = (sequence - newest - 1) as usize;
        if self.epoch.is_none() {
            self.epoch = Some(now);
            self.tolerance_ms = TOLERANCE_MS;
        }
        let since_ms = self.millis(now);
        if self.missing.len() + lost > NACK_LIST_PACKETS {
            self.missing.clear();
            self.key_frame_wanted = true;
            self.next_ms = since_ms;
            return;
        }
        let due_ms = since_ms + self.tolerance_ms;
        if self.next_deadline().is_none() {
            self.next_ms = due_ms;
        }
        self.next_ms = self.next_ms.min(due_ms);
        for lost in newest + 1..sequence {
            self.missing.push_back(Missing { sequence: lost as u32, since_ms, due_ms, asked_ms: 0, tries: 0 });
        }
    }

    fn fill(&mut self, sequence: u64, now: Instant, repaired: bool) {
        let sequence = sequence as u32;
        let at = self.missing.partition_point(|m| before(m.sequence, sequence));
        let Some(found) = self.missing.get(at).copied().filter(|m| m.sequence == sequence) else { return };
        self.missing.remove(at);
        let took_ms = self.millis(now) - found.since_ms;
        if repaired && found.tries > 0 {
            self.answered(self.millis(now) - found.asked_ms);
        }
        if repaired {
            // True loss: lean back towards asking early.
            self.tolerance_ms = (self.tolerance_ms - 1).max(TOLERANCE_MS);
        } else if found.tries == 0 || took_ms <= TOLERANCE_MAX_MS {
            // Disorder, not loss: wait as long as it takes here.
            self.tolerance_ms = (took_ms + 5).clamp(self.tolerance_ms, TOLERANCE_MAX_MS);
        }
    }

    /// An answer came so long after the first request for it. Never less than a round trip; more where a request or
    /// an answer was lost, and then the next ones pull it down again.
    fn answered(&mut self, took_ms: u32) {
        self.answer_ms = Some(match self.answer_ms {
            Some(known) if took_ms >= known => known + (took_ms - known) / 8,
            _ => took_ms,
        });
    }

    /// Yields every packet that is to be asked for at `now`, oldest first, and counts the attempt. `rtt`
    /// is the path's round-trip time where one is known; else what answers took is taken for it. Retries are that
    /// far apart. Where `ask` has no room (`false`) the packet stays due, and no attempt is counted.
    pub fn due(&mut self, now: Instant, rtt: Option<Duration>, mut ask: impl FnMut(u16) -> bool) {
        if self.missing.is_empty() {
            return;
        }
        let now_ms = self.millis(now);
        if now_ms < self.next_ms {
            return;
        }
        let reported_ms = rtt.map(|rtt| rtt.as_millis().min(RETRY_MAX_MS as u128) as u32);
        let rtt_ms = reported_ms.or(self.answer_ms).unwrap_or(RTT_DEFAULT_MS);
        // A resend is paced and takes its turn in the sender's queue: some slack over the bare RTT.
        let retry_ms = (rtt_ms + TOLERANCE_MS).clamp(RETRY_MIN_MS, RETRY_MAX_MS);
        let (mut asked, mut next_ms, mut given_up) = (0, u32::MAX, false);
        self.missing.retain_mut(|m| {
            if m.due_ms <= now_ms {
                if m.tries >= NACK_RETRIES {
                    given_up = true;
                    return false;
                }
                if ask(m.sequence as u16) {
                    if m.tries == 0 {
                        m.asked_ms = now_ms;
                    }
                    m.tries += 1;
                    m.due_ms = now_ms + retry_ms;
                    asked += 1;
                }
            }
            next_ms = next_ms.min(m.due_ms);
            true
        });
        self.next_ms = if given_up { now_ms } else { next_ms };
        self.requests += u64::from(asked > 0);
        self.packets_asked += asked;
        self.key_frame_wanted |= given_up;
    }

    /// When [`due`](NackList::due) has something to say next, or a key frame is wanted.
    pub fn next_deadline(&self) -> Option<Instant> {
        match self.missing.is_empty() && !self.key_frame_wanted {
            true => None,
            false => self.epoch.map(|epoch| epoch + Duration::from_millis(self.next_ms as u64)),
        }
    }

    /// Whether packets were given up since the last call: only a key frame helps (video; audio ignores it).
    pub fn take_key_frame_request(&mut self) -> bool {
        std::mem::take(&mut self.key_frame_wanted)
    }

    /// NACK messages asked for.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// Packets asked for, repetitions included.
    pub fn packets_asked(&self) -> u64 {
        self.packets_asked
    }

    fn millis(&self, now: Instant) -> u32 {
        self.epoch.map_or(0, |epoch| now.saturating_duration_since(epoch).as_millis() as u32)
    }
}

fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const NOTHING: [u16; 0] = [];

    struct Stream {
        start: Instant,
        list: NackList,
    }

    impl Stream {
        fn new() -> Stream {
            Stream { start: Instant::now(), list: NackList::new() }
        }

        fn receive(&mut self, at_ms: u32, sequence: u64) {
            self.list.receive(sequence, self.start + MS * at_ms, false);
        }

        fn asked(&mut self, at_ms: u32, rtt_ms: Option<u32>) -> Vec<u16> {
            let mut asked = Vec::new();
            self.list.due(self.start + MS * at_ms, rtt_ms.map(|ms| MS * ms), |sequence| {
                asked.push(sequence);
                true
            });
            asked
        }
    }

    #[test]
    fn nothing_is_asked_of_a_stream_without_loss() {
        let mut stream = Stream::new();
        (0..5000).for_each(|n| stream.receive(n, 65_000 + n as u64));
        assert_eq!(stream.list.next_deadline(), None);
        assert_eq!(stream.asked(6000, None), NOTHING);
        assert_eq!(stream.list.missing.capacity(), 0, "no list was ever made");
    }

    #[test]
    fn a_gap_is_asked_about_after_the_tolerance_and_again_each_round_trip() {
        let mut stream = Stream::new();
        stream.receive(0, 0x1_fffd);
        stream.receive(5, 0x2_0001);
        assert_eq!(stream.asked(14, Some(50)), NOTHING);
        assert_eq!(stream.list.next_deadline(), Some(stream.start + 15 * MS));
        assert_eq!(stream.asked(15, Some(50)), [0xfffe, 0xffff, 0]);
        assert_eq!(stream.asked(74, Some(50)), NOTHING);
        assert_eq!(stream.asked(75, Some(50)), [0xfffe, 0xffff, 0]);
        stream.list.receive(0x1_ffff, stream.start + 80 * MS, true);
        assert_eq!(stream.asked(135, Some(50)), [0xfffe, 0]);
        assert_eq!((stream.list.requests(), stream.list.packets_asked()), (3, 8));
    }

    #[test]
    fn what_found_no_room_is_asked_for_next_and_as_often_as_the_rest() {
        let mut stream = Stream::new();
        stream.receive(0, 1);
        stream.receive(0, 6);
        let now = stream.start + 10 * MS;
        let mut first = Vec::new();
        stream.list.due(now, None, |sequence| {
            let has_room = first.len() < 2;
            first.extend(has_room.then_some(sequence));
            has_room
        });
        assert_eq!(first, [2, 3]);
        assert!(stream.list.next_deadline().is_some_and(|at| at <= now), "the rest waits for no round");
        assert_eq!(stream.asked(10, None), [4, 5]);
        assert_eq!(stream.list.packets_asked(), 4);
        assert_eq!(stream.asked(120, None), [2, 3, 4, 5]);
    }

    #[test]
    fn retries_wait_a_tenth_of_a_second_while_the_round_trip_is_unknown() {
        let mut stream = Stream::new();
        stream.receive(0, 1);
        stream.receive(0, 3);
        assert_eq!(stream.asked(10, None), [2]);
        assert_eq!(stream.asked(110, None), NOTHING);
        assert_eq!(stream.asked(120, None), [2]);
    }

    #[test]
    fn retries_follow_the_time_that_answers_took_where_nobody_reports_a_round_trip() {
        let mut stream = Stream::new();
        let mut lose = |at_ms: u32, number: u64, took_ms: u32| {
            stream.receive(at_ms, number - 1);
            stream.receive(at_ms, number + 1);
            assert_eq!(stream.asked(at_ms + 10, None), [number as u16]);
            let retry = (at_ms + 11..).find(|ms| !stream.asked(*ms, None).is_empty()).unwrap() - at_ms - 10;
            stream.list.receive(number, stream.start + MS * (at_ms + 10 + took_ms), true);
            retry
        };
        assert_eq!(lose(0, 2, 25), 110);
        assert_eq!(lose(1000, 5, 400), 35);
        assert_eq!(lose(3000, 8, 400), 81, "one slow answer counts little");
        let last = (0..30).map(|n| lose(5000 + 2000 * n, 11 + 3 * u64::from(n), 400)).last();
        assert!(last.is_some_and(|retry| retry > 380), "many count: {last:?}");
    }

    #[test]
    fn swapped_packets_are_not_asked_for() {
        let mut stream = Stream::new();
        for n in 0..200u32 {
            stream.receive(n * 4, (n ^ 1) as u64 + 10);
            assert_eq!(stream.asked(n * 4, Some(20)), NOTHING);
        }
        assert_eq!(stream.list.packets_asked(), 0);
    }

    #[test]
    fn lasting_disorder_widens_the_tolerance_and_loss_narrows_it() {
        let mut stream = Stream::new();
        // Every tenth packet comes 25 ms late by another path.
        let mut wasted = 0;
        for n in 1..1000u32 {
            if n % 10 != 0 {
                stream.receive(n * 4, n as u64);
            }
            if n > 7 && (n - 6) % 10 == 0 {
                stream.receive(n * 4, n as u64 - 6);
            }
            wasted += stream.asked(n * 4, Some(60)).len();
        }
        assert!(wasted <= 2, "only the first is asked for in vain: {wasted}");
        for n in 0..40u64 {
            let (at, lost) = (5000 + n as u32 * 100, 2000 + n * 2);
            stream.receive(at, lost - 1);
            stream.receive(at, lost + 1);
            stream.list.receive(lost, stream.start + MS * (at + 60), true);
        }
        assert_eq!(stream.list.tolerance_ms, TOLERANCE_MS);
    }

    #[test]
    fn a_packet_is_given_up_after_ten_requests_and_one_key_frame_is_wanted() {
        let mut stream = Stream::new();
        stream.receive(0, 1);
        stream.receive(0, 3);
        let asked: usize = (0..10_000).map(|ms| stream.asked(ms, Some(30)).len()).sum();
        assert_eq!(asked, NACK_RETRIES as usize);
        assert!(stream.list.take_key_frame_request());
        assert!(!stream.list.take_key_frame_request());
        assert_eq!(stream.list.next_deadline(), None);
    }

    #[test]
    fn a_long_outage_costs_one_key_frame_and_no_list() {
        let mut stream = Stream::new();
        stream.receive(0, 10);
        stream.receive(2000, 10 + NACK_LIST_PACKETS as u64 + 2);
        assert_eq!(stream.list.next_deadline(), Some(stream.start + 2000 * MS), "it is asked for at once");
        assert_eq!(stream.asked(3000, None), NOTHING);
        assert!(stream.list.take_key_frame_request());
        assert_eq!(stream.list.next_deadline(), None);
        assert_eq!(stream.list.missing.capacity(), 0);
    }

    #[test]
    fn the_list_never_grows_beyond_its_bound_whatever_is_lost() {
        let mut stream = Stream::new();
        for n in 0..20_000u64 {
            stream.receive(n as u32 / 100, n * 3);
            assert!(stream.list.missing.len() <= NACK_LIST_PACKETS);
        }
        assert!(stream.list.take_key_frame_request());
    }

    #[test]
    fn a_key_frame_ends_the_search_for_what_came_before_it() {
        let mut stream = Stream::new();
        stream.receive(0, 1);
        stream.receive(0, 5);
        stream.receive(1, 8);
        stream.list.key_frame(7);
        assert_eq!(stream.asked(20, None), [7], "part of the key frame itself");
    }

    #[test]
    fn a_list_that_is_not_needed_is_small() {
        assert!(size_of::<NackList>() <= 120, "{}", size_of::<NackList>());
    }
}
