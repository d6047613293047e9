//! One received stream: its numbering without wrap-around, and loss and jitter as RFC 3550 appendix A has them.

use std::time::{Duration, Instant};

use super::{Echo, RateMeter, Reference, Report, smooth_score};

/// A jump forward beyond this is a restart or an attack, not loss (RFC 3550 appendix A.1).
const MAX_DROPOUT: u16 = 3000;

/// A packet older than this is no longer "late". RFC 3550 suggests 100; browsers that resend without RTX
/// (audio) bring packets back a round trip later, which at 250 packets/s and 1 s is 250. Not one more than is
/// remembered: a packet that comes twice would be forwarded twice under one index, and an index is a nonce (RFC 7714
/// section 8.1).
const MAX_MISORDER: u16 = SEEN as u16 - 1;

/// How long a producer may be silent before its score is 0.
const SILENCE: Duration = Duration::from_millis(1500);

/// Where a packet stands in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Newer than all before it; packets may be missing in between.
    Newest,
    /// Older than the newest, and not seen before.
    Late,
    /// Seen before: drop it before it costs anything.
    Duplicate,
    /// The sender started over at another sequence number; what was known of earlier packets is void.
    Restart,
    /// Too far from the stream to be believed. A second one in sequence makes it a [`Order::Restart`].
    Stray,
}

/// What [`Reception`] says about one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// The sequence number without wrap-around; only ever compared with others of the same stream. Starts
    /// at 65536 + the first packet's number, so that packets from before it have one too.
    pub sequence: u64,
    pub order: Order,
}

/// One received SSRC. What each packet touches comes first, and together.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Reception {
    /// Bit n: `highest - n` was seen. 512 packets: 2 s at 250 packets/s.
    seen: [u64; SEEN_WORDS],
    /// Highest sequence number (extended).
    highest: u64,
    received: u64,
    bytes: u64,
    rate: RateMeter,
    last_arrival: Option<Instant>,
    /// RFC 3550 appendix A.8, scaled by 16.
    jitter_16: u32,
    last_timestamp: u32,
    clock_rate: u32,
    /// Where a stray must continue to be believed (RFC 3550's `bad_seq`).
    stray_next: Option<u16>,
    started: bool,
    /// Packets were not looked at for a while: what is missing before the next one is not loss.
    resumes: bool,

    /// First sequence number of the current run (extended).
    base: u64,
    expected_before_run: u64,
    repaired: u64,
    duplicates: u64,
    reported_expected: u64,
    reported_received: u64,
    scored_expected: u64,
    scored_received: u64,
    fraction_lost: u8,
    score: u8,
    reference: Option<Reference>,
}

const SEEN_WORDS: usize = 8;
const SEEN: u64 = SEEN_WORDS as u64 * 64;

impl Default for Reception {
    fn default() -> Self {
        Reception {
            started: false,
            base: 0,
            highest: 0,
            stray_next: None,
            resumes: false,
            seen: [0; SEEN_WORDS],
            received: 0,
            expected_before_run: 0,
            bytes: 0,
            repaired: 0,
            duplicates: 0,
            rate: RateMeter::default(),
            last_arrival: None,
            jitter_16: 0,
            last_timestamp: 0,
            clock_rate: 0,
            reported_expected: 0,
            reported_received: 0,
            scored_expected: 0,
            scored_received: 0,
            fraction_lost: 0,
            score: 10,
            reference: None,
        }
    }
}

impl Reception {
    pub fn new() -> Reception {
        Reception::default()
    }

    /// A packet of the stream itself came. `bytes` is what counts as media: the RTP packet's length.
    /// Duplicates and strays are counted and change nothing else.
    pub fn receive(
        &mut self,
        sequence: u16,
        rtp_timestamp: u32,
        clock_rate: u32,
        arrival: Instant,
        bytes: usize,
    ) -> Arrived {
        let arrived = self.place(sequence, true);
        match arrived.order {
            Order::Duplicate => self.duplicates += 1,
            Order::Stray => {}
            order => {
                self.received += 1;
                self.bytes += bytes as u64;
                self.rate.add(bytes, arrival);
                match order {
                    Order::Newest => self.sample_jitter(rtp_timestamp, clock_rate, arrival),
                    Order::Restart => self.jitter_16 = 0,
                    // A late packet's transit is not a sample of the path's jitter: it may be a resend.
                    _ => return arrived,
                }
                self.last_arrival = Some(arrival);
                self.last_timestamp = rtp_timestamp;
                self.clock_rate = clock_rate;
            }
        }
        arrived
    }

