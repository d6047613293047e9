//! Transport-wide congestion control feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01): which
//! packets of a transport arrived, and when.
//!
//! ```text
//! |  base sequence number         |     count of statuses         |
//! |  reference time in 64 ms (24 bits)            | feedback count|
//! |  chunk        |  chunk        | ...  deltas in 250 us, 8 or 16 bits each
//!
//! chunk  |0|S S|  run length (13 bits)  |   the same symbol for a run of packets
//!        |1|0| 14 symbols of one bit    |   not received, small delta
//!        |1|1| 7 symbols of two bits    |   and large or negative delta
//! ```

use super::{FORMAT_TRANSPORT_CC, HEADER, TRANSPORT_FEEDBACK, Writer};
use crate::ids::Ssrc;
use crate::packet::be;
use crate::packet::seq::{ReferenceTime, SeqNo};

const TICK_US: u64 = 250;
const REFERENCE_US: u64 = 64_000;
const FIXED_BODY: usize = 16;
const LONGEST_RUN: u16 = 0x1fff;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Symbol {
    NotReceived = 0,
    SmallDelta = 1,
    LargeDelta = 2,
}

impl Symbol {
    /// Symbol 3 is reserved, and libwebrtc refuses a packet with it too.
    #[inline]
    const fn of(bits: u16) -> Option<Symbol> {
        match bits {
            0 => Some(Symbol::NotReceived),
            1 => Some(Symbol::SmallDelta),
            2 => Some(Symbol::LargeDelta),
            _ => None,
        }
    }

    #[inline]
    const fn delta_len(self) -> usize {
        self as usize
    }
}

/// Feedback of one receiver. Checked whole by `parse`: every status has its symbol, every arrival its delta.
#[derive(Clone, Copy, Debug)]
pub struct TransportCc<'a> {
    pub sender: Ssrc,
    pub media: Ssrc,
    /// The first packet that the feedback speaks of.
    pub base: SeqNo,
    /// How many packets in a row it speaks of.
    pub status_count: u16,
    /// Where the first delta starts from.
    pub reference: ReferenceTime,
    /// Counts feedback packets, so that the loss of one is seen.
    pub feedback_count: u8,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

impl<'a> TransportCc<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<TransportCc<'a>> {
        let status_count = be::u16_at(body, 10)?;
        let (chunks_len, deltas_len) = measure(body.get(FIXED_BODY..)?, status_count)?;
        let (chunks, rest) = body.get(FIXED_BODY..)?.split_at_checked(chunks_len)?;
        Some(TransportCc {
            sender: be::ssrc_at(body, 0)?,
            media: be::ssrc_at(body, 4)?,
            base: SeqNo(be::u16_at(body, 8)?),
            status_count,
            reference: ReferenceTime(be::u24_at(body, 12)?),
            feedback_count: *body.get(15)?,
            chunks,
            deltas: rest.get(..deltas_len)?,
        })
    }

    /// The packets that arrived, each with the microseconds from the reference time to its arrival (steps of
    /// 250, negative for reordered ones). Runs of missing packets are skipped whole: the work is bounded by
    /// the bytes of the packet, whatever its count says.
    #[inline]
    pub fn arrivals(&self) -> Arrivals<'a> {
        Arrivals { statuses: self.statuses() }
    }

    /// Every packet from `base` on, `None` for those that did not arrive: `status_count` items.
    #[inline]
    pub fn statuses(&self) -> Statuses<'a> {
        Statuses {
            chunks: self.chunks,
            deltas: self.deltas,
            chunk: Chunk::Run { symbol: Symbol::NotReceived, left: 0 },
            left: self.status_count,
            next: self.base,
            ticks: 0,
        }
    }
}

