//! One direction's session keys for RTP or for RTCP, and the layout of a protected packet. Stateless: knows
//! nothing of sequence numbers seen before.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::{constant_time, hmac};

use super::{ENCRYPTED_BIT, Profile, RTCP_HEADER_BYTES, RTCP_INDEX_BYTES, SrtpError};
use crate::ids::Ssrc;

const GCM_TAG_BYTES: usize = 16;
const SHA1_80_TAG_BYTES: usize = 10;

/// GCM's key schedule is a heap block of aws-lc's anyway; the others take 1.7 kB, which most peers never need.
pub(super) enum Cipher {
    Gcm(Gcm),
    CmSha1(Box<CmSha1>),
}

impl Cipher {
    /// `salt` is 112 bits long; GCM uses the first 96.
    pub(super) fn new(profile: Profile, key: &[u8], authentication_key: &[u8], salt: &[u8; 14]) -> Self {
        match profile {
            Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => Cipher::Gcm(Gcm::new(profile, key, salt)),
            Profile::Aes128CmSha1_80 => Cipher::CmSha1(Box::new(CmSha1::new(key, authentication_key, salt))),
        }
    }

    pub(super) fn tag_len(&self) -> usize {
        match self {
            Cipher::Gcm(_) => GCM_TAG_BYTES,
            Cipher::CmSha1(_) => SHA1_80_TAG_BYTES,
        }
    }

    /// `out` is at least as long as `packet`; the header is in place already.
    pub(super) fn open_rtp(
        &self,
        packet: &[u8],
        header_len: usize,
        out: &mut [u8],
        ssrc: Ssrc,
        index: u64,
    ) -> Result<(), SrtpError> {
        match self {
            Cipher::Gcm(gcm) => gcm.open_rtp(packet, header_len, out, ssrc, index),
            Cipher::CmSha1(cm) => cm.open_rtp(packet, header_len, out, ssrc, index),
        }
    }

    /// `out` is exactly header, payload, suffix and tag.
    pub(super) fn seal_rtp(
        &self,
        out: &mut [u8],
        header_len: usize,
        payload: &[u8],
        suffix: &[u8],
        ssrc: Ssrc,
        index: u64,
    ) {
        match self {
            Cipher::Gcm(gcm) => gcm.seal_rtp(out, header_len, payload, suffix, ssrc, index),
            Cipher::CmSha1(cm) => {
                let (body, padding) = out[header_len..].split_at_mut(payload.len());
                body.copy_from_slice(payload);
                padding[..suffix.len()].copy_from_slice(suffix);
                cm.seal_rtp_in_place(out, header_len, ssrc, index);
            }
        }
    }

    /// `out` is exactly header, plain payload and room for the tag.
    pub(super) fn seal_rtp_in_place(&self, out: &mut [u8], header_len: usize, ssrc: Ssrc, index: u64) {
        match self {
            Cipher::Gcm(gcm) => gcm.seal_rtp_in_place(out, header_len, ssrc, index),
            Cipher::CmSha1(cm) => cm.seal_rtp_in_place(out, header_len, ssrc, index),
        }
    }

    /// The E bit and the index: behind the tag with GCM (RFC 7714 section 9.2), before it with HMAC (RFC
    /// 3711 section 3.4).
    pub(super) fn rtcp_index_word(&self, packet: &[u8]) -> u32 {
        let end = match self {
            Cipher::Gcm(_) => packet.len(),
            Cipher::CmSha1(_) => packet.len() - SHA1_80_TAG_BYTES,
        };
        u32::from_be_bytes([packet[end - 4], packet[end - 3], packet[end - 2], packet[end - 1]])
    }

    pub(super) fn open_rtcp(&self, packet: &mut [u8], ssrc: Ssrc, word: u32) -> Result<(), SrtpError> {
        match self {
            Cipher::Gcm(gcm) => gcm.open_rtcp(packet, ssrc, word),
            Cipher::CmSha1(cm) => cm.open_rtcp(packet, ssrc, word),
        }
    }

    /// `buf` is exactly the compound of `len` bytes, index word and tag.
    pub(super) fn seal_rtcp(&self, buf: &mut [u8], len: usize, ssrc: Ssrc, word: u32) {
        match self {
            Cipher::Gcm(gcm) => gcm.seal_rtcp(buf, len, ssrc, word),
            Cipher::CmSha1(cm) => cm.seal_rtcp(buf, len, ssrc, word),
        }
    }
}

/// AEAD_AES_128_GCM and AEAD_AES_256_GCM (RFC 7714).
///
/// ```text
/// RTP   header | ciphertext | tag          aad: header
/// RTCP  header | ciphertext | tag | word   aad: header, word          E = 1
///       compound            | tag | word   aad: compound, word        E = 0
/// ```
pub(super) struct Gcm {
    key: LessSafeKey,
    salt: u128,
}

