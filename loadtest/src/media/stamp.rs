//! The last bytes of each payload: which source sent it, its number there, and when it was due. A receiver that has
//! opened the packet finds it again, whatever the server did to header, descriptor and padding.

use crate::schedule::Nanos;

pub const STAMP_BYTES: usize = 20;
const MAGIC: [u8; 4] = *b"RSLT";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub due: Nanos,
    pub source: u32,
    pub number: u32,
}

impl Stamp {
    /// Writes itself over the end of `payload`.
    pub fn write(self, payload: &mut [u8]) {
        let at = payload.len() - STAMP_BYTES;
        let end = &mut payload[at..];
        end[0..4].copy_from_slice(&MAGIC);
        end[4..8].copy_from_slice(&self.source.to_be_bytes());
        end[8..12].copy_from_slice(&self.number.to_be_bytes());
        end[12..20].copy_from_slice(&self.due.to_be_bytes());
    }

    /// Reads the stamp at the end of an opened payload without padding; `None` when there is none.
    pub fn read(payload: &[u8]) -> Option<Stamp> {
        let end = payload.get(payload.len().checked_sub(STAMP_BYTES)?..)?;
        if end[0..4] != MAGIC {
            return None;
        }
        let word = |at: usize| u32::from_be_bytes([end[at], end[at + 1], end[at + 2], end[at + 3]]);
        let due = (u64::from(word(12)) << 32) | u64::from(word(16));
        Some(Stamp { due, source: word(4), number: word(8) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_found_at_the_end_of_any_payload() {
        let stamp = Stamp { due: 0x0102_0304_0506_0708, source: 9, number: 77 };
        let mut payload = vec![0xaa; 64];
        stamp.write(&mut payload);
        assert_eq!(Stamp::read(&payload), Some(stamp));
        assert_eq!(Stamp::read(&payload[..40]), None);
        assert_eq!(Stamp::read(&[]), None);
    }
}
