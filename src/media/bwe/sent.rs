//! What was sent under which transport-wide number, until feedback speaks of it.

use crate::limits::{SENT_PACKETS, SENT_PACKETS_FIRST};
use crate::packet::seq::SeqNo;

/// Feedback later than this has no use; a record younger than this is worth growing for.
const USEFUL_US: u32 = 2_000_000;

/// A ring indexed by the number's low bits; one 8-byte write per packet.
#[derive(Clone, Debug, Default)]
pub(super) struct SentRing {
    /// A power of two long; empty until the first packet.
    slots: Vec<Slot>,
    /// Newest number, unwrapped; starts at 65536 + the first.
    newest: Option<u64>,
    /// Newest number that feedback spoke of.
    told: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Modulo 2^32, 71 minutes.
    sent_us: u32,
    bytes: u16,
    /// Probe number, 0 for none.
    probe: u8,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Empty,
    Flying,
    Lost,
    Arrived,
}

/// What is known of a packet that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Flying,
    /// Feedback spoke of later packets and never of this one: a report was lost.
    Passed,
    Lost,
    Arrived,
    /// Never sent, or forgotten.
    Unknown,
}

/// A packet that feedback says has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SentPacket {
    pub sent_us: u64,
    pub bytes: u16,
    pub probe: u8,
}

impl SentRing {
    #[inline]
    pub(super) fn push(&mut self, number: SeqNo, bytes: u16, probe: u8, now_us: u64) {
        let place = match self.newest {
            Some(newest) => newest + number.0.wrapping_sub(newest as u16) as u64,
            None => {
                self.slots = vec![Slot::default(); SENT_PACKETS_FIRST];
                0x1_0000 + number.0 as u64
            }
        };
        let newest = self.newest.unwrap_or(place);
        if place > newest + 1 {
            self.skip(newest, place);
        }
        let old = self.slots[place as usize & (self.slots.len() - 1)];
        if old.state == State::Flying && self.slots.len() < SENT_PACKETS {
            let age_us = (now_us as u32).wrapping_sub(old.sent_us);
            if age_us < USEFUL_US {
                self.grow(newest);
            }
        }
        let mask = self.slots.len() - 1;
        self.slots[place as usize & mask] = Slot { sent_us: now_us as u32, bytes, probe, state: State::Flying };
        self.newest = Some(place);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.newest.is_none()
    }

    /// Numbers that were never sent.
    fn skip(&mut self, newest: u64, place: u64) {
        let len = self.slots.len() as u64;
        for number in (newest + 1).max(place.saturating_sub(len))..place {
            self.slots[(number % len) as usize] = Slot::default();
        }
    }

    fn grow(&mut self, newest: u64) {
        let len = self.slots.len() as u64;
        let mut slots = vec![Slot::default(); 2 * len as usize];
        for number in newest.saturating_sub(len - 1)..=newest {
            slots[(number % (2 * len)) as usize] = self.slots[(number % len) as usize];
        }
        self.slots = slots;
    }

    /// Where a number of a feedback belongs; `None` for what was never sent or is forgotten.
    fn place(&self, number: SeqNo) -> Option<u64> {
        let newest = self.newest?;
        let age = (newest as u16).wrapping_sub(number.0) as u64;
        (age < self.slots.len() as u64).then_some(newest - age)
    }

    /// What became of a packet.
    pub(super) fn fate(&self, number: SeqNo) -> Fate {
        let Some(place) = self.place(number) else { return Fate::Unknown };
        match self.slots[place as usize & (self.slots.len() - 1)].state {
            State::Empty => Fate::Unknown,
            State::Flying if place < self.told => Fate::Passed,
            State::Flying => Fate::Flying,
            State::Lost => Fate::Lost,
            State::Arrived => Fate::Arrived,
        }
    }

    /// The packet arrived; `None` if it was never sent, is forgotten, or was told before.
    pub(super) fn arrived(&mut self, number: SeqNo, now_us: u64) -> Option<(SentPacket, WasLost)> {
        let place = self.place(number)?;
        let mask = self.slots.len() - 1;
        let slot = &mut self.slots[place as usize & mask];
        let was_lost = match slot.state {
            State::Flying => false,
            State::Lost => true,
            State::Empty | State::Arrived => return None,
        };
        slot.state = State::Arrived;
        let sent_us = now_us.saturating_sub((now_us as u32).wrapping_sub(slot.sent_us) as u64);
        Some((SentPacket { sent_us, bytes: slot.bytes, probe: slot.probe }, WasLost(was_lost)))
    }