impl Gcm {
    fn new(profile: Profile, key: &[u8], salt: &[u8; 14]) -> Self {
        let algorithm = if profile == Profile::AeadAes256Gcm { &AES_256_GCM } else { &AES_128_GCM };
        let key = UnboundKey::new(algorithm, key).expect("a key of the profile's own length");
        let mut bytes = [0; 16];
        bytes[4..].copy_from_slice(&salt[..12]);
        Gcm { key: LessSafeKey::new(key), salt: u128::from_be_bytes(bytes) }
    }

    /// 00 00 || SSRC || index (48 bits), XOR salt (RFC 7714 section 8.1; for RTCP the index has 31 bits and is
    /// preceded by zeros, section 9.1, which is the same number).
    fn nonce(&self, ssrc: Ssrc, index: u64) -> Nonce {
        let value = (u128::from(ssrc.0) << 48 | u128::from(index)) ^ self.salt;
        let bytes = value.to_be_bytes();
        let mut nonce = [0; 12];
        nonce.copy_from_slice(&bytes[4..]);
        Nonce::assume_unique_for_key(nonce)
    }

    fn open_rtp(
        &self,
        packet: &[u8],
        header_len: usize,
        out: &mut [u8],
        ssrc: Ssrc,
        index: u64,
    ) -> Result<(), SrtpError> {
        let (header, sealed) = packet.split_at(header_len);
        let (ciphertext, tag) = sealed.split_at(sealed.len() - GCM_TAG_BYTES);
        let plain = &mut out[header_len..header_len + ciphertext.len()];
        self.key
            .open_separate_gather(self.nonce(ssrc, index), Aad::from(header), ciphertext, tag, plain)
            .map_err(|_| SrtpError::Forged)
    }

    fn seal_rtp(&self, out: &mut [u8], header_len: usize, payload: &[u8], suffix: &[u8], ssrc: Ssrc, index: u64) {
        let (header, sealed) = out.split_at_mut(header_len);
        let (ciphertext, rest) = sealed.split_at_mut(payload.len());
        self.key
            .seal_out_of_place_scatter(self.nonce(ssrc, index), Aad::from(&*header), payload, ciphertext, suffix, rest)
            .expect("lengths match by construction");
    }

    fn seal_rtp_in_place(&self, out: &mut [u8], header_len: usize, ssrc: Ssrc, index: u64) {
        let (header, body) = out.split_at_mut(header_len);
        let (text, tag) = body.split_at_mut(body.len() - GCM_TAG_BYTES);
        self.key
            .seal_in_place_scatter(self.nonce(ssrc, index), Aad::from(&*header), text, &[], tag)
            .expect("lengths match by construction");
    }

    fn open_rtcp(&self, packet: &mut [u8], ssrc: Ssrc, word: u32) -> Result<(), SrtpError> {
        let nonce = self.nonce(ssrc, u64::from(word & !ENCRYPTED_BIT));
        let plain_len = packet.len() - GCM_TAG_BYTES - RTCP_INDEX_BYTES;
        let mut tag = [0; GCM_TAG_BYTES];
        tag.copy_from_slice(&packet[plain_len..plain_len + GCM_TAG_BYTES]);
        if word & ENCRYPTED_BIT == 0 {
            // The additional data is the compound and the word, without the tag between them: close the gap.
            packet[plain_len..plain_len + RTCP_INDEX_BYTES].copy_from_slice(&word.to_be_bytes());
            let aad = Aad::from(&packet[..plain_len + RTCP_INDEX_BYTES]);
            return match self.key.open_in_place_separate_tag(nonce, aad, &tag, &mut []) {
                Ok(_) => Ok(()),
                Err(_) => Err(SrtpError::Forged),
            };
        }
        let aad = rtcp_aad(packet, word);
        match self.key.open_in_place_separate_tag(nonce, aad, &tag, &mut packet[RTCP_HEADER_BYTES..plain_len]) {
            Ok(_) => Ok(()),
            Err(_) => Err(SrtpError::Forged),
        }
    }

    fn seal_rtcp(&self, buf: &mut [u8], len: usize, ssrc: Ssrc, word: u32) {
        let nonce = self.nonce(ssrc, u64::from(word & !ENCRYPTED_BIT));
        let aad = rtcp_aad(buf, word);
        let (text, rest) = buf[RTCP_HEADER_BYTES..].split_at_mut(len - RTCP_HEADER_BYTES);
        let (tag, index) = rest.split_at_mut(GCM_TAG_BYTES);
        self.key.seal_in_place_scatter(nonce, aad, text, &[], tag).expect("lengths match by construction");
        index.copy_from_slice(&word.to_be_bytes());
    }
}

