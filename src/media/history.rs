//! The shard's record of what arrived: one plaintext copy of each media packet, shared by all consumers.
//!
//! ```text
//!   bytes    |....old....|payload|payload|payload|>head  ......    |   a ring of `capacity` bytes
//!   packets  |..|n-3|n-2|n-1|>next  ...                            |   a ring of facts about them
//! ```
//!
//! Ingress opens (decrypts) each datagram straight into the ring; egress seals from it for every
//! consumer, at once or when a receiver asks again. Both rings overwrite their oldest part, so memory is
//! bounded by construction, nothing is freed and nothing fragments. Nobody ever changes a packet that
//! stands here.

use crate::limits::DATAGRAM_BYTES;
use crate::packet::codec::layers::LayerSet;
use crate::packet::codec::vp8::Vp8Descriptor;
use crate::packet::extension::ExtensionSet;

pub struct History {
    bytes: Box<[u8]>,
    /// Bytes ever reserved, wrap gaps included; the ring position is `head % bytes.len()`.
    head: u64,
    packets: Vec<Packet>,
    bound: usize,
    next: u64,
}

/// Names a packet for as long as the history lasts; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PacketNumber(pub u64);

/// What is known of a packet once it is open.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// Where the payload stands: filled in by [`History::commit`].
    pub(super) position: u64,
    /// The same as a place in the ring.
    pub(super) at: u32,
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
    /// `capacity` bytes of payload and at most `packets` packets. Pages are touched as they are first used.
    pub fn new(capacity: usize, packets: usize) -> Self {
        History {
            bytes: vec![0; capacity.max(4 * DATAGRAM_BYTES)].into_boxed_slice(),
            head: 0,
            packets: Vec::with_capacity(packets.max(1)),
            bound: packets.max(1),
            next: 0,
        }
    }

    /// Room for one datagram behind the newest packet; nothing is kept of it until [`commit`](Self::commit).
    #[inline]
    pub fn slot(&mut self) -> &mut [u8] {
        let size = self.bytes.len() as u64;
        if size - self.head % size < DATAGRAM_BYTES as u64 {
            self.head += size - self.head % size;
        }
        let at = (self.head % size) as usize;
        &mut self.bytes[at..at + DATAGRAM_BYTES]
    }

    /// Keeps `payload_len` bytes from `payload_at` of the slot.
    #[inline]
    pub fn commit(&mut self, payload_at: usize, mut packet: Packet) -> PacketNumber {
        packet.position = self.head + payload_at as u64;
        packet.at = (packet.position % self.bytes.len() as u64) as u32;
        self.head += (payload_at + packet.payload_len as usize) as u64;
        let number = PacketNumber(self.next);
        self.next += 1;
        if self.packets.len() < self.bound {
            self.packets.push(packet);
        } else {
            self.packets[(number.0 % self.bound as u64) as usize] = packet;
        }
        number
    }

    /// `None` once the packet or its payload was overwritten.
    #[inline]
    pub fn packet(&self, number: PacketNumber) -> Option<&Packet> {
        if number.0 >= self.next || self.next - number.0 > self.bound as u64 {
            return None;
        }
        let packet = &self.packets[(number.0 % self.bound as u64) as usize];
        // The slot at the head may be written before it is committed, and the packet's own header is in front of its
        // payload: a datagram of margin for each.
        let kept = self.bytes.len() as u64 - 2 * DATAGRAM_BYTES as u64;
        (self.head - packet.position <= kept).then_some(packet)
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
}

