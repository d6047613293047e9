//! NTP time as RTCP and header extensions carry it (RFC 3550 section 4).

use std::time::Duration;

/// Seconds since 1900 in 32.32 fixed point; wraps in 2036, as every user of it expects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ntp(pub u64);

/// From 1 Jan 1900 to 1 Jan 1970.
const UNIX_EPOCH_S: u64 = 2_208_988_800;

impl Ntp {
    /// From the time since 1 Jan 1970.
    #[inline]
    pub const fn from_unix(since_1970: Duration) -> Ntp {
        let seconds = since_1970.as_secs().wrapping_add(UNIX_EPOCH_S);
        Ntp(seconds << 32 | fraction(since_1970.subsec_nanos()))
    }

    /// Time since 1 Jan 1970; saturates at zero for the years before it.
    pub const fn to_unix(self) -> Duration {
        let Some(seconds) = (self.0 >> 32).checked_sub(UNIX_EPOCH_S) else { return Duration::ZERO };
        let nanos = ((self.0 & 0xffff_ffff) * 1_000_000_000) >> 32;
        Duration::new(seconds, nanos as u32)
    }

    /// The middle 32 bits: 16.16 seconds, as LSR, LRR and round-trip times use them.
    #[inline]
    pub const fn middle32(self) -> u32 {
        (self.0 >> 16) as u32
    }
}

/// A duration in 16.16 seconds (DLSR, DLRR); saturates at 18 hours.
pub const fn compact(duration: Duration) -> u32 {
    let seconds = duration.as_secs();
    if seconds > 0xffff {
        return u32::MAX;
    }
    (seconds << 16 | fraction(duration.subsec_nanos()) >> 16) as u32
}

/// The duration that 16.16 seconds are.
pub const fn from_compact(seconds_16_16: u32) -> Duration {
    let nanos = ((seconds_16_16 & 0xffff) as u64 * 1_000_000_000) >> 16;
    Duration::new((seconds_16_16 >> 16) as u64, nanos as u32)
}

/// Round-trip time of a report that arrived at `now`, from its LSR (or LRR) and DLSR (or DLRR) fields
/// (RFC 3550 section 6.4.1). `None` when the other side has seen no report yet, or the fields contradict
/// the clock: a round trip of less than nothing or more than a minute is a lie.
pub const fn round_trip(now: Ntp, last_report: u32, delay: u32) -> Option<Duration> {
    if last_report == 0 {
        return None;
    }
    let rtt = now.middle32().wrapping_sub(last_report).wrapping_sub(delay);
    // Truncation of both ends to 1/65536 s can make a loopback round trip come out one unit below zero.
    if rtt >= u32::MAX - 1 {
        return Some(Duration::ZERO);
    }
    if rtt > 60 << 16 { None } else { Some(from_compact(rtt)) }
}

const fn fraction(nanos: u32) -> u64 {
    ((nanos as u64) << 32) / 1_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_time_goes_there_and_back() {
        for (secs, nanos) in [(0, 0), (1, 500_000_000), (1_795_000_000, 999_999_999), (2_085_978_495, 1)] {
            let unix = Duration::new(secs, nanos);
            let back = Ntp::from_unix(unix).to_unix();
            assert!(unix - back <= Duration::from_nanos(1), "{unix:?} became {back:?}");
        }
        assert_eq!(Ntp::from_unix(Duration::ZERO), Ntp(2_208_988_800 << 32));
        assert_eq!(Ntp(0).to_unix(), Duration::ZERO);
    }

    #[test]
    fn the_middle_is_16_16_seconds() {
        assert_eq!(Ntp(0x1234_5678_9abc_def0).middle32(), 0x5678_9abc);
        assert_eq!(compact(Duration::from_millis(1500)), 0x0001_8000);
        assert_eq!(compact(Duration::from_secs(70_000)), u32::MAX);
        assert_eq!(from_compact(0x0001_8000), Duration::from_millis(1500));
    }

    #[test]
    fn a_round_trip_is_what_is_left_of_the_delay() {
        let sent = Ntp::from_unix(Duration::from_secs(1_795_000_000));
        let now = Ntp::from_unix(Duration::from_millis(1_795_000_000_250));
        let rtt = round_trip(now, sent.middle32(), compact(Duration::from_millis(200))).unwrap();
        assert!(rtt.abs_diff(Duration::from_millis(50)) < Duration::from_millis(1), "{rtt:?}");
    }

    #[test]
    fn a_lying_delay_gives_no_round_trip() {
        let now = Ntp::from_unix(Duration::from_secs(1_795_000_000));
        assert_eq!(round_trip(now, 0, 0), None);
        assert_eq!(round_trip(now, now.middle32(), compact(Duration::from_secs(5))), None);
        assert_eq!(round_trip(now, now.middle32().wrapping_add(1), 0), Some(Duration::ZERO));
    }
}
