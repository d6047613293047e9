//! What is left of a connection when both ends are known to have finished the handshake: how to say goodbye, and how to
//! hear it.
//!
//! For a handshake that is over, dimpl keeps 8 kB: certificates, messages to repeat, cipher contexts. Media needs none of
//! it. So this side's close_notify is sealed ahead, and of the keys only the one is kept that opens the peer's alerts (RFC
//! 6347 section 4.1.2, RFC 5246 section 7.2). What else a peer may send is a repetition, or application data, for which
//! Ringside has no use. [`Endpoint::settle`](super::Endpoint::settle) decides when; nothing here takes part in a handshake.
//!
//! dimpl does not hand out the key of its records, but makes its ciphers by a suite that it is given: [`provider`] has
//! dimpl's own suites behind a thin wrapper that notes which cipher opened a record.

use std::cell::RefCell;
use std::fmt;
use std::sync::LazyLock;

use dimpl::CryptoError;
use dimpl::crypto::{
    Aad, Buf, Cipher, CryptoProvider, Dtls12CipherSuite, HashAlgorithm, Nonce, SupportedDtls12CipherSuite, TmpBuf,
    aws_lc_rs,
};
use zeroize::Zeroizing;

/// type, version, epoch and sequence number, length (RFC 6347 section 4.1).
const HEADER_BYTES: usize = 13;
const ALERT: u8 = 21;
/// Of the keys that a DTLS 1.2 connection uses for its whole life.
const EPOCH: [u8; 2] = [0, 1];
/// level and description.
const ALERT_BYTES: usize = 2;
const FATAL: u8 = 2;
const CLOSE_NOTIFY: u8 = 0;

pub(super) struct Settled {
    peer: PeerKey,
    /// Until it has been sent.
    farewell: Option<Box<[u8]>>,
    pub(super) closing: bool,
}

impl Settled {
    /// `farewell` is the sealed close_notify of this side.
    pub(super) fn new(peer: PeerKey, farewell: Option<Box<[u8]>>) -> Self {
        Settled { peer, farewell, closing: false }
    }

    /// A goodbye is answered by one, and is the end.
    pub(super) fn handle_datagram(&mut self, datagram: &[u8]) {
        self.closing |= self.peer.says_goodbye(datagram);
    }

    /// What is still to be sent of a connection that is closing.
    pub(super) fn take_farewell(&mut self) -> Option<Box<[u8]>> {
        self.farewell.take()
    }
}

/// What opens a peer's records.
pub(super) struct PeerKey {
    suite: &'static dyn SupportedDtls12CipherSuite,
    key: Key,
    /// As they were for the record that showed the key; each record has its own in the same places.
    nonce: Nonce,
    aad: Aad,
}

/// Freed, it leaves nothing behind.
#[derive(Clone)]
struct Key(Zeroizing<Box<[u8]>>);

impl PeerKey {
    /// Whether an authentic alert ends the connection. Behind one that is not, nothing of a datagram is looked at, so that
    /// forging them costs one attempt for each.
    fn says_goodbye(&self, datagram: &[u8]) -> bool {
        let mut rest = datagram;
        while let Some((header, behind)) = rest.split_first_chunk::<HEADER_BYTES>() {
            let length = usize::from(u16::from_be_bytes([header[11], header[12]]));
            let Some((record, next)) = behind.split_at_checked(length) else { return false };
            if header[0] == ALERT && header[3..5] == EPOCH {
                match self.open_alert(header, record) {
                    Some([level, description]) if level == FATAL || description == CLOSE_NOTIFY => return true,
                    // A warning, which may stand in front of a goodbye.
                    Some(_) => {}
                    None => return false,
                }
            }
            rest = next;
        }
        false
    }

    fn open_alert(&self, header: &[u8; HEADER_BYTES], record: &[u8]) -> Option<[u8; ALERT_BYTES]> {
        let explicit = self.suite.explicit_nonce_len();
        if record.len() != explicit + ALERT_BYTES + self.suite.tag_len() {
            return None;
        }
        let (mut nonce, mut aad) = (self.nonce, self.aad.clone());
        match explicit {
            // RFC 7905 section 2: the number within the nonce, which held the other record's.
            0 => (4..12).for_each(|at| nonce.0[at] ^= header[at - 1] ^ self.aad.0[at - 4]),
            // RFC 5288 section 3.
            _ => nonce.0[12 - explicit..].copy_from_slice(&record[..explicit]),
        }
        // Epoch and number, type, version, length of the plaintext.
        aad.0[..8].copy_from_slice(&header[3..11]);
        aad.0[8..11].copy_from_slice(&header[..3]);
        aad.0[11..].copy_from_slice(&(ALERT_BYTES as u16).to_be_bytes());
        let mut sealed = record[explicit..].to_vec();
        let mut cipher = self.suite.create_cipher(&self.key.0).ok()?;
        cipher.decrypt(&mut TmpBuf::new(&mut sealed), aad, nonce).ok()?;
        sealed.first_chunk().copied()
    }
}

