//! The RTP header that one consumer's packets leave with: everything that stays the same is laid out once,
//! a packet patches the rest.
//!
//! ```text
//!   |V P X CC|M PT|sequence| timestamp | ssrc |BEDE|words| mid .. | abs-send-time | transport-cc | passed .. | 0 |
//!    ------------------- 12 -------------------|--- 4 ---|------- the same for every packet -----|- a packet's own -|
//! ```
//!
//! Extensions are in one-byte form (RFC 8285 section 4.2) under the router's ids. The block keeps its length
//! from packet to packet, so that the packets of a frame stay as equal in size as their sender made them. Only the dependency
//! descriptor of a key frame is too long for that: the block of its packet is in two-byte form (section 4.3).

use crate::ids::Ssrc;
use crate::limits::{DESCRIPTOR_BYTES, HEADER_BYTES};
use crate::media::history::{PASSED_BYTES, Packet, Passed};
use crate::media::rewriter::Rewrite;
use crate::packet::extension::{Extension, ExtensionSet};

const FIXED: usize = 12;
const BLOCK: usize = FIXED + 4;
const MID_BYTES: usize = 8;
const LAYOUT_BYTES: usize = BLOCK + 1 + MID_BYTES + 4 + 3;
/// What the one-byte form holds.
const SHORT_BYTES: usize = 16;
/// Elements in two-byte form: each takes two bytes in front of its value, and has one at least.
const LONG_BYTES: usize = 2 * (LAYOUT_BYTES - BLOCK + PASSED_BYTES) + 2 + DESCRIPTOR_BYTES;
const _: () = assert!(LAYOUT_BYTES + PASSED_BYTES + 3 <= HEADER_BYTES);

#[derive(Clone, Debug)]
pub struct HeaderLayout {
    bytes: [u8; LAYOUT_BYTES],
    /// Fixed header, and the extension block as far as it is the same for all packets.
    len: u8,
    abs_send_time_at: u8,
    transport_cc_at: u8,
    extensions: ExtensionSet,
}

/// What the transport adds to every packet as it leaves.
#[derive(Clone, Copy, Debug)]
pub struct Departure {
    /// 24 bits, 6.18 fixed point seconds.
    pub abs_send_time: u32,
    pub transport_sequence: u16,
}

impl HeaderLayout {
    /// A `mid` beyond 8 bytes is cut; negotiation never makes one.
    pub fn new(payload_type: u8, ssrc: Ssrc, mid: &str, extensions: ExtensionSet) -> Self {
        let mut layout = HeaderLayout {
            bytes: [0; LAYOUT_BYTES],
            len: BLOCK as u8,
            abs_send_time_at: 0,
            transport_cc_at: 0,
            extensions,
        };
        layout.bytes[1] = payload_type & 0x7f;
        layout.bytes[8..12].copy_from_slice(&ssrc.0.to_be_bytes());
        layout.bytes[12..14].copy_from_slice(&[0xbe, 0xde]);
        let mid = &mid.as_bytes()[..mid.len().min(MID_BYTES)];
        if extensions.contains(Extension::Mid) && !mid.is_empty() {
            layout.push(Extension::Mid, mid);
        }
        if extensions.contains(Extension::AbsSendTime) {
            layout.abs_send_time_at = layout.push(Extension::AbsSendTime, &[0; 3]);
        }
        if extensions.contains(Extension::TransportCc) {
            layout.transport_cc_at = layout.push(Extension::TransportCc, &[0; 2]);
        }
        layout
    }

    fn push(&mut self, extension: Extension, value: &[u8]) -> u8 {
        let at = self.len as usize;
        self.bytes[at] = extension.router_id() << 4 | (value.len() - 1) as u8;
        self.bytes[at + 1..at + 1 + value.len()].copy_from_slice(value);
        self.len += 1 + value.len() as u8;
        (at + 1) as u8
    }

