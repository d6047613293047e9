//! Numbers that wrap: sequence numbers, picture ids, timestamps, and their unwrapping into numbers that do not.
//!
//! "Newer" is the shorter way round the circle (RFC 1982, RFC 3550 appendix A.1). Exactly half way round
//! there is no shorter way; the larger number is then called newer, so that of two different numbers
//! always exactly one is newer than the other.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

/// A number of `Self::BITS` bits that wraps. Implemented by the newtypes of this module only.
pub trait Wrapping: Copy {
    const BITS: u32;
    fn value(self) -> u32;
}

macro_rules! wrapping {
    ($($(#[$doc:meta])* $name:ident($raw:ty), $bits:literal);+ $(;)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub struct $name(pub $raw);

        impl $name {
            const MASK: $raw = <$raw>::MAX >> (<$raw>::BITS - $bits);

            /// Keeps the low bits of `value`.
            #[inline]
            pub const fn new(value: $raw) -> Self {
                $name(value & Self::MASK)
            }

            #[inline]
            pub const fn next(self) -> Self {
                Self::new(self.0.wrapping_add(1))
            }

            #[inline]
            pub const fn previous(self) -> Self {
                Self::new(self.0.wrapping_sub(1))
            }

            /// Steps from `earlier` to `self`, the shorter way round; negative when `self` is older.
            #[inline]
            pub const fn distance(self, earlier: Self) -> i64 {
                distance(self.0 as u32, earlier.0 as u32, $bits)
            }

            #[inline]
            pub const fn is_newer_than(self, other: Self) -> bool {
                self.distance(other) > 0
            }
        }

        impl Wrapping for $name {
            const BITS: u32 = $bits;
            #[inline]
            fn value(self) -> u32 {
                self.0 as u32
            }
        }

        impl Add<$raw> for $name {
            type Output = Self;
            #[inline]
            fn add(self, steps: $raw) -> Self {
                Self::new(self.0.wrapping_add(steps))
            }
        }

        impl Sub<$raw> for $name {
            type Output = Self;
            #[inline]
            fn sub(self, steps: $raw) -> Self {
                Self::new(self.0.wrapping_sub(steps))
            }
        }

        impl AddAssign<$raw> for $name {
            #[inline]
            fn add_assign(&mut self, steps: $raw) {
                *self = *self + steps;
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    )+};
}

wrapping! {
    /// Sequence number of RTP and of transport-wide congestion control.
    SeqNo(u16), 16;
    /// Timestamp of RTP, in ticks of the codec's clock.
    RtpTimestamp(u32), 32;
    /// Picture id of VP8 and VP9 in its 15-bit form (RFC 7741 section 4.2).
    PictureId(u16), 15;
    /// Index of a temporal base layer picture of VP8 and VP9 (RFC 7741 section 4.2).
    Tl0PicIdx(u8), 8;
    /// Reference time of transport-cc feedback, in units of 64 ms.
    ReferenceTime(u32), 24;
}

pub type SeqUnwrapper = Unwrapper<SeqNo>;
pub type TimestampUnwrapper = Unwrapper<RtpTimestamp>;
pub type PictureIdUnwrapper = Unwrapper<PictureId>;
pub type Tl0PicIdxUnwrapper = Unwrapper<Tl0PicIdx>;
pub type ReferenceTimeUnwrapper = Unwrapper<ReferenceTime>;

/// Turns wrapping numbers into numbers that grow for ever.
///
/// Every number is placed as near as possible to the highest one seen, so reordering by less than half
/// the circle does no harm. The first number is placed one turn above zero: what comes before it in
/// sequence but after it in time still has a place.
#[derive(Clone, Copy, Debug)]
pub struct Unwrapper<N> {
    highest: Option<u64>,
    of: std::marker::PhantomData<N>,
}

impl<N> Default for Unwrapper<N> {
    fn default() -> Self {
        Unwrapper { highest: None, of: std::marker::PhantomData }
    }
}

impl<N: Wrapping> Unwrapper<N> {
    /// The number's place; remembers it when it is the highest.
    #[inline]
    pub fn unwrap(&mut self, number: N) -> u64 {
        let place = self.place(number);
        if self.highest.is_none_or(|highest| place > highest) {
            self.highest = Some(place);
        }
        place
    }

    /// The number's place, remembering nothing: for numbers that come from an untrusted reference, as in a NACK.
    #[inline]
    pub fn place(&self, number: N) -> u64 {
        let turn = 1u64 << N::BITS;
        match self.highest {
            None => turn + u64::from(number.value()),
            Some(highest) => {
                let steps = distance(number.value(), (highest & (turn - 1)) as u32, N::BITS);
                highest.saturating_add_signed(steps)
            }
        }
    }

    /// The highest place so far.
    #[inline]
    pub fn highest(&self) -> Option<u64> {
        self.highest
    }
}

/// Steps from `earlier` to `later` on a circle of `2^bits`.
#[inline]
const fn distance(later: u32, earlier: u32, bits: u32) -> i64 {
    let unused = 32 - bits;
    let steps = ((later.wrapping_sub(earlier) << unused) as i32 >> unused) as i64;
    let half_way = 1i64 << (bits - 1);
    if steps == -half_way && later > earlier { half_way } else { steps }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shorter_way_round_decides_which_is_newer() {
        for (later, earlier, steps) in
            [(1, 0, 1), (0, 1, -1), (0, 65535, 1), (65535, 0, -1), (100, 65500, 136), (7, 7, 0)]
        {
            assert_eq!(SeqNo(later).distance(SeqNo(earlier)), steps);
            assert_eq!(SeqNo(later).is_newer_than(SeqNo(earlier)), steps > 0);
        }
    }

    #[test]
    fn of_two_numbers_half_a_turn_apart_exactly_one_is_newer() {
        for (a, b) in [(0u16, 0x8000u16), (1, 0x8001), (0x7fff, 0xffff)] {
            assert!(SeqNo(b).is_newer_than(SeqNo(a)));
            assert!(!SeqNo(a).is_newer_than(SeqNo(b)));
        }
        assert!(Tl0PicIdx(200).is_newer_than(Tl0PicIdx(72)) != Tl0PicIdx(72).is_newer_than(Tl0PicIdx(200)));
        assert!(PictureId(0x4000).is_newer_than(PictureId(0)) != PictureId(0).is_newer_than(PictureId(0x4000)));
        let (a, b) = (RtpTimestamp(0), RtpTimestamp(0x8000_0000));
        assert!(a.is_newer_than(b) != b.is_newer_than(a));
    }

    #[test]
    fn a_picture_id_wraps_after_15_bits_and_an_index_after_8() {
        assert_eq!(PictureId(0x7fff).next(), PictureId(0));
        assert_eq!(PictureId(0).previous(), PictureId(0x7fff));
        assert_eq!(PictureId(0x7ffe) + 5, PictureId(3));
        assert_eq!(PictureId(3).distance(PictureId(0x7ffe)), 5);
        assert_eq!(PictureId::new(0xffff), PictureId(0x7fff));
        assert_eq!(Tl0PicIdx(2).distance(Tl0PicIdx(255)), 3);
        assert_eq!(Tl0PicIdx(255) + 3, Tl0PicIdx(2));
        assert_eq!(Tl0PicIdx(2) - 3, Tl0PicIdx(255));
    }

    #[test]
    fn unwrapping_survives_wraps_and_reordering() {
        let mut unwrapper = SeqUnwrapper::default();
        let start = unwrapper.unwrap(SeqNo(65534));
        let arrivals = [(65535, 1), (1, 3), (0, 2), (65533, -1), (2, 4), (30000, 30002), (60000, 60002), (4, 65542)];
        for (number, steps) in arrivals {
            assert_eq!(unwrapper.unwrap(SeqNo(number)), start.saturating_add_signed(steps), "{number}");
        }
    }

    #[test]
    fn numbers_before_the_very_first_one_still_have_a_place() {
        let mut unwrapper = SeqUnwrapper::default();
        assert_eq!(unwrapper.unwrap(SeqNo(0)), 65536);
        assert_eq!(unwrapper.unwrap(SeqNo(65535)), 65535);
        assert_eq!(unwrapper.unwrap(SeqNo(32768 + 1)), 32769);
        assert_eq!(unwrapper.highest(), Some(65536));
    }

    #[test]
    fn asking_for_a_place_changes_nothing() {
        let mut unwrapper = SeqUnwrapper::default();
        let start = unwrapper.unwrap(SeqNo(10));
        assert_eq!(unwrapper.place(SeqNo(30010)), start + 30000);
        assert_eq!(unwrapper.highest(), Some(start));
    }

    #[test]
    fn every_width_counts_turns_without_drift() {
        fn walk<N: Wrapping + PartialEq>(step: u32, number: impl Fn(u32) -> N) {
            let mut unwrapper = Unwrapper::<N>::default();
            let mask = (1u64 << N::BITS) - 1;
            let mut expected = 1u64 << N::BITS;
            for _ in 0..2000 {
                assert_eq!(unwrapper.unwrap(number((expected & mask) as u32)), expected);
                expected += u64::from(step);
            }
        }
        walk(1009, |v| SeqNo(v as u16));
        walk(501, |v| PictureId(v as u16));
        walk(5, |v| Tl0PicIdx(v as u8));
        walk(900_000_001, RtpTimestamp);
        walk(777_777, ReferenceTime);
    }
}
