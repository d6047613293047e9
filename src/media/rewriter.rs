//! One receiver's numbering of a stream: what a packet's sequence number, timestamp and VP8 picture
//! become for this consumer, and which packet a number that it asks for again was.
//!
//! The receiver must see one stream without seams while the source pauses, switches layers or loses
//! temporal layers on the way. Between two seams everything is a constant distance from the source, so
//! the whole memory is a short list of segments:
//!
//! ```text
//!   source   100 101 102 [103 104] 105 106 | layer 2: 9000 9001
//!   sent       1   2   3     -       4   5 |             6    7
//!   segments  from 100: -99          from 105: -101      from 9000: -8994
//! ```
//!
//! It decides and remembers; it never writes a byte.

use std::collections::VecDeque;

use crate::limits::{REWRITE_HOLES, REWRITE_SEGMENTS};
use crate::media::history::Packet;
use crate::packet::codec::vp8::{PictureIds, Vp8Descriptor};
use crate::packet::seq::{PictureId, Tl0PicIdx};

/// What a packet in order touches comes first, and together.
#[repr(C)]
pub struct Rewriter {
    current: Segment,
    /// One above the highest source sequence number seen since the last switch.
    next_in: u64,
    /// Highest sequence number given out.
    highest_out: u64,
    last_timestamp: u32,
    last_picture: u16,
    last_tl0: u8,
    started: bool,
    /// Of what has left: what was decided may still wait, and may be forgotten.
    left: Left,
    /// Older segments of the same layer, newest last.
    older: VecDeque<Segment>,
    /// Numbers since the last switch whose packets were left out too late, newest last: what was sent under them is empty.
    holes: VecDeque<u64>,
    /// Picture of the newest frame that was left out, to count each once.
    skipped_picture: Option<u16>,
}

/// Source packets from `first_in` on are sent under a constant distance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    first_in: u64,
    sequence: u64,
    timestamp: u32,
    picture: u16,
    tl0: u8,
    /// The spatial layer within the stream whose frames are the last of each picture.
    top: u8,
}

/// The highest sequence number under which anything left, and the picture of it.
#[derive(Clone, Copy, Debug)]
struct Left {
    sequence: u64,
    picture: u16,
    tl0: u8,
}

/// [`Segment::top`] of a stream of which every packet is sent: its own markers say where a picture ends.
pub const NO_TOP: u8 = u8::MAX;

/// What a packet becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// Extended: the rollover counter of SRTP and the 16 bits of the header.
    pub sequence: u64,
    pub timestamp: u32,
    /// To be added to the payload descriptor's picture id (15 bits) and TL0PICIDX; `(0, 0)` leaves it alone.
    pub picture: u16,
    pub tl0: u8,
    /// The last packet of the picture as this receiver gets it: it carries the marker.
    pub end: bool,
}

/// A packet that is left out either closes the ranks or, when later ones were sent already, leaves a hole
/// that the receiver will ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skipped {
    Closed,
    Hole(Rewrite),
    BeforeSwitch,
}

impl Rewriter {
    /// The first packet is sent with the number behind `first`; that is kept below 2^15, so that a receiver that misses the
    /// first packets does not take a wrap for a start (RFC 3711 section 3.3.1).
    pub fn new(first: u16) -> Self {
        let first = u64::from(first & 0x7fff);
        Rewriter {
            current: Segment { first_in: u64::MAX, sequence: 0, timestamp: 0, picture: 0, tl0: 0, top: NO_TOP },
            older: VecDeque::new(),
            holes: VecDeque::new(),
            next_in: 0,
            highest_out: first,
            left: Left { sequence: first, picture: 0, tl0: 0 },
            last_timestamp: 0,
            last_picture: 0,
            last_tl0: 0,
            skipped_picture: None,
            started: false,
        }
    }

    pub fn has_started(&self) -> bool {
        self.started
    }

    /// The timestamp last given out; meaningful once started.
    pub fn last_timestamp(&self) -> u32 {
        self.last_timestamp
    }

    pub fn timestamp_distance(&self) -> u32 {
        self.current.timestamp
    }