/// Bytes of the chunks that hold `count` statuses, and of the deltas that they promise.
fn measure(bytes: &[u8], count: u16) -> Option<(usize, usize)> {
    let mut left = count;
    let (mut chunks_len, mut deltas_len) = (0, 0);
    while left > 0 {
        let mut chunk = Chunk::read(be::u16_at(bytes, chunks_len)?)?;
        chunks_len += 2;
        if let Chunk::Run { symbol, left: run } = chunk {
            let run = run.min(left);
            deltas_len += usize::from(run) * symbol.delta_len();
            left -= run;
            continue;
        }
        while left > 0 {
            let Some(symbol) = chunk.next() else { break };
            deltas_len += symbol.delta_len();
            left -= 1;
        }
    }
    Some((chunks_len, deltas_len))
}

#[derive(Clone, Copy, Debug)]
enum Chunk {
    Run {
        symbol: Symbol,
        left: u16,
    },
    /// The next symbol is in the highest bits.
    Vector {
        symbols: u16,
        two_bit: bool,
        left: u8,
    },
}

impl Chunk {
    /// `None` for a reserved symbol anywhere in the chunk, even beyond the last status: there it is padding
    /// of zeros from every sender that means well.
    #[inline]
    fn read(bits: u16) -> Option<Chunk> {
        if bits & 0x8000 == 0 {
            return Some(Chunk::Run { symbol: Symbol::of(bits >> 13)?, left: bits & LONGEST_RUN });
        }
        let symbols = bits << 2;
        if bits & 0x4000 == 0 {
            return Some(Chunk::Vector { symbols, two_bit: false, left: 14 });
        }
        let reserved = symbols & symbols << 1 & 0xaaaa;
        (reserved == 0).then_some(Chunk::Vector { symbols, two_bit: true, left: 7 })
    }

