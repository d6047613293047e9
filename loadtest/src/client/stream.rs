//! What a receiver notices about one stream: packets missing, twice or late, and frames that come too late. Looks at
//! headers only, so it sees every packet at any rate.

use crate::media::rtp::Header;
use crate::schedule::Nanos;

/// Packets behind the newest whose arrival is still told apart.
const WINDOW: u64 = 1024;
/// A video that stands still this long beyond its cadence is a freeze that people notice.
pub const FREEZE: Nanos = 200_000_000;

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
    newest_timestamp: u32,
    newest_frame_at: Option<Nanos>,
    reported: (u64, u64),
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
            newest_timestamp: 0,
            newest_frame_at: None,
            reported: (0, 0),
            last_report: None,
            has_key_frame: false,
            opened: false,
            wanted_since: None,
        }
    }

    /// Counts a packet and returns its rollover counter too.
    pub fn accept(&mut self, header: &Header, bytes: usize, at: Nanos) -> (Seen, u32) {
        let (seen, extended) = self.place(header.sequence);
        match seen {
            Seen::Duplicate => self.counts.duplicates += 1,
            Seen::New | Seen::Late => {
                self.counts.packets += 1;
                self.counts.bytes += bytes as u64;
                self.counts.reordered += u64::from(seen == Seen::Late);
            }
        }
        if seen == Seen::New {
            self.notice_frame(header.timestamp, at);
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

    /// Numbers between `from` packets behind the newest and the newest that have not arrived.
    pub fn missing(&self, behind: u64, out: &mut Vec<u16>) {
        let start = self.highest.saturating_sub(behind.min(WINDOW - 1)).max(self.first);
        out.extend((start..self.highest).filter(|number| !self.arrived(*number)).map(|number| number as u16));
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

    fn notice_frame(&mut self, timestamp: u32, at: Nanos) {
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
            [65533, 65534, 0, 65535, 0, 3, 2].map(|sequence| stream.accept(&packet(sequence, 0), 100, 0)).to_vec();
        let kinds: Vec<_> = seen.iter().map(|(seen, _)| *seen).collect();
        assert_eq!(kinds, vec![Seen::New, Seen::New, Seen::New, Seen::Late, Seen::Duplicate, Seen::New, Seen::Late]);
        assert_eq!(seen[2].1, 1, "the rollover counter has moved on");
        assert_eq!(seen[3].1, 0, "a late packet belongs to the time before the wrap");
        assert_eq!((stream.expected(), stream.counts.packets), (7, 6));
        assert_eq!((stream.counts.duplicates, stream.counts.reordered), (1, 2));
        let mut missing = Vec::new();
        stream.missing(100, &mut missing);
        assert_eq!(missing, vec![1]);
    }

    #[test]
    fn a_repaired_packet_is_not_lost() {
        let mut stream = Stream::new(1, 96, true, 33_000_000);
        stream.accept(&packet(10, 0), 100, 0);
        stream.accept(&packet(12, 0), 100, 0);
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
            stream.accept(&packet(n as u16, n as u32 * 3000), 100, at_ms * 1_000_000);
        }
        assert_eq!((stream.counts.frames, stream.counts.freezes), (6, 1));
        assert_eq!(stream.counts.frozen_ns, 277_000_000);
    }
}