    /// From `packet` on, the source is another (a first one, another layer, the same after a pause): its
    /// numbers go on behind the last ones sent. `timestamp` is the distance to add to its timestamps, `top` the spatial layer
    /// within the stream that ends its pictures, or [`NO_TOP`].
    pub fn switch(&mut self, packet: &Packet, timestamp: u32, top: u8) {
        self.older.clear();
        self.holes.clear();
        self.skipped_picture = None;
        let (picture, tl0) = match (packet.vp8, self.started) {
            (Some(ids), true) => (
                self.last_picture.wrapping_add(1).wrapping_sub(picture_of(&ids)) & 0x7fff,
                self.last_tl0.wrapping_add(1).wrapping_sub(tl0_of(&ids)),
            ),
            _ => (0, 0),
        };
        self.current = Segment {
            first_in: packet.sequence,
            sequence: (self.highest_out + 1).wrapping_sub(packet.sequence),
            timestamp,
            picture,
            tl0,
            top,
        };
        self.next_in = packet.sequence;
        self.started = true;
    }

    /// From `packet` on, which is newer than any before, pictures end with another spatial layer of the stream.
    pub fn turn(&mut self, packet: &Packet, top: u8) {
        let next = Segment { first_in: packet.sequence, top, ..self.current };
        self.advance(packet.sequence, next);
    }

    /// Whether a later packet than this one has been sent or left out.
    pub fn is_behind(&self, packet: &Packet) -> bool {
        packet.sequence < self.next_in
    }

    /// The packet is sent. `None`: it is older than the last switch, or than what is remembered.
    #[inline]
    pub fn accept(&mut self, packet: &Packet) -> Option<Rewrite> {
        let rewrite = if packet.sequence >= self.next_in {
            self.next_in = packet.sequence + 1;
            self.current.apply(packet)
        } else {
            self.segment_of(packet.sequence)?.apply(packet)
        };
        // A late one may be the newest sent all the same, where those behind it were left out.
        if rewrite.sequence > self.highest_out {
            self.highest_out = rewrite.sequence;
            self.last_timestamp = rewrite.timestamp;
            if let Some(ids) = packet.vp8 {
                self.last_picture = picture_of(&ids).wrapping_add(rewrite.picture) & 0x7fff;
                self.last_tl0 = tl0_of(&ids).wrapping_add(rewrite.tl0);
            }
        }
        Some(rewrite)
    }

    /// A packet was sealed under what it became; `vp8` where there was anything of its picture in it.
    pub fn has_left(&mut self, rewrite: &Rewrite, vp8: Option<Vp8Descriptor>) {
        if rewrite.sequence <= self.left.sequence {
            return;
        }
        self.left.sequence = rewrite.sequence;
        if let Some(ids) = vp8 {
            self.left.picture = picture_of(&ids).wrapping_add(rewrite.picture) & 0x7fff;
            self.left.tl0 = tl0_of(&ids).wrapping_add(rewrite.tl0);
        }
    }

    /// Nothing leaves any more of what was decided and has not left: numbers go on behind what has. No number is used twice, for
    /// nothing was sealed under those. Only where the next packet is one to [`switch`](Self::switch) with.
    pub fn give_back(&mut self) {
        if self.left.sequence < self.highest_out {
            (self.highest_out, self.last_picture, self.last_tl0) =
                (self.left.sequence, self.left.picture, self.left.tl0);
        }
    }

    /// The packet is left out, and those behind it move up.
    pub fn skip(&mut self, packet: &Packet) -> Skipped {
        if packet.sequence < self.next_in {
            let Some(segment) = self.segment_of(packet.sequence) else { return Skipped::BeforeSwitch };
            let rewrite = segment.apply(packet);
            if self.holes.len() == REWRITE_HOLES {
                self.holes.pop_front();
            }
            self.holes.push_back(rewrite.sequence);
            // Its number is used up, as that of a packet is.
            self.highest_out = self.highest_out.max(rewrite.sequence);
            return Skipped::Hole(rewrite);
        }
        self.next_in = packet.sequence + 1;
        let mut next = self.current;
        next.first_in = packet.sequence + 1;
        next.sequence = next.sequence.wrapping_sub(1);
        if let Some(picture) = packet.vp8.and_then(|ids| ids.picture_id).map(|id| id.0)
            && self.skipped_picture != Some(picture)
        {
            self.skipped_picture = Some(picture);
            next.picture = next.picture.wrapping_sub(1) & 0x7fff;
        }
        self.advance(packet.sequence, next);
        Skipped::Closed
    }

    /// Another segment begins at or behind this packet.
    fn advance(&mut self, sequence: u64, next: Segment) {
        if self.current.first_in < sequence {
            if self.older.len() == REWRITE_SEGMENTS {
                self.older.pop_front();
            }
            self.older.push_back(self.current);
        }
        self.current = next;
    }

