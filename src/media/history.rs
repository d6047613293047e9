//! The shard's record of what arrived: one plaintext copy of each media packet, shared by all consumers.
//!
//! ```text
//!   blocks   |....old....|payload|payload|....|payload|payload|>head   |   free   |   free   |
//!   packets  |n-3|n-2|n-1|n|                                               facts about them, oldest first
//! ```
//!
//! Ingress opens (decrypts) each datagram straight into the newest block; egress seals from it for every
//! consumer, at once or when a receiver asks again. A block is used again when the last of its packets is older than
//! anybody asks for, the warmest first; so as much memory is touched as the last seconds fill, and never more than the
//! bound. At the bound the oldest block goes, and what was too young for that is counted. Nothing is allocated for a
//! packet, nothing fragments, and nobody ever changes a packet that stands here.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::limits::{
    DATAGRAM_BYTES, HISTORY_BLOCK_AGE, HISTORY_BLOCK_BYTES, HISTORY_BLOCK_PACKETS, SEQUENCES, SEQUENCES_FIRST,
    SEQUENCES_PER_PACKET,
};
use crate::packet::codec::PayloadFacts;
use crate::packet::codec::layers::LayerSet;
use crate::packet::codec::vp8::Vp8Descriptor;
use crate::packet::extension::ExtensionSet;

pub struct History {
    /// Address space for all blocks; a page is taken when it is first written.
    bytes: Box<[u8]>,
    /// Where the next datagram is opened, in the newest block.
    head: usize,
    /// Oldest first; the last one is being filled.
    blocks: VecDeque<Block>,
    /// Places of blocks without packets; the last was used last.
    free: Vec<usize>,
    packets: VecDeque<Packet>,
    /// Number of the oldest packet.
    first: u64,
    bound: usize,
    cut_short: u64,
    /// Times of packets are in ms since this, modulo 2^32.
    epoch: Option<Instant>,
    /// When the newest came.
    newest_ms: u32,
}

struct Block {
    at: usize,
    packets: usize,
    /// When its first packet came.
    begun: Option<Instant>,
    /// When the last of its packets has been kept for long enough.
    until: Option<Instant>,
}

/// Names a packet for as long as the history lasts; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PacketNumber(pub u64);

/// What is known of a packet once it is open.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// Where the payload stands: filled in by [`History::commit`].
    pub(super) at: u32,
    /// Until when it is kept.
    pub(super) until_ms: u32,
    pub payload_len: u16,
    /// Extended sequence number in its layer's own space, after packets that no one may have were left out.
    pub sequence: u64,
    pub timestamp: u32,
    pub marker: bool,
    pub key_frame: bool,
    pub start_of_frame: bool,
    /// Ends what one spatial layer has of a picture.
    pub end_of_frame: bool,
    pub spatial: u8,
    pub temporal: u8,
    /// Whose receivers need it, and who of them can go on from here (layers within one stream).
    pub targets: LayerSet,
    pub switches: LayerSet,
    /// Its dependency descriptor stands so many bytes in front of the payload; length 0: it has none.
    pub descriptor_back: u16,
    pub descriptor_len: u8,
    /// A receiver of lower temporal layers may step up here (VP8: the Y bit).
    pub layer_sync: bool,
    pub vp8: Option<Vp8Descriptor>,
    pub passed: Passed,
}

/// Header extensions that go to receivers as they came: elements in one-byte form under the router's ids.
#[derive(Clone, Copy, Debug, Default)]
pub struct Passed {
    pub set: ExtensionSet,
    pub len: u8,
    pub bytes: [u8; PASSED_BYTES],
}

/// Room for audio level (2), video orientation (2), playout delay (4), transmission offset (4) and the
/// long form of abs-capture-time (17); more is left out.
pub const PASSED_BYTES: usize = 29;