    #[inline]
    fn next(&mut self) -> Option<Symbol> {
        match self {
            Chunk::Run { left: 0, .. } | Chunk::Vector { left: 0, .. } => None,
            Chunk::Run { symbol, left } => {
                *left -= 1;
                Some(*symbol)
            }
            Chunk::Vector { symbols, two_bit, left } => {
                let width = 1 + u32::from(*two_bit);
                let symbol = Symbol::of(*symbols >> (16 - width));
                *symbols <<= width;
                *left -= 1;
                symbol
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Statuses<'a> {
    chunks: &'a [u8],
    deltas: &'a [u8],
    chunk: Chunk,
    left: u16,
    next: SeqNo,
    ticks: i64,
}

impl Statuses<'_> {
    #[inline]
    fn next_symbol(&mut self) -> Option<Symbol> {
        loop {
            if let Some(symbol) = self.chunk.next() {
                return Some(symbol);
            }
            let (bits, rest) = self.chunks.split_first_chunk()?;
            self.chunks = rest;
            self.chunk = Chunk::read(u16::from_be_bytes(*bits))?;
        }
    }

    /// Passes over the rest of a run of packets that did not arrive.
    #[inline]
    fn skip_missing(&mut self) {
        if let Chunk::Run { symbol: Symbol::NotReceived, left } = &mut self.chunk {
            let run = (*left).min(self.left);
            *left -= run;
            self.left -= run;
            self.next += run;
        }
    }
}

impl Iterator for Statuses<'_> {
    type Item = (SeqNo, Option<i64>);

    #[inline]
    fn next(&mut self) -> Option<(SeqNo, Option<i64>)> {
        if self.left == 0 {
            return None;
        }
        let symbol = self.next_symbol()?;
        let number = self.next;
        self.left -= 1;
        self.next = number.next();
        let delta = match symbol {
            Symbol::NotReceived => return Some((number, None)),
            Symbol::SmallDelta => {
                let (delta, rest) = self.deltas.split_first()?;
                self.deltas = rest;
                i64::from(*delta)
            }
            Symbol::LargeDelta => {
                let (delta, rest) = self.deltas.split_first_chunk()?;
                self.deltas = rest;
                i64::from(i16::from_be_bytes(*delta))
            }
        };
        self.ticks += delta;
        Some((number, Some(self.ticks * TICK_US as i64)))
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Arrivals<'a> {
    statuses: Statuses<'a>,
}

impl Iterator for Arrivals<'_> {
    type Item = (SeqNo, i64);

    #[inline]
    fn next(&mut self) -> Option<(SeqNo, i64)> {
        loop {
            self.statuses.skip_missing();
            if let (number, Some(arrival_us)) = self.statuses.next()? {
                return Some((number, arrival_us));
            }
        }
    }
}

/// What precedes the statuses of a feedback packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportCcHead {
    pub sender: Ssrc,
    pub media: Ssrc,
    /// Number of the packet that the first status is of.
    pub base: SeqNo,
    pub feedback_count: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportCcWritten {
    pub len: usize,
    /// Statuses that the packet holds; the next feedback begins at `base + statuses`.
    pub statuses: u16,
}

/// Writes one packet for as many of the `statuses` as fit: one for each packet from `head.base` on, with
/// its arrival in microseconds of any clock that runs evenly, or `None` for a packet that did not arrive.
///
/// It stops early where room or the range of a delta (8 s) ends. `None` when not even one arrival fits, or
/// nothing arrived. `statuses` is walked more than once.
pub fn write_transport_cc(
    out: &mut [u8],
    head: &TransportCcHead,
    statuses: impl Iterator<Item = Option<u64>> + Clone,
) -> Option<TransportCcWritten> {
    // In 64 bits before the mask: a clock of days must not overflow on its way into 24 bits.
    let reference = statuses.clone().flatten().next()? / REFERENCE_US;
    let mut writer = Writer::new(out, FORMAT_TRANSPORT_CC, TRANSPORT_FEEDBACK)?;
    writer.put_ssrc(head.sender)?;
    writer.put_ssrc(head.media)?;
    writer.put_u16(head.base.0)?;
    let count_at = writer.at;
    writer.put_u16(0)?;
    let reference_time = ReferenceTime::new((reference & 0xff_ffff) as u32);
    writer.put_u32(reference_time.0 << 8 | u32::from(head.feedback_count))?;

    let start_ticks = reference * (REFERENCE_US / TICK_US);
    let mut deltas = Deltas { last_ticks: start_ticks };
    let mut chunks = ChunkWriter::default();
    let (mut count, mut arrived, mut deltas_len) = (0u16, false, 0);
    for status in statuses.clone().take(usize::from(u16::MAX)) {
        let Some((symbol, _)) = deltas.next(status) else { break };
        let chunks_len = if chunks.holds(symbol) { 2 } else { 4 };
        let len = writer.at + chunks_len + deltas_len + symbol.delta_len();
        if len.next_multiple_of(4) > writer.out.len() {
            break;
        }
        if !chunks.holds(symbol) {
            writer.put_u16(chunks.take())?;
        }
        chunks.push(symbol);
        deltas_len += symbol.delta_len();
        arrived |= symbol != Symbol::NotReceived;
        count += 1;
    }
    if !arrived {
        return None;
    }
    writer.put_u16(chunks.last())?;
    writer.out.get_mut(count_at..count_at + 2)?.copy_from_slice(&count.to_be_bytes());

    let mut deltas = Deltas { last_ticks: start_ticks };
    for status in statuses.take(usize::from(count)) {
        let (symbol, delta) = deltas.next(status)?;
        writer.put(&delta.to_be_bytes()[2 - symbol.delta_len()..])?;
    }
    pad(&mut writer)?;
    Some(TransportCcWritten { len: writer.finish()?, statuses: count })
}

/// RTCP's own padding up to a whole word.
fn pad(writer: &mut Writer<'_>) -> Option<()> {
    let missing = writer.at.next_multiple_of(4) - writer.at;
    if missing > 0 {
        let mut padding = [0; 4];
        padding[missing - 1] = missing as u8;
        writer.put(&padding[..missing])?;
        writer.out[0] |= 0x20;
    }
    debug_assert!(writer.at.is_multiple_of(4) && writer.at > HEADER);
    Some(())
}

/// Turns arrivals into steps from one to the next. Each is rounded on its own, so errors do not add up.
struct Deltas {
    last_ticks: u64,
}

impl Deltas {
    /// `None` when the step is too large for 16 bits.
    #[inline]
    fn next(&mut self, arrival_us: Option<u64>) -> Option<(Symbol, i16)> {
        let Some(arrival_us) = arrival_us else { return Some((Symbol::NotReceived, 0)) };
        let ticks = arrival_us / TICK_US;
        let delta = i16::try_from(ticks.wrapping_sub(self.last_ticks) as i64).ok()?;
        self.last_ticks = ticks;
        let symbol = if (0..=255).contains(&delta) { Symbol::SmallDelta } else { Symbol::LargeDelta };
        Some((symbol, delta))
    }
}

/// Gathers symbols until the chunk that fits them best is full: a run while they are equal, else fourteen
/// of one bit while none is large, else seven of two bits.
struct ChunkWriter {
    first: [Symbol; 14],
    len: u16,
    all_equal: bool,
    any_large: bool,
}

impl Default for ChunkWriter {
    fn default() -> Self {
        ChunkWriter { first: [Symbol::NotReceived; 14], len: 0, all_equal: true, any_large: false }
    }
}

impl ChunkWriter {
    /// The symbol still goes into one chunk with those gathered.
    #[inline]
    fn holds(&self, symbol: Symbol) -> bool {
        let run = self.all_equal && (self.len == 0 || self.first[0] == symbol) && self.len < LONGEST_RUN;
        let any_large = self.any_large || symbol == Symbol::LargeDelta;
        run || self.len < 7 || (self.len < 14 && !any_large)
    }