    /// Whether a packet was sent behind a later one.
    #[inline]
    pub fn is_late(&self, rewrite: &Rewrite) -> bool {
        rewrite.sequence < self.highest_out
    }

    /// Which source packet was sent under this number since the last switch.
    pub fn source_of(&self, sequence: u16) -> Option<u64> {
        let behind = (self.highest_out as u16).wrapping_sub(sequence);
        if !self.started || behind > 0x7fff {
            return None;
        }
        let out = self.highest_out.checked_sub(u64::from(behind))?;
        let mut end = u64::MAX;
        for segment in std::iter::once(&self.current).chain(self.older.iter().rev()) {
            let source = out.wrapping_sub(segment.sequence);
            if source >= segment.first_in && source < end && source < self.next_in {
                return Some(source);
            }
            end = segment.first_in;
        }
        None
    }

    /// What a packet that was accepted before became then.
    pub fn again(&self, packet: &Packet) -> Option<Rewrite> {
        Some(self.segment_of(packet.sequence)?.apply(packet))
    }

    /// Whether what was sent under this number only filled its place.
    pub fn is_hole(&self, rewrite: &Rewrite) -> bool {
        self.holes.contains(&rewrite.sequence)
    }

    fn segment_of(&self, source: u64) -> Option<&Segment> {
        std::iter::once(&self.current).chain(self.older.iter().rev()).find(|segment| segment.first_in <= source)
    }
}

fn picture_of(ids: &Vp8Descriptor) -> u16 {
    ids.picture_id.map_or(0, |id| id.0)
}

fn tl0_of(ids: &Vp8Descriptor) -> u8 {
    ids.tl0_pic_idx.map_or(0, |index| index.0)
}

impl Rewrite {
    /// The numbers to write into the payload descriptor; `None` when it stays as it came.
    #[inline]
    pub fn picture_ids(&self, descriptor: &Vp8Descriptor) -> Option<PictureIds> {
        if self.picture == 0 && self.tl0 == 0 {
            return None;
        }
        Some(PictureIds {
            picture_id: PictureId::new(picture_of(descriptor).wrapping_add(self.picture)),
            tl0_pic_idx: Tl0PicIdx::new(tl0_of(descriptor).wrapping_add(self.tl0)),
        })
    }
}

