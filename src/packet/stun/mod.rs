//! STUN messages (RFC 8489) as ICE uses them (RFC 8445 section 16): a view over a received datagram, and a
//! writer of responses into a caller's buffer.
//!
//! Called by the shard to find a transport by its ufrag and by [`transport::ice`](crate::transport::ice) to
//! answer checks. Allocates nothing and decides nothing: whether a message is authentic is asked of it, not
//! assumed.

use aws_lc_rs::{constant_time, hmac};

/// The magic cookie at bytes 4 to 8 of each message (RFC 8489 section 5).
const COOKIE: u32 = 0x2112_a442;
const HEADER_BYTES: usize = 20;
const ATTRIBUTE_HEADER_BYTES: usize = 4;
const INTEGRITY_BYTES: usize = 20;
const FINGERPRINT_BYTES: usize = 4;
/// XORed into the CRC so that it differs from one that an application may carry (RFC 8489 section 14.7).
const FINGERPRINT_XOR: u32 = 0x5354_554e;
/// Unknown attributes that are remembered, so that a 420 response can name them; further ones are not named.
const UNKNOWN_ATTRIBUTES_NAMED: usize = 8;

/// Room that the largest response of [`Writer`] needs: 420 with all names, MESSAGE-INTEGRITY and FINGERPRINT.
pub const RESPONSE_BYTES: usize = 128;

mod write;

#[cfg(test)]
mod tests;

pub use write::{ErrorCode, Writer};

mod attribute {
    pub const MAPPED_ADDRESS: u16 = 0x0001;
    pub const USERNAME: u16 = 0x0006;
    pub const MESSAGE_INTEGRITY: u16 = 0x0008;
    pub const ERROR_CODE: u16 = 0x0009;
    pub const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
    pub const REALM: u16 = 0x0014;
    pub const NONCE: u16 = 0x0015;
    pub const MESSAGE_INTEGRITY_SHA256: u16 = 0x001c;
    pub const PASSWORD_ALGORITHM: u16 = 0x001d;
    pub const USERHASH: u16 = 0x001e;
    pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    pub const PRIORITY: u16 = 0x0024;
    pub const USE_CANDIDATE: u16 = 0x0025;
    /// Types from here on may be ignored by who does not know them.
    pub const FIRST_OPTIONAL: u16 = 0x8000;
    pub const FINGERPRINT: u16 = 0x8028;
    pub const ICE_CONTROLLED: u16 = 0x8029;
    pub const ICE_CONTROLLING: u16 = 0x802a;
    /// draft-thatcher-ice-renomination section 6, as browsers send it: a 32-bit counter.
    pub const NOMINATION: u16 = 0xc001;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Request,
    Indication,
    Success,
    Error,
}

/// The role that a check's sender claims, with its tie-breaker (RFC 8445 section 7.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Controlling(u64),
    Controlled(u64),
}

/// A well-formed STUN message; nothing about it is authenticated.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    bytes: &'a [u8],
    username: Option<&'a [u8]>,
    priority: Option<u32>,
    use_candidate: bool,
    nomination: Option<u32>,
    role: Option<Role>,
    /// Where the MESSAGE-INTEGRITY attribute begins.
    integrity_at: Option<usize>,
    fingerprint_at: Option<usize>,
    unknown: [u16; UNKNOWN_ATTRIBUTES_NAMED],
    unknown_count: usize,
}