    /// A packet of the stream came over its RTX stream (RFC 4588). Loss as reported to the sender stays
    /// what the path lost; bytes and score count the repair. Before the first packet of the stream itself,
    /// and far from it, nothing can be said: a stray.
    pub fn repair(&mut self, sequence: u16, arrival: Instant, bytes: usize) -> Arrived {
        if !self.started {
            return Arrived { sequence: sequence as u64, order: Order::Stray };
        }
        let arrived = self.place(sequence, false);
        match arrived.order {
            Order::Duplicate => self.duplicates += 1,
            Order::Newest | Order::Late => {
                self.repaired += 1;
                self.bytes += bytes as u64;
                self.rate.add(bytes, arrival);
            }
            Order::Stray | Order::Restart => {}
        }
        arrived
    }

    /// The stream was not looked at for a while (its producer was paused), and is again from the next packet on, wherever
    /// that one stands: what lies between is not lost, and nobody needs it.
    pub fn resume(&mut self) {
        self.resumes = self.started;
    }

    fn place(&mut self, sequence: u16, may_restart: bool) -> Arrived {
        if !self.started {
            self.begin(0x1_0000 | sequence as u64);
            self.started = true;
            return Arrived { sequence: self.highest, order: Order::Newest };
        }
        let ahead = sequence.wrapping_sub(self.highest as u16);
        if ahead == 0 {
            return Arrived { sequence: self.highest, order: Order::Duplicate };
        }
        if self.resumes && may_restart && ahead.wrapping_neg() > MAX_MISORDER {
            if u64::from(ahead) < SEEN {
                // What was seen before can come again, for it is near enough to count as late.
                self.base += u64::from(ahead) - 1;
                self.advance(u64::from(ahead));
                (self.resumes, self.stray_next) = (false, None);
                return Arrived { sequence: self.highest, order: Order::Newest };
            }
            self.expected_before_run += self.highest + 1 - self.base;
            self.begin(self.highest + u64::from(ahead));
            return Arrived { sequence: self.highest, order: Order::Newest };
        }
        if ahead < MAX_DROPOUT {
            self.advance(ahead as u64);
            self.stray_next = None;
            return Arrived { sequence: self.highest, order: Order::Newest };
        }
        let behind = ahead.wrapping_neg();
        if behind <= MAX_MISORDER {
            return self.look_back(behind as u64);
        }
        if may_restart && self.stray_next == Some(sequence) {
            self.expected_before_run += self.highest + 1 - self.base;
            let next_cycle = (self.highest >> 16) + 1;
            self.begin(next_cycle << 16 | sequence as u64);
            return Arrived { sequence: self.highest, order: Order::Restart };
        }
        if may_restart {
            self.stray_next = Some(sequence.wrapping_add(1));
        }
        Arrived { sequence: sequence as u64, order: Order::Stray }
    }

    fn begin(&mut self, at: u64) {
        self.base = at;
        self.highest = at;
        self.stray_next = None;
        self.resumes = false;
        self.seen = [0; SEEN_WORDS];
        self.seen[0] = 1;
    }

    fn advance(&mut self, by: u64) {
        self.highest += by;
        let (words, bits) = ((by / 64) as usize, by % 64);
        for i in (0..SEEN_WORDS).rev() {
            let from = |n: usize| i.checked_sub(n).map_or(0, |i| self.seen[i]);
            self.seen[i] = match bits {
                0 => from(words),
                _ => from(words) << bits | from(words + 1) >> (64 - bits),
            };
        }
        self.seen[0] |= 1;
    }

    fn look_back(&mut self, behind: u64) -> Arrived {
        let sequence = self.highest - behind;
        let (word, bit) = (&mut self.seen[(behind / 64) as usize], 1 << (behind % 64));
        if *word & bit != 0 {
            return Arrived { sequence, order: Order::Duplicate };
        }
        *word |= bit;
        self.base = self.base.min(sequence);
        Arrived { sequence, order: Order::Late }
    }

