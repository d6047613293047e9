//! What one RTP stream did: loss, jitter, bitrate and round-trip time as RFC 3550 defines them.
//!
//! [`Reception`] belongs to each received SSRC (a producer's layer), [`Transmission`] to each sent one (a
//! consumer). The shard feeds them packet by packet and reads them for RTCP, statistics and scores. They
//! never look at a clock, never see an RTCP packet and never allocate.

use std::time::{Duration, Instant};

/// A jump forward beyond this is a restart or an attack, not loss (RFC 3550 appendix A.1).
const MAX_DROPOUT: u16 = 3000;

/// A packet older than this is no longer "late". RFC 3550 suggests 100; browsers that resend without RTX
/// (audio) bring packets back a round trip later, which at 250 packets/s and 1 s is 250.
const MAX_MISORDER: u16 = 1000;

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

/// Bytes per second over the last second, in eight slots: 64 bytes, no division on the packet's way.
#[derive(Clone, Debug, Default)]
pub struct RateMeter {
    slots: [u32; RATE_SLOTS],
    /// When the newest slot began.
    began: Option<Instant>,
    newest: u8,
    /// Slots that hold a whole measurement; the rate of a stream that began just now is not diluted.
    filled: u8,
}

const RATE_SLOTS: usize = 8;
const RATE_SLOT: Duration = Duration::from_millis(125);

impl RateMeter {
    pub fn add(&mut self, bytes: usize, now: Instant) {
        let began = *self.began.get_or_insert(now);
        if now.saturating_duration_since(began) >= RATE_SLOT {
            self.turn(began, now);
        }
        self.slots[self.newest as usize] = self.slots[self.newest as usize].saturating_add(bytes as u32);
    }

    fn turn(&mut self, began: Instant, now: Instant) {
        let passed = (now - began).as_millis() / RATE_SLOT.as_millis();
        if passed >= 2 * RATE_SLOTS as u128 {
            // The last second is known to hold nothing: the window is whole, unlike at the very start.
            *self = RateMeter { began: Some(now), filled: RATE_SLOTS as u8 - 1, ..RateMeter::default() };
            return;
        }
        for _ in 0..passed {
            self.newest = (self.newest + 1) % RATE_SLOTS as u8;
            self.slots[self.newest as usize] = 0;
            self.filled = (self.filled + 1).min(RATE_SLOTS as u8 - 1);
        }
        self.began = Some(began + RATE_SLOT * passed as u32);
    }

    /// Bits per second over the last second, or since the first byte if that is less.
    pub fn bitrate_bps(&self, now: Instant) -> u64 {
        let Some(began) = self.began else { return 0 };
        let age = now.saturating_duration_since(began);
        // Slots that would have been cleared, had a packet come now.
        let stale = (age.as_millis() / RATE_SLOT.as_millis()).min(RATE_SLOTS as u128) as usize;
        let bytes: u64 = (0..RATE_SLOTS - stale)
            .map(|back| self.slots[(self.newest as usize + RATE_SLOTS - back) % RATE_SLOTS] as u64)
            .sum();
        let whole = (self.filled as usize).min(RATE_SLOTS - 1);
        let span = if whole + stale >= RATE_SLOTS - 1 {
            // The window is one second long less the part of the newest slot that is still to come.
            RATE_SLOT * (RATE_SLOTS as u32 - 1) + (age - RATE_SLOT * (age.as_millis() / 125) as u32)
        } else {
            RATE_SLOT * whole as u32 + age
        };
        bytes * 8_000_000 / (span.max(RATE_SLOT).as_micros() as u64)
    }
}

/// One received SSRC.
#[derive(Clone, Debug)]
pub struct Reception {
    started: bool,
    /// First sequence number of the current run (extended).
    base: u64,
    /// Highest sequence number (extended).
    highest: u64,
    /// Where a stray must continue to be believed (RFC 3550's `bad_seq`).
    stray_next: Option<u16>,
    /// Bit n: `highest - n` was seen. 512 packets: 2 s at 250 packets/s.
    seen: [u64; SEEN_WORDS],

    received: u64,
    expected_before_run: u64,
    bytes: u64,
    repaired: u64,
    duplicates: u64,
    rate: RateMeter,
    last_arrival: Option<Instant>,

    /// RFC 3550 appendix A.8, scaled by 16.
    jitter_16: u32,
    last_timestamp: u32,
    clock_rate: u32,

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
        let order = match behind < SEEN {
            true if self.seen[(behind / 64) as usize] >> (behind % 64) & 1 == 1 => Order::Duplicate,
            true => {
                self.seen[(behind / 64) as usize] |= 1 << (behind % 64);
                Order::Late
            }
            false => Order::Late,
        };
        if order == Order::Late && sequence < self.base {
            self.base = sequence;
        }
        Arrived { sequence, order }
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

/// Falls at once, rises by half of the way: one good second after a bad one is not yet a good link.
/// The fourth power puts 10 % of loss at 7 and 20 % at 4, about where a picture becomes poor and useless.
fn smooth_score(old: u8, lost: f32) -> u8 {
    let fresh = (10.0 * (1.0 - lost).powi(4)).round() as u8;
    if fresh <= old { fresh } else { old + (fresh - old).div_ceil(2) }
}

/// One sent SSRC, and what its receiver reports.
#[derive(Clone, Debug)]
pub struct Transmission {
    packets: u64,
    octets: u64,
    rate: RateMeter,
    last_timestamp: u32,
    last_sent: Option<Instant>,

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

    /// A packet left. `octets` is its payload without RTP header and padding.
    #[inline]
    pub fn send(&mut self, octets: usize, rtp_timestamp: u32, now: Instant) {
        self.packets += 1;
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
        let sent = self.sender_reports.iter().flatten().find(|sr| sr.ntp_middle == report.last_sender_report)?;
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

    #[test]
    fn the_report_echoes_the_sender_report_and_the_receiver_gets_the_round_trip() {
        let start = Instant::now();
        let (mut sender, mut receiver) = (Transmission::new(), Reception::new());
        let ntp = 0x1234_5678_9abc_def0;
        sender.send(100, 0, start);
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
    fn a_report_that_claims_more_delay_than_there_was_gives_no_round_trip() {
        let (start, mut sender) = (Instant::now(), Transmission::new());
        sender.sender_report(0x1_0000, start);
        let lie = Report { last_sender_report: 1, delay_since_sender_report: u32::MAX, ..Report::default() };
        assert_eq!(sender.receiver_report(&lie, start + 100 * MS), None);
        assert_eq!(sender.rtt(), None);
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

    #[test]
    fn the_bitrate_is_of_the_last_second() {
        let (start, mut rate) = (Instant::now(), RateMeter::default());
        for n in 0..300u32 {
            rate.add(1250, start + 10 * MS * n);
            if n >= 20 {
                let bps = rate.bitrate_bps(start + 10 * MS * n);
                assert!((950_000..1_120_000).contains(&bps), "1 Mbit/s at packet {n}: {bps}");
            }
        }
        let end = start + 3000 * MS;
        let half = rate.bitrate_bps(end + 500 * MS);
        assert!((400_000..600_000).contains(&half), "half of the second is silent: {half}");
        assert_eq!(rate.bitrate_bps(end + 1100 * MS), 0);
        rate.add(1250, end + 60_000 * MS);
        assert!(rate.bitrate_bps(end + 60_000 * MS) <= 12_000, "one packet after a minute is one packet a second");
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
