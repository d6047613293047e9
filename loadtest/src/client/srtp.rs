//! SRTP and SRTCP of a client (RFC 3711 with the AEAD profiles of RFC 7714): seals what it sends in place, opens a
//! sample of what it receives. No replay window: the load test counts duplicates itself and wants to see them.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use dimpl::SrtpProfile;

pub const TAG_BYTES: usize = 16;
const SALT_BYTES: usize = 12;
const INDEX_BYTES: usize = 4;
const RTCP_CLEAR_BYTES: usize = 8;

/// One direction's keys.
pub struct Context {
    rtp: Cipher,
    rtcp: Cipher,
    rtcp_index: u32,
}

struct Cipher {
    key: LessSafeKey,
    salt: [u8; SALT_BYTES],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAuthentic;

/// The name that servers and reports give a profile.
pub fn profile_name(profile: SrtpProfile) -> &'static str {
    match profile {
        SrtpProfile::AEAD_AES_256_GCM => "AEAD_AES_256_GCM",
        SrtpProfile::AEAD_AES_128_GCM => "AEAD_AES_128_GCM",
        _ => "AES_CM_128_HMAC_SHA1_80",
    }
}

/// Contexts to send and to receive with, from what the DTLS exporter yields (RFC 5764 section 4.2: client key, server
/// key, client salt, server salt). `None` for a profile without authenticated encryption.
pub fn contexts(profile: SrtpProfile, exported: &[u8], client: bool) -> Option<(Context, Context)> {
    let key_bytes = match profile {
        SrtpProfile::AEAD_AES_128_GCM => 16,
        SrtpProfile::AEAD_AES_256_GCM => 32,
        _ => return None,
    };
    if exported.len() < 2 * (key_bytes + SALT_BYTES) {
        return None;
    }
    let (keys, salts) = exported.split_at(2 * key_bytes);
    let of_client = Context::new(&keys[..key_bytes], &salts[..SALT_BYTES])?;
    let of_server = Context::new(&keys[key_bytes..], &salts[SALT_BYTES..2 * SALT_BYTES])?;
    Some(if client { (of_client, of_server) } else { (of_server, of_client) })
}

impl Context {
    fn new(key: &[u8], salt: &[u8]) -> Option<Context> {
        Some(Context { rtp: Cipher::derive(key, salt, 0)?, rtcp: Cipher::derive(key, salt, 3)?, rtcp_index: 0 })
    }

    /// Seals the packet in `buffer[..len]`, whose header is `header_len` long, and returns its length then. `rollover`
    /// counts how often the sequence number of this SSRC has wrapped.
    pub fn seal_rtp(&self, buffer: &mut [u8], header_len: usize, len: usize, rollover: u32) -> usize {
        let nonce = self.rtp.rtp_nonce(buffer, rollover);
        let (header, rest) = buffer.split_at_mut(header_len);
        let (payload, tail) = rest.split_at_mut(len - header_len);
        let tag = self.rtp.key.seal_in_place_separate_tag(nonce, Aad::from(&*header), payload);
        tail[..TAG_BYTES].copy_from_slice(tag.expect("far below the cipher's size limit").as_ref());
        len + TAG_BYTES
    }

    /// Opens a packet in place and returns its payload, padding included.
    pub fn open_rtp<'a>(
        &self,
        packet: &'a mut [u8],
        header_len: usize,
        rollover: u32,
    ) -> Result<&'a [u8], NotAuthentic> {
        if packet.len() < header_len + TAG_BYTES {
            return Err(NotAuthentic);
        }
        let nonce = self.rtp.rtp_nonce(packet, rollover);
        let (header, sealed) = packet.split_at_mut(header_len);
        self.rtp.key.open_in_place(nonce, Aad::from(&*header), sealed).map(|plain| &*plain).map_err(|_| NotAuthentic)
    }

    /// Seals the compound in `compound` (RFC 7714 section 9: first header clear, the rest encrypted, tag, index).
    pub fn seal_rtcp(&mut self, compound: &mut Vec<u8>) {
        let word = self.rtcp_index | 0x8000_0000;
        self.rtcp_index += 1;
        let mut aad = [0; RTCP_CLEAR_BYTES + INDEX_BYTES];
        aad[..RTCP_CLEAR_BYTES].copy_from_slice(&compound[..RTCP_CLEAR_BYTES]);
        aad[RTCP_CLEAR_BYTES..].copy_from_slice(&word.to_be_bytes());
        let nonce = self.rtcp.rtcp_nonce(compound, word & 0x7fff_ffff);
        let tag = self
            .rtcp
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(aad), &mut compound[RTCP_CLEAR_BYTES..])
            .expect("far below the cipher's size limit");
        compound.extend_from_slice(tag.as_ref());
        compound.extend_from_slice(&word.to_be_bytes());
    }

    /// Opens a compound in place and returns it without tag and index.
    pub fn open_rtcp<'a>(&self, packet: &'a mut [u8]) -> Result<&'a [u8], NotAuthentic> {
        let Some(sealed_len) = packet.len().checked_sub(RTCP_CLEAR_BYTES + TAG_BYTES + INDEX_BYTES) else {
            return Err(NotAuthentic);
        };
        let index_at = packet.len() - INDEX_BYTES;
        let word = u32::from_be_bytes(packet[index_at..].try_into().expect("four bytes"));
        if word & 0x8000_0000 == 0 {
            return Err(NotAuthentic);
        }
        let mut aad = [0; RTCP_CLEAR_BYTES + INDEX_BYTES];
        aad[..RTCP_CLEAR_BYTES].copy_from_slice(&packet[..RTCP_CLEAR_BYTES]);
        aad[RTCP_CLEAR_BYTES..].copy_from_slice(&word.to_be_bytes());
        let nonce = self.rtcp.rtcp_nonce(packet, word & 0x7fff_ffff);
        let sealed = &mut packet[RTCP_CLEAR_BYTES..index_at];
        self.rtcp.key.open_in_place(nonce, Aad::from(aad), sealed).map_err(|_| NotAuthentic)?;
        Ok(&packet[..RTCP_CLEAR_BYTES + sealed_len])
    }
}