impl History {
    /// At most `bound` bytes of payloads and of facts about them.
    pub fn new(bound: usize) -> Self {
        let blocks = (bound / HISTORY_BLOCK_BYTES).max(2);
        let mut free: Vec<usize> = (0..blocks).rev().map(|block| block * HISTORY_BLOCK_BYTES).collect();
        // A queue that grew as blocks are taken would allocate in the midst of it.
        let mut queue = VecDeque::with_capacity(blocks);
        queue.extend(free.pop().map(Block::new));
        History {
            bytes: vec![0; blocks * HISTORY_BLOCK_BYTES].into_boxed_slice(),
            head: 0,
            blocks: queue,
            free,
            packets: VecDeque::new(),
            first: 0,
            bound,
            cut_short: 0,
            epoch: None,
            newest_ms: 0,
        }
    }

    /// Room for one datagram behind the newest packet; nothing is kept of it until [`commit`](Self::commit).
    #[inline]
    pub fn slot(&mut self) -> &mut [u8] {
        &mut self.bytes[self.head..self.head + DATAGRAM_BYTES]
    }

    /// Keeps `payload_len` bytes from `payload_at` of the slot, for as long as told where the bound allows it.
    #[inline]
    pub fn commit(&mut self, payload_at: usize, mut packet: Packet, now: Instant, kept: Duration) -> PacketNumber {
        packet.at = (self.head + payload_at) as u32;
        self.head += payload_at + packet.payload_len as usize;
        self.newest_ms = now.saturating_duration_since(*self.epoch.get_or_insert(now)).as_millis() as u32;
        packet.until_ms = self.newest_ms.wrapping_add(kept.as_millis() as u32);
        let number = PacketNumber(self.first + self.packets.len() as u64);
        if self.packets.len() == self.packets.capacity() {
            self.packets.reserve_exact((self.packets.len() / 2).max(64));
        }
        self.packets.push_back(packet);
        let Some(block) = self.blocks.back_mut() else { return number };
        block.packets += 1;
        block.until = block.until.max(Some(now + kept));
        let begun = *block.begun.get_or_insert(now);
        let is_full = self.head + DATAGRAM_BYTES > block.at + HISTORY_BLOCK_BYTES;
        if is_full
            || block.packets == HISTORY_BLOCK_PACKETS
            || now.saturating_duration_since(begun) >= HISTORY_BLOCK_AGE
        {
            self.begin_block(now);
        }
        number
    }

    /// `None` once the packet is forgotten.
    #[inline]
    pub fn packet(&self, number: PacketNumber) -> Option<&Packet> {
        self.packets.get(number.0.checked_sub(self.first)? as usize)
    }

    /// The same, for what becomes known of it later.
    pub fn packet_mut(&mut self, number: PacketNumber) -> Option<&mut Packet> {
        self.packets.get_mut(number.0.checked_sub(self.first)? as usize)
    }

    /// Whether the packet is there, and younger than it may become.
    #[inline]
    fn is_kept(&self, number: PacketNumber) -> bool {
        self.packet(number).is_some_and(|packet| packet.until_ms.wrapping_sub(self.newest_ms) as i32 > 0)
    }

    /// The payload, RTP padding left out. Only for a packet that [`packet`](Self::packet) just gave.
    #[inline]
    pub fn payload(&self, packet: &Packet) -> &[u8] {
        &self.bytes[packet.at as usize..][..packet.payload_len as usize]
    }

    /// The dependency descriptor as it came, empty where there is none. It stands in the packet's own header, which the slot
    /// keeps in front of the payload. Only for a packet that [`packet`](Self::packet) just gave.
    #[inline]
    pub fn descriptor(&self, packet: &Packet) -> &[u8] {
        if packet.descriptor_len == 0 {
            return &[];
        }
        &self.bytes[packet.at as usize - packet.descriptor_back as usize..][..packet.descriptor_len as usize]
    }

    /// What is in use, facts included.
    pub fn bytes(&self) -> usize {
        self.blocks.len() * HISTORY_BLOCK_BYTES + self.packets.capacity() * size_of::<Packet>()
    }

