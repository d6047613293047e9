//! Packets that must not be lost a second time: those that were resent, that came late themselves, or that begin a
//! picture.
//!
//! A receiver asks again only a round trip after it asked, and its request may be lost as well. The feedback of
//! transport-wide congestion control says sooner, and each report anew, what became of every packet, so what it calls
//! lost leaves again without being asked for. Nothing here touches the way of an ordinary packet: entries are made on
//! cold paths, and looked at when feedback comes.

use std::time::{Duration, Instant};

use crate::limits::{AWAITED_AGE, AWAITED_PACKETS, AWAITED_TRIES};
use crate::media::bwe::Fate;
use crate::packet::seq::SeqNo;
use crate::shard::consumer::Consumer;
use crate::shard::table::Key;

#[derive(Default)]
pub struct Awaited {
    packets: Vec<Flight>,
}

struct Flight {
    /// Transport-wide, of the last time that it left.
    number: SeqNo,
    consumer: Key<Consumer>,
    /// The number that the receiver misses.
    sequence: u16,
    since: Instant,
    at: Instant,
    tries: u8,
    /// It left again because a report said nothing of it where it should have.
    is_doubted: bool,
}

impl Awaited {
    /// Such a packet leaves, for the first time or again.
    pub fn sent(&mut self, number: SeqNo, consumer: Key<Consumer>, sequence: u16, now: Instant) {
        let known = self.packets.iter_mut().find(|known| known.sequence == sequence && known.consumer == consumer);
        if let Some(known) = known {
            (known.number, known.at) = (number, now);
        } else if self.packets.len() < AWAITED_PACKETS {
            let (since, at, tries, is_doubted) = (now, now, 0, false);
            self.packets.push(Flight { number, consumer, sequence, since, at, tries, is_doubted });
        }
    }

    /// Feedback came. Yields what is to leave again; `rtt` is that of a consumer's path, within which nothing leaves twice.
    pub fn due(
        &mut self,
        now: Instant,
        rtt: impl Fn(Key<Consumer>) -> Duration,
        fate: impl Fn(SeqNo) -> Fate,
        mut resend: impl FnMut(Key<Consumer>, u16),
    ) {
        self.packets.retain_mut(|flight| {
            let may_leave = now.saturating_duration_since(flight.at) >= rtt(flight.consumer);
            let leaves = match fate(flight.number) {
                Fate::Arrived | Fate::Unknown => return false,
                Fate::Lost => may_leave,
                Fate::Passed => may_leave && !std::mem::replace(&mut flight.is_doubted, may_leave),
                Fate::Flying => false,
            };
            if now.saturating_duration_since(flight.since) >= AWAITED_AGE {
                return false;
            }
            if leaves {
                if flight.tries == AWAITED_TRIES {
                    return false;
                }
                flight.tries += 1;
                flight.at = now;
                resend(flight.consumer, flight.sequence);
            }
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const RTT: Duration = Duration::from_millis(50);

    struct Path {
        start: Instant,
        awaited: Awaited,
    }

    impl Path {
        fn new() -> Path {
            Path { start: Instant::now(), awaited: Awaited::default() }
        }

        fn sent(&mut self, at_ms: u32, number: u16, sequence: u16) {
            self.awaited.sent(SeqNo(number), Key::dangling(), sequence, self.start + MS * at_ms);
        }

        fn due(&mut self, at_ms: u32, fate: impl Fn(u16) -> Fate) -> Vec<u16> {
            let mut due = Vec::new();
            let now = self.start + MS * at_ms;
            self.awaited.due(now, |_| RTT, |number| fate(number.0), |_, sequence| due.push(sequence));
            due
        }
    }

    #[test]
    fn what_feedback_calls_lost_leaves_again_and_what_arrived_does_not() {
        let mut path = Path::new();
        path.sent(0, 100, 7);
        path.sent(0, 101, 8);
        path.sent(0, 102, 9);
        let fate = |number| match number {
            100 => Fate::Lost,
            101 => Fate::Arrived,
            _ => Fate::Flying,
        };
        assert_eq!(path.due(60, fate), [7]);
        path.sent(60, 140, 7);
        assert_eq!(path.due(120, |_| Fate::Arrived), [0u16; 0]);
        assert!(path.awaited.packets.is_empty());
    }

    #[test]
    fn nothing_leaves_twice_within_a_round_trip() {
        let mut path = Path::new();
        path.sent(0, 100, 7);
        let left: Vec<_> = (0..140).filter(|ms| !path.due(*ms, |_| Fate::Lost).is_empty()).collect();
        assert_eq!(left, [50, 100]);
    }

    #[test]
    fn where_a_report_was_lost_itself_a_packet_leaves_once_more_at_a_venture() {
        let mut path = Path::new();
        path.sent(0, 100, 7);
        let left: Vec<_> = (0..500).filter(|ms| !path.due(*ms, |_| Fate::Passed).is_empty()).collect();
        assert_eq!(left, [50]);
    }

    #[test]
    fn a_packet_is_given_up_after_four_tries_or_a_second() {
        for (step, expected) in [(50, 4), (300, 3)] {
            let mut path = Path::new();
            path.sent(0, 0, 7);
            let mut left = 0;
            for n in 1..100 {
                if !path.due(step * n, |_| Fate::Lost).is_empty() {
                    left += 1;
                    path.sent(step * n, n as u16, 7);
                }
            }
            assert_eq!(left, expected);
            assert!(path.awaited.packets.is_empty());
        }
    }

    #[test]
    fn no_more_is_remembered_than_may_be() {
        let mut path = Path::new();
        (0..1000).for_each(|number| path.sent(0, number, number));
        assert_eq!(path.awaited.packets.len(), AWAITED_PACKETS);
    }
}
