//! What a receiver notices about one stream: packets missing, twice or late, and frames that come too late. Looks at
//! headers only, so it sees every packet at any rate.

use crate::media::rtp::Header;
use crate::schedule::Nanos;

/// Packets behind the newest whose arrival is still told apart.
const WINDOW: u64 = 1024;
/// Packets behind the newest that are still asked for.
const REPAIR_WINDOW: u64 = 200;
/// How often a packet is asked for, as libwebrtc does; then it is given up.
const REQUESTS: usize = 10;
/// A video that stands still this long beyond its cadence is a freeze that people notice.
pub const FREEZE: Nanos = 200_000_000;
/// A picture on which nothing came for this long since it was wanted is silent.
pub const SILENCE: Nanos = 3_000_000_000;

pub struct Stream {
    pub ssrc: u32,
    pub payload_type: u8,
    pub video: bool,
    /// Frame interval; audio has none.
    cadence: Nanos,
    /// Extended sequence number of the newest packet: rollover count and 16 bits.
    highest: u64,
    /// First number that counts, and what had arrived of the numbers since.
    first: u64,
    window: [u64; WINDOW as usize / 64],
    pub counts: Counts,
    /// The same of its retransmission stream.
    rtx_highest: Option<u64>,
    newest_timestamp: u32,
    newest_frame_at: Option<Nanos>,
    reported: (u64, u64),
    /// The newest number at each of the last times that it asked for what was missing.
    asked: [u64; REQUESTS],
    requests: usize,
    pub last_report: Option<(u32, Nanos)>,
    pub has_key_frame: bool,
    pub opened: bool,
    /// Since when packets should come; `None` while it is paused or its producer is gone.
    pub wanted_since: Option<Nanos>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Different packets that arrived.
    pub packets: u64,
    pub bytes: u64,
    pub duplicates: u64,
    /// Arrived after one with a higher number.
    pub reordered: u64,
    /// Of `packets`, those that came again on request.
    pub repaired: u64,
    /// Of `packets`, those of padding alone, by which a server keeps its numbers without a gap.
    pub fillers: u64,
    pub frames: u64,
    pub freezes: u64,
    pub frozen_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    New,
    Late,
    Duplicate,
}

impl Stream {
    pub fn new(ssrc: u32, payload_type: u8, video: bool, cadence: Nanos) -> Stream {
        Stream {
            ssrc,
            payload_type,
            video,
            cadence,
            highest: 0,
            first: 0,
            window: [0; WINDOW as usize / 64],
            counts: Counts::default(),
            rtx_highest: None,
            newest_timestamp: 0,
            newest_frame_at: None,
            reported: (0, 0),
            asked: [0; REQUESTS],
            requests: 0,
            last_report: None,
            has_key_frame: false,
            opened: false,
            wanted_since: None,
        }
    }

    /// Counts a packet and returns its rollover counter too. Whether it belongs to a frame is told by
    /// [`notice_frame`](Self::notice_frame) or [`notice_filler`](Self::notice_filler).
    pub fn accept(&mut self, header: &Header, bytes: usize) -> (Seen, u32) {
        let (seen, extended) = self.place(header.sequence);
        match seen {
            Seen::Duplicate => self.counts.duplicates += 1,
            Seen::New | Seen::Late => {
                self.counts.packets += 1;
                self.counts.bytes += bytes as u64;
                self.counts.reordered += u64::from(seen == Seen::Late);
            }
        }
        (seen, (extended >> 16) as u32)
    }

    /// Counts a packet that came again on its RTX stream.
    pub fn accept_repaired(&mut self, sequence: u16, bytes: usize) -> Seen {
        let (seen, _) = self.place(sequence);
        if seen == Seen::Duplicate {
            self.counts.duplicates += 1;
        } else {
            self.counts.packets += 1;
            self.counts.repaired += 1;
            self.counts.bytes += bytes as u64;
        }
        seen
    }

    /// The rollover counter of a packet of its retransmission stream.
    pub fn rtx_rollover(&mut self, sequence: u16) -> u32 {
        let highest = self.rtx_highest.unwrap_or(u64::from(sequence));
        let ahead = i64::from(sequence.wrapping_sub(highest as u16) as i16);
        let number = highest.saturating_add_signed(ahead);
        self.rtx_highest = Some(highest.max(number));
        (number >> 16) as u32
    }

    pub fn notice_filler(&mut self) {
        self.counts.fillers += 1;
    }