    /// Packets that had to go at the bound before they were as old as they should have become.
    pub fn cut_short(&self) -> u64 {
        self.cut_short
    }

    /// The block that was filled is followed by a free one, or by that of the oldest packets.
    fn begin_block(&mut self, now: Instant) {
        while self.blocks.front().is_some_and(|oldest| oldest.until <= Some(now)) {
            self.forget_oldest();
        }
        if self.packets.len() < self.packets.capacity() / 4 {
            self.packets.shrink_to(self.packets.capacity() / 2);
        }
        while self.free.is_empty() || self.bytes() + HISTORY_BLOCK_BYTES > self.bound {
            let Some(packets) = self.forget_oldest() else { break };
            self.cut_short += packets as u64;
        }
        let at = self.free.pop().unwrap_or_default();
        self.head = at;
        self.blocks.push_back(Block::new(at));
    }

    /// Returns how many packets there were in it.
    fn forget_oldest(&mut self) -> Option<usize> {
        let Block { at, packets, .. } = self.blocks.pop_front()?;
        self.packets.drain(..packets);
        self.first += packets as u64;
        self.free.push(at);
        Some(packets)
    }
}

impl Block {
    fn new(at: usize) -> Self {
        Block { at, packets: 0, begun: None, until: None }
    }
}

impl Packet {
    /// What its payload and its descriptor say.
    #[inline]
    pub fn learn(&mut self, facts: &PayloadFacts) {
        self.key_frame = facts.key_frame;
        self.start_of_frame = facts.start_of_frame;
        self.end_of_frame = facts.end_of_frame;
        self.spatial = facts.spatial;
        self.temporal = facts.temporal;
        self.targets = facts.targets;
        self.switches = facts.switches;
        self.layer_sync = facts.layer_sync;
        self.vp8 = facts.vp8;
    }

    pub fn new(sequence: u64, timestamp: u32, payload_len: usize) -> Self {
        Packet {
            at: 0,
            until_ms: 0,
            payload_len: payload_len as u16,
            sequence,
            timestamp,
            marker: false,
            key_frame: false,
            start_of_frame: false,
            end_of_frame: false,
            spatial: 0,
            temporal: 0,
            targets: LayerSet::ALL,
            switches: LayerSet::NONE,
            descriptor_back: 0,
            descriptor_len: 0,
            layer_sync: false,
            vp8: None,
            passed: Passed::default(),
        }
    }
}

/// Which packet carried which sequence number, for the part of one layer that the history has.
#[derive(Default)]
pub struct SequenceIndex {
    /// Row `sequence % len`; empty until the first packet, so that an unused layer costs nothing, and doubled where a
    /// packet would take the row of another that is young enough to be asked for. The packet itself says whether it
    /// is the one that is looked for.
    rows: Vec<PacketNumber>,
    /// So many more rows are taken from packets that could be asked for before they are counted again.
    patience: usize,
}

const NONE: PacketNumber = PacketNumber(u64::MAX);

impl SequenceIndex {
    #[inline]
    pub fn insert(&mut self, sequence: u64, number: PacketNumber, history: &History) {
        let row = sequence as usize & self.rows.len().wrapping_sub(1);
        match self.rows.get_mut(row) {
            Some(other) if !history.is_kept(*other) => *other = number,
            _ => self.insert_in_more(sequence, number, history),
        }
    }

    /// A table of packets that follow each other is full when two meet, and doubles. One whose packets meet while most of it
    /// is empty is of a sender that numbers in leaps, which no size helps: the newer one takes the row.
    #[cold]
    fn insert_in_more(&mut self, sequence: u64, number: PacketNumber, history: &History) {
        let len = self.rows.len();
        if self.patience > 0 {
            self.patience -= 1;
        } else if len < SEQUENCES {
            let size = (2 * len).max(SEQUENCES_FIRST);
            match len == 0 || self.has_use_of(size, history) {
                true => self.rebuild(size, history),
                // Counting is paid for by as many packets.
                false => self.patience = len,
            }
        }
        let row = sequence as usize & (self.rows.len() - 1);
        self.rows[row] = number;
    }

