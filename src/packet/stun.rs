//! STUN messages (RFC 8489) as ICE uses them (RFC 8445 section 16): a view over a received datagram, and a
//! writer of responses into a caller's buffer.
//!
//! Called by the shard to find a transport by its ufrag and by [`transport::ice`](crate::transport::ice) to
//! answer checks. Allocates nothing and decides nothing: whether a message is authentic is asked of it, not
//! assumed.

use std::net::SocketAddr;

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

/// What an error response says (RFC 8489 section 14.8, RFC 8445 section 16.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum ErrorCode {
    BadRequest = 400,
    Unauthenticated = 401,
    UnknownAttribute = 420,
    RoleConflict = 487,
}

impl ErrorCode {
    const fn reason(self) -> &'static str {
        match self {
            ErrorCode::BadRequest => "Bad Request",
            ErrorCode::Unauthenticated => "Unauthenticated",
            ErrorCode::UnknownAttribute => "Unknown Attribute",
            ErrorCode::RoleConflict => "Role Conflict",
        }
    }
}

/// Writes one Binding response. Attributes go in the order of the calls; [`finish`](Self::finish) closes it.
pub struct Writer<'a> {
    out: &'a mut [u8],
    len: usize,
    overflowed: bool,
}

impl<'a> Writer<'a> {
    /// A success response that tells the peer its own address (RFC 8445 section 7.3.1.2).
    pub fn success(out: &'a mut [u8], transaction: [u8; 12], mapped: SocketAddr) -> Self {
        let mut writer = Writer::new(out, 0x0101, transaction);
        writer.xor_mapped_address(transaction, mapped);
        writer
    }

    /// An error response; `unknown` is named when the code is 420.
    pub fn error(out: &'a mut [u8], transaction: [u8; 12], code: ErrorCode, unknown: &[u16]) -> Self {
        let mut writer = Writer::new(out, 0x0111, transaction);
        let number = code as u16;
        let mut value = [0; 4 + 20];
        value[2] = (number / 100) as u8;
        value[3] = (number % 100) as u8;
        let reason = code.reason().as_bytes();
        value[4..4 + reason.len()].copy_from_slice(reason);
        writer.attribute(attribute::ERROR_CODE, &value[..4 + reason.len()]);
        if code == ErrorCode::UnknownAttribute {
            let mut value = [0; 2 * UNKNOWN_ATTRIBUTES_NAMED];
            let named = unknown.len().min(UNKNOWN_ATTRIBUTES_NAMED);
            for (bytes, kind) in value.chunks_exact_mut(2).zip(unknown) {
                bytes.copy_from_slice(&kind.to_be_bytes());
            }
            writer.attribute(attribute::UNKNOWN_ATTRIBUTES, &value[..2 * named]);
        }
        writer
    }

    fn new(out: &'a mut [u8], message_type: u16, transaction: [u8; 12]) -> Self {
        let mut writer = Writer { out, len: 0, overflowed: false };
        writer.bytes(&message_type.to_be_bytes());
        writer.bytes(&[0, 0]);
        writer.bytes(&COOKIE.to_be_bytes());
        writer.bytes(&transaction);
        writer
    }

    /// Adds MESSAGE-INTEGRITY when there is a key, then FINGERPRINT, and returns the length of the message;
    /// `None` when `out` was too short ([`RESPONSE_BYTES`] always suffice).
    pub fn finish(mut self, key: Option<&hmac::Key>) -> Option<usize> {
        if self.overflowed {
            return None;
        }
        if let Some(key) = key {
            let tag = integrity(key, &self.out[..self.len]);
            self.attribute(attribute::MESSAGE_INTEGRITY, tag.as_ref());
        }
        let end = self.len + ATTRIBUTE_HEADER_BYTES + FINGERPRINT_BYTES;
        if self.overflowed || end > self.out.len() {
            return None;
        }
        // FINGERPRINT covers the header with the final length.
        self.out[2..4].copy_from_slice(&((end - HEADER_BYTES) as u16).to_be_bytes());
        let value = fingerprint(&self.out[..self.len]);
        self.attribute(attribute::FINGERPRINT, &value.to_be_bytes());
        Some(self.len)
    }