/// dimpl's own cryptography, with ciphers that tell of what they open.
pub(super) fn provider() -> CryptoProvider {
    static SUITES: LazyLock<Vec<Suite>> =
        LazyLock::new(|| aws_lc_rs::default_provider().cipher_suites.iter().map(|suite| Suite(*suite)).collect());
    static NAMED: LazyLock<Vec<&dyn SupportedDtls12CipherSuite>> =
        LazyLock::new(|| SUITES.iter().map(|suite| suite as &dyn SupportedDtls12CipherSuite).collect());
    CryptoProvider { cipher_suites: &NAMED, ..aws_lc_rs::default_provider() }
}

/// Calls dimpl for one connection, and returns the key of the last record that it opened meanwhile.
pub(super) fn watch<T>(call: impl FnOnce() -> T) -> (T, Option<PeerKey>) {
    OPENED.take();
    let result = call();
    (result, OPENED.take())
}

thread_local! {
    /// By the cipher that opened the last record on this thread; empty outside of [`watch`].
    static OPENED: RefCell<Option<PeerKey>> = const { RefCell::new(None) };
}

#[derive(Debug)]
struct Suite(&'static dyn SupportedDtls12CipherSuite);

impl SupportedDtls12CipherSuite for Suite {
    fn suite(&self) -> Dtls12CipherSuite {
        self.0.suite()
    }

    fn hash_algorithm(&self) -> HashAlgorithm {
        self.0.hash_algorithm()
    }

    fn key_lengths(&self) -> (usize, usize, usize) {
        self.0.key_lengths()
    }

    fn explicit_nonce_len(&self) -> usize {
        self.0.explicit_nonce_len()
    }

    fn tag_len(&self) -> usize {
        self.0.tag_len()
    }

    fn min_protected_fragment_len(&self) -> usize {
        self.0.min_protected_fragment_len()
    }

    fn create_cipher(&self, key: &[u8]) -> Result<Box<dyn Cipher>, CryptoError> {
        let cipher = self.0.create_cipher(key)?;
        Ok(Box::new(Watched { cipher, suite: self.0, key: Key(Zeroizing::new(key.into())) }))
    }
}

#[derive(Debug)]
struct Watched {
    cipher: Box<dyn Cipher>,
    suite: &'static dyn SupportedDtls12CipherSuite,
    key: Key,
}

impl Cipher for Watched {
    fn encrypt(&mut self, plaintext: &mut Buf, aad: Aad, nonce: Nonce) -> Result<(), CryptoError> {
        self.cipher.encrypt(plaintext, aad, nonce)
    }

    fn decrypt(&mut self, ciphertext: &mut TmpBuf, aad: Aad, nonce: Nonce) -> Result<(), CryptoError> {
        self.cipher.decrypt(ciphertext, aad.clone(), nonce)?;
        OPENED.set(Some(PeerKey { suite: self.suite, key: self.key.clone(), nonce, aad }));
        Ok(())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

#[cfg(test)]
impl Settled {
    /// A record of the peer's with this alert.
    pub(super) fn sealed_by_peer(&self, number: u64, alert: [u8; ALERT_BYTES]) -> Vec<u8> {
        self.peer.seal_alert(number, alert)
    }
}

#[cfg(test)]
impl PeerKey {
    fn seal_alert(&self, number: u64, alert: [u8; ALERT_BYTES]) -> Vec<u8> {
        let explicit = self.suite.explicit_nonce_len();
        assert!(explicit > 0, "the suite that both ends prefer");
        let length = (explicit + ALERT_BYTES + self.suite.tag_len()) as u16;
        let mut record = vec![ALERT, 0xfe, 0xfd, 0, 1];
        record.extend(&number.to_be_bytes()[2..]);
        record.extend(length.to_be_bytes());
        let (mut nonce, mut aad) = (self.nonce, self.aad.clone());
        aad.0[..8].copy_from_slice(&record[3..11]);
        aad.0[8..11].copy_from_slice(&record[..3]);
        aad.0[11..].copy_from_slice(&(ALERT_BYTES as u16).to_be_bytes());
        let explicit_nonce = record[3..11].to_vec();
        nonce.0[12 - explicit..].copy_from_slice(&explicit_nonce);
        let mut sealed = Buf::new();
        sealed.extend_from_slice(&alert);
        self.suite.create_cipher(&self.key.0).unwrap().encrypt(&mut sealed, aad, nonce).unwrap();
        record.extend(explicit_nonce);
        record.extend_from_slice(&sealed);
        record
    }
}