    #[inline]
    fn push(&mut self, symbol: Symbol) {
        if let Some(slot) = self.first.get_mut(usize::from(self.len)) {
            *slot = symbol;
        }
        self.all_equal &= symbol == self.first[0];
        self.any_large |= symbol == Symbol::LargeDelta;
        self.len += 1;
    }

    /// The chunk to write before a symbol that does not fit. It holds all that was gathered, but for up to six
    /// symbols behind the seven of two bits that a large delta forces on a longer mixed row.
    fn take(&mut self) -> u16 {
        let gathered = std::mem::take(self);
        if gathered.all_equal || gathered.len == 14 {
            return gathered.last();
        }
        let (seven, later) = gathered.first[..usize::from(gathered.len.min(14))].split_at(7);
        later.iter().for_each(|symbol| self.push(*symbol));
        two_bit(seven)
    }

    /// One chunk of everything gathered; missing symbols at its end are zeros.
    fn last(self) -> u16 {
        if self.all_equal {
            return (self.first[0] as u16) << 13 | self.len;
        }
        if self.len <= 7 {
            return two_bit(&self.first[..7]);
        }
        self.first.iter().fold(0b10, |bits, symbol| bits << 1 | *symbol as u16)
    }
}

fn two_bit(seven: &[Symbol]) -> u16 {
    seven.iter().fold(0b11, |bits, symbol| bits << 2 | *symbol as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::rtcp::{RtcpPacket, packets};

    const HEAD: TransportCcHead =
        TransportCcHead { sender: Ssrc(1), media: Ssrc(2), base: SeqNo(65530), feedback_count: 7 };

    fn parse(bytes: &[u8]) -> Option<TransportCc<'_>> {
        match packets(bytes).next()? {
            Ok(RtcpPacket::TransportCc(feedback)) => Some(feedback),
            _ => None,
        }
    }

    fn write(statuses: &[Option<u64>], room: usize) -> Option<(Vec<u8>, u16)> {
        let mut out = vec![0xee; room];
        let written = write_transport_cc(&mut out, &HEAD, statuses.iter().copied())?;
        out.truncate(written.len);
        Some((out, written.statuses))
    }

    /// What the statuses say once arrivals are rounded down to ticks, relative to the reference time.
    fn expected(statuses: &[Option<u64>]) -> Vec<(SeqNo, Option<i64>)> {
        let reference = statuses.iter().flatten().next().unwrap() / REFERENCE_US * REFERENCE_US;
        let relative = |arrival: u64| (arrival / TICK_US * TICK_US) as i64 - reference as i64;
        (0u16..).zip(statuses).map(|(n, status)| (HEAD.base + n, status.map(relative))).collect()
    }

    fn there_and_back(statuses: &[Option<u64>]) -> usize {
        let (bytes, covered) = write(statuses, 70_000).unwrap();
        assert_eq!(usize::from(covered), statuses.len());
        let feedback = parse(&bytes).unwrap();
        assert_eq!(
            (feedback.sender, feedback.media, feedback.base, feedback.feedback_count),
            (Ssrc(1), Ssrc(2), HEAD.base, 7)
        );
        assert_eq!(feedback.statuses().collect::<Vec<_>>(), expected(statuses));
        let arrived = |(number, arrival): (SeqNo, Option<i64>)| Some((number, arrival?));
        assert!(feedback.arrivals().eq(expected(statuses).into_iter().filter_map(arrived)));
        bytes.len()
    }

    #[test]
    fn a_steady_stream_costs_one_run_and_a_byte_for_each_packet() {
        let statuses: Vec<_> = (0..100).map(|n| Some(1_000_000 + n * 5_000)).collect();
        assert_eq!(there_and_back(&statuses), (20 + 2 + 100usize).next_multiple_of(4));
    }

    #[test]
    fn every_pattern_of_fifteen_statuses_goes_there_and_back() {
        // Base three: not received, small, large. A few thousand patterns, each with a first arrival.
        for pattern in (0..3u32.pow(15)).step_by(4099) {
            let (mut now, mut rest) = (10_000_000, pattern);
            let mut statuses = vec![Some(now)];
            for _ in 0..15 {
                let symbol = rest % 3;
                rest /= 3;
                statuses.push(match symbol {
                    0 => None,
                    1 => {
                        now += 1_000;
                        Some(now)
                    }
                    _ => {
                        now = if pattern % 2 == 0 { now + 100_000 } else { now - 10_000 };
                        Some(now)
                    }
                });
            }
            there_and_back(&statuses);
        }
    }

    #[test]
    fn long_rows_of_loss_are_one_chunk_each() {
        let mut statuses = vec![Some(5)];
        statuses.extend(std::iter::repeat_n(None, 20_000));
        statuses.push(Some(9_000));
        assert!(there_and_back(&statuses) <= 20 + 12);
    }

    #[test]
    fn a_clock_of_years_does_not_overflow() {
        let late = u64::MAX / 1000;
        for start in [0, (1 << 24) * REFERENCE_US - 1_000, 400 * 24 * 3600 * 1_000_000, late] {
            let statuses: Vec<_> = (0..40).map(|n| Some(start + n * 1_000)).collect();
            there_and_back(&statuses);
            let (bytes, _) = write(&statuses, 1000).unwrap();
            let reference = u64::from(parse(&bytes).unwrap().reference.0);
            assert_eq!(reference, start / REFERENCE_US % (1 << 24));
        }
    }

    #[test]
    fn what_does_not_fit_is_left_for_the_next_packet() {
        let statuses: Vec<_> = (0..300u64).map(|n| (n % 3 != 1).then_some(n * 90_000)).collect();
        let whole = write(&statuses, 2000).unwrap().0.len();
        for room in 0..whole {
            let Some((bytes, covered)) = write(&statuses, room) else {
                assert!(room < 28, "{room} bytes hold an arrival");
                continue;
            };
            assert!(bytes.len() <= room && usize::from(covered) < statuses.len());
            let feedback = parse(&bytes).unwrap();
            assert!(feedback.statuses().eq(expected(&statuses).into_iter().take(covered.into())));
        }
    }

    #[test]
    fn a_step_beyond_the_range_of_a_delta_ends_the_packet() {
        let statuses = [Some(0), None, Some(8_191_750), Some(8_191_750 + 8_192_000)];
        let (bytes, covered) = write(&statuses, 1000).unwrap();
        assert_eq!(covered, 3);
        assert_eq!(parse(&bytes).unwrap().statuses().last(), Some((HEAD.base + 2, Some(8_191_750))));
    }

    #[test]
    fn nothing_arrived_is_nothing_to_write() {
        assert_eq!(write(&[], 1000), None);
        assert_eq!(write(&[None, None], 1000), None);
    }

    #[test]
    fn a_packet_put_together_by_hand_is_read() {
        // Two bits each: small, lost, large, small, lost, lost, and a seventh that the count leaves out.
        let bytes = [
            0x8f, 205, 0, 6, 0, 0, 0, 1, 0, 0, 0, 2, 0, 1, 0, 6, 0xff, 0xff, 0xfe, 3, //
            0xd2, 0x40, 0x04, 0xff, 0xfe, 0x08, 0, 0,
        ];
        let feedback = parse(&bytes).unwrap();
        assert_eq!((feedback.reference, feedback.feedback_count), (ReferenceTime(0xff_fffe), 3));
        let arrivals: Vec<_> = feedback.arrivals().collect();
        assert_eq!(arrivals, [(SeqNo(1), 1000), (SeqNo(3), 500), (SeqNo(4), 2500)]);
        assert_eq!(feedback.statuses().count(), 6);
    }

    /// A body of these chunks and deltas that claims `count` statuses.
    fn feedback(count: u16, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x8f, 205, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 1];
        bytes.extend(count.to_be_bytes());
        bytes.extend([0, 0, 0, 0]);
        bytes.extend(rest);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let words = bytes.len() as u16 / 4 - 1;
        bytes[2..4].copy_from_slice(&words.to_be_bytes());
        bytes
    }