impl Packet {
    pub fn new(sequence: u64, timestamp: u32, payload_len: usize) -> Self {
        Packet {
            position: 0,
            at: 0,
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

/// Which packet carried which sequence number, for the newest part of one layer.
pub struct SequenceIndex {
    /// Slot `sequence % len`; empty until the first packet, so that an unused layer costs nothing. The packet itself says
    /// whether it is the one that is looked for.
    rows: Vec<PacketNumber>,
    size: usize,
}

impl SequenceIndex {
    pub fn new(size: usize) -> Self {
        SequenceIndex { rows: Vec::new(), size: size.next_power_of_two() }
    }

    #[inline]
    pub fn insert(&mut self, sequence: u64, number: PacketNumber) {
        if self.rows.is_empty() {
            self.rows = vec![PacketNumber(u64::MAX); self.size];
        }
        self.rows[sequence as usize & (self.size - 1)] = number;
    }

    /// The packet of this number, while the history has it.
    pub fn find<'a>(&self, sequence: u64, history: &'a History) -> Option<(PacketNumber, &'a Packet)> {
        let number = *self.rows.get(sequence as usize & (self.size - 1))?;
        let packet = history.packet(number).filter(|packet| packet.sequence == sequence)?;
        Some((number, packet))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(history: &mut History, fill: u8, len: usize) -> PacketNumber {
        history.slot()[12..12 + len].fill(fill);
        history.commit(12, Packet::new(0, 0, len))
    }

    #[test]
    fn a_packet_is_found_with_its_bytes_until_it_is_overwritten() {
        let mut history = History::new(20_000, 1000);
        let numbers: Vec<_> = (0..200u8).map(|fill| put(&mut history, fill, 1000)).collect();
        let mut found = 0;
        for (fill, number) in numbers.iter().enumerate() {
            if let Some(packet) = history.packet(*number) {
                assert!(history.payload(packet).iter().all(|byte| *byte == fill as u8));
                found += 1;
            }
        }
        assert!((14..20).contains(&found), "{found} of the newest packets are kept");
        assert!(history.packet(*numbers.last().unwrap()).is_some());
    }

    #[test]
    fn the_number_of_packets_is_bounded_too() {
        let mut history = History::new(1 << 20, 8);
        let numbers: Vec<_> = (0..20u8).map(|fill| put(&mut history, fill, 10)).collect();
        let kept = numbers.iter().filter(|number| history.packet(**number).is_some()).count();
        assert_eq!(kept, 8);
    }

    #[test]
    fn a_descriptor_is_read_where_it_stood_in_the_header_as_long_as_the_packet_is_there() {
        let mut history = History::new(20_000, 1000);
        let numbers: Vec<_> = (0..200u8)
            .map(|fill| {
                history.slot()[20..23].fill(fill);
                let packet = Packet { descriptor_back: 20, descriptor_len: 3, ..Packet::new(0, 0, 1000) };
                history.commit(40, packet)
            })
            .collect();
        history.slot().fill(0xee);
        let found = numbers.iter().enumerate().filter_map(|(fill, number)| Some((fill, history.packet(*number)?)));
        let read: Vec<_> = found.map(|(fill, packet)| (fill as u8, history.descriptor(packet))).collect();
        assert!(read.len() > 10);
        assert!(read.iter().all(|(fill, descriptor)| *descriptor == [*fill; 3]), "{read:?}");
        let bare = put(&mut history, 1, 10);
        assert!(history.descriptor(history.packet(bare).unwrap()).is_empty());
    }

    #[test]
    fn a_slot_that_is_not_committed_leaves_no_trace() {
        let mut history = History::new(20_000, 8);
        let first = put(&mut history, 1, 100);
        history.slot().fill(9);
        let second = put(&mut history, 2, 100);
        let (first, second) = (*history.packet(first).unwrap(), *history.packet(second).unwrap());
        assert!(history.payload(&first).iter().all(|byte| *byte == 1));
        assert!(history.payload(&second).iter().all(|byte| *byte == 2));
    }

    #[test]
    fn an_index_forgets_a_sequence_number_when_another_takes_its_row() {
        let (mut history, mut index) = (History::new(20_000, 8), SequenceIndex::new(4));
        let found =
            |index: &SequenceIndex, history: &History, sequence| index.find(sequence, history).map(|(at, _)| at);
        assert_eq!(found(&index, &history, 7), None);
        let [seven, eleven] = [7, 11].map(|sequence| history.commit(12, Packet::new(sequence, 0, 10)));
        index.insert(7, seven);
        assert_eq!(found(&index, &history, 7), Some(seven));
        assert_eq!(found(&index, &history, 3), None);
        index.insert(11, eleven);
        assert_eq!(found(&index, &history, 7), None);
        for _ in 0..8 {
            history.commit(12, Packet::new(0, 0, 10));
        }
        assert_eq!(found(&index, &history, 11), None, "overwritten");
    }
}