impl<'a> Message<'a> {
    /// Reads a whole datagram. `None` unless it is exactly one STUN message with whole attributes whose sizes
    /// are those of their types.
    pub fn parse(datagram: &'a [u8]) -> Option<Message<'a>> {
        if !is_stun(datagram) {
            return None;
        }
        let mut message = Message {
            bytes: datagram,
            username: None,
            priority: None,
            use_candidate: false,
            nomination: None,
            role: None,
            integrity_at: None,
            fingerprint_at: None,
            unknown: [0; UNKNOWN_ATTRIBUTES_NAMED],
            unknown_count: 0,
        };
        let mut at = HEADER_BYTES;
        while at < datagram.len() {
            let kind = u16_at(datagram, at)?;
            let len = usize::from(u16_at(datagram, at + 2)?);
            let value = datagram.get(at + ATTRIBUTE_HEADER_BYTES..at + ATTRIBUTE_HEADER_BYTES + len)?;
            message.take(kind, value, at)?;
            at += ATTRIBUTE_HEADER_BYTES + len.next_multiple_of(4);
        }
        // The padding of the last attribute may lie beyond the datagram only if the length field lied.
        if at == datagram.len() { Some(message) } else { None }
    }

    /// Keeps the first attribute of each type. Behind MESSAGE-INTEGRITY only FINGERPRINT counts (RFC 8489
    /// section 14.5), and behind FINGERPRINT nothing may stand.
    fn take(&mut self, kind: u16, value: &'a [u8], at: usize) -> Option<()> {
        if self.fingerprint_at.is_some() {
            return None;
        }
        if kind == attribute::FINGERPRINT {
            value.len().eq(&FINGERPRINT_BYTES).then_some(())?;
            self.fingerprint_at = Some(at);
            return Some(());
        }
        if self.integrity_at.is_some() {
            return Some(());
        }
        match kind {
            attribute::USERNAME => self.username = self.username.or(Some(value)),
            attribute::MESSAGE_INTEGRITY => {
                value.len().eq(&INTEGRITY_BYTES).then_some(())?;
                self.integrity_at = Some(at);
            }
            attribute::PRIORITY => self.priority = self.priority.or(Some(u32_of(value)?)),
            attribute::USE_CANDIDATE => self.use_candidate = true,
            attribute::NOMINATION => self.nomination = self.nomination.or(Some(u32_of(value)?)),
            attribute::ICE_CONTROLLING => self.role = self.role.or(Some(Role::Controlling(u64_of(value)?))),
            attribute::ICE_CONTROLLED => self.role = self.role.or(Some(Role::Controlled(u64_of(value)?))),
            _ if kind >= attribute::FIRST_OPTIONAL || is_known_but_unexpected(kind) => {}
            _ => {
                if self.unknown_count < UNKNOWN_ATTRIBUTES_NAMED {
                    self.unknown[self.unknown_count] = kind;
                    self.unknown_count += 1;
                }
            }
        }
        Some(())
    }

    /// Bytes of the whole message.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn class(&self) -> Class {
        match self.message_type() & 0x0110 {
            0x0000 => Class::Request,
            0x0010 => Class::Indication,
            0x0100 => Class::Success,
            _ => Class::Error,
        }
    }

    /// Binding is the only method that ICE uses.
    pub fn is_binding(&self) -> bool {
        self.message_type() & !0x0110 == 0x0001
    }

    fn message_type(&self) -> u16 {
        u16::from_be_bytes([self.bytes[0], self.bytes[1]])
    }

    pub fn transaction(&self) -> [u8; 12] {
        let mut id = [0; 12];
        id.copy_from_slice(&self.bytes[8..HEADER_BYTES]);
        id
    }

