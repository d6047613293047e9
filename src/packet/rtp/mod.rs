//! RTP packets (RFC 3550 section 5.1, RFC 8285): a view over received bytes, and the writing of headers.
//!
//! Ingress parses a header once and hands the [`RtpHeader`] on by value; it borrows nothing, so it
//! outlives the decryption in place of the payload behind it. Offsets count from the start of the packet.
//!
//! ```text
//!  0               1               2               3
//! |V=2|P|X|  CC   |M|     PT      |        sequence number        |
//! |                           timestamp                           |
//! |                             SSRC                              |
//! |                    CSRC (CC times 4 bytes)                    |
//! |        extension profile      |     length in 32-bit words    |  if X
//! |                      extension elements                       |
//! ```

mod write;

pub use write::{
    Form, HeaderFields, HeaderWriter, patch_abs_send_time, patch_sequence, patch_ssrc, patch_timestamp,
    patch_transport_cc,
};

use crate::ids::Ssrc;
use crate::packet::be;
use crate::packet::seq::SeqNo;

/// Bytes of a header without CSRCs and extensions.
pub const FIXED_HEADER: usize = 12;

const ONE_BYTE_PROFILE: u16 = 0xbede;
/// The low four bits are "appbits", to be ignored (RFC 8285 section 4.3).
const TWO_BYTE_PROFILE: u16 = 0x1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpHeader {
    pub marker: bool,
    /// The last byte of the *decrypted* payload counts padding.
    pub padding: bool,
    pub payload_type: u8,
    pub csrc_count: u8,
    pub sequence: SeqNo,
    pub timestamp: u32,
    pub ssrc: Ssrc,
    /// What the extension block calls itself; 0 without one.
    pub extension_profile: u16,
    /// Where the elements of the extension block begin; equal to the end without one.
    pub extension_start: u16,
    pub extension_end: u16,
    /// Where the payload begins.
    pub header_len: u16,
}

impl RtpHeader {
    /// Reads the header of an RTP or SRTP packet; `None` when it is not version 2 or does not fit.
    #[inline]
    pub fn parse(packet: &[u8]) -> Option<RtpHeader> {
        let fixed: &[u8; FIXED_HEADER] = packet.first_chunk()?;
        if fixed[0] >> 6 != 2 {
            return None;
        }
        let csrc_count = fixed[0] & 0x0f;
        let mut header = RtpHeader {
            marker: fixed[1] & 0x80 != 0,
            padding: fixed[0] & 0x20 != 0,
            payload_type: fixed[1] & 0x7f,
            csrc_count,
            sequence: SeqNo(u16::from_be_bytes([fixed[2], fixed[3]])),
            timestamp: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            ssrc: Ssrc(u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]])),
            extension_profile: 0,
            extension_start: 0,
            extension_end: 0,
            header_len: 0,
        };
        let mut end = FIXED_HEADER + 4 * usize::from(csrc_count);
        header.extension_start = end as u16;
        if fixed[0] & 0x10 != 0 {
            header.extension_profile = be::u16_at(packet, end)?;
            let words = be::u16_at(packet, end + 2)?;
            header.extension_start = (end + 4) as u16;
            end += 4 + 4 * usize::from(words);
        }
        if end > packet.len() {
            return None;
        }
        header.extension_end = u16::try_from(end).ok()?;
        header.header_len = header.extension_end;
        Some(header)
    }

    /// Where the payload begins, as an index.
    #[inline]
    pub const fn len(&self) -> usize {
        self.header_len as usize
    }

    /// No header is shorter than twelve bytes.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// The extension elements of `packet`, the one that this header was parsed from.
    #[inline]
    pub fn extensions<'a>(&self, packet: &'a [u8]) -> Extensions<'a> {
        let two_byte = self.extension_profile & 0xfff0 == TWO_BYTE_PROFILE;
        let known = two_byte || self.extension_profile == ONE_BYTE_PROFILE;
        let block = packet.get(self.extension_start.into()..self.extension_end.into());
        Extensions { rest: block.filter(|_| known).unwrap_or_default(), two_byte }
    }

    /// The decrypted payload without its padding; `None` when the padding lies. An empty payload is legal:
    /// senders probe for bandwidth with padding only.
    #[inline]
    pub fn payload<'a>(&self, packet: &'a [u8]) -> Option<&'a [u8]> {
        let payload = packet.get(self.len()..)?;
        if !self.padding {
            return Some(payload);
        }
        payload.get(..payload.len() - padding_len(payload)?)
    }
}

/// Bytes of padding at the end of a decrypted payload whose header has the padding flag, its own count
/// included; `None` when the count is zero or larger than the payload.
#[inline]
pub fn padding_len(payload: &[u8]) -> Option<usize> {
    let count = usize::from(*payload.last()?);
    (1..=payload.len()).contains(&count).then_some(count)
}

/// Elements of an extension block in either form, as `(id, value)`; a cut element ends the iteration.
#[derive(Clone, Copy, Debug)]
pub struct Extensions<'a> {
    rest: &'a [u8],
    two_byte: bool,
}

