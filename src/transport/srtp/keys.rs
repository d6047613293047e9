//! Protection profiles, and the way from a DTLS handshake's exported bytes to session keys.

use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use zeroize::Zeroize;

use super::cipher::Cipher;

const KEY_BYTES_MAX: usize = 32;
const SALT_BYTES_MAX: usize = 14;
const AUTHENTICATION_KEY_BYTES: usize = 20;

/// An SRTP protection profile of RFC 5764 section 4.1.2 and RFC 7714 section 14.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    AeadAes128Gcm,
    AeadAes256Gcm,
    Aes128CmSha1_80,
}

impl Profile {
    pub const ALL: [Profile; 3] = [Profile::AeadAes128Gcm, Profile::AeadAes256Gcm, Profile::Aes128CmSha1_80];

    /// The IANA name, as statistics show it.
    pub const fn name(self) -> &'static str {
        match self {
            Profile::AeadAes128Gcm => "AEAD_AES_128_GCM",
            Profile::AeadAes256Gcm => "AEAD_AES_256_GCM",
            Profile::Aes128CmSha1_80 => "AES_CM_128_HMAC_SHA1_80",
        }
    }

    /// Bytes that sealing adds to an RTP packet.
    pub const fn rtp_overhead(self) -> usize {
        match self {
            Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => 16,
            Profile::Aes128CmSha1_80 => 10,
        }
    }

    /// Bytes that sealing adds to an RTCP compound: the tag, the E bit and the index.
    pub const fn rtcp_overhead(self) -> usize {
        self.rtp_overhead() + 4
    }

    pub const fn key_len(self) -> usize {
        match self {
            Profile::AeadAes128Gcm | Profile::Aes128CmSha1_80 => 16,
            Profile::AeadAes256Gcm => 32,
        }
    }

    pub const fn salt_len(self) -> usize {
        match self {
            Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => 12,
            Profile::Aes128CmSha1_80 => 14,
        }
    }

    /// Bytes that the DTLS exporter must yield: two keys and two salts.
    pub const fn exported_len(self) -> usize {
        2 * (self.key_len() + self.salt_len())
    }
}

/// Master keys and salts of both directions. Wiped when dropped.
#[derive(Clone)]
pub struct Keys {
    profile: Profile,
    local: Master,
    remote: Master,
}

impl Keys {
    /// Splits what the DTLS exporter yielded (RFC 5764 section 4.2: client key, server key, client salt,
    /// server salt). `local_is_client` tells which half is ours. `None` when the length is not
    /// [`Profile::exported_len`].
    pub fn from_exporter(profile: Profile, exported: &[u8], local_is_client: bool) -> Option<Keys> {
        if exported.len() != profile.exported_len() {
            return None;
        }
        let (keys, salts) = exported.split_at(2 * profile.key_len());
        let (client_key, server_key) = keys.split_at(profile.key_len());
        let (client_salt, server_salt) = salts.split_at(profile.salt_len());
        let client = Master::new(client_key, client_salt);
        let server = Master::new(server_key, server_salt);
        let (local, remote) = if local_is_client { (client, server) } else { (server, client) };
        Some(Keys { profile, local, remote })
    }

    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// The same keys as the peer has them: local and remote exchanged. Tests and load generators hold both ends.
    pub fn swapped(&self) -> Keys {
        Keys { profile: self.profile, local: self.remote.clone(), remote: self.local.clone() }
    }

    pub(super) fn local_ciphers(&self) -> (Cipher, Cipher) {
        self.local.ciphers(self.profile)
    }

    pub(super) fn remote_ciphers(&self) -> (Cipher, Cipher) {
        self.remote.ciphers(self.profile)
    }
}

#[derive(Clone)]
struct Master {
    key: [u8; KEY_BYTES_MAX],
    key_len: usize,
    /// 112 bits; a 96-bit salt is followed by zeros (RFC 7714 section 11).
    salt: [u8; SALT_BYTES_MAX],
}