    pub fn extensions(&self) -> ExtensionSet {
        self.extensions
    }

    pub fn has_transport_cc(&self) -> bool {
        self.transport_cc_at != 0
    }

    /// Bytes that [`write`](Self::write) will write for this packet.
    #[inline]
    pub fn len(&self, packet: &Packet) -> usize {
        let mut elements = self.len as usize - BLOCK + self.passed_len(&packet.passed);
        if packet.descriptor_len != 0 {
            elements += self.descriptor_len(packet);
        }
        if elements == 0 { FIXED } else { BLOCK + elements.next_multiple_of(4) }
    }

    pub fn is_empty(&self) -> bool {
        false
    }

    #[inline]
    fn passed_len(&self, passed: &Passed) -> usize {
        if passed.len == 0 {
            return 0;
        }
        if self.extensions.contains_all(passed.set) {
            return passed.len as usize;
        }
        passed.elements().filter(|element| self.takes(element)).map(<[u8]>::len).sum()
    }

    /// What a packet's dependency descriptor adds to the block.
    fn descriptor_len(&self, packet: &Packet) -> usize {
        let len = packet.descriptor_len as usize;
        if !self.extensions.contains(Extension::DependencyDescriptor) {
            return 0;
        }
        if len <= SHORT_BYTES {
            return 1 + len;
        }
        let passed = packet.passed.elements().filter(|element| self.takes(element));
        2 + len + elements(&self.bytes[BLOCK..self.len as usize]).count() + passed.count()
    }

    fn takes(&self, element: &[u8]) -> bool {
        Extension::ALL.iter().any(|e| e.router_id() == element[0] >> 4 && self.extensions.contains(*e))
    }

    /// Writes the header of `packet` with its dependency `descriptor` as `rewrite` says and returns its length; `out` has
    /// [`HEADER_BYTES`] beyond [`len`](Self::len).
    #[inline]
    pub fn write(
        &self,
        out: &mut [u8],
        packet: &Packet,
        descriptor: &[u8],
        rewrite: &Rewrite,
        departure: Departure,
        padded: bool,
    ) -> usize {
        let mut end = self.len as usize;
        out[..LAYOUT_BYTES].copy_from_slice(&self.bytes);
        out[1] |= u8::from(packet.marker | rewrite.end) << 7;
        out[2..4].copy_from_slice(&(rewrite.sequence as u16).to_be_bytes());
        out[4..8].copy_from_slice(&rewrite.timestamp.to_be_bytes());
        if self.abs_send_time_at != 0 {
            let at = self.abs_send_time_at as usize;
            out[at..at + 3].copy_from_slice(&departure.abs_send_time.to_be_bytes()[1..]);
        }
        if self.transport_cc_at != 0 {
            let at = self.transport_cc_at as usize;
            out[at..at + 2].copy_from_slice(&departure.transport_sequence.to_be_bytes());
        }
        if packet.passed.len != 0 {
            end = self.pass(out, end, &packet.passed);
        }
        if !descriptor.is_empty() && self.extensions.contains(Extension::DependencyDescriptor) {
            end = describe(out, end, descriptor);
        }
        if end == BLOCK {
            out[0] = 0x80 | u8::from(padded) << 5;
            return FIXED;
        }
        let words = (end - BLOCK).div_ceil(4);
        let len = BLOCK + 4 * words;
        out[end..len].fill(0);
        out[0] = 0x90 | u8::from(padded) << 5;
        out[14..16].copy_from_slice(&(words as u16).to_be_bytes());
        len
    }

    #[inline]
    fn pass(&self, out: &mut [u8], mut end: usize, passed: &Passed) -> usize {
        if self.extensions.contains_all(passed.set) {
            out[end..end + PASSED_BYTES].copy_from_slice(&passed.bytes);
            return end + passed.len as usize;
        }
        for element in passed.elements().filter(|element| self.takes(element)) {
            out[end..end + element.len()].copy_from_slice(element);
            end += element.len();
        }
        end
    }
}