    /// Gives back half of a table that has become too large for its packets; for once in a while.
    pub fn trim(&mut self, history: &History) {
        let len = self.rows.len();
        if len > SEQUENCES_FIRST && !self.has_use_of(len, history) {
            self.rebuild(len / 2, history);
        }
    }

    /// Whether there are enough packets that can be asked for. Of a table of the right size a part is looked at.
    fn has_use_of(&self, size: usize, history: &History) -> bool {
        let needed = size / SEQUENCES_PER_PACKET;
        self.rows.iter().filter(|number| history.is_kept(**number)).nth(needed - 1).is_some()
    }

    fn rebuild(&mut self, size: usize, history: &History) {
        self.patience = 0;
        for known in std::mem::replace(&mut self.rows, vec![NONE; size]) {
            if let Some(packet) = history.packet(known) {
                let row = &mut self.rows[packet.sequence as usize & (size - 1)];
                // Smaller, it may have one row for two: the newer one's.
                *row = if *row == NONE { known } else { known.max(*row) };
            }
        }
    }

    /// The packet of this number, while the history has it.
    pub fn find<'a>(&self, sequence: u64, history: &'a History) -> Option<(PacketNumber, &'a Packet)> {
        let number = *self.rows.get(sequence as usize & self.rows.len().wrapping_sub(1))?;
        let packet = history.packet(number).filter(|packet| packet.sequence == sequence)?;
        Some((number, packet))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIDEO: Duration = Duration::from_secs(2);
    const AUDIO: Duration = Duration::from_secs(1);

    /// A history that a test puts packets into at times of its own.
    struct Record {
        history: History,
        start: Instant,
    }

    impl Record {
        fn new(bound: usize) -> Self {
            Record { history: History::new(bound), start: Instant::now() }
        }

        fn put(&mut self, at_ms: u64, packet: Packet, kept: Duration) -> PacketNumber {
            self.history.slot()[12..12 + packet.payload_len as usize].fill(packet.sequence as u8);
            self.history.commit(12, packet, self.start + Duration::from_millis(at_ms), kept)
        }

        /// One packet of this size each millisecond, numbered by it.
        fn stream(&mut self, ms: std::ops::Range<u64>, len: usize, kept: Duration) -> Vec<PacketNumber> {
            ms.map(|at| self.put(at, Packet::new(at, 0, len), kept)).collect()
        }

        /// How many of these are there, each with its bytes.
        fn found(&self, numbers: &[PacketNumber]) -> usize {
            let known = numbers.iter().filter_map(|number| self.history.packet(*number));
            let is_whole =
                |packet: &Packet| self.history.payload(packet).iter().all(|byte| *byte == packet.sequence as u8);
            known.inspect(|packet| assert!(is_whole(packet), "{}", packet.sequence)).count()
        }
    }

    #[test]
    fn a_picture_can_be_asked_for_again_for_two_seconds_and_is_forgotten_soon_after() {
        let mut record = Record::new(16 << 20);
        let numbers = record.stream(0..10_000, 1000, VIDEO);
        assert_eq!(record.found(&numbers[8_000..]), 2_000);
        assert_eq!(record.found(&numbers[..7_300]), 0);
        assert_eq!(record.history.cut_short(), 0);
    }

    #[test]
    fn sound_can_be_asked_for_again_for_one_second_and_is_forgotten_soon_after() {
        let mut record = Record::new(16 << 20);
        let numbers = record.stream(0..10_000, 100, AUDIO);
        assert_eq!(record.found(&numbers[9_000..]), 1_000);
        assert_eq!(record.found(&numbers[..8_000]), 0);
    }

    #[test]
    fn memory_is_taken_as_the_last_seconds_fill_it_and_given_back() {
        let mut record = Record::new(64 << 20);
        record.stream(0..10_000, 1000, VIDEO);
        let two_seconds = 2_000 * (1_012 + size_of::<Packet>());
        let taken = record.history.bytes();
        assert!((two_seconds..two_seconds * 3 / 2).contains(&taken), "{taken} for {two_seconds}");
        for at in 10_000..13_000 {
            for _ in 0..10 {
                record.put(at, Packet::new(at, 0, 1000), VIDEO);
            }
        }
        assert!(record.history.bytes() > 9 * two_seconds);
        record.stream(13_000..18_000, 1000, VIDEO);
        assert!(record.history.bytes() < 2 * two_seconds, "{}", record.history.bytes());
    }

    #[test]
    fn blocks_are_used_again_before_further_ones_are_touched() {
        let mut record = Record::new(64 << 20);
        record.stream(0..60_000, 1000, VIDEO);
        let touched =
            record.history.bytes.chunks(HISTORY_BLOCK_BYTES).filter(|block| block.iter().any(|byte| *byte != 0));
        assert!(touched.count() < 3_000 * 1_012 / HISTORY_BLOCK_BYTES, "a minute passed through the memory of 3 s");
    }

    #[test]
    fn at_the_bound_the_oldest_go_first_and_those_too_young_for_it_are_counted() {
        let bound = 1 << 20;
        let mut record = Record::new(bound);
        let numbers = record.stream(0..1_500, 1000, VIDEO);
        let kept = record.found(&numbers);
        assert!((800..1_000).contains(&kept), "{kept} of the newest packets are kept");
        assert_eq!(record.found(&numbers[1_500 - kept..]), kept);
        assert_eq!(record.history.cut_short() as usize, 1_500 - kept);
        assert!(record.history.bytes() <= bound, "{}", record.history.bytes());
    }

    #[test]
    fn a_flood_of_tiny_packets_takes_no_more_than_the_bound_and_leaves_it_to_others_when_it_ends() {
        let bound = 1 << 20;
        let mut record = Record::new(bound);
        for _ in 0..200_000 {
            record.put(0, Packet::new(0, 0, 1), VIDEO);
        }
        // A block of them has more facts than bytes.
        assert!(record.history.bytes() < bound * 3 / 2, "{}", record.history.bytes());
        let numbers = record.stream(1..2_000, 1000, VIDEO);
        assert!(record.found(&numbers) >= 700, "{}", record.found(&numbers));
    }

    #[test]
    fn a_stream_with_long_pauses_keeps_each_packet_for_its_time() {
        let mut record = Record::new(1 << 20);
        let every_half_second: Vec<_> = (0..20).map(|n| record.put(n * 500, Packet::new(n, 0, 100), VIDEO)).collect();
        assert_eq!(record.found(&every_half_second[16..]), 4);
        assert_eq!(record.found(&every_half_second[..14]), 0);
    }

    #[test]
    fn a_descriptor_is_read_where_it_stood_in_the_header_as_long_as_the_packet_is_there() {
        let (mut history, now) = (History::new(256 << 10), Instant::now());
        let numbers: Vec<_> = (0..250u8)
            .map(|fill| {
                history.slot()[20..23].fill(fill);
                let packet = Packet { descriptor_back: 20, descriptor_len: 3, ..Packet::new(0, 0, 1000) };
                history.commit(40, packet, now, VIDEO)
            })
            .collect();
        history.slot().fill(0xee);
        let found = numbers.iter().enumerate().filter_map(|(fill, number)| Some((fill, history.packet(*number)?)));
        let read: Vec<_> = found.map(|(fill, packet)| (fill as u8, history.descriptor(packet))).collect();
        assert!(read.len() > 100 && read.len() < 250, "{}", read.len());
        assert!(read.iter().all(|(fill, descriptor)| *descriptor == [*fill; 3]), "{read:?}");
        let bare = history.commit(12, Packet::new(0, 0, 10), now, VIDEO);
        assert!(history.descriptor(history.packet(bare).unwrap()).is_empty());
    }

    #[test]
    fn a_slot_that_is_not_committed_leaves_no_trace() {
        let mut record = Record::new(256 << 10);
        let first = record.put(0, Packet::new(1, 0, 100), VIDEO);
        record.history.slot().fill(9);
        let second = record.put(0, Packet::new(2, 0, 100), VIDEO);
        assert_eq!(record.found(&[first, second]), 2);
    }

    #[test]
    fn an_index_finds_every_packet_of_a_fast_stream_for_its_time() {
        let (mut record, mut index) = (Record::new(16 << 20), SequenceIndex::default());
        assert!(index.find(7, &record.history).is_none());
        let numbers: Vec<_> = (0..5_000)
            .map(|sequence| {
                let number = record.put(sequence, Packet::new(sequence, 0, 500), VIDEO);
                index.insert(sequence, number, &record.history);
                number
            })
            .collect();
        let found = |sequence| index.find(sequence as u64, &record.history).map(|(found, _)| found);
        assert!((3_000..5_000).all(|sequence| found(sequence) == Some(numbers[sequence])));
        assert!((0..2_000).all(|sequence| found(sequence).is_none()));
        assert_eq!(index.rows.len(), 2_048);
    }

    #[test]
    fn an_index_of_a_slow_stream_stays_small_and_none_grows_past_its_bound() {
        let rows = |packets_per_s: u64| {
            let (mut record, mut index) = (Record::new(64 << 20), SequenceIndex::default());
            for sequence in 0..10 * packets_per_s {
                let number = record.put(sequence * 1000 / packets_per_s, Packet::new(sequence, 0, 500), VIDEO);
                index.insert(sequence, number, &record.history);
            }
            index.rows.len()
        };
        assert_eq!([rows(10), rows(30), rows(45), rows(5_000)], [64, 64, 128, SEQUENCES]);
    }

    #[test]
    fn an_index_is_no_larger_than_its_packets_need_however_strangely_they_are_numbered() {
        let mut any = 1u64;
        for leap in [64, 1_000, 4_096, 65_521, 0] {
            let (mut record, mut index) = (Record::new(16 << 20), SequenceIndex::default());
            for n in 0..600 {
                any = any.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let sequence = if leap == 0 { any >> 33 } else { n * leap };
                let number = record.put(n * 33, Packet::new(sequence, 0, 500), VIDEO);
                index.insert(sequence, number, &record.history);
                assert!(index.find(sequence, &record.history).is_some_and(|(found, _)| found == number));
            }
            // Thirty in a second, for two seconds.
            assert!(index.rows.len() <= SEQUENCES_PER_PACKET * 61, "leaps of {leap}: {} rows", index.rows.len());
        }
    }

    #[test]
    fn an_index_of_a_stream_that_slows_down_gives_its_rows_back_and_finds_what_it_found() {
        let (mut record, mut index) = (Record::new(16 << 20), SequenceIndex::default());
        let mut sequence = 0;
        let mut put = |at_ms, record: &mut Record, index: &mut SequenceIndex| {
            let number = record.put(at_ms, Packet::new(sequence, 0, 500), VIDEO);
            index.insert(sequence, number, &record.history);
            sequence += 1;
            sequence
        };
        for ms in 0..4_000 {
            put(ms, &mut record, &mut index);
        }
        index.trim(&record.history);
        assert_eq!(index.rows.len(), 2_048, "two seconds of it");
        for second in 4..16 {
            for frame in 0..20 {
                let newest = put(second * 1_000 + frame * 50, &mut record, &mut index) - 1;
                let kept = if second < 6 { 0 } else { 39 };
                assert!((newest - kept..=newest).all(|sequence| index.find(sequence, &record.history).is_some()));
            }
            index.trim(&record.history);
        }
        assert!(index.rows.len() <= SEQUENCES_PER_PACKET * 40, "{}", index.rows.len());
    }
}
