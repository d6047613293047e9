//! What a datagram is, by its first bytes (RFC 7983, RFC 5761).
//!
//! The shard asks this of every datagram before anything else. A kind is a promise about the first bytes
//! only: each parser still checks its own.

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DatagramKind {
    Stun,
    Dtls,
    Rtp,
    Rtcp,
}

const STUN_HEADER: usize = 20;
const STUN_COOKIE: [u8; 4] = 0x2112_a442u32.to_be_bytes();
const RTP_HEADER: usize = 12;
/// SRTCP leaves the header and the sender's SSRC in the clear, and is nothing without them.
const RTCP_HEADER: usize = 8;

/// The kind, or `None` for what Ringside speaks not at all (ZRTP, TURN channels, noise) and for what is
/// too short to be anything.
///
/// ```text
/// first byte    0..=3 STUN (and the cookie of RFC 8489 section 5)
///             20..=63 DTLS
///           128..=191 second byte 192..=223: RTCP, otherwise RTP
/// ```
#[inline]
pub fn classify(bytes: &[u8]) -> Option<DatagramKind> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    match first {
        128..=191 if (192..=223).contains(&second) => (bytes.len() >= RTCP_HEADER).then_some(DatagramKind::Rtcp),
        128..=191 => (bytes.len() >= RTP_HEADER).then_some(DatagramKind::Rtp),
        0..=3 => (bytes.len() >= STUN_HEADER && bytes[4..8] == STUN_COOKIE).then_some(DatagramKind::Stun),
        20..=63 => Some(DatagramKind::Dtls),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(first: u8, second: u8, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        bytes[..2].copy_from_slice(&[first, second]);
        bytes
    }

    #[test]
    fn the_first_byte_decides() {
        for first in 0..=255u8 {
            let mut bytes = datagram(first, 111, 40);
            bytes[4..8].copy_from_slice(&STUN_COOKIE);
            let expected = match first {
                0..=3 => Some(DatagramKind::Stun),
                20..=63 => Some(DatagramKind::Dtls),
                128..=191 => Some(DatagramKind::Rtp),
                _ => None,
            };
            assert_eq!(classify(&bytes), expected, "first byte {first}");
        }
    }

    #[test]
    fn payload_types_64_to_95_are_rtcp_with_and_without_the_marker() {
        for second in 0..=255u8 {
            let expected = if (64..=95).contains(&(second & 0x7f)) && second >= 128 {
                DatagramKind::Rtcp
            } else {
                DatagramKind::Rtp
            };
            assert_eq!(classify(&datagram(0x80, second, 40)), Some(expected), "second byte {second}");
        }
    }

    #[test]
    fn stun_without_its_cookie_is_refused() {
        assert_eq!(classify(&datagram(0, 1, 20)), None);
    }

    #[test]
    fn what_is_too_short_is_nothing() {
        let mut stun = datagram(0, 1, 20);
        stun[4..8].copy_from_slice(&STUN_COOKIE);
        for (bytes, shortest) in [(stun, 20), (datagram(0x80, 200, 20), 8), (datagram(0x80, 111, 20), 12)] {
            for len in 0..=bytes.len() {
                assert_eq!(classify(&bytes[..len]).is_some(), len >= shortest, "{len} bytes of {bytes:?}");
            }
        }
    }
}
