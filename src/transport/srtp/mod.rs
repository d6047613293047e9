//! SRTP and SRTCP (RFC 3711, RFC 7714) over aws-lc-rs: [`Inbound`] opens what one peer sends, [`Outbound`]
//! seals what it receives.
//!
//! Called by a shard for every packet. RTP is opened and sealed from one buffer into another, so that the
//! cipher is the only pass over a payload. Nothing here allocates per packet, and no bytes of the network
//! create state before they are authenticated. Sequence numbers of outgoing streams are the caller's.

mod cipher;
mod keys;
mod replay;

#[cfg(test)]
mod differential_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vector_tests;

use self::cipher::Cipher;
pub use self::keys::{Keys, Profile};
use self::replay::Streams;
use crate::ids::Ssrc;
use crate::limits;

/// Bytes of an RTP header without CSRCs and extensions (RFC 3550 section 5.1).
const RTP_HEADER_BYTES: usize = 12;
/// Bytes at the front of an RTCP compound that are never encrypted: first header and sender SSRC.
const RTCP_HEADER_BYTES: usize = 8;
/// The E bit and the SRTCP index (RFC 3711 section 3.4).
const RTCP_INDEX_BYTES: usize = 4;
/// Largest SRTCP index; its 31 bits never wrap under one key, a further packet is refused.
const RTCP_INDEX_MAX: u32 = 0x7fff_ffff;
const ENCRYPTED_BIT: u32 = 0x8000_0000;

/// Why a packet was not opened. The caller counts it and drops the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SrtpError {
    #[error("too short for its header and authentication tag")]
    Malformed,
    #[error("this index was received already, or is older than the replay window")]
    Replayed,
    #[error("the authentication tag does not match")]
    Forged,
    #[error("the peer uses more SSRCs than a transport may have")]
    TooManySsrcs,
}

/// The receiving contexts of one peer: keys, and per SSRC rollover counter and replay window.
pub struct Inbound {
    rtp: Cipher,
    rtcp: Cipher,
    rtp_streams: Streams,
    rtcp_streams: Streams,
}

impl Inbound {
    pub fn new(keys: &Keys) -> Self {
        let (rtp, rtcp) = keys.remote_ciphers();
        Inbound {
            rtp,
            rtcp,
            rtp_streams: Streams::with_capacity_limit(limits::RTP_SSRCS_PER_TRANSPORT),
            rtcp_streams: Streams::with_capacity_limit(limits::RTCP_SSRCS_PER_TRANSPORT),
        }
    }

    /// Whether a packet has proved authentic: the peer has the keys.
    pub fn is_used(&self) -> bool {
        !self.rtp_streams.is_empty() || !self.rtcp_streams.is_empty()
    }

    /// Authenticates and decrypts an SRTP packet into `out`, which must hold `packet.len()` bytes.
    ///
    /// `header_len` counts the clear bytes: fixed header, CSRCs and extensions (RFC 3711 section 3.1); they
    /// are copied. Returns the length of the plain RTP packet. When it fails, `out` holds nothing of use.
    pub fn open_rtp(&mut self, packet: &[u8], header_len: usize, out: &mut [u8]) -> Result<usize, SrtpError> {
        let overhead = self.rtp.tag_len();
        let room = packet.len().saturating_sub(overhead);
        if header_len < RTP_HEADER_BYTES || header_len > room || out.len() < packet.len() {
            return Err(SrtpError::Malformed);
        }
        let sequence = u16::from_be_bytes([packet[2], packet[3]]);
        let ssrc = ssrc_at(packet, 8);
        let (place, mut index) = self.rtp_streams.expect_sequence(ssrc, sequence)?;

        out[..header_len].copy_from_slice(&packet[..header_len]);
        let mut opened = self.rtp.open_rtp(packet, header_len, out, ssrc, index);
        if let (Err(_), Some(later)) = (opened, place.index_after_early_wrap(sequence)) {
            index = later;
            opened = self.rtp.open_rtp(packet, header_len, out, ssrc, index);
        }
        opened?;

        self.rtp_streams.accept(place, ssrc, index);
        Ok(packet.len() - overhead)
    }

