//! VP8 payloads (RFC 7741 section 4.2): the descriptor in front of each packet's share of a frame.
//!
//! ```text
//! |X|R|N|S|R| PID |        N non-reference, S start of partition
//! |I|L|T|K| RSV   |  if X
//! |M| PictureID   |  if I; 15 bits in two bytes if M
//! |   TL0PICIDX   |  if L
//! |TID|Y| KEYIDX  |  if T or K
//! ```

use crate::packet::seq::{PictureId, Tl0PicIdx};

/// The longest descriptor.
pub const DESCRIPTOR_BYTES: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vp8Descriptor {
    /// Where the VP8 data begins.
    pub len: u8,
    /// No other picture depends on this one.
    pub non_reference: bool,
    pub start_of_partition: bool,
    pub partition: u8,
    /// The 7-bit form as it stands: it wraps at 128.
    pub picture_id: Option<PictureId>,
    pub tl0_pic_idx: Option<Tl0PicIdx>,
    /// 0 where the descriptor names none.
    pub temporal: u8,
    /// The picture depends on the base layer only (Y).
    pub layer_sync: bool,
    pub key_index: Option<u8>,
    /// First packet of a key frame.
    pub key_frame: bool,
    /// Width and height in pixels, where the packet begins a key frame and holds its header.
    pub size: Option<(u16, u16)>,
    /// Offset of the picture id, 0 where there is none.
    pub picture_id_at: u8,
    /// The picture id has two bytes.
    pub picture_id_is_long: bool,
    /// Offset of TL0PICIDX, 0 where there is none.
    pub tl0_pic_idx_at: u8,
}

impl Vp8Descriptor {
    /// `None` when the descriptor does not fit into the payload.
    #[inline]
    pub fn parse(payload: &[u8]) -> Option<Vp8Descriptor> {
        let first = *payload.first()?;
        let mut vp8 = Vp8Descriptor {
            len: 1,
            non_reference: first & 0x20 != 0,
            start_of_partition: first & 0x10 != 0,
            partition: first & 0x07,
            picture_id: None,
            tl0_pic_idx: None,
            temporal: 0,
            layer_sync: false,
            key_index: None,
            key_frame: false,
            size: None,
            picture_id_at: 0,
            picture_id_is_long: false,
            tl0_pic_idx_at: 0,
        };
        if first & 0x80 != 0 {
            vp8.parse_extended(payload)?;
        }
        if vp8.starts_frame() {
            let frame = payload.get(usize::from(vp8.len)..)?;
            // RFC 6386 section 9.1: the lowest bit of the frame tag is clear on a key frame.
            vp8.key_frame = frame.first().is_some_and(|tag| tag & 1 == 0);
            vp8.size = if vp8.key_frame { frame_size(frame) } else { None };
        }
        Some(vp8)
    }

    #[inline]
    fn parse_extended(&mut self, payload: &[u8]) -> Option<()> {
        let flags = *payload.get(1)?;
        let mut at = 2;
        if flags & 0x80 != 0 {
            let high = *payload.get(at)?;
            self.picture_id_at = at as u8;
            self.picture_id_is_long = high & 0x80 != 0;
            let id = if self.picture_id_is_long {
                u16::from_be_bytes([high & 0x7f, *payload.get(at + 1)?])
            } else {
                u16::from(high)
            };
            self.picture_id = Some(PictureId(id));
            at += 1 + usize::from(self.picture_id_is_long);
        }
        if flags & 0x40 != 0 {
            self.tl0_pic_idx = Some(Tl0PicIdx(*payload.get(at)?));
            self.tl0_pic_idx_at = at as u8;
            at += 1;
        }
        if flags & 0x30 != 0 {
            let byte = *payload.get(at)?;
            if flags & 0x20 != 0 {
                self.temporal = byte >> 6;
                self.layer_sync = byte & 0x20 != 0;
            }
            self.key_index = (flags & 0x10 != 0).then_some(byte & 0x1f);
            at += 1;
        }
        self.len = at as u8;
        Some(())
    }

    /// The packet is the first one of its picture.
    #[inline]
    pub const fn starts_frame(&self) -> bool {
        self.start_of_partition && self.partition == 0
    }

    /// Copies the descriptor of `payload` (the one that this was parsed from) to the start of `out` with
    /// another picture id and TL0PICIDX, and returns its length, which stays what it was: a field that is
    /// absent stays absent, a 7-bit id keeps the low 7 bits. `None` when `out` is too short.
    #[inline]
    pub fn write_into(&self, payload: &[u8], ids: PictureIds, out: &mut [u8]) -> Option<usize> {
        let len = usize::from(self.len);
        let out = out.get_mut(..len)?;
        out.copy_from_slice(payload.get(..len)?);
        if self.picture_id_at != 0 {
            let at = usize::from(self.picture_id_at);
            if self.picture_id_is_long {
                let [high, low] = PictureId::new(ids.picture_id.0).0.to_be_bytes();
                *out.get_mut(at)? = 0x80 | high;
                *out.get_mut(at + 1)? = low;
            } else {
                *out.get_mut(at)? = (ids.picture_id.0 & 0x7f) as u8;
            }
        }
        if self.tl0_pic_idx_at != 0 {
            *out.get_mut(usize::from(self.tl0_pic_idx_at))? = ids.tl0_pic_idx.0;
        }
        Some(len)
    }
}

/// What one consumer is to see in place of the producer's own numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PictureIds {
    pub picture_id: PictureId,
    pub tl0_pic_idx: Tl0PicIdx,
}

