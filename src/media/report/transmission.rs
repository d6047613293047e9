//! One sent stream: what left, and what its receiver says of it.

use std::time::{Duration, Instant};

use super::{Echo, RateMeter, Report, round_trip, smooth_score};

/// One sent SSRC, and what its receiver reports. What each packet touches comes first, and together.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Transmission {
    packets: u64,
    octets: u64,
    rate: RateMeter,
    last_sent: Option<Instant>,
    last_timestamp: u32,

    /// The last two sender reports (middle of the NTP time, when): a report may cross the newer on its way.
    sender_reports: [Option<Echo>; 2],
    rtt: Option<Duration>,
    fraction_lost: u8,
    cumulative_lost: i32,
    jitter: u32,
    reported_highest: u32,
    reported_at: Option<Instant>,
    score: u8,
}

impl Default for Transmission {
    fn default() -> Self {
        Transmission {
            packets: 0,
            octets: 0,
            rate: RateMeter::default(),
            last_timestamp: 0,
            last_sent: None,
            sender_reports: [None; 2],
            rtt: None,
            fraction_lost: 0,
            cumulative_lost: 0,
            jitter: 0,
            reported_highest: 0,
            reported_at: None,
            score: 10,
        }
    }
}

/// The counters of a sender report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    pub packets: u32,
    /// Payload only, as RFC 3550 section 6.4.1 counts them.
    pub octets: u32,
}

impl Transmission {
    pub fn new() -> Transmission {
        Transmission::default()
    }

    /// So many packets left at once, the last of them with this timestamp. `octets` is their payload without RTP
    /// headers and padding.
    #[inline]
    pub fn send(&mut self, packets: u64, octets: usize, rtp_timestamp: u32, now: Instant) {
        self.packets += packets;
        self.octets += octets as u64;
        self.rate.add(octets, now);
        self.last_timestamp = rtp_timestamp;
        self.last_sent = Some(now);
    }

    /// A sender report leaves with this NTP time; remembers it, so that the receiver's echo gives the
    /// round-trip time whichever clock `ntp` is read from.
    pub fn sender_report(&mut self, ntp: u64, now: Instant) -> Sent {
        self.sender_reports = [Some(Echo::new(ntp, now)), self.sender_reports[0]];
        Sent { packets: self.packets as u32, octets: self.octets as u32 }
    }

    /// The timestamp that a frame captured `now` would carry, by the last packet sent.
    pub fn timestamp_now(&self, now: Instant, clock_rate: u32) -> Option<u32> {
        let elapsed = now.saturating_duration_since(self.last_sent?);
        let ticks = elapsed.as_micros() as u64 * clock_rate as u64 / 1_000_000;
        Some(self.last_timestamp.wrapping_add(ticks as u32))
    }

    /// The receiver reports on this stream. Returns the round-trip time if the report holds one.
    pub fn receiver_report(&mut self, report: &Report, now: Instant) -> Option<Duration> {
        // Reports that go back are old ones, reordered on the way.
        if self.reported_at.is_some() && (report.highest_sequence.wrapping_sub(self.reported_highest) as i32) < 0 {
            return None;
        }
        self.reported_highest = report.highest_sequence;
        self.reported_at = Some(now);
        self.fraction_lost = report.fraction_lost;
        self.cumulative_lost = report.cumulative_lost;
        self.jitter = report.jitter;
        self.score = smooth_score(self.score, report.fraction_lost as f32 / 256.0);
        let sent = self.sender_reports.iter().flatten().find(|sent| sent.is_echoed_by(report.last_sender_report))?;
        let sample = round_trip(now, sent.at, report.delay_since_sender_report)?;
        self.rtt = Some(match self.rtt {
            // RFC 6298's smoothing: one crossed report is not a slow link.
            Some(rtt) => (rtt * 7 + sample) / 8,
            None => sample,
        });
        Some(sample)
    }

    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Payload octets.
    pub fn octets(&self) -> u64 {
        self.octets
    }

    pub fn bitrate_bps(&self, now: Instant) -> u64 {
        self.rate.bitrate_bps(now)
    }

    /// Smoothed.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// 0 to 1, as last reported.
    pub fn fraction_lost(&self) -> f64 {
        self.fraction_lost as f64 / 256.0
    }

    pub fn packets_lost(&self) -> i64 {
        self.cumulative_lost as i64
    }

    pub fn jitter_ms(&self, clock_rate: u32) -> f64 {
        self.jitter as f64 * 1000.0 / clock_rate.max(1) as f64
    }

    pub fn last_sent(&self) -> Option<Instant> {
        self.last_sent
    }

    pub fn last_timestamp(&self) -> Option<u32> {
        self.last_sent.map(|_| self.last_timestamp)
    }

    /// 0 to 10: what the receiver misses before repair.
    pub fn score(&self) -> u8 {
        self.score
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_report_that_claims_more_delay_than_there_was_gives_no_round_trip() {
        let (start, mut sender) = (Instant::now(), Transmission::new());
        sender.sender_report(0x1_0000, start);
        let lie = Report { last_sender_report: 1, delay_since_sender_report: u32::MAX, ..Report::default() };
        assert_eq!(sender.receiver_report(&lie, start + 100 * MS), None);
        assert_eq!(sender.rtt(), None);
    }

    #[test]
    fn a_stamp_that_comes_back_rounded_gives_the_round_trip_and_none_or_another_does_not() {
        for (stamp, echo, is_known) in [(700, 700, true), (700, 699, true), (700, 701, true), (700, 698, false)] {
            let (start, mut sender) = (Instant::now(), Transmission::new());
            sender.sender_report(stamp << 16, start);
            let report = Report { last_sender_report: echo, ..Report::default() };
            assert_eq!(sender.receiver_report(&report, start + 20 * MS).is_some(), is_known, "{echo}");
        }
        let (start, mut sender) = (Instant::now(), Transmission::new());
        sender.sender_report(1 << 16, start);
        assert_eq!(sender.receiver_report(&Report::default(), start + 20 * MS), None, "it had no sender report");
    }

    #[test]
    fn an_old_receiver_report_does_not_overwrite_a_newer() {
        let (now, mut sender) = (Instant::now(), Transmission::new());
        sender.receiver_report(&Report { highest_sequence: 500, fraction_lost: 128, ..Report::default() }, now);
        sender.receiver_report(&Report { highest_sequence: 400, fraction_lost: 0, ..Report::default() }, now);
        assert_eq!(sender.fraction_lost(), 0.5);
        assert!(sender.score() <= 1, "half of the packets missing is not a picture");
    }

    #[test]
    fn the_score_falls_at_once_and_recovers_over_some_reports() {
        let (now, mut sender) = (Instant::now(), Transmission::new());
        let mut scores = vec![sender.score()];
        for (n, fraction_lost) in [64, 0, 0, 0, 0].into_iter().enumerate() {
            sender.receiver_report(&Report { highest_sequence: n as u32, fraction_lost, ..Report::default() }, now);
            scores.push(sender.score());
        }
        assert_eq!(scores, [10, 3, 7, 9, 10, 10]);
    }
}