    /// The measurement ends: a picture that is wanted and has stood still for too long was frozen up to here, though
    /// no later frame tells. Returns whether it was.
    pub fn end_at(&mut self, now: Nanos) -> bool {
        let Some(wanted_since) = self.wanted_since.filter(|_| self.video && self.has_started()) else { return false };
        let (since, patience) = match self.newest_frame_at {
            Some(newest) => (newest, self.cadence + FREEZE),
            None => (wanted_since, SILENCE),
        };
        let gap = now.saturating_sub(since);
        if gap > patience {
            self.counts.freezes += 1;
            self.counts.frozen_ns += gap - self.cadence;
            self.newest_frame_at = Some(now);
        }
        gap > patience
    }

    /// Forgets the cadence: the stream was paused on purpose, or its layer changed.
    pub fn rest(&mut self) {
        self.newest_frame_at = None;
    }

    pub fn has_started(&self) -> bool {
        self.counts.packets > 0
    }

    /// Packets that were sent to us as the numbers tell.
    pub fn expected(&self) -> u64 {
        if self.has_started() { self.highest + 1 - self.first } else { 0 }
    }

    pub fn highest_extended(&self) -> u32 {
        self.highest as u32
    }

    /// Share lost since the last call in 1/256, and packets lost in all, for a receiver report.
    pub fn loss_since_report(&mut self) -> (u8, u32) {
        let (expected, received) = (self.expected(), self.counts.packets);
        let lost = expected.saturating_sub(received);
        let (before_expected, before_received) = self.reported;
        self.reported = (expected, received);
        let span = expected.saturating_sub(before_expected);
        let missing = span.saturating_sub(received.saturating_sub(before_received));
        let fraction = (missing * 256).checked_div(span).unwrap_or(0).min(255) as u8;
        (fraction, lost as u32)
    }

    /// What is missing and to be asked for now.
    pub fn ask(&mut self) -> Vec<u16> {
        let oldest = &mut self.asked[self.requests % REQUESTS];
        let given_up = std::mem::replace(oldest, self.highest);
        self.requests += 1;
        let start = self.highest.saturating_sub(REPAIR_WINDOW).max(self.first).max(given_up);
        (start..self.highest).filter(|number| !self.arrived(*number)).map(|number| number as u16).collect()
    }

    fn place(&mut self, sequence: u16) -> (Seen, u64) {
        if !self.has_started() {
            self.highest = u64::from(sequence);
            self.first = self.highest;
            self.mark(self.highest);
            return (Seen::New, self.highest);
        }
        let ahead = sequence.wrapping_sub(self.highest as u16);
        if ahead == 0 {
            return (Seen::Duplicate, self.highest);
        }
        if ahead < 0x8000 {
            let newest = self.highest + u64::from(ahead);
            let clear_from = self.highest + 1;
            for number in clear_from.max(newest.saturating_sub(WINDOW - 1))..=newest {
                self.clear(number);
            }
            self.highest = newest;
            self.mark(newest);
            return (Seen::New, newest);
        }
        let behind = u64::from(ahead.wrapping_neg());
        let Some(number) = self.highest.checked_sub(behind).filter(|_| behind < WINDOW) else {
            return (Seen::Duplicate, self.highest);
        };
        if self.arrived(number) {
            return (Seen::Duplicate, number);
        }
        self.first = self.first.min(number);
        self.mark(number);
        (Seen::Late, number)
    }

    /// A packet of a frame came that was no filler.
    pub fn notice_frame(&mut self, timestamp: u32, at: Nanos) {
        if !self.video || (self.newest_frame_at.is_some() && timestamp == self.newest_timestamp) {
            return;
        }
        self.counts.frames += 1;
        if let Some(before) = self.newest_frame_at {
            let gap = at.saturating_sub(before);
            if gap > self.cadence + FREEZE {
                self.counts.freezes += 1;
                self.counts.frozen_ns += gap - self.cadence;
            }
        }
        self.newest_timestamp = timestamp;
        self.newest_frame_at = Some(at);
    }

    fn arrived(&self, number: u64) -> bool {
        self.window[(number % WINDOW) as usize / 64] >> (number % 64) & 1 != 0
    }

    fn mark(&mut self, number: u64) {
        self.window[(number % WINDOW) as usize / 64] |= 1 << (number % 64);
    }