impl Segment {
    #[inline]
    fn apply(&self, packet: &Packet) -> Rewrite {
        Rewrite {
            sequence: packet.sequence.wrapping_add(self.sequence),
            timestamp: packet.timestamp.wrapping_add(self.timestamp),
            picture: self.picture,
            tl0: self.tl0,
            end: packet.end_of_frame && packet.spatial == self.top,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(sequence: u64) -> Packet {
        Packet::new(sequence, sequence as u32 * 3000, 100)
    }

    fn picture(sequence: u64, picture_id: u16, tl0: u8) -> Packet {
        // X with I, L and T present; a 15-bit picture id.
        let [high, low] = (0x8000 | picture_id).to_be_bytes();
        let descriptor = [0x90, 0xe0, high, low, tl0, 0, 0x01, 0, 0, 0];
        Packet { vp8: Vp8Descriptor::parse(&descriptor), ..packet(sequence) }
    }

    fn started(at: u64) -> Rewriter {
        let mut rewriter = Rewriter::new(100);
        rewriter.switch(&packet(at), 0, NO_TOP);
        rewriter
    }

    fn sent(rewriter: &mut Rewriter, packet: &Packet) -> u16 {
        rewriter.accept(packet).expect("is sent").sequence as u16
    }

    #[test]
    fn numbers_go_on_without_a_gap_over_a_switch() {
        let mut rewriter = started(5000);
        assert_eq!(sent(&mut rewriter, &packet(5000)), 101);
        assert_eq!(sent(&mut rewriter, &packet(5001)), 102);
        rewriter.switch(&packet(90), 7, NO_TOP);
        let rewrite = rewriter.accept(&packet(90)).unwrap();
        assert_eq!((rewrite.sequence as u16, rewrite.timestamp), (103, 90 * 3000 + 7));
    }

    #[test]
    fn numbers_of_what_never_left_are_given_out_again_and_of_what_left_never() {
        let mut rewriter = Rewriter::new(100);
        rewriter.switch(&picture(5000, 7, 3), 0, NO_TOP);
        let frames: Vec<_> = (0..6).map(|n| picture(5000 + n, 7 + n as u16, 3 + n as u8)).collect();
        let became: Vec<_> = frames.iter().map(|frame| rewriter.accept(frame).unwrap()).collect();
        // The third and the second in the wrong order; the others wait.
        for at in [0, 2, 1] {
            rewriter.has_left(&became[at], frames[at].vp8);
        }
        rewriter.give_back();
        assert_eq!(rewriter.source_of(became[3].sequence as u16), None, "it was never sent");
        let next = picture(90, 1000, 200);
        rewriter.switch(&next, 0, NO_TOP);
        let rewrite = rewriter.accept(&next).unwrap();
        assert_eq!(rewrite.sequence, became[2].sequence + 1);
        let ids = rewrite.picture_ids(&next.vp8.unwrap()).unwrap();
        assert_eq!((ids.picture_id.0, ids.tl0_pic_idx.0), (10, 6), "behind the third");
    }

    #[test]
    fn a_packet_from_before_the_switch_is_refused() {
        let mut rewriter = started(5000);
        assert_eq!(rewriter.accept(&packet(4999)), None);
        sent(&mut rewriter, &packet(5000));
        assert_eq!(rewriter.accept(&packet(4999)), None);
    }

    #[test]
    fn a_loss_at_the_source_stays_a_gap_and_is_filled_when_the_packet_comes_late() {
        let mut rewriter = started(10);
        assert_eq!(sent(&mut rewriter, &packet(10)), 101);
        assert_eq!(sent(&mut rewriter, &packet(13)), 104);
        assert_eq!(sent(&mut rewriter, &packet(11)), 102);
        assert_eq!(sent(&mut rewriter, &packet(14)), 105);
    }

    #[test]
    fn packets_left_out_close_the_ranks_in_sequence_and_picture() {
        let mut rewriter = Rewriter::new(100);
        rewriter.switch(&picture(10, 7, 1), 0, NO_TOP);
        rewriter.accept(&picture(10, 7, 1)).unwrap();
        assert_eq!(rewriter.skip(&picture(11, 8, 1)), Skipped::Closed);
        assert_eq!(rewriter.skip(&picture(12, 8, 1)), Skipped::Closed);
        let rewrite = rewriter.accept(&picture(13, 9, 2)).unwrap();
        assert_eq!(rewrite.sequence as u16, 102);
        assert_eq!(9u16.wrapping_add(rewrite.picture) & 0x7fff, 8);
        assert_eq!(2u8.wrapping_add(rewrite.tl0), 2);
    }

    #[test]
    fn a_late_packet_finds_the_distance_that_was_in_force_where_it_belongs() {
        let mut rewriter = started(10);
        assert_eq!(sent(&mut rewriter, &packet(10)), 101);
        // 11 is late; 12 is left out; 13 goes on.
        rewriter.skip(&packet(12));
        assert_eq!(sent(&mut rewriter, &packet(13)), 103);
        assert_eq!(sent(&mut rewriter, &packet(11)), 102);
    }

    #[test]
    fn a_packet_left_out_too_late_is_a_hole_with_a_number() {
        let mut rewriter = started(10);
        sent(&mut rewriter, &packet(10));
        sent(&mut rewriter, &packet(12));
        match rewriter.skip(&packet(11)) {
            Skipped::Hole(rewrite) => {
                assert_eq!(rewrite.sequence as u16, 102);
                assert!(rewriter.is_hole(&rewrite), "it is one for whoever asks again");
            }
            other => panic!("{other:?}"),
        }
        assert!(!rewriter.is_hole(&rewriter.again(&packet(12)).unwrap()));
    }

    #[test]
    fn a_switch_gives_no_number_out_again_that_went_to_a_late_packet_or_filled_a_place() {
        for leave_out in [false, true] {
            let mut rewriter = started(10);
            sent(&mut rewriter, &packet(10));
            // 11 comes behind 12, which is left out: nothing newer than 10 was sent.
            rewriter.skip(&packet(12));
            let late = if leave_out {
                let Skipped::Hole(rewrite) = rewriter.skip(&packet(11)) else { panic!("12 is known already") };
                rewrite
            } else {
                rewriter.accept(&packet(11)).unwrap()
            };
            assert_eq!(late.sequence as u16, 102);
            assert_eq!(rewriter.source_of(102), Some(11));
            rewriter.switch(&packet(7000), 0, NO_TOP);
            assert_eq!(sent(&mut rewriter, &packet(7000)), 103);
        }
    }

    #[test]
    fn a_late_picture_that_is_the_newest_one_sent_is_what_a_switch_goes_on_from() {
        let mut rewriter = Rewriter::new(100);
        rewriter.switch(&picture(10, 7, 1), 0, NO_TOP);
        rewriter.accept(&picture(10, 7, 1)).unwrap();
        rewriter.skip(&picture(12, 9, 1));
        let late = rewriter.accept(&picture(11, 8, 2)).unwrap();
        assert_eq!(rewriter.last_timestamp(), late.timestamp);
        rewriter.switch(&picture(7000, 40, 90), 0, NO_TOP);
        let next = rewriter.accept(&picture(7000, 40, 90)).unwrap();
        assert_eq!((40u16.wrapping_add(next.picture) & 0x7fff, 90u8.wrapping_add(next.tl0)), (9, 3));
    }

    #[test]
    fn a_number_asked_for_again_leads_to_its_source_across_left_out_packets() {
        let mut rewriter = started(10);
        for source in 10..60 {
            if source % 3 == 0 {
                rewriter.skip(&packet(source));
            } else {
                let number = sent(&mut rewriter, &packet(source));
                assert_eq!(rewriter.source_of(number), Some(source));
            }
        }
        assert_eq!(rewriter.source_of(101), Some(10));
        assert_eq!(rewriter.source_of(100), None, "never sent");
        assert_eq!(rewriter.source_of(5000), None, "not sent yet");
        let again = rewriter.again(&packet(11)).unwrap();
        assert_eq!(again.sequence as u16, 102);
    }

    #[test]
    fn nothing_from_before_a_switch_is_found_again() {
        let mut rewriter = started(10);
        sent(&mut rewriter, &packet(10));
        rewriter.switch(&packet(70), 0, NO_TOP);
        sent(&mut rewriter, &packet(70));
        assert_eq!(rewriter.source_of(101), None);
        assert_eq!(rewriter.source_of(102), Some(70));
    }

    #[test]
    fn picture_numbers_go_on_over_a_switch_and_stay_in_15_bits() {
        let mut rewriter = Rewriter::new(0);
        rewriter.switch(&picture(10, 0x7fff, 255), 0, NO_TOP);
        rewriter.accept(&picture(10, 0x7fff, 255)).unwrap();
        rewriter.switch(&picture(500, 40, 9), 0, NO_TOP);
        let rewrite = rewriter.accept(&picture(500, 40, 9)).unwrap();
        assert_eq!((40 + rewrite.picture) & 0x7fff, 0);
        assert_eq!(9u8.wrapping_add(rewrite.tl0), 0);
    }

    #[test]
    fn a_picture_ends_with_the_layer_that_was_the_highest_when_it_was_sent() {
        let ends = |sequence, spatial| Packet { end_of_frame: true, spatial, ..packet(sequence) };
        let mut rewriter = Rewriter::new(100);
        rewriter.switch(&packet(10), 0, 1);
        assert!(!rewriter.accept(&ends(10, 0)).unwrap().end);
        assert!(rewriter.accept(&ends(11, 1)).unwrap().end);
        rewriter.skip(&ends(12, 2));
        rewriter.turn(&packet(13), 0);
        let rewrite = rewriter.accept(&ends(13, 0)).unwrap();
        assert_eq!((rewrite.sequence as u16, rewrite.end), (103, true));
        assert_eq!(rewriter.source_of(102), Some(11));
        assert!(rewriter.again(&ends(11, 1)).unwrap().end, "and the same when it is sent again");
        assert!(!rewriter.again(&ends(10, 0)).unwrap().end);
    }

    #[test]
    fn what_is_remembered_of_left_out_packets_is_bounded() {
        let mut rewriter = started(0);
        for source in 0..10_000u64 {
            if source % 2 == 0 {
                sent(&mut rewriter, &packet(source));
            } else {
                rewriter.skip(&packet(source));
            }
        }
        assert!(rewriter.older.len() <= REWRITE_SEGMENTS);
        let mut rewriter = started(0);
        for source in 1..1000u64 {
            sent(&mut rewriter, &packet(2 * source));
            rewriter.skip(&packet(2 * source - 1));
        }
        assert_eq!(rewriter.holes.len(), REWRITE_HOLES);
    }
}