fn rtcp_aad(packet: &[u8], word: u32) -> Aad<[u8; RTCP_HEADER_BYTES + RTCP_INDEX_BYTES]> {
    let mut aad = [0; RTCP_HEADER_BYTES + RTCP_INDEX_BYTES];
    aad[..RTCP_HEADER_BYTES].copy_from_slice(&packet[..RTCP_HEADER_BYTES]);
    aad[RTCP_HEADER_BYTES..].copy_from_slice(&word.to_be_bytes());
    Aad::from(aad)
}

/// AES_CM_128_HMAC_SHA1_80 (RFC 3711 sections 4.1.1 and 4.2.1).
///
/// ```text
/// RTP   header | ciphertext | tag          tag over: header, ciphertext, rollover counter
/// RTCP  header | ciphertext | word | tag   tag over: header, ciphertext, word; with E = 0 the text is plain
/// ```
pub(super) struct CmSha1 {
    key: EncryptingKey,
    authentication: hmac::Key,
    salt: u128,
}

impl CmSha1 {
    pub(super) fn new(key: &[u8], authentication_key: &[u8], salt: &[u8; 14]) -> Self {
        let key = UnboundCipherKey::new(&AES_128, key).expect("a key of the profile's own length");
        let mut bytes = [0; 16];
        bytes[..14].copy_from_slice(salt);
        CmSha1 {
            key: EncryptingKey::ctr(key).expect("AES has a counter mode"),
            authentication: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, authentication_key),
            salt: u128::from_be_bytes(bytes),
        }
    }

    /// Encrypts or decrypts: both XOR the key stream under (salt * 2^16) XOR (SSRC * 2^64) XOR (index * 2^16).
    pub(super) fn apply_key_stream(&self, text: &mut [u8], ssrc: Ssrc, index: u64) {
        let iv = self.salt ^ u128::from(ssrc.0) << 64 ^ u128::from(index) << 16;
        self.key
            .less_safe_encrypt(text, EncryptionContext::Iv128(iv.to_be_bytes().into()))
            .expect("counter mode takes any length");
    }

    pub(super) fn tag(&self, data: &[u8], trailer: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.authentication);
        context.update(data);
        context.update(trailer);
        context.sign()
    }

    fn verify(&self, data: &[u8], trailer: &[u8], tag: &[u8]) -> Result<(), SrtpError> {
        let expected = self.tag(data, trailer);
        constant_time::verify_slices_are_equal(&expected.as_ref()[..SHA1_80_TAG_BYTES], tag)
            .map_err(|_| SrtpError::Forged)
    }

    fn open_rtp(
        &self,
        packet: &[u8],
        header_len: usize,
        out: &mut [u8],
        ssrc: Ssrc,
        index: u64,
    ) -> Result<(), SrtpError> {
        let (data, tag) = packet.split_at(packet.len() - SHA1_80_TAG_BYTES);
        self.verify(data, &rollover_counter(index), tag)?;
        let plain = &mut out[header_len..data.len()];
        plain.copy_from_slice(&data[header_len..]);
        self.apply_key_stream(plain, ssrc, index);
        Ok(())
    }

    fn seal_rtp_in_place(&self, out: &mut [u8], header_len: usize, ssrc: Ssrc, index: u64) {
        let (data, room) = out.split_at_mut(out.len() - SHA1_80_TAG_BYTES);
        self.apply_key_stream(&mut data[header_len..], ssrc, index);
        room.copy_from_slice(&self.tag(data, &rollover_counter(index)).as_ref()[..SHA1_80_TAG_BYTES]);
    }

    fn open_rtcp(&self, packet: &mut [u8], ssrc: Ssrc, word: u32) -> Result<(), SrtpError> {
        let (data, tag) = packet.split_at_mut(packet.len() - SHA1_80_TAG_BYTES);
        self.verify(data, &[], tag)?;
        if word & ENCRYPTED_BIT != 0 {
            let plain_len = data.len() - RTCP_INDEX_BYTES;
            self.apply_key_stream(&mut data[RTCP_HEADER_BYTES..plain_len], ssrc, u64::from(word & !ENCRYPTED_BIT));
        }
        Ok(())
    }

    fn seal_rtcp(&self, buf: &mut [u8], len: usize, ssrc: Ssrc, word: u32) {
        let (data, room) = buf.split_at_mut(len + RTCP_INDEX_BYTES);
        self.apply_key_stream(&mut data[RTCP_HEADER_BYTES..len], ssrc, u64::from(word & !ENCRYPTED_BIT));
        data[len..].copy_from_slice(&word.to_be_bytes());
        room.copy_from_slice(&self.tag(data, &[]).as_ref()[..SHA1_80_TAG_BYTES]);
    }
}

fn rollover_counter(index: u64) -> [u8; 4] {
    ((index >> 16) as u32).to_be_bytes()
}