    #[test]
    fn feedback_that_promises_more_than_it_holds_is_refused() {
        for (count, rest) in [
            (1, &[][..]),
            (20, &[0x20, 3, 1, 1]),
            (8191, &[0x3f, 0xff, 1, 1]),
            (8191, &[0x5f, 0xff, 1, 1]),
            (14, &[0xbf, 0xff, 1, 1]),
            (3, &[0x60, 3, 1, 1]),
            (3, &[0xff, 0xff, 1, 1]),
        ] {
            assert!(parse(&feedback(count, rest)).is_none(), "{count} statuses in {rest:x?}");
        }
    }

    #[test]
    fn a_count_of_everything_costs_no_more_work_than_its_bytes() {
        // Eight runs of 8,191 lost packets, then seven that arrived.
        let mut rest = vec![];
        for _ in 0..7 {
            rest.extend([0x1f, 0xff]);
        }
        rest.extend([0x1f, 0xff, 0x20, 7, 1, 1, 1, 1, 1, 1, 1]);
        let bytes = feedback(65535, &rest);
        let feedback = parse(&bytes).unwrap();
        assert_eq!(feedback.arrivals().count(), 7);
        assert_eq!(feedback.statuses().count(), 65535);
    }

    #[test]
    fn empty_runs_end_with_the_bytes() {
        let bytes = feedback(5, &[0; 1400]);
        assert!(parse(&bytes).is_none());
        let bytes = feedback(1, &[0, 0, 0, 0, 0x20, 1, 4]);
        assert_eq!(parse(&bytes).unwrap().arrivals().collect::<Vec<_>>(), [(SeqNo(1), 1000)]);
    }
}
