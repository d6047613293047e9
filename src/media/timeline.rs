//! How the RTP clocks of two layers of one source stand to each other.
//!
//! The layers of a simulcast source count from different random starts. Their sender reports (RFC 3550
//! section 6.4.1) say which timestamp belongs to which instant of the sender's own clock; until they come, the
//! arrival of the newest packets has to do.

use std::time::{Duration, Instant};

use crate::media::report::{Reception, Reference};

/// One layer's clock as far as it is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timeline {
    report: Option<Reference>,
    newest: Option<(Instant, u32)>,
}

impl Timeline {
    pub fn of(reception: &Reception) -> Self {
        Timeline { report: reception.reference(), newest: reception.last_arrival().zip(reception.last_timestamp()) }
    }

    /// What to add to a timestamp of `self` to get the one that `other` has at the same instant.
    pub fn distance_to(&self, other: &Timeline, clock_rate: u32) -> Option<u32> {
        if let (Some(own), Some(others)) = (self.report, other.report) {
            return Some(others.timestamp_at(own.ntp, clock_rate).wrapping_sub(own.rtp_timestamp));
        }
        let ((own_at, own), (other_at, others)) = (self.newest?, other.newest?);
        let ticks = if own_at >= other_at {
            ticks(own_at - other_at, clock_rate)
        } else {
            ticks(other_at - own_at, clock_rate).wrapping_neg()
        };
        Some(others.wrapping_add(ticks).wrapping_sub(own))
    }
}

fn ticks(duration: Duration, clock_rate: u32) -> u32 {
    ((duration.as_micros() as u64).wrapping_mul(u64::from(clock_rate)) / 1_000_000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(ntp_seconds: u64, rtp_timestamp: u32) -> Timeline {
        let report = Reference { ntp: ntp_seconds << 32, rtp_timestamp, at: Instant::now() };
        Timeline { report: Some(report), newest: None }
    }

    #[test]
    fn sender_reports_align_two_layers_whatever_their_starts() {
        let (low, high) = (reported(10, 1_000), reported(12, 500_000));
        // At second 12 the low layer stands at 1,000 + 180,000.
        assert_eq!(high.distance_to(&low, 90_000), Some(181_000u32.wrapping_sub(500_000)));
        assert_eq!(low.distance_to(&high, 90_000), Some(320_000u32.wrapping_sub(1_000)));
    }

    #[test]
    fn without_reports_the_arrivals_align_them() {
        let start = Instant::now();
        let low = Timeline { report: None, newest: Some((start, 3_000)) };
        assert_eq!(Timeline::default().distance_to(&low, 90_000), None);
        let high = Timeline { report: None, newest: Some((start + Duration::from_millis(100), u32::MAX)) };
        assert_eq!(high.distance_to(&low, 90_000), Some(12_001));
        assert_eq!(low.distance_to(&high, 90_000), Some(12_001u32.wrapping_neg()));
    }
}