impl Cipher {
    /// Session key and salt of RFC 3711 section 4.3 with a key derivation rate of 0; `label` of the key, the salt's is
    /// two more. The master salt counts as 112 bits, the last 16 zero (RFC 7714 section 11).
    fn derive(master_key: &[u8], master_salt: &[u8], label: u8) -> Option<Cipher> {
        let aes = if master_key.len() == 32 { &AES_256 } else { &AES_128 };
        let mut key = vec![0; master_key.len()];
        let mut salt = [0; SALT_BYTES];
        for (label, out) in [(label, &mut key[..]), (label + 2, &mut salt[..])] {
            let mut iv = [0; 16];
            iv[..SALT_BYTES].copy_from_slice(master_salt);
            iv[7] ^= label;
            let prf = EncryptingKey::ctr(UnboundCipherKey::new(aes, master_key).ok()?).ok()?;
            prf.less_safe_encrypt(out, EncryptionContext::Iv128((&iv).into())).ok()?;
        }
        let algorithm = if key.len() == 32 { &AES_256_GCM } else { &AES_128_GCM };
        Some(Cipher { key: LessSafeKey::new(UnboundKey::new(algorithm, &key).ok()?), salt })
    }

    /// RFC 7714 section 8.1: 00 00 | SSRC | ROC | SEQ, mixed with the salt.
    fn rtp_nonce(&self, packet: &[u8], rollover: u32) -> Nonce {
        let mut nonce = [0; SALT_BYTES];
        nonce[2..6].copy_from_slice(&packet[8..12]);
        nonce[6..10].copy_from_slice(&rollover.to_be_bytes());
        nonce[10..12].copy_from_slice(&packet[2..4]);
        self.mixed(nonce)
    }

    /// RFC 7714 section 9.1: 00 00 | SSRC | 00 00 | index.
    fn rtcp_nonce(&self, compound: &[u8], index: u32) -> Nonce {
        let mut nonce = [0; SALT_BYTES];
        nonce[2..6].copy_from_slice(&compound[4..8]);
        nonce[8..12].copy_from_slice(&index.to_be_bytes());
        self.mixed(nonce)
    }

    fn mixed(&self, mut nonce: [u8; SALT_BYTES]) -> Nonce {
        for (byte, salt) in nonce.iter_mut().zip(self.salt) {
            *byte ^= salt;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

#[cfg(test)]
mod tests {
    use ringside::transport::srtp::{Inbound, Keys, Outbound, Profile};

    use super::*;
    use crate::media::rtp::HeaderWriter;

    fn exported() -> Vec<u8> {
        (0..88u8).map(|n| n.wrapping_mul(37)).collect()
    }

    /// The server's implementation stands on the other end here.
    #[test]
    fn the_server_opens_what_a_client_seals_and_the_other_way_round() {
        for (profile, theirs) in [
            (SrtpProfile::AEAD_AES_128_GCM, Profile::AeadAes128Gcm),
            (SrtpProfile::AEAD_AES_256_GCM, Profile::AeadAes256Gcm),
        ] {
            let exported = &exported()[..theirs.exported_len()];
            let (mut send, receive) = contexts(profile, exported, true).unwrap();
            let keys = Keys::from_exporter(theirs, exported, false).unwrap();
            let (mut inbound, mut outbound) = (Inbound::new(&keys), Outbound::new(&keys));

            let mut packet = [7u8; 200];
            let header_len = HeaderWriter::new(&mut packet, 96, true, 5, 6, 7).extension(4, b"0").finish();
            let plain = packet[..120].to_vec();
            let len = send.seal_rtp(&mut packet, header_len, 120, 0);
            let mut out = [0; 200];
            assert_eq!(inbound.open_rtp(&packet[..len], header_len, &mut out), Ok(120));
            assert_eq!(out[..120], plain[..]);

            let mut sealed = [0u8; 200];
            sealed[..header_len].copy_from_slice(&plain[..header_len]);
            let len = outbound.seal_rtp(&mut sealed, header_len, &plain[header_len..], &[], ringside::ids::Ssrc(7), 5);
            assert_eq!(receive.open_rtp(&mut sealed[..len], header_len, 0), Ok(&plain[header_len..]));

            let report = [0x80, 201, 0, 1, 0, 0, 0, 9].to_vec();
            let mut compound = report.clone();
            send.seal_rtcp(&mut compound);
            assert_eq!(inbound.open_rtcp(&mut compound), Ok(8));
            let mut back = [0u8; 64];
            back[..8].copy_from_slice(&report);
            let len = outbound.seal_rtcp(&mut back, 8).unwrap();
            assert_eq!(receive.open_rtcp(&mut back[..len]), Ok(&report[..]));
        }
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let (send, _) = contexts(SrtpProfile::AEAD_AES_128_GCM, &exported()[..56], true).unwrap();
        let (_, receive) = contexts(SrtpProfile::AEAD_AES_128_GCM, &exported()[..56], false).unwrap();
        let mut packet = [7u8; 100];
        let header_len = HeaderWriter::new(&mut packet, 96, true, 5, 6, 7).finish();
        let len = send.seal_rtp(&mut packet, header_len, 60, 0);
        packet[30] ^= 1;
        assert_eq!(receive.open_rtp(&mut packet[..len], header_len, 0), Err(NotAuthentic));
    }
}
