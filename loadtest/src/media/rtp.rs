//! RTP headers as the load test's clients write and read them (RFC 3550 section 5.1, RFC 8285 one-byte extensions).
//! Deliberately not the server's own code: a client that shares it would share its mistakes.

pub const HEADER_BYTES: usize = 12;

/// Extension ids that these clients use for what they send; Chromium's own numbers.
pub mod extension_id {
    pub const AUDIO_LEVEL: u8 = 1;
    pub const ABS_SEND_TIME: u8 = 2;
    pub const TRANSPORT_CC: u8 = 3;
    pub const MID: u8 = 4;
    pub const RTP_STREAM_ID: u8 = 10;
    pub const REPAIRED_RTP_STREAM_ID: u8 = 11;
}

/// The fixed part of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub marker: bool,
    pub padded: bool,
    pub payload_type: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    /// Where the payload begins: fixed part, CSRCs and extensions.
    pub len: usize,
}

impl Header {
    pub fn read(packet: &[u8]) -> Option<Header> {
        if packet.len() < HEADER_BYTES || packet[0] >> 6 != 2 {
            return None;
        }
        let mut len = HEADER_BYTES + 4 * usize::from(packet[0] & 0x0f);
        if packet[0] & 0x10 != 0 {
            let words = packet.get(len + 2..len + 4)?;
            len += 4 + 4 * usize::from(u16::from_be_bytes([words[0], words[1]]));
        }
        if len > packet.len() {
            return None;
        }
        Some(Header {
            marker: packet[1] & 0x80 != 0,
            padded: packet[0] & 0x20 != 0,
            payload_type: packet[1] & 0x7f,
            sequence: u16::from_be_bytes([packet[2], packet[3]]),
            timestamp: u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]]),
            ssrc: u32::from_be_bytes([packet[8], packet[9], packet[10], packet[11]]),
            len,
        })
    }
}

/// The value of a one-byte extension of a packet whose header was read.
pub fn extension<'a>(packet: &'a [u8], header: &Header, id: u8) -> Option<&'a [u8]> {
    if packet[0] & 0x10 == 0 {
        return None;
    }
    let start = HEADER_BYTES + 4 * usize::from(packet[0] & 0x0f);
    if packet[start..start + 2] != [0xbe, 0xde] {
        return None;
    }
    let mut rest = &packet[start + 4..header.len];
    while let [first, tail @ ..] = rest {
        if *first == 0 {
            rest = tail;
            continue;
        }
        let len = usize::from(first & 0x0f) + 1;
        if tail.len() < len {
            return None;
        }
        if first >> 4 == id {
            return Some(&tail[..len]);
        }
        rest = &tail[len..];
    }
    None
}

/// Writes one header with its extensions at the start of a buffer.
pub struct HeaderWriter<'a> {
    out: &'a mut [u8],
    len: usize,
}

impl<'a> HeaderWriter<'a> {
    pub fn new(out: &'a mut [u8], payload_type: u8, marker: bool, sequence: u16, timestamp: u32, ssrc: u32) -> Self {
        out[0] = 0x80;
        out[1] = payload_type | if marker { 0x80 } else { 0 };
        out[2..4].copy_from_slice(&sequence.to_be_bytes());
        out[4..8].copy_from_slice(&timestamp.to_be_bytes());
        out[8..12].copy_from_slice(&ssrc.to_be_bytes());
        HeaderWriter { out, len: HEADER_BYTES }
    }

    /// Adds a one-byte extension of 1 to 16 bytes.
    pub fn extension(mut self, id: u8, value: &[u8]) -> Self {
        if self.len == HEADER_BYTES {
            self.out[0] |= 0x10;
            self.out[12..14].copy_from_slice(&[0xbe, 0xde]);
            self.len += 4;
        }
        self.out[self.len] = (id << 4) | (value.len() as u8 - 1);
        self.out[self.len + 1..][..value.len()].copy_from_slice(value);
        self.len += 1 + value.len();
        self
    }

    /// Ends the header and returns its length.
    pub fn finish(self) -> usize {
        if self.len == HEADER_BYTES {
            return self.len;
        }
        let end = self.len.next_multiple_of(4);
        self.out[self.len..end].fill(0);
        let words = (end - HEADER_BYTES - 4) / 4;
        self.out[14..16].copy_from_slice(&(words as u16).to_be_bytes());
        end
    }
}

/// The 24-bit abs-send-time of a moment: seconds as 6.18 fixed point.
pub fn abs_send_time(now_ns: u64) -> [u8; 3] {
    let fixed = ((u128::from(now_ns) << 18) / 1_000_000_000) as u32;
    let [_, a, b, c] = fixed.to_be_bytes();
    [a, b, c]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_header_reads_back_with_its_extensions() {
        let mut packet = [0xffu8; 100];
        let len = HeaderWriter::new(&mut packet, 96, true, 7, 9000, 0x1234_5678)
            .extension(extension_id::MID, b"0")
            .extension(extension_id::TRANSPORT_CC, &[1, 2])
            .finish();
        let header = Header::read(&packet).unwrap();
        assert_eq!(header.len, len);
        assert_eq!((header.marker, header.payload_type, header.sequence), (true, 96, 7));
        assert_eq!((header.timestamp, header.ssrc), (9000, 0x1234_5678));
        assert_eq!(extension(&packet, &header, extension_id::MID), Some(&b"0"[..]));
        assert_eq!(extension(&packet, &header, extension_id::TRANSPORT_CC), Some(&[1u8, 2][..]));
        assert_eq!(extension(&packet, &header, extension_id::AUDIO_LEVEL), None);
    }

    #[test]
    fn a_header_that_claims_more_than_there_is_is_refused() {
        let mut packet = [0u8; 16];
        HeaderWriter::new(&mut packet, 96, false, 1, 2, 3).finish();
        assert!(Header::read(&packet).is_some());
        packet[0] |= 0x10;
        packet[12..16].copy_from_slice(&[0xbe, 0xde, 0, 5]);
        assert!(Header::read(&packet).is_none());
        assert!(Header::read(&packet[..11]).is_none());
    }
}
