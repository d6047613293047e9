//! AV1 payloads (RTP Payload Format For AV1, section 4.4): does a packet begin a coded video sequence?
//!
//! ```text
//! |Z|Y| W |N|-|-|-|   Z continues an element, Y is continued, W elements (0: each with a length),
//!                     N first packet of a coded video sequence
//! ```

const SEQUENCE_HEADER: u8 = 1;
/// LEB128 of the format: at most eight bytes (AV1 specification section 4.10.5).
const LENGTH_BYTES: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Av1Facts {
    /// Begins a coded video sequence, hence a key frame.
    pub key_frame: bool,
    /// Begins an element rather than continuing one. Pictures are told apart by the marker bit and the
    /// dependency descriptor.
    pub start_of_unit: bool,
}

/// `None` when the payload is cut.
#[inline]
pub fn inspect(payload: &[u8]) -> Option<Av1Facts> {
    let (&aggregation, elements) = payload.split_first()?;
    if elements.is_empty() {
        return None;
    }
    let continued = aggregation & 0x80 != 0;
    let first_of_sequence = aggregation & 0x08 != 0;
    if continued {
        // Section 4.4: N says first packet and Z says not the first one; Z tells the truth of the bytes.
        return Some(Av1Facts { key_frame: false, start_of_unit: false });
    }
    let counted = aggregation >> 4 & 0x03;
    let key_frame = first_of_sequence || begins_with_sequence_header(elements, counted)?;
    Some(Av1Facts { key_frame, start_of_unit: true })
}

/// A temporal delimiter is not sent over RTP, so a sequence header is the first element or absent.
fn begins_with_sequence_header(elements: &[u8], counted: u8) -> Option<bool> {
    let element = if counted == 1 {
        elements
    } else {
        let (len, rest) = leb128(elements)?;
        rest.get(..len)?
    };
    element.first().map(|header| header >> 3 & 0x0f == SEQUENCE_HEADER)
}

fn leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().take(LENGTH_BYTES).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, &bytes[index + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_n_bit_or_a_sequence_header_begins_a_sequence() {
        for (payload, key_frame) in [
            (&[0x18, 0x32, 0][..], true),
            (&[0x10, 0x0a, 0], true),
            (&[0x10, 0x32, 0], false),
            (&[0x20, 2, 0x0a, 9, 0x32, 0], true),
            (&[0x20, 1, 0x32, 0x0a], false),
            (&[0x00, 2, 0x0a, 9, 1, 0x32], true),
            (&[0x00, 0x82, 0x00, 0x0a, 9], true),
        ] {
            let facts = inspect(payload).unwrap();
            assert_eq!((facts.key_frame, facts.start_of_unit), (key_frame, true), "{payload:x?}");
        }
    }

    #[test]
    fn a_continuation_begins_nothing() {
        for first in [0x80, 0x88, 0x90, 0x98] {
            assert_eq!(inspect(&[first, 0x0a, 0]), Some(Av1Facts { key_frame: false, start_of_unit: false }));
        }
    }

    #[test]
    fn a_cut_payload_is_refused() {
        for payload in [&[][..], &[0x10], &[0x20, 5, 0x0a], &[0x00, 0x80], &[0x00, 0], &[0x20, 0xff, 0xff, 0xff]] {
            assert_eq!(inspect(payload), None, "{payload:x?}");
        }
        assert_eq!(inspect(&[0x00, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01, 0x0a]), None);
    }
}