    /// Authenticates and decrypts an SRTCP packet in place and returns the length of the plain compound.
    ///
    /// A packet with E = 0 (authenticated, not encrypted) is accepted only when its tag is right.
    pub fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let overhead = self.rtcp.tag_len() + RTCP_INDEX_BYTES;
        if packet.len() < RTCP_HEADER_BYTES + overhead {
            return Err(SrtpError::Malformed);
        }
        let ssrc = ssrc_at(packet, 4);
        let word = self.rtcp.rtcp_index_word(packet);
        let index = u64::from(word & RTCP_INDEX_MAX);
        let place = self.rtcp_streams.expect_index(ssrc, index)?;

        self.rtcp.open_rtcp(packet, ssrc, word)?;

        self.rtcp_streams.accept(place, ssrc, index);
        Ok(packet.len() - overhead)
    }
}

/// The sending context of one peer. Streams are the caller's: it passes SSRC and index with each packet.
pub struct Outbound {
    rtp: Cipher,
    rtcp: Cipher,
    /// Index of the next SRTCP packet; one counter for all SSRCs, so that no pair is ever used twice.
    rtcp_index: u32,
}

impl Outbound {
    pub fn new(keys: &Keys) -> Self {
        let (rtp, rtcp) = keys.local_ciphers();
        Outbound { rtp, rtcp, rtcp_index: 0 }
    }

    /// Seals `payload` and then `suffix` (RTP padding, mostly empty) behind the header that stands in
    /// `out[..header_len]`, and returns the length of the datagram.
    ///
    /// `index` is the 48-bit ROC || SEQ of RFC 3711 section 3.3.1; it must never repeat for one `ssrc`.
    /// `out` must have room for [`Profile::rtp_overhead`] behind header, payload and suffix.
    pub fn seal_rtp(
        &mut self,
        out: &mut [u8],
        header_len: usize,
        payload: &[u8],
        suffix: &[u8],
        ssrc: Ssrc,
        index: u64,
    ) -> usize {
        let end = header_len + payload.len() + suffix.len() + self.rtp.tag_len();
        debug_assert!(out.len() >= end, "no room for the authentication tag");
        self.rtp.seal_rtp(&mut out[..end], header_len, payload, suffix, ssrc, index);
        end
    }

    /// The same as [`seal_rtp`](Self::seal_rtp) for a packet whose header and plain payload stand in
    /// `out[..len]` already.
    pub fn seal_rtp_in_place(
        &mut self,
        out: &mut [u8],
        header_len: usize,
        len: usize,
        ssrc: Ssrc,
        index: u64,
    ) -> usize {
        let end = len + self.rtp.tag_len();
        debug_assert!(header_len <= len && out.len() >= end, "no room for the authentication tag");
        self.rtp.seal_rtp_in_place(&mut out[..end], header_len, ssrc, index);
        end
    }

    /// Encrypts the RTCP compound in `buf[..len]` in place and returns the length of the datagram.
    ///
    /// `None` when `buf` has no room for [`Profile::rtcp_overhead`], when the compound is shorter than its
    /// first header, or after 2^31 packets, when the key is used up (RFC 3711 section 9.2).
    pub fn seal_rtcp(&mut self, buf: &mut [u8], len: usize) -> Option<usize> {
        let end = len + self.rtcp.tag_len() + RTCP_INDEX_BYTES;
        if len < RTCP_HEADER_BYTES || buf.len() < end || self.rtcp_index > RTCP_INDEX_MAX {
            return None;
        }
        let ssrc = ssrc_at(buf, 4);
        self.rtcp.seal_rtcp(&mut buf[..end], len, ssrc, self.rtcp_index | ENCRYPTED_BIT);
        self.rtcp_index += 1;
        Some(end)
    }
}

fn ssrc_at(packet: &[u8], at: usize) -> Ssrc {
    Ssrc(u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]))
}