    /// RFC 3550 appendix A.8: the difference of transit times, smoothed by 1/16.
    fn sample_jitter(&mut self, rtp_timestamp: u32, clock_rate: u32, arrival: Instant) {
        let Some(last) = self.last_arrival else { return };
        // Packets of one frame carry one timestamp and leave over several ms by pacing: no samples.
        if rtp_timestamp == self.last_timestamp || clock_rate == 0 {
            return;
        }
        let elapsed = arrival.saturating_duration_since(last);
        let arrived = (elapsed.as_micros() as u64).wrapping_mul(clock_rate as u64) / 1_000_000;
        let sent = rtp_timestamp.wrapping_sub(self.last_timestamp) as i32 as i64;
        let apart = (arrived as i64 - sent).unsigned_abs();
        // A pause or a jump of the sender's clock is not jitter.
        if apart > 5 * clock_rate as u64 {
            return;
        }
        let jitter = self.jitter_16 as u64;
        self.jitter_16 = (jitter + apart - ((jitter + 8) >> 4)) as u32;
    }

    /// A sender report about this stream came.
    pub fn sender_report(&mut self, ntp: u64, rtp_timestamp: u32, now: Instant) {
        self.reference = Some(Reference { ntp, rtp_timestamp, at: now });
    }

    /// The newest sender report, for timestamp alignment and translated sender reports.
    pub fn reference(&self) -> Option<Reference> {
        self.reference
    }

    /// The block for the next receiver report; the loss fraction is since the last call, so call it once
    /// per report sent. `None` before the first packet.
    pub fn report_block(&mut self, now: Instant) -> Option<Report> {
        if !self.started {
            return None;
        }
        let expected = self.expected();
        let expected_since = expected - self.reported_expected.min(expected);
        let received_since = self.received - self.reported_received;
        let lost_since = expected_since.saturating_sub(received_since);
        self.reported_expected = expected;
        self.reported_received = self.received;
        self.fraction_lost = (lost_since * 256).checked_div(expected_since).unwrap_or(0).min(255) as u8;
        self.rate_reception();
        let echo = self.reference.map(|r| Echo::new(r.ntp, r.at));
        Some(Report {
            fraction_lost: self.fraction_lost,
            cumulative_lost: self.packets_lost().clamp(-0x80_0000, 0x7f_ffff) as i32,
            highest_sequence: (self.highest - 0x1_0000) as u32,
            jitter: self.jitter_16 >> 4,
            last_sender_report: echo.map_or(0, |echo| echo.ntp_middle),
            delay_since_sender_report: echo.map_or(0, |echo| echo.delay(now)),
        })
    }

    /// The score of what arrived since the last report, repairs included.
    fn rate_reception(&mut self) {
        let expected = self.expected();
        let usable = self.received + self.repaired;
        let expected_since = expected - self.scored_expected.min(expected);
        let usable_since = usable - self.scored_received;
        (self.scored_expected, self.scored_received) = (expected, usable);
        if expected_since > 0 {
            let lost = 1.0 - (usable_since as f32 / expected_since as f32).min(1.0);
            self.score = smooth_score(self.score, lost);
        }
    }

    fn expected(&self) -> u64 {
        match self.started {
            true => self.expected_before_run + self.highest + 1 - self.base,
            false => 0,
        }
    }

