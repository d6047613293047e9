//! Writing RTP headers for one consumer: egress calls it with the reserved slot's bytes.
//!
//! Room that does not suffice is `None`, and the slot's bytes are then undefined; nothing is ever sent half
//! written because nothing is committed.

use crate::ids::Ssrc;
use crate::packet::rtp::{FIXED_HEADER, ONE_BYTE_PROFILE, TWO_BYTE_PROFILE};
use crate::packet::seq::SeqNo;

/// The fixed part of a header to be written; no CSRCs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderFields {
    pub marker: bool,
    pub padding: bool,
    /// 0 to 127; higher bits are cut.
    pub payload_type: u8,
    pub sequence: SeqNo,
    pub timestamp: u32,
    pub ssrc: Ssrc,
}

/// How the elements of an extension block are written (RFC 8285 sections 4.2 and 4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Ids 1 to 14, values of 1 to 16 bytes.
    #[default]
    OneByte,
    /// Ids 1 to 255, values of 0 to 255 bytes.
    TwoByte,
}

impl Form {
    /// The smaller form that holds every element of `(id, length of the value)`.
    #[inline]
    pub fn holding(elements: impl IntoIterator<Item = (u8, usize)>) -> Form {
        let one_byte = elements.into_iter().all(|(id, len)| Form::OneByte.holds(id, len));
        if one_byte { Form::OneByte } else { Form::TwoByte }
    }

    #[inline]
    pub const fn holds(self, id: u8, len: usize) -> bool {
        match self {
            Form::OneByte => id >= 1 && id <= 14 && len >= 1 && len <= 16,
            Form::TwoByte => id >= 1 && len <= 255,
        }
    }
}

/// Writes a header front to back: the fixed part, then any number of elements, then [`finish`](Self::finish).
#[derive(Debug)]
pub struct HeaderWriter<'a> {
    out: &'a mut [u8],
    at: usize,
    form: Form,
}

const BLOCK_START: usize = FIXED_HEADER + 4;