impl Drop for Master {
    fn drop(&mut self) {
        self.key.zeroize();
        self.salt.zeroize();
    }
}

impl Master {
    fn new(key: &[u8], salt: &[u8]) -> Self {
        let mut master = Master { key: [0; KEY_BYTES_MAX], key_len: key.len(), salt: [0; SALT_BYTES_MAX] };
        master.key[..key.len()].copy_from_slice(key);
        master.salt[..salt.len()].copy_from_slice(salt);
        master
    }

    /// Session ciphers for RTP (labels 0 to 2) and RTCP (labels 3 to 5; RFC 3711 section 4.3.2).
    fn ciphers(&self, profile: Profile) -> (Cipher, Cipher) {
        (self.cipher(profile, 0), self.cipher(profile, 3))
    }

    fn cipher(&self, profile: Profile, first_label: u8) -> Cipher {
        let prf = self.pseudo_random_function();
        let mut key = [0; KEY_BYTES_MAX];
        let mut authentication_key = [0; AUTHENTICATION_KEY_BYTES];
        let mut salt = [0; SALT_BYTES_MAX];
        self.derive(&prf, first_label, &mut key[..profile.key_len()]);
        self.derive(&prf, first_label + 1, &mut authentication_key);
        self.derive(&prf, first_label + 2, &mut salt[..profile.salt_len()]);
        let cipher = Cipher::new(profile, &key[..profile.key_len()], &authentication_key, &salt);
        key.zeroize();
        authentication_key.zeroize();
        cipher
    }

    fn pseudo_random_function(&self) -> EncryptingKey {
        let algorithm = if self.key_len == 32 { &AES_256 } else { &AES_128 };
        let key = UnboundCipherKey::new(algorithm, &self.key[..self.key_len]).expect("a key of the AES's own length");
        EncryptingKey::ctr(key).expect("AES has a counter mode")
    }

    /// AES-CM as a pseudo-random function (RFC 3711 section 4.3.3) with a key derivation rate of zero: the
    /// key stream under (label || 0^48) XOR master salt, times 2^16.
    fn derive(&self, prf: &EncryptingKey, label: u8, out: &mut [u8]) {
        let mut iv = [0; 16];
        iv[..SALT_BYTES_MAX].copy_from_slice(&self.salt);
        iv[7] ^= label;
        out.fill(0);
        prf.less_safe_encrypt(out, EncryptionContext::Iv128(iv.into())).expect("counter mode takes any length");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn session_keys_are_those_of_rfc_3711_appendix_b_3() {
        let master = Master::new(&hex("E1F97A0D3E018BE0D64FA32C06DE4139"), &hex("0EC675AD498AFEEBB6960B3AABE6"));
        let prf = master.pseudo_random_function();
        let derive = |label, len| {
            let mut out = vec![0; len];
            master.derive(&prf, label, &mut out);
            out
        };
        assert_eq!(derive(0, 16), hex("C61E7A93744F39EE10734AFE3FF7A087"));
        assert_eq!(derive(2, 14), hex("30CBBC08863D8C85D49DB34A9AE1"));
        assert_eq!(
            derive(1, 94),
            hex(concat!(
                "CEBE321F6FF7716B6FD4AB49AF256A156D38BAA48F0A0ACF3C34E2359E6CDBCEE049646C43D9327AD175578EF7227098",
                "6371C10C9A369AC2F94A8C5FBCDDDC256D6E919A48B610EF17C2041E474035766B68642C59BBFC2F34DB60DBDFB2"
            ))
        );
    }

    #[test]
    fn an_exported_block_of_the_wrong_length_is_refused() {
        for profile in Profile::ALL {
            let exported = vec![1; profile.exported_len() + 1];
            assert!(Keys::from_exporter(profile, &exported, true).is_none());
            assert!(Keys::from_exporter(profile, &exported[2..], true).is_none());
            assert!(Keys::from_exporter(profile, &exported[1..], true).is_some());
        }
    }
}