    pub fn packets(&self) -> u64 {
        self.received
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// As the path lost them, repaired or not; negative when the path doubled more than it lost.
    pub fn packets_lost(&self) -> i64 {
        self.expected() as i64 - self.received as i64
    }

    pub fn packets_repaired(&self) -> u64 {
        self.repaired
    }

    pub fn packets_duplicated(&self) -> u64 {
        self.duplicates
    }

    /// 0 to 1, of the last report interval.
    pub fn fraction_lost(&self) -> f64 {
        self.fraction_lost as f64 / 256.0
    }

    pub fn jitter_ms(&self) -> f64 {
        match self.clock_rate {
            0 => 0.0,
            rate => (self.jitter_16 >> 4) as f64 * 1000.0 / rate as f64,
        }
    }

    pub fn bitrate_bps(&self, now: Instant) -> u64 {
        self.rate.bitrate_bps(now)
    }

    /// Highest sequence number so far, extended as in [`Arrived`].
    pub fn highest(&self) -> Option<u64> {
        self.started.then_some(self.highest)
    }

    pub fn last_arrival(&self) -> Option<Instant> {
        self.last_arrival
    }

    pub fn last_timestamp(&self) -> Option<u32> {
        self.last_arrival.map(|_| self.last_timestamp)
    }

    /// 0 (nothing arrives) to 10 (nothing is missing after repair).
    pub fn score(&self, now: Instant) -> u8 {
        match self.last_arrival {
            Some(at) if now.saturating_duration_since(at) < SILENCE => self.score,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn numbers_go_on_across_the_wrap() {
        let (now, mut stream) = (Instant::now(), Reception::new());
        assert_eq!(stream.receive(65534, 0, 90_000, now, 100).sequence, 0x1_fffe);
        assert_eq!(stream.receive(1, 0, 90_000, now, 100).sequence, 0x2_0001);
        assert_eq!(stream.receive(65535, 0, 90_000, now, 100), Arrived { sequence: 0x1_ffff, order: Order::Late });
        let report = stream.report_block(now).unwrap();
        assert_eq!(report.highest_sequence, 0x1_0001);
        assert_eq!(report.cumulative_lost, 1);
        assert_eq!(report.fraction_lost, 64, "one of four");
    }

    #[test]
    fn a_packet_from_before_the_first_is_late_and_not_negative_loss() {
        let (now, mut stream) = (Instant::now(), Reception::new());
        stream.receive(0, 0, 90_000, now, 100);
        assert_eq!(stream.receive(65535, 0, 90_000, now, 100), Arrived { sequence: 0xffff, order: Order::Late });
        assert_eq!(stream.packets_lost(), 0);
    }

    #[test]
    fn every_packet_sent_twice_is_a_duplicate_however_they_are_mixed() {
        let (now, mut stream) = (Instant::now(), Reception::new());
        let mut seed = 7u32;
        let mut order: Vec<u16> = (0..400).collect();
        for i in 1..order.len() {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            order.swap(i, i.saturating_sub((seed >> 24) as usize % 60));
        }
        for &n in &order {
            let verdict = stream.receive(n.wrapping_sub(200), 0, 90_000, now, 100).order;
            assert!(matches!(verdict, Order::Newest | Order::Late), "{n}: {verdict:?}");
        }
        for &n in &order {
            assert_eq!(stream.receive(n.wrapping_sub(200), 0, 90_000, now, 100).order, Order::Duplicate, "{n}");
        }
        assert_eq!((stream.packets(), stream.packets_duplicated(), stream.packets_lost()), (400, 400, 0));
    }

    #[test]
    fn a_packet_that_comes_twice_is_taken_once_however_far_behind_it_is() {
        let (now, mut stream) = (Instant::now(), Reception::new());
        stream.receive(10_000, 0, 90_000, now, 100);
        stream.receive(12_000, 0, 90_000, now, 100);
        for behind in 1..=2000 {
            let lost = 12_000 - behind;
            let believed = matches!(stream.repair(lost, now, 100).order, Order::Newest | Order::Late);
            assert_eq!(believed, u64::from(behind) < SEEN, "{behind} behind");
            let again = stream.repair(lost, now, 100).order;
            assert!(matches!(again, Order::Duplicate | Order::Stray), "{behind} behind, again: {again:?}");
        }
    }

    #[test]
    fn a_stray_is_not_believed_until_it_continues() {
        let (now, mut stream) = (Instant::now(), Reception::new());
        stream.receive(100, 0, 90_000, now, 100);
        assert_eq!(stream.receive(40_000, 0, 90_000, now, 100).order, Order::Stray);
        let next = stream.receive(101, 0, 90_000, now, 100);
        assert_eq!(next.order, Order::Newest);
        assert_eq!(stream.receive(40_000, 0, 90_000, now, 100).order, Order::Stray);
        let restart = stream.receive(40_001, 0, 90_000, now, 100);
        assert_eq!(restart.order, Order::Restart);
        assert!(restart.sequence > next.sequence, "extended numbers never go back");
        assert_eq!(restart.sequence as u16, 40_001);
        assert_eq!(stream.packets_lost(), 0, "a restart is not loss");
    }

    #[test]
    fn what_came_before_a_pause_is_not_taken_again_behind_it() {
        for skipped in [1, 2, 100, SEEN as u16 - 1, SEEN as u16, 700, 20_000] {
            let (now, mut stream) = (Instant::now(), Reception::new());
            (900..=1000).for_each(|number| _ = stream.receive(number, 0, 90_000, now, 100));
            stream.resume();
            assert_eq!(stream.receive(1000 + skipped, 0, 90_000, now, 100).order, Order::Newest);
            for number in 900..=1000 {
                let again = stream.repair(number, now, 100).order;
                assert!(matches!(again, Order::Duplicate | Order::Stray), "{skipped}: {number} is {again:?}");
            }
            assert_eq!(stream.packets_lost(), 0, "{skipped}");
            stream.receive(1002 + skipped, 0, 90_000, now, 100);
            assert_eq!(stream.packets_lost(), 1, "{skipped}");
        }
    }

    #[test]
    fn what_was_not_looked_at_is_not_lost() {
        for skipped in [1, 100, 2999, 3000, 20_000, 40_000, 60_000] {
            let (now, mut stream) = (Instant::now(), Reception::new());
            let before = stream.receive(65_000, 0, 90_000, now, 100).sequence;
            stream.resume();
            assert_eq!(stream.receive(64_990, 0, 90_000, now, 100).order, Order::Late, "from before the pause");
            let next = 65_000u16.wrapping_add(skipped);
            let resumed = stream.receive(next, 0, 90_000, now, 100);
            assert_eq!((resumed.order, resumed.sequence as u16), (Order::Newest, next));
            assert!(resumed.sequence > before, "extended numbers never go back");
            assert_eq!(stream.receive(next.wrapping_add(2), 0, 90_000, now, 100).order, Order::Newest);
            assert_eq!(stream.packets_lost(), 9 + 1, "ten before the pause but one, and one behind it");
        }
    }

    #[test]
    fn repaired_packets_raise_the_score_but_not_what_is_reported() {
        let (start, mut stream) = (Instant::now(), Reception::new());
        for n in 0..100u16 {
            let at = start + 10 * MS * n as u32;
            if n % 5 != 3 {
                stream.receive(n, n as u32 * 900, 90_000, at, 1000);
            } else {
                stream.receive(n + 1, n as u32 * 900, 90_000, at, 1000);
                assert_eq!(stream.repair(n, at, 1000).order, Order::Late);
                assert_eq!(stream.repair(n, at, 1000).order, Order::Duplicate);
            }
        }
        let report = stream.report_block(start + 1000 * MS).unwrap();
        assert_eq!(report.cumulative_lost, 20);
        assert_eq!(report.fraction_lost, 51, "a fifth in 256ths");
        assert_eq!(stream.packets_repaired(), 20);
        assert_eq!(stream.score(start + 1000 * MS), 10);
        assert_eq!(stream.score(start + 3000 * MS), 0, "silent");
    }

    #[test]
    fn loss_is_a_share_of_the_interval_and_a_sum_of_all() {
        let (now, mut stream) = (Instant::now(), Reception::new());
        for n in (0..=200u16).filter(|n| *n == 0 || n % 2 == 0) {
            stream.receive(n, 0, 90_000, now, 100);
        }
        let first = stream.report_block(now).unwrap();
        for n in 201..=300u16 {
            stream.receive(n, 0, 90_000, now, 100);
        }
        let second = stream.report_block(now).unwrap();
        assert_eq!((first.fraction_lost, first.cumulative_lost), (127, 100));
        assert_eq!((second.fraction_lost, second.cumulative_lost), (0, 100));
        assert!(stream.score(now) < 10);
    }

    /// The recurrence of RFC 3550 appendix A.8 in floating point, as the oracle.
    #[test]
    fn jitter_follows_the_recurrence_of_the_rfc() {
        let (start, mut stream) = (Instant::now(), Reception::new());
        let (mut oracle, mut last_transit) = (0.0f64, None);
        for n in 0..500u32 {
            let delay_ms = (n * 7919) % 13;
            stream.receive(n as u16, n * 960, 48_000, start + MS * (n * 20 + delay_ms), 100);
            let transit = delay_ms as f64 * 48.0;
            if let Some(last) = last_transit {
                let apart: f64 = transit - last;
                oracle += (apart.abs() - oracle) / 16.0;
            }
            last_transit = Some(transit);
        }
        let jitter = stream.report_block(start).unwrap().jitter as f64;
        assert!((jitter - oracle).abs() <= 1.0, "{jitter} against {oracle}");
        assert!((stream.jitter_ms() - oracle / 48.0).abs() < 0.1);
    }
}