/// Puts the dependency descriptor behind the elements in `out`, which end at `end`; returns the new end.
#[inline(never)]
fn describe(out: &mut [u8], end: usize, descriptor: &[u8]) -> usize {
    let id = Extension::DependencyDescriptor.router_id();
    if descriptor.len() <= SHORT_BYTES {
        out[end] = id << 4 | (descriptor.len() - 1) as u8;
        out[end + 1..][..descriptor.len()].copy_from_slice(descriptor);
        return end + 1 + descriptor.len();
    }
    let (mut long, mut at) = ([0; LONG_BYTES], 0);
    let mut push = |id: u8, value: &[u8]| {
        (long[at], long[at + 1]) = (id, value.len() as u8);
        long[at + 2..][..value.len()].copy_from_slice(value);
        at += 2 + value.len();
    };
    elements(&out[BLOCK..end]).for_each(|element| push(element[0] >> 4, &element[1..]));
    push(id, descriptor);
    out[FIXED..FIXED + 2].copy_from_slice(&[0x10, 0x00]);
    out[BLOCK..BLOCK + at].copy_from_slice(&long[..at]);
    BLOCK + at
}

/// The elements of a block in one-byte form without padding, each with its id byte.
fn elements(block: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = block;
    std::iter::from_fn(move || {
        let len = 2 + (*rest.first()? & 0x0f) as usize;
        let (element, behind) = rest.split_at_checked(len)?;
        rest = behind;
        Some(element)
    })
}

impl Passed {
    /// Adds an element under the router's id; one that does not fit, or is longer than one-byte form holds,
    /// is left out.
    pub fn push(&mut self, extension: Extension, value: &[u8]) {
        let at = self.len as usize;
        if value.is_empty() || value.len() > 16 || at + 1 + value.len() > PASSED_BYTES {
            return;
        }
        self.bytes[at] = extension.router_id() << 4 | (value.len() - 1) as u8;
        self.bytes[at + 1..at + 1 + value.len()].copy_from_slice(value);
        self.len += 1 + value.len() as u8;
        self.set = self.set.with(extension);
    }