    pub fn username(&self) -> Option<&'a [u8]> {
        self.username
    }

    /// The receiver's own ufrag: USERNAME up to the colon (RFC 8445 section 7.2.2).
    pub fn local_ufrag(&self) -> Option<&'a str> {
        let username = self.username?;
        let colon = username.iter().position(|byte| *byte == b':')?;
        std::str::from_utf8(&username[..colon]).ok()
    }

    pub fn priority(&self) -> Option<u32> {
        self.priority
    }

    pub fn use_candidate(&self) -> bool {
        self.use_candidate
    }

    /// The renomination counter; the highest value names the pair to use.
    pub fn nomination(&self) -> Option<u32> {
        self.nomination
    }

    pub fn role(&self) -> Option<Role> {
        self.role
    }

    /// Attributes that must be understood and are not, for a 420 response.
    pub fn unknown_attributes(&self) -> &[u16] {
        &self.unknown[..self.unknown_count]
    }

    pub fn has_integrity(&self) -> bool {
        self.integrity_at.is_some()
    }

    pub fn has_fingerprint(&self) -> bool {
        self.fingerprint_at.is_some()
    }

    /// Whether MESSAGE-INTEGRITY is there and right under this HMAC-SHA1 key (the password; RFC 8489 section
    /// 14.5). Covers everything before it, with the header's length as if the message ended behind it.
    pub fn verify_integrity(&self, key: &hmac::Key) -> bool {
        let Some(at) = self.integrity_at else { return false };
        let tag = integrity(key, &self.bytes[..at]);
        let value = &self.bytes[at + ATTRIBUTE_HEADER_BYTES..at + ATTRIBUTE_HEADER_BYTES + INTEGRITY_BYTES];
        constant_time::verify_slices_are_equal(tag.as_ref(), value).is_ok()
    }

    /// Whether FINGERPRINT is there and right. It tells STUN from other protocols; it authenticates nothing.
    pub fn verify_fingerprint(&self) -> bool {
        let Some(at) = self.fingerprint_at else { return false };
        let expected = fingerprint(&self.bytes[..at]);
        self.bytes[at + ATTRIBUTE_HEADER_BYTES..] == expected.to_be_bytes()
    }
}

/// Whether the datagram has a STUN header whose length field is right.
fn is_stun(datagram: &[u8]) -> bool {
    datagram.len() >= HEADER_BYTES
        && datagram[0] & 0xc0 == 0
        && u32_at(datagram, 4) == Some(COOKIE)
        && u16_at(datagram, 2).map(usize::from) == Some(datagram.len() - HEADER_BYTES)
        && datagram.len().is_multiple_of(4)
}

/// Defined by RFC 8489 and without use in a check; such attributes are ignored (section 6.3.1).
fn is_known_but_unexpected(kind: u16) -> bool {
    matches!(
        kind,
        attribute::MAPPED_ADDRESS
            | attribute::ERROR_CODE
            | attribute::UNKNOWN_ATTRIBUTES
            | attribute::REALM
            | attribute::NONCE
            | attribute::MESSAGE_INTEGRITY_SHA256
            | attribute::PASSWORD_ALGORITHM
            | attribute::USERHASH
            | attribute::XOR_MAPPED_ADDRESS
    )
}

/// Key of MESSAGE-INTEGRITY for short-term credentials (RFC 8489 section 9.1.1). Make it once per password.
pub fn integrity_key(password: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes())
}

/// HMAC-SHA1 over a message up to its MESSAGE-INTEGRITY, with the length as if that were the last attribute.
fn integrity(key: &hmac::Key, before: &[u8]) -> hmac::Tag {
    let len = before.len() - HEADER_BYTES + ATTRIBUTE_HEADER_BYTES + INTEGRITY_BYTES;
    let mut context = hmac::Context::with_key(key);
    context.update(&before[..2]);
    context.update(&(len as u16).to_be_bytes());
    context.update(&before[4..]);
    context.sign()
}

fn fingerprint(before: &[u8]) -> u32 {
    let crc = before.iter().fold(!0, |crc: u32, byte| crc >> 8 ^ CRC_TABLE[usize::from(crc as u8 ^ byte)]);
    !crc ^ FINGERPRINT_XOR
}

/// CRC-32 of ISO 3309 (polynomial 0xedb88320, reflected), a byte at a time: a check has some 100 bytes, and its
/// HMAC costs several times as much.
const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    u32_of(bytes.get(at..at + 4)?)
}

fn u32_of(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

fn u64_of(value: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(value.try_into().ok()?))
}