/// RFC 6386 section 9.1: three bytes of frame tag, a start code, then 14 bits each and two of scaling.
#[inline]
fn frame_size(key_frame: &[u8]) -> Option<(u16, u16)> {
    let header: &[u8; 10] = key_frame.first_chunk()?;
    if header[3..6] != [0x9d, 0x01, 0x2a] {
        return None;
    }
    let size = |low, high| u16::from_le_bytes([low, high]) & 0x3fff;
    Some((size(header[6], header[7]), size(header[8], header[9])))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY_FRAME: [u8; 10] = [0x50, 0x12, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01];

    fn key_frame_behind(descriptor: &[u8]) -> Vec<u8> {
        [descriptor, &KEY_FRAME].concat()
    }

    #[test]
    fn the_full_descriptor_of_a_key_frame_is_read() {
        let vp8 = Vp8Descriptor::parse(&key_frame_behind(&[0x90, 0xf0, 0x92, 0x34, 0x56, 0xb1])).unwrap();
        assert_eq!(
            vp8,
            Vp8Descriptor {
                len: 6,
                non_reference: false,
                start_of_partition: true,
                partition: 0,
                picture_id: Some(PictureId(0x1234)),
                tl0_pic_idx: Some(Tl0PicIdx(0x56)),
                temporal: 2,
                layer_sync: true,
                key_index: Some(0x11),
                key_frame: true,
                size: Some((640, 360)),
                picture_id_at: 2,
                picture_id_is_long: true,
                tl0_pic_idx_at: 4,
            }
        );
    }

    #[test]
    fn every_combination_of_fields_is_read() {
        for flags in 0..16u8 {
            for long in [false, true] {
                let mut descriptor = vec![0x80, flags << 4];
                let (i, l, t, k) = (flags & 8 != 0, flags & 4 != 0, flags & 2 != 0, flags & 1 != 0);
                match (i, long) {
                    (true, true) => descriptor.extend([0x81, 0x02]),
                    (true, false) => descriptor.push(0x05),
                    _ => {}
                }
                if l {
                    descriptor.push(9);
                }
                if t || k {
                    descriptor.push(0x67);
                }
                for cut in 0..descriptor.len() {
                    assert_eq!(Vp8Descriptor::parse(&descriptor[..cut]), None, "{descriptor:x?} cut at {cut}");
                }
                let vp8 = Vp8Descriptor::parse(&descriptor).unwrap();
                assert_eq!(usize::from(vp8.len), descriptor.len());
                assert_eq!(vp8.picture_id, i.then_some(PictureId(if long { 0x102 } else { 5 })));
                assert_eq!(vp8.tl0_pic_idx, l.then_some(Tl0PicIdx(9)));
                assert_eq!((vp8.temporal, vp8.layer_sync), if t { (1, true) } else { (0, false) });
                assert_eq!(vp8.key_index, k.then_some(7));
            }
        }
    }

    #[test]
    fn only_the_first_packet_of_a_key_frame_is_one() {
        for (first, tag, key_frame) in
            [(0x10, 0x50, true), (0x10, 0x51, false), (0x00, 0x50, false), (0x11, 0x50, false), (0x30, 0x50, true)]
        {
            assert_eq!(Vp8Descriptor::parse(&[first, tag]).unwrap().key_frame, key_frame, "{first:x} {tag:x}");
        }
        assert!(!Vp8Descriptor::parse(&[0x10]).unwrap().key_frame);
    }

    #[test]
    fn a_key_frame_without_its_start_code_or_cut_has_no_size() {
        let whole = key_frame_behind(&[0x10]);
        assert_eq!(Vp8Descriptor::parse(&whole).unwrap().size, Some((640, 360)));
        for len in 2..whole.len() {
            assert_eq!(Vp8Descriptor::parse(&whole[..len]).unwrap().size, None);
        }
        let mut other = whole;
        other[5] ^= 1;
        assert_eq!(Vp8Descriptor::parse(&other).unwrap().size, None);
    }

    #[test]
    fn rewritten_ids_are_read_again_and_nothing_else_changes() {
        let ids = PictureIds { picture_id: PictureId(0x7abc), tl0_pic_idx: Tl0PicIdx(200) };
        for descriptor in [
            &[0x90, 0xf0, 0x92, 0x34, 0x56, 0xb1][..],
            &[0x90, 0x80, 0x92, 0x34],
            &[0x90, 0x40, 0x01],
            &[0x90, 0xe0, 0x12, 0x56, 0xa0],
            &[0x90, 0x20, 0xa0],
            &[0x10],
        ] {
            let payload = key_frame_behind(descriptor);
            let before = Vp8Descriptor::parse(&payload).unwrap();
            let mut out = [0; DESCRIPTOR_BYTES];
            let len = before.write_into(&payload, ids, &mut out).unwrap();
            assert_eq!(len, descriptor.len());
            let after = Vp8Descriptor::parse(&key_frame_behind(&out[..len])).unwrap();
            let id = if before.picture_id_is_long { ids.picture_id } else { PictureId(0x3c) };
            assert_eq!(
                after,
                Vp8Descriptor {
                    picture_id: before.picture_id.map(|_| id),
                    tl0_pic_idx: before.tl0_pic_idx.map(|_| ids.tl0_pic_idx),
                    ..before
                }
            );
            assert_eq!(before.write_into(&payload, ids, &mut out[..len - 1]), None);
            assert_eq!(before.write_into(&payload[..len - 1], ids, &mut out), None);
        }
    }
}