    /// The numbers from `base` on that still fly are lost; returns how many packets and bytes. Bounded by the
    /// ring, whatever `count` says.
    pub(super) fn lost(&mut self, base: SeqNo, count: u16) -> (u32, u64) {
        let Some(newest) = self.newest else { return (0, 0) };
        let len = self.slots.len() as u64;
        let behind = (newest as u16).wrapping_sub(base.0) as u64;
        // Half the circle: a base ahead of everything sent is fabricated.
        if behind >= 0x8000 {
            return (0, 0);
        }
        let base = newest.saturating_sub(behind);
        self.told = self.told.max((base + count as u64).min(newest + 1) - 1);
        let oldest = newest.saturating_sub(len - 1);
        let (mut packets, mut lost_bytes) = (0, 0);
        for number in base.max(oldest)..(base + count as u64).min(newest + 1) {
            let slot = &mut self.slots[(number % len) as usize];
            if slot.state == State::Flying {
                slot.state = State::Lost;
                packets += 1;
                lost_bytes += slot.bytes as u64;
            }
        }
        (packets, lost_bytes)
    }
}

/// An earlier feedback called the packet lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WasLost(pub bool);

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(numbers: impl IntoIterator<Item = u16>) -> SentRing {
        let mut ring = SentRing::default();
        numbers.into_iter().for_each(|n| ring.push(SeqNo(n), 100, 0, n as u64));
        ring
    }

    #[test]
    fn a_packet_is_found_once_across_the_wrap() {
        let mut ring = ring([65534, 65535, 0, 1]);
        for n in [65535, 1] {
            let (packet, was_lost) = ring.arrived(SeqNo(n), 70_000).unwrap();
            assert_eq!((packet.sent_us, packet.bytes, was_lost.0), (n as u64, 100, false));
            assert_eq!(ring.arrived(SeqNo(n), 70_000), None, "told twice");
        }
    }

    #[test]
    fn the_fate_of_a_packet_is_what_the_last_feedback_said_or_that_it_said_nothing() {
        let mut ring = ring(100..120);
        assert_eq!(ring.fate(SeqNo(105)), Fate::Flying);
        ring.arrived(SeqNo(110), 200);
        ring.lost(SeqNo(108), 5);
        let fates = [99, 105, 109, 110, 113, 120].map(|number| ring.fate(SeqNo(number)));
        let expected = [Fate::Unknown, Fate::Passed, Fate::Lost, Fate::Arrived, Fate::Flying, Fate::Unknown];
        assert_eq!(fates, expected);
        assert_eq!(SentRing::default().fate(SeqNo(0)), Fate::Unknown);
    }

    #[test]
    fn what_was_never_sent_is_not_found() {
        let mut ring = ring(100..200);
        assert_eq!(ring.arrived(SeqNo(200), 300), None);
        assert_eq!(ring.arrived(SeqNo(99), 300), None);
        assert_eq!(ring.arrived(SeqNo(40_000), 300), None);
        assert_eq!(ring.lost(SeqNo(200), 65_535), (0, 0));
        assert_eq!(SentRing::default().arrived(SeqNo(0), 0), None);
    }

    #[test]
    fn lost_packets_are_counted_once_and_may_turn_up() {
        let mut ring = ring(100..110);
        ring.arrived(SeqNo(103), 200);
        assert_eq!(ring.lost(SeqNo(101), 4), (3, 300));
        assert_eq!(ring.lost(SeqNo(101), 4), (0, 0));
        assert!(ring.arrived(SeqNo(102), 200).unwrap().1.0);
    }

    #[test]
    fn numbers_that_were_skipped_are_not_lost() {
        let mut ring = ring([10, 20]);
        assert_eq!(ring.lost(SeqNo(10), 11), (2, 200));
    }

    #[test]
    fn a_long_path_makes_the_ring_grow_to_its_bound_and_no_further() {
        let mut ring = SentRing::default();
        for n in 0..20_000u32 {
            ring.push(SeqNo(n as u16), 100, 0, n as u64 * 100);
        }
        assert_eq!(ring.slots.len(), SENT_PACKETS);
        for n in 20_000 - SENT_PACKETS as u32..20_000 {
            assert!(ring.arrived(SeqNo(n as u16), 3_000_000).is_some(), "{n}");
        }
        assert_eq!(size_of::<Slot>(), 8);
    }

    #[test]
    fn a_path_without_feedback_does_not_make_the_ring_grow() {
        let mut ring = SentRing::default();
        for n in 0..20_000u32 {
            ring.push(SeqNo(n as u16), 100, 0, n as u64 * 20_000);
        }
        assert_eq!(ring.slots.len(), SENT_PACKETS_FIRST);
    }
}
