//! What one RTP stream did: loss, jitter, bitrate and round-trip time as RFC 3550 defines them.
//!
//! [`Reception`] belongs to each received SSRC (a producer's layer), [`Transmission`] to each sent one (a
//! consumer). The shard feeds them packet by packet and reads them for RTCP, statistics and scores. They
//! never look at a clock, never see an RTCP packet and never allocate.

use std::time::{Duration, Instant};

mod rate;
mod reception;
mod transmission;

pub use rate::RateMeter;
pub use reception::{Arrived, Order, Reception};
pub use transmission::{Sent, Transmission};

/// A reception report block (RFC 3550 section 6.4.1) without its SSRC, as sent and as received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In 256ths, since the last report.
    pub fraction_lost: u8,
    /// Since the start, 24 bits signed: more duplicates than losses make it negative.
    pub cumulative_lost: i32,
    /// Highest sequence number, with the cycles in the upper half.
    pub highest_sequence: u32,
    /// In units of the stream's clock.
    pub jitter: u32,
    /// Middle 32 bits of the NTP time of the last sender report, 0 for none (LSR).
    pub last_sender_report: u32,
    /// Since that report arrived, in 1/65536 s (DLSR).
    pub delay_since_sender_report: u32,
}

/// What a sender report says of its stream (RFC 3550 section 6.4.1), and when it came: the bridge between
/// a stream's timestamps and the sender's wall clock, by which layers and lip sync are aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// 32.32 fixed point seconds, the sender's clock.
    pub ntp: u64,
    pub rtp_timestamp: u32,
    pub at: Instant,
}

impl Reference {
    /// The pair carried forward to `now`: the sender's clock and timestamp if both went on at their rate.
    pub fn at(&self, now: Instant, clock_rate: u32) -> (u64, u32) {
        let elapsed = now.saturating_duration_since(self.at);
        let ticks = elapsed.as_micros() as u64 * clock_rate as u64 / 1_000_000;
        (self.ntp.wrapping_add(ntp_of(elapsed)), self.rtp_timestamp.wrapping_add(ticks as u32))
    }

    /// The timestamp that this stream has at the sender's wall-clock time `ntp`.
    pub fn timestamp_at(&self, ntp: u64, clock_rate: u32) -> u32 {
        let apart = ntp.wrapping_sub(self.ntp) as i64;
        let ticks = (apart as i128 * clock_rate as i128) >> 32;
        self.rtp_timestamp.wrapping_add(ticks as u32)
    }
}

/// A duration in NTP's 32.32 fixed point.
pub fn ntp_of(duration: Duration) -> u64 {
    (duration.as_secs() << 32) + ((duration.subsec_nanos() as u64) << 32) / 1_000_000_000
}

/// A peer's NTP stamp to be echoed with the delay since it came: the LSR/DLSR of a receiver report and
/// the LRR/DLRR of an XR block (RFC 3611 sections 4.4 and 4.5) are both this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    pub ntp_middle: u32,
    pub at: Instant,
}

impl Echo {
    pub fn new(ntp: u64, at: Instant) -> Echo {
        Echo { ntp_middle: (ntp >> 16) as u32, at }
    }

    /// Whether a report speaks of this stamp. A receiver that keeps the time in units of its own gives it back rounded, by
    /// one in 65,536 s at most; whether it does depends on the fraction of a second, so with a report each second either
    /// all of them come back exact or none. 0 is a receiver that had none (RFC 3550 section 6.4.1).
    pub fn is_echoed_by(&self, echo: u32) -> bool {
        echo != 0 && echo.wrapping_sub(self.ntp_middle).wrapping_add(1) <= 2
    }

    /// Since it came, in 1/65536 s.
    pub fn delay(&self, now: Instant) -> u32 {
        (ntp_of(now.saturating_duration_since(self.at)) >> 16).min(u32::MAX as u64) as u32
    }
}

/// Round-trip time from an echoed stamp: `now` is when the echo came, `sent` when the stamp left.
/// `None` when the echo claims to have waited longer than there was time (a lie, or clock drift).
pub fn round_trip(now: Instant, sent: Instant, delay: u32) -> Option<Duration> {
    let waited = Duration::from_nanos((delay as u64 * 1_000_000_000) >> 16);
    // 1 ms of drift is an RTT of nothing, as on loopback; more is not believable.
    let total = now.saturating_duration_since(sent) + Duration::from_millis(1);
    total.checked_sub(waited).map(|rtt| rtt.saturating_sub(Duration::from_millis(1)))
}

/// Falls at once, rises by half of the way: one good second after a bad one is not yet a good link.
/// The fourth power puts 10 % of loss at 7 and 20 % at 4, about where a picture becomes poor and useless.
fn smooth_score(old: u8, lost: f32) -> u8 {
    let fresh = (10.0 * (1.0 - lost).powi(4)).round() as u8;
    if fresh <= old { fresh } else { old + (fresh - old).div_ceil(2) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_report_echoes_the_sender_report_and_the_receiver_gets_the_round_trip() {
        let start = Instant::now();
        let (mut sender, mut receiver) = (Transmission::new(), Reception::new());
        let ntp = 0x1234_5678_9abc_def0;
        sender.send(1, 100, 0, start);
        sender.sender_report(ntp, start);
        receiver.receive(1, 0, 90_000, start + 30 * MS, 112);
        receiver.sender_report(ntp, 0, start + 30 * MS);
        let report = receiver.report_block(start + 530 * MS).unwrap();
        assert_eq!(report.last_sender_report, 0x5678_9abc);
        assert_eq!(report.delay_since_sender_report, 0x8000, "half a second");
        sender.sender_report(ntp + (1 << 32), start + 560 * MS);
        let rtt = sender.receiver_report(&report, start + 570 * MS).unwrap();
        assert!(rtt.abs_diff(70 * MS) < MS, "the report that crossed a newer sender report counts too: {rtt:?}");
        assert_eq!(sender.rtt(), Some(rtt));
    }

    #[test]
    fn timestamps_are_carried_along_the_senders_clock() {
        let at = Instant::now();
        let reference = Reference { ntp: 7 << 32, rtp_timestamp: u32::MAX - 44_999, at };
        assert_eq!(reference.at(at + 1000 * MS, 90_000), (8 << 32, 45_000));
        assert_eq!(reference.timestamp_at(8 << 32, 90_000), 45_000);
        assert_eq!(reference.timestamp_at(6 << 32, 90_000), u32::MAX - 134_999);
    }

    #[test]
    fn a_stream_costs_less_than_half_a_kilobyte() {
        assert!(size_of::<Reception>() <= 384, "{}", size_of::<Reception>());
        assert!(size_of::<Transmission>() <= 256, "{}", size_of::<Transmission>());
    }
}