impl<'a> Iterator for Extensions<'a> {
    type Item = (u8, &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (id, len, value_at) = loop {
            let first = *self.rest.first()?;
            if first == 0 {
                self.rest = &self.rest[1..];
                continue;
            }
            if self.two_byte {
                break (first, usize::from(*self.rest.get(1)?), 2);
            }
            let id = first >> 4;
            // RFC 8285 section 4.2: id 15, and id 0 with a length, end the block.
            if id == 0 || id == 15 {
                self.rest = &[];
                return None;
            }
            break (id, usize::from(first & 0x0f) + 1, 1);
        };
        let Some(value) = self.rest.get(value_at..value_at + len) else {
            self.rest = &[];
            return None;
        };
        self.rest = &self.rest[value_at + len..];
        Some((id, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Marker, PT 96, sequence 0x1234, two CSRCs, one-byte block of two words.
    const PACKET: [u8; 36] = [
        0x92, 0xe0, 0x12, 0x34, 0, 0, 0, 9, 0xca, 0xfe, 0xba, 0xbe, 1, 1, 1, 1, 2, 2, 2, 2, 0xbe, 0xde, 0, 2, 0x10,
        0xaa, 0x00, 0x32, 0xb1, 0xb2, 0xb3, 0x00, 0xf0, 0xf1, 0xf2, 0xf3,
    ];

    #[test]
    fn a_header_with_everything_is_read() {
        let header = RtpHeader::parse(&PACKET).unwrap();
        assert_eq!(
            header,
            RtpHeader {
                marker: true,
                padding: false,
                payload_type: 96,
                csrc_count: 2,
                sequence: SeqNo(0x1234),
                timestamp: 9,
                ssrc: Ssrc(0xcafebabe),
                extension_profile: 0xbede,
                extension_start: 24,
                extension_end: 32,
                header_len: 32,
            }
        );
        let elements: Vec<_> = header.extensions(&PACKET).collect();
        assert_eq!(elements, [(1, &[0xaa][..]), (3, &[0xb1, 0xb2, 0xb3][..])]);
        assert_eq!(header.payload(&PACKET), Some(&[0xf0, 0xf1, 0xf2, 0xf3][..]));
    }

    #[test]
    fn a_header_cut_anywhere_is_refused() {
        for len in 0..32 {
            assert_eq!(RtpHeader::parse(&PACKET[..len]), None, "{len} bytes");
        }
        assert!(RtpHeader::parse(&PACKET[..32]).is_some());
    }

    #[test]
    fn another_version_is_refused() {
        for version in [0u8, 1, 3] {
            let mut packet = PACKET;
            packet[0] = version << 6 | 0x12;
            assert_eq!(RtpHeader::parse(&packet), None);
        }
    }

    #[test]
    fn an_extension_block_longer_than_the_packet_is_refused() {
        let mut packet = PACKET;
        for words in [4u16, 100, 0xffff] {
            packet[22..24].copy_from_slice(&words.to_be_bytes());
            assert_eq!(RtpHeader::parse(&packet), None, "{words} words");
        }
        let mut huge = vec![0; 300_000];
        huge[..PACKET.len()].copy_from_slice(&packet);
        assert_eq!(RtpHeader::parse(&huge), None);
    }

    fn elements(profile: u16, block: &[u8]) -> Vec<(u8, Vec<u8>)> {
        assert_eq!(block.len() % 4, 0);
        let mut packet = vec![0x90, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
        packet.extend(profile.to_be_bytes());
        packet.extend((block.len() as u16 / 4).to_be_bytes());
        packet.extend(block);
        let header = RtpHeader::parse(&packet).unwrap();
        header.extensions(&packet).map(|(id, value)| (id, value.to_vec())).collect()
    }

    #[test]
    fn one_byte_elements_end_at_id_15_and_at_a_long_zero() {
        assert_eq!(elements(0xbede, &[0x10, 7, 0xf0, 8, 0x20, 9, 0, 0]), [(1, vec![7])]);
        assert_eq!(elements(0xbede, &[0x10, 7, 0x01, 8, 0x20, 9, 0, 0]), [(1, vec![7])]);
    }

    #[test]
    fn a_cut_element_ends_the_block() {
        assert_eq!(elements(0xbede, &[0x10, 7, 0x23, 1]), [(1, vec![7])]);
        assert_eq!(elements(0x1000, &[1, 1, 7, 2]), [(1, vec![7])]);
        assert_eq!(elements(0x1000, &[1, 3, 7, 2]), []);
    }

    #[test]
    fn two_byte_elements_may_be_empty_and_their_profile_carries_appbits() {
        for profile in [0x1000, 0x1007, 0x100f] {
            assert_eq!(
                elements(profile, &[1, 0, 0, 0, 200, 2, 5, 6, 15, 1, 9, 0]),
                [(1, vec![]), (200, vec![5, 6]), (15, vec![9])]
            );
        }
    }

    #[test]
    fn a_foreign_profile_has_no_elements() {
        assert_eq!(elements(0xabac, &[0x10, 7, 0, 0]), []);
        assert_eq!(elements(0x1010, &[0x10, 7, 0, 0]), []);
    }

    #[test]
    fn padding_must_fit_the_payload_and_count_itself() {
        for (payload, expected) in [
            (&[][..], None),
            (&[0], None),
            (&[1], Some(1)),
            (&[2], None),
            (&[9, 9, 0, 2], Some(2)),
            (&[9, 9, 0, 4], Some(4)),
            (&[9, 9, 0, 5], None),
        ] {
            assert_eq!(padding_len(payload), expected, "{payload:?}");
        }
        let mut padded = PACKET;
        padded[0] |= 0x20;
        padded[35] = 4;
        assert_eq!(RtpHeader::parse(&padded).unwrap().payload(&padded), Some(&[][..]));
        padded[35] = 5;
        assert_eq!(RtpHeader::parse(&padded).unwrap().payload(&padded), None);
    }
}