    /// Each element with its id byte.
    fn elements(&self) -> impl Iterator<Item = &[u8]> {
        elements(&self.bytes[..self.len as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::rtp::RtpHeader;

    const DEPARTURE: Departure = Departure { abs_send_time: 0x00ab_cdef, transport_sequence: 0x1234 };

    fn all() -> ExtensionSet {
        [Extension::Mid, Extension::AbsSendTime, Extension::TransportCc, Extension::AudioLevel].into_iter().collect()
    }

    fn written(layout: &HeaderLayout, packet: &Packet) -> Vec<u8> {
        described(layout, packet, &[])
    }

    fn described(layout: &HeaderLayout, packet: &Packet, descriptor: &[u8]) -> Vec<u8> {
        let rewrite = Rewrite { sequence: 0x5_0007, timestamp: 99, picture: 0, tl0: 0, end: false };
        let packet = Packet { descriptor_len: descriptor.len() as u8, ..*packet };
        let mut out = [0xffu8; HEADER_BYTES + LONG_BYTES];
        let len = layout.write(&mut out, &packet, descriptor, &rewrite, DEPARTURE, false);
        assert_eq!(len, layout.len(&packet));
        out[..len].to_vec()
    }

    fn elements(bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let header = RtpHeader::parse(bytes).expect("a header");
        assert_eq!(header.header_len as usize, bytes.len());
        header.extensions(bytes).map(|(id, value)| (id, value.to_vec())).collect()
    }

    #[test]
    fn a_header_carries_the_consumers_names_and_the_transports_times() {
        let layout = HeaderLayout::new(101, Ssrc(0xdead_beef), "42", all());
        let mut packet = Packet::new(1, 2, 3);
        packet.marker = true;
        packet.passed.push(Extension::AudioLevel, &[0x85]);
        let bytes = written(&layout, &packet);
        let header = RtpHeader::parse(&bytes).unwrap();
        assert_eq!((header.payload_type, header.marker, header.ssrc), (101, true, Ssrc(0xdead_beef)));
        assert_eq!((header.sequence.0, header.timestamp), (7, 99));
        let expected: Vec<(u8, Vec<u8>)> =
            vec![(1, b"42".to_vec()), (4, vec![0xab, 0xcd, 0xef]), (5, vec![0x12, 0x34]), (6, vec![0x85])];
        assert_eq!(elements(&bytes), expected);
    }

    #[test]
    fn an_extension_that_the_consumer_did_not_agree_to_is_left_out() {
        let set = [Extension::Mid, Extension::VideoOrientation].into_iter().collect();
        let layout = HeaderLayout::new(101, Ssrc(1), "0", set);
        let mut packet = Packet::new(1, 2, 3);
        packet.passed.push(Extension::AudioLevel, &[5]);
        packet.passed.push(Extension::VideoOrientation, &[1]);
        assert_eq!(elements(&written(&layout, &packet)), vec![(1, b"0".to_vec()), (8, vec![1])]);
    }

    #[test]
    fn without_extensions_the_header_is_bare() {
        let layout = HeaderLayout::new(100, Ssrc(1), "0", ExtensionSet::default());
        let bytes = written(&layout, &Packet::new(1, 2, 3));
        assert_eq!(bytes.len(), 12);
        assert!(elements(&bytes).is_empty());
    }

    #[test]
    fn a_descriptor_is_the_last_element_and_a_long_one_takes_the_two_byte_form() {
        let set: ExtensionSet = [Extension::VideoOrientation, Extension::DependencyDescriptor].into_iter().collect();
        let sets = [all().with(Extension::VideoOrientation).with(Extension::DependencyDescriptor), set];
        let mut packet = Packet::new(1, 2, 3);
        packet.passed.push(Extension::VideoOrientation, &[1]);
        for set in sets {
            let layout = HeaderLayout::new(101, Ssrc(1), "42", set);
            let others = elements(&written(&layout, &packet));
            for len in [1, 3, SHORT_BYTES, SHORT_BYTES + 1, 110, DESCRIPTOR_BYTES] {
                let descriptor = vec![0xd5; len];
                let bytes = described(&layout, &packet, &descriptor);
                let mut expected = others.clone();
                expected.push((Extension::DependencyDescriptor.router_id(), descriptor));
                assert_eq!(elements(&bytes), expected, "{len} bytes");
                assert_eq!(bytes[12..14] == [0x10, 0x00], len > SHORT_BYTES);
            }
        }
        let without = HeaderLayout::new(101, Ssrc(1), "42", all());
        assert_eq!(described(&without, &packet, &[0; 110]), written(&without, &packet));
    }

    #[test]
    fn the_last_packet_of_a_receivers_picture_has_the_marker() {
        let layout = HeaderLayout::new(101, Ssrc(1), "0", ExtensionSet::default());
        let rewrite = Rewrite { sequence: 7, timestamp: 99, picture: 0, tl0: 0, end: true };
        let mut out = [0; HEADER_BYTES];
        layout.write(&mut out, &Packet::new(1, 2, 3), &[], &rewrite, DEPARTURE, false);
        assert!(RtpHeader::parse(&out).unwrap().marker);
    }

    #[test]
    fn what_does_not_fit_is_not_passed_on() {
        let mut passed = Passed::default();
        passed.push(Extension::AbsCaptureTime, &[0; 16]);
        passed.push(Extension::PlayoutDelay, &[0; 3]);
        passed.push(Extension::AbsCaptureTime, &[0; 16]);
        passed.push(Extension::AudioLevel, &[]);
        assert_eq!(passed.elements().map(<[u8]>::len).collect::<Vec<_>>(), vec![17, 4]);
    }
}
