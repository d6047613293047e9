//! The VP8 payload descriptor (RFC 7741 section 4.2) as Chromium writes it, and the first bytes of the frame behind it.
//!
//! ```text
//!  X|R|N|S|R| PID | I|L|T|K|RSV | M| picture id (15) | TL0PICIDX | TID|Y|KEYIDX
//! ```

/// Bytes of the descriptor: 15-bit picture id, TL0PICIDX, temporal layer.
pub const DESCRIPTOR_BYTES: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub key: bool,
    /// 15 bits.
    pub picture_id: u16,
    pub tl0_index: u8,
    pub temporal: u8,
    pub sync: bool,
    pub width: u16,
    pub height: u16,
}

impl Frame {
    /// Writes the descriptor, and for the first packet of the frame the frame's own header, over the start of `payload`.
    pub fn write(&self, first: bool, payload: &mut [u8]) {
        let non_reference = if self.temporal == 2 { 0x20 } else { 0 };
        payload[0] = 0x80 | non_reference | if first { 0x10 } else { 0 };
        payload[1] = 0xe0;
        payload[2] = 0x80 | (self.picture_id >> 8) as u8;
        payload[3] = self.picture_id as u8;
        payload[4] = self.tl0_index;
        payload[5] = (self.temporal << 6) | (u8::from(self.sync) << 5);
        if !first {
            return;
        }
        // RFC 7741 section 4.3: bit 0 is 0 for a key frame, bit 4 says that the frame is shown. Section 9.1 of RFC 6386:
        // a key frame goes on with a start code and its size.
        payload[6] = 0x10 | u8::from(!self.key);
        if self.key && payload.len() >= DESCRIPTOR_BYTES + 10 {
            payload[9..12].copy_from_slice(&[0x9d, 0x01, 0x2a]);
            payload[12..14].copy_from_slice(&self.width.to_le_bytes());
            payload[14..16].copy_from_slice(&self.height.to_le_bytes());
        }
    }
}

/// Whether an opened payload begins a key frame. The descriptor is read as RFC 7741 allows it, not as we write it.
pub fn begins_key_frame(payload: &[u8]) -> bool {
    let Some(&first) = payload.first() else { return false };
    // S set and partition 0.
    if first & 0x10 == 0 || first & 0x07 != 0 {
        return false;
    }
    let mut at = 1;
    if first & 0x80 != 0 {
        let Some(&flags) = payload.get(1) else { return false };
        at += 1;
        if flags & 0x80 != 0 {
            at += if payload.get(at).is_some_and(|byte| byte & 0x80 != 0) { 2 } else { 1 };
        }
        at += usize::from(flags & 0x40 != 0) + usize::from(flags & 0x30 != 0);
    }
    payload.get(at).is_some_and(|byte| byte & 0x01 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Frame =
        Frame { key: true, picture_id: 0x1234, tl0_index: 5, temporal: 0, sync: false, width: 640, height: 360 };

    #[test]
    fn only_the_first_packet_of_a_key_frame_begins_one() {
        let mut payload = vec![0xff; 100];
        FRAME.write(true, &mut payload);
        assert!(begins_key_frame(&payload));
        FRAME.write(false, &mut payload);
        assert!(!begins_key_frame(&payload));
        Frame { key: false, ..FRAME }.write(true, &mut payload);
        assert!(!begins_key_frame(&payload));
    }

    #[test]
    fn a_descriptor_without_extensions_is_read_too() {
        assert!(begins_key_frame(&[0x10, 0x10, 0, 0]));
        assert!(!begins_key_frame(&[0x10, 0x11, 0, 0]));
        assert!(!begins_key_frame(&[0x90]));
        assert!(!begins_key_frame(&[]));
    }
}