impl<'a> HeaderWriter<'a> {
    /// Writes the fixed part at the start of `out`.
    #[inline]
    pub fn new(out: &'a mut [u8], fields: &HeaderFields, form: Form) -> Option<HeaderWriter<'a>> {
        let fixed: &mut [u8; FIXED_HEADER] = out.first_chunk_mut()?;
        fixed[0] = 0x80 | u8::from(fields.padding) << 5;
        fixed[1] = u8::from(fields.marker) << 7 | fields.payload_type & 0x7f;
        fixed[2..4].copy_from_slice(&fields.sequence.0.to_be_bytes());
        fixed[4..8].copy_from_slice(&fields.timestamp.to_be_bytes());
        fixed[8..12].copy_from_slice(&fields.ssrc.0.to_be_bytes());
        Some(HeaderWriter { out, at: FIXED_HEADER, form })
    }

    /// Appends an element and says where its value lies in the packet, for patching. `None` when there is no
    /// room or the form cannot hold it; the elements before it stay good.
    #[inline]
    pub fn element(&mut self, id: u8, value: &[u8]) -> Option<usize> {
        if !self.form.holds(id, value.len()) {
            return None;
        }
        let start = self.at.max(BLOCK_START);
        let head = match self.form {
            Form::OneByte => 1,
            Form::TwoByte => 2,
        };
        let room = self.out.get_mut(start..start + head + value.len())?;
        match self.form {
            Form::OneByte => room[0] = id << 4 | (value.len() - 1) as u8,
            Form::TwoByte => (room[0], room[1]) = (id, value.len() as u8),
        }
        room[head..].copy_from_slice(value);
        self.at = start + head + value.len();
        Some(start + head)
    }

    /// Pads the extension block to 32 bits, completes the header and returns its length.
    #[inline]
    pub fn finish(self) -> Option<usize> {
        self.finish_with_block(0)
    }

    /// As [`finish`](Self::finish), with an extension block of at least `block_len` bytes: the packets of a
    /// frame stay of one size although only the first of them carries a mid.
    #[inline]
    pub fn finish_with_block(self, block_len: usize) -> Option<usize> {
        if self.at == FIXED_HEADER && block_len == 0 {
            return Some(FIXED_HEADER);
        }
        let start = self.at.max(BLOCK_START);
        let block = (start - BLOCK_START).max(block_len).next_multiple_of(4);
        let end = BLOCK_START + block;
        self.out.get_mut(start..end)?.fill(0);
        let profile = match self.form {
            Form::OneByte => ONE_BYTE_PROFILE,
            Form::TwoByte => TWO_BYTE_PROFILE,
        };
        self.out[0] |= 0x10;
        self.out[FIXED_HEADER..FIXED_HEADER + 2].copy_from_slice(&profile.to_be_bytes());
        self.out[FIXED_HEADER + 2..BLOCK_START].copy_from_slice(&u16::try_from(block / 4).ok()?.to_be_bytes());
        Some(end)
    }
}

/// Overwrites the sequence number of a header that was written. Like all patches it leaves a slice that is
/// too short as it is.
#[inline]
pub fn patch_sequence(packet: &mut [u8], sequence: SeqNo) {
    patch(packet, 2, &sequence.0.to_be_bytes());
}

#[inline]
pub fn patch_timestamp(packet: &mut [u8], timestamp: u32) {
    patch(packet, 4, &timestamp.to_be_bytes());
}

#[inline]
pub fn patch_ssrc(packet: &mut [u8], ssrc: Ssrc) {
    patch(packet, 8, &ssrc.0.to_be_bytes());
}

/// `at` is what [`HeaderWriter::element`] returned; `time` is an
/// [`AbsSendTime`](crate::packet::extension::AbsSendTime)'s 24 bits.
#[inline]
pub fn patch_abs_send_time(packet: &mut [u8], at: usize, time: u32) {
    patch(packet, at, &time.to_be_bytes()[1..]);
}

#[inline]
pub fn patch_transport_cc(packet: &mut [u8], at: usize, sequence: SeqNo) {
    patch(packet, at, &sequence.0.to_be_bytes());
}

#[inline]
fn patch(packet: &mut [u8], at: usize, value: &[u8]) {
    if let Some(field) = at.checked_add(value.len()).and_then(|end| packet.get_mut(at..end)) {
        field.copy_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::rtp::RtpHeader;

    const FIELDS: HeaderFields = HeaderFields {
        marker: true,
        padding: false,
        payload_type: 101,
        sequence: SeqNo(0xfffe),
        timestamp: 0xdead_beef,
        ssrc: Ssrc(77),
    };

    fn write(elements: &[(u8, &[u8])], form: Form, block_len: usize, room: usize) -> Option<(Vec<u8>, Vec<usize>)> {
        let mut out = vec![0xee; room];
        let mut writer = HeaderWriter::new(&mut out, &FIELDS, form)?;
        let offsets = elements.iter().map(|(id, value)| writer.element(*id, value)).collect::<Option<Vec<_>>>()?;
        let len = writer.finish_with_block(block_len)?;
        out.truncate(len);
        Some((out, offsets))
    }

    #[test]
    fn what_is_written_is_read_again_in_both_forms() {
        let long = [9u8; 40];
        let cases: [&[(u8, &[u8])]; 5] = [
            &[],
            &[(1, b"0")],
            &[(1, b"video-0"), (4, &[1, 2, 3]), (5, &[4, 5]), (14, &[7; 16])],
            &[(7, &long), (4, &[1, 2, 3])],
            &[(200, b"x"), (15, b"y"), (1, b"")],
        ];
        for elements in cases {
            let form = Form::holding(elements.iter().map(|(id, value)| (*id, value.len())));
            let (packet, offsets) = write(elements, form, 0, 200).unwrap();
            let header = RtpHeader::parse(&packet).unwrap();
            assert_eq!(header.len(), packet.len());
            assert_eq!(packet.len() % 4, 0);
            assert_eq!(
                (header.marker, header.payload_type, header.sequence, header.timestamp, header.ssrc),
                (true, 101, SeqNo(0xfffe), 0xdead_beef, Ssrc(77))
            );
            assert_eq!(header.extensions(&packet).collect::<Vec<_>>(), elements);
            for (offset, (_, value)) in offsets.iter().zip(elements) {
                assert_eq!(&packet[*offset..*offset + value.len()], *value);
            }
        }
    }

    #[test]
    fn the_form_follows_the_largest_element() {
        for (elements, form) in [
            (&[][..], Form::OneByte),
            (&[(14, 16), (1, 1)], Form::OneByte),
            (&[(1, 1), (15, 1)], Form::TwoByte),
            (&[(7, 17)], Form::TwoByte),
            (&[(7, 0)], Form::TwoByte),
        ] {
            assert_eq!(Form::holding(elements.iter().copied()), form, "{elements:?}");
        }
    }

    #[test]
    fn an_element_that_the_form_cannot_hold_is_refused() {
        for (form, id, len) in [
            (Form::OneByte, 0, 1),
            (Form::OneByte, 15, 1),
            (Form::OneByte, 1, 17),
            (Form::OneByte, 1, 0),
            (Form::TwoByte, 0, 1),
            (Form::TwoByte, 1, 256),
        ] {
            assert_eq!(write(&[(id, &vec![0; len])], form, 0, 1000), None, "{form:?} {id} {len}");
        }
    }

    #[test]
    fn room_that_does_not_suffice_is_refused_at_every_length() {
        let elements: [(u8, &[u8]); 2] = [(1, b"ab"), (4, &[1, 2, 3])];
        let (whole, _) = write(&elements, Form::OneByte, 0, 100).unwrap();
        for room in 0..whole.len() {
            assert_eq!(write(&elements, Form::OneByte, 0, room), None, "{room} bytes");
        }
        assert!(write(&elements, Form::OneByte, 0, whole.len()).is_some());
    }

    #[test]
    fn a_block_can_be_held_at_one_length() {
        let with_mid = write(&[(1, b"video"), (4, &[1, 2, 3])], Form::OneByte, 0, 100).unwrap().0;
        let without = write(&[(4, &[1, 2, 3])], Form::OneByte, with_mid.len() - BLOCK_START, 100).unwrap().0;
        assert_eq!(without.len(), with_mid.len());
        assert_eq!(RtpHeader::parse(&without).unwrap().extensions(&without).count(), 1);
    }

    #[test]
    fn patches_change_their_field_only() {
        let (mut packet, offsets) = write(&[(4, &[0; 3]), (5, &[0; 2]), (1, b"m")], Form::OneByte, 0, 100).unwrap();
        patch_sequence(&mut packet, SeqNo(3));
        patch_timestamp(&mut packet, 4);
        patch_ssrc(&mut packet, Ssrc(5));
        patch_abs_send_time(&mut packet, offsets[0], 0x00ab_cdef);
        patch_transport_cc(&mut packet, offsets[1], SeqNo(0x1234));
        let header = RtpHeader::parse(&packet).unwrap();
        assert_eq!((header.sequence, header.timestamp, header.ssrc), (SeqNo(3), 4, Ssrc(5)));
        let elements: Vec<_> = header.extensions(&packet).collect();
        assert_eq!(elements, [(4, &[0xab, 0xcd, 0xef][..]), (5, &[0x12, 0x34]), (1, b"m")]);
    }

    #[test]
    fn a_patch_beyond_the_end_changes_nothing() {
        let (mut packet, _) = write(&[], Form::OneByte, 0, 100).unwrap();
        let before = packet.clone();
        patch_abs_send_time(&mut packet, before.len() - 2, 1);
        patch_transport_cc(&mut packet, usize::MAX, SeqNo(1));
        assert_eq!(packet, before);
        patch_ssrc(&mut [], Ssrc(1));
    }
}