    fn clear(&mut self, number: u64) {
        self.window[(number % WINDOW) as usize / 64] &= !(1 << (number % 64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(sequence: u16, timestamp: u32) -> Header {
        Header { marker: false, padded: false, payload_type: 96, sequence, timestamp, ssrc: 1, len: 12 }
    }

    #[test]
    fn loss_duplicates_and_order_are_told_apart_across_a_wrap() {
        let mut stream = Stream::new(1, 96, false, 0);
        let seen: Vec<_> =
            [65533, 65534, 0, 65535, 0, 3, 2].map(|sequence| stream.accept(&packet(sequence, 0), 100)).to_vec();
        let kinds: Vec<_> = seen.iter().map(|(seen, _)| *seen).collect();
        assert_eq!(kinds, vec![Seen::New, Seen::New, Seen::New, Seen::Late, Seen::Duplicate, Seen::New, Seen::Late]);
        assert_eq!(seen[2].1, 1, "the rollover counter has moved on");
        assert_eq!(seen[3].1, 0, "a late packet belongs to the time before the wrap");
        assert_eq!((stream.expected(), stream.counts.packets), (7, 6));
        assert_eq!((stream.counts.duplicates, stream.counts.reordered), (1, 2));
        assert_eq!(stream.ask(), [1]);
    }

    #[test]
    fn a_lost_packet_is_asked_for_ten_times_however_many_are_lost_after_it() {
        let mut stream = Stream::new(1, 96, true, 33_000_000);
        stream.accept(&packet(10, 0), 100);
        let mut asked = [0; 40];
        // Every other packet is lost, and the stream is asked about after each.
        for n in 0..20u16 {
            stream.accept(&packet(12 + 2 * n, 0), 100);
            stream.ask().iter().for_each(|number| asked[(number - 11) as usize] += 1);
        }
        for (n, times) in asked.iter().enumerate() {
            let expected = if n % 2 == 0 { (20 - n / 2).min(10) } else { 0 };
            assert_eq!(*times, expected, "packet {}", n + 11);
        }
    }

    #[test]
    fn a_repaired_packet_is_not_lost() {
        let mut stream = Stream::new(1, 96, true, 33_000_000);
        stream.accept(&packet(10, 0), 100);
        stream.accept(&packet(12, 0), 100);
        assert_eq!(stream.expected() - stream.counts.packets, 1);
        stream.accept_repaired(11, 100);
        assert_eq!(stream.expected() - stream.counts.packets, 0);
        assert_eq!(stream.accept_repaired(11, 100), Seen::Duplicate);
    }

    #[test]
    fn a_freeze_is_a_gap_beyond_cadence_and_patience() {
        let mut stream = Stream::new(1, 96, true, 33_000_000);
        let times = [0, 33, 66, 290, 600, 633];
        for (n, at_ms) in times.into_iter().enumerate() {
            frame(&mut stream, n as u16, at_ms * MS);
        }
        assert_eq!((stream.counts.frames, stream.counts.freezes), (6, 1));
        assert_eq!(stream.counts.frozen_ns, 277_000_000);
    }

    const MS: Nanos = 1_000_000;

    fn frame(stream: &mut Stream, number: u16, at: Nanos) {
        let packet = packet(number, u32::from(number) * 3000);
        stream.accept(&packet, 100);
        stream.notice_frame(packet.timestamp, at);
    }

    #[test]
    fn a_picture_that_stops_for_good_is_frozen_up_to_the_end() {
        let mut stream = Stream::new(1, 96, true, 33 * MS);
        stream.wanted_since = Some(0);
        frame(&mut stream, 1, 0);
        frame(&mut stream, 2, 33 * MS);
        assert!(!stream.end_at(266 * MS), "it may still come in time");
        assert!(stream.end_at(5033 * MS));
        assert_eq!((stream.counts.freezes, stream.counts.frozen_ns), (1, 4967 * MS));

        let mut unwanted = Stream::new(1, 96, true, 33 * MS);
        frame(&mut unwanted, 1, 0);
        assert!(!unwanted.end_at(5000 * MS), "nobody looks at it");
        let mut sound = Stream::new(1, 111, false, 0);
        sound.wanted_since = Some(0);
        frame(&mut sound, 1, 0);
        assert!(!sound.end_at(5000 * MS), "a server may forward the loudest only");
        let mut resumed = Stream::new(1, 96, true, 33 * MS);
        frame(&mut resumed, 1, 0);
        resumed.rest();
        resumed.wanted_since = Some(1000 * MS);
        assert!(!resumed.end_at(3900 * MS) && resumed.end_at(4100 * MS), "it was wanted again and nothing came");
    }

    #[test]
    fn a_retransmission_stream_may_wrap() {
        let mut stream = Stream::new(1, 96, true, 0);
        let rollovers = [65_534, 65_535, 0, 65_533, 1].map(|sequence| stream.rtx_rollover(sequence));
        assert_eq!(rollovers, [0, 0, 1, 0, 1]);
    }
}