    /// RFC 8489 section 14.2. An IPv4 address in IPv6 clothes (from a dual-stack socket) is shown as IPv4.
    fn xor_mapped_address(&mut self, transaction: [u8; 12], address: SocketAddr) {
        let mut value = [0; 4 + 16];
        let port = address.port() ^ (COOKIE >> 16) as u16;
        value[2..4].copy_from_slice(&port.to_be_bytes());
        let len = match address.ip().to_canonical() {
            std::net::IpAddr::V4(ip) => {
                value[1] = 1;
                value[4..8].copy_from_slice(&(ip.to_bits() ^ COOKIE).to_be_bytes());
                8
            }
            std::net::IpAddr::V6(ip) => {
                value[1] = 2;
                let mut pad = [0; 16];
                pad[..4].copy_from_slice(&COOKIE.to_be_bytes());
                pad[4..].copy_from_slice(&transaction);
                value[4..20].copy_from_slice(&(ip.to_bits() ^ u128::from_be_bytes(pad)).to_be_bytes());
                20
            }
        };
        self.attribute(attribute::XOR_MAPPED_ADDRESS, &value[..len]);
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.bytes(&kind.to_be_bytes());
        self.bytes(&(value.len() as u16).to_be_bytes());
        self.bytes(value);
        let padding = value.len().next_multiple_of(4) - value.len();
        self.bytes(&[0; 3][..padding]);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        match self.out.get_mut(self.len..self.len + bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            None => self.overflowed = true,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";
    const TRANSACTION: [u8; 12] = [0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];

    /// RFC 5769 section 2.1; the padding of USERNAME is spaces.
    const REQUEST: &[u8] = b"\x00\x01\x00\x58\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
        \x80\x22\x00\x10STUN test client\
        \x00\x24\x00\x04\x6e\x00\x01\xff\
        \x80\x29\x00\x08\x93\x2f\xf9\xb1\x51\x26\x3b\x36\
        \x00\x06\x00\x09\x65\x76\x74\x6a\x3a\x68\x36\x76\x59\x20\x20\x20\
        \x00\x08\x00\x14\x9a\xea\xa7\x0c\xbf\xd8\xcb\x56\x78\x1e\xf2\xb5\xb2\xd3\xf2\x49\xc1\xb5\x71\xa2\
        \x80\x28\x00\x04\xe5\x7a\x3b\xcf";
    /// RFC 5769 section 2.2.
    const RESPONSE_IPV4: &[u8] = b"\x01\x01\x00\x3c\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
        \x80\x22\x00\x0btest vector \
        \x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43\
        \x00\x08\x00\x14\x2b\x91\xf5\x99\xfd\x9e\x90\xc3\x8c\x74\x89\xf9\x2a\xf9\xba\x53\xf0\x6b\xe7\xd7\
        \x80\x28\x00\x04\xc0\x7d\x4c\x96";
    /// RFC 5769 section 2.3.
    const RESPONSE_IPV6: &[u8] = b"\x01\x01\x00\x48\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
        \x80\x22\x00\x0btest vector \
        \x00\x20\x00\x14\x00\x02\xa1\x47\x01\x13\xa9\xfa\xa5\xd3\xf1\x79\xbc\x25\xf4\xb5\xbe\xd2\xb9\xd9\
        \x00\x08\x00\x14\xa3\x82\x95\x4e\x4b\xe6\x7b\xf1\x17\x84\xc9\x7c\x82\x92\xc2\x75\xbf\xe3\xed\x41\
        \x80\x28\x00\x04\xc8\xfb\x0b\x4c";

    #[test]
    fn the_request_of_rfc_5769_is_read_and_verified() {
        let message = Message::parse(REQUEST).unwrap();
        assert_eq!(message.class(), Class::Request);
        assert!(message.is_binding());
        assert_eq!(message.transaction(), TRANSACTION);
        assert_eq!(message.username(), Some(&b"evtj:h6vY"[..]));
        assert_eq!(message.local_ufrag(), Some("evtj"));
        assert_eq!(message.priority(), Some(0x6e00_01ff));
        assert_eq!(message.role(), Some(Role::Controlled(0x932f_f9b1_5126_3b36)));
        assert!(!message.use_candidate());
        assert_eq!(message.nomination(), None);
        assert!(message.unknown_attributes().is_empty());
        assert!(message.verify_fingerprint());
        assert!(message.verify_integrity(&integrity_key(PASSWORD)));
        assert!(!message.verify_integrity(&integrity_key("another password")));
    }

    #[test]
    fn the_responses_of_rfc_5769_are_verified() {
        for response in [RESPONSE_IPV4, RESPONSE_IPV6] {
            let message = Message::parse(response).unwrap();
            assert_eq!(message.class(), Class::Success);
            assert!(message.verify_fingerprint());
            assert!(message.verify_integrity(&integrity_key(PASSWORD)));
        }
    }

    #[test]
    fn addresses_are_written_as_in_rfc_5769() {
        for (address, vector, len) in [
            ("192.0.2.1:32853", RESPONSE_IPV4, 12),
            ("[::ffff:192.0.2.1]:32853", RESPONSE_IPV4, 12),
            ("[2001:db8:1234:5678:11:2233:4455:6677]:32853", RESPONSE_IPV6, 24),
        ] {
            let mut out = [0; RESPONSE_BYTES];
            let writer = Writer::success(&mut out, TRANSACTION, address.parse().unwrap());
            let written = writer.finish(Some(&integrity_key(PASSWORD))).unwrap();
            // The vectors carry SOFTWARE first, 16 bytes.
            assert_eq!(out[20..20 + len], vector[36..36 + len], "{address}");
            let message = Message::parse(&out[..written]).unwrap();
            assert!(message.verify_fingerprint() && message.verify_integrity(&integrity_key(PASSWORD)));
        }
    }

    #[test]
    fn a_changed_byte_breaks_integrity_or_the_form() {
        let key = integrity_key(PASSWORD);
        for at in 0..REQUEST.len() - 8 {
            for bit in 0..8 {
                let mut bytes = REQUEST.to_vec();
                bytes[at] ^= 1 << bit;
                let passed = Message::parse(&bytes).is_some_and(|message| message.verify_integrity(&key));
                assert!(!passed, "byte {at}");
                let passed = Message::parse(&bytes).is_some_and(|message| message.verify_fingerprint());
                assert!(!passed, "byte {at}");
            }
        }
    }

    #[test]
    fn a_truncated_or_extended_message_is_refused() {
        for len in 0..REQUEST.len() {
            assert!(Message::parse(&REQUEST[..len]).is_none());
        }
        assert!(Message::parse(&[REQUEST, &[0; 4]].concat()).is_none());
    }

    #[test]
    fn attributes_behind_the_integrity_are_ignored() {
        let key = integrity_key("password");
        let mut out = [0; 200];
        let mut writer = Writer::new(&mut out, 0x0001, TRANSACTION);
        writer.attribute(attribute::USERNAME, b"ours:theirs");
        let tag = integrity(&key, &writer.out[..writer.len]);
        writer.attribute(attribute::MESSAGE_INTEGRITY, tag.as_ref());
        writer.attribute(attribute::USE_CANDIDATE, &[]);
        writer.attribute(attribute::NOMINATION, &[0, 0, 0, 9]);
        let len = writer.finish(None).unwrap();

        let message = Message::parse(&out[..len]).unwrap();
        assert!(message.verify_integrity(&key) && message.verify_fingerprint());
        assert!(!message.use_candidate());
        assert_eq!(message.nomination(), None);
    }

    #[test]
    fn unknown_attributes_are_named_in_a_420() {
        let mut out = [0; 200];
        let mut writer = Writer::new(&mut out, 0x0001, TRANSACTION);
        for kind in 0x7000..0x7010 {
            writer.attribute(kind, &[1, 2, 3]);
        }
        writer.attribute(0x9000, &[]);
        let len = writer.finish(None).unwrap();
        let message = Message::parse(&out[..len]).unwrap();
        assert_eq!(message.unknown_attributes(), (0x7000..0x7008).collect::<Vec<u16>>());

        let mut response = [0; RESPONSE_BYTES];
        let writer =
            Writer::error(&mut response, TRANSACTION, ErrorCode::UnknownAttribute, message.unknown_attributes());
        let len = writer.finish(Some(&integrity_key(PASSWORD))).unwrap();
        let message = Message::parse(&response[..len]).unwrap();
        assert_eq!(message.class(), Class::Error);
        assert!(message.verify_integrity(&integrity_key(PASSWORD)));
    }

    #[test]
    fn a_buffer_that_is_too_short_yields_no_message() {
        let key = integrity_key(PASSWORD);
        let mut out = [0; RESPONSE_BYTES];
        let needed = Writer::success(&mut out, TRANSACTION, "[::1]:1".parse().unwrap()).finish(Some(&key)).unwrap();
        for len in 0..needed {
            let mut out = vec![0; len];
            assert_eq!(Writer::success(&mut out, TRANSACTION, "[::1]:1".parse().unwrap()).finish(Some(&key)), None);
        }
    }
}
