//! The three STUN messages of a connectivity check (RFC 8489, RFC 8445 section 7): request, success, and reading both.

use aws_lc_rs::hmac;

const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const HEADER_BYTES: usize = 20;
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const PRIORITY: u16 = 0x0024;
const USE_CANDIDATE: u16 = 0x0025;
const FINGERPRINT: u16 = 0x8028;
const ICE_CONTROLLED: u16 = 0x8029;
const ICE_CONTROLLING: u16 = 0x802a;
const FINGERPRINT_XOR: u32 = 0x5354_554e;

pub type TransactionId = [u8; 12];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    Request { transaction: TransactionId, nominates: bool },
    Success { transaction: TransactionId },
    Error { transaction: TransactionId },
}

/// Whether a datagram is STUN (RFC 7983: first byte 0 to 3) and not something else.
pub fn is_stun(datagram: &[u8]) -> bool {
    datagram.len() >= HEADER_BYTES && datagram[0] < 4 && datagram[4..8] == MAGIC_COOKIE
}

/// Reads a message. One whose integrity does not fit `password` is `None`, error responses excepted.
pub fn read(datagram: &[u8], password: &str) -> Option<Message> {
    if !is_stun(datagram) {
        return None;
    }
    let transaction: TransactionId = datagram[8..20].try_into().expect("twelve bytes");
    let kind = u16::from_be_bytes([datagram[0], datagram[1]]);
    if kind & 0x0110 == 0x0110 {
        return Some(Message::Error { transaction });
    }
    let mut at = HEADER_BYTES;
    let (mut nominates, mut authentic) = (false, false);
    while let Some(head) = datagram.get(at..at + 4) {
        let attribute = u16::from_be_bytes([head[0], head[1]]);
        let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let value = datagram.get(at + 4..at + 4 + len)?;
        match attribute {
            USE_CANDIDATE => nominates = true,
            MESSAGE_INTEGRITY => authentic = integrity(&datagram[..at], password) == value,
            _ => {}
        }
        at += 4 + len.next_multiple_of(4);
    }
    match kind {
        BINDING_REQUEST if authentic => Some(Message::Request { transaction, nominates }),
        BINDING_SUCCESS if authentic => Some(Message::Success { transaction }),
        _ => None,
    }
}

/// Who decides which pair is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Controlling,
    Controlled,
}

/// A check: `username` is "their ufrag:ours", `password` is theirs.
pub fn request(transaction: TransactionId, username: &str, password: &str, role: Role, tie_breaker: u64) -> Vec<u8> {
    let mut message = header(BINDING_REQUEST, transaction);
    attribute(&mut message, USERNAME, username.as_bytes());
    attribute(&mut message, PRIORITY, &0x6e00_1effu32.to_be_bytes());
    match role {
        Role::Controlling => {
            attribute(&mut message, ICE_CONTROLLING, &tie_breaker.to_be_bytes());
            attribute(&mut message, USE_CANDIDATE, &[]);
        }
        Role::Controlled => attribute(&mut message, ICE_CONTROLLED, &tie_breaker.to_be_bytes()),
    }
    sealed(message, password)
}

/// The answer to a check that came from `from`; `password` is ours.
pub fn success(transaction: TransactionId, from: std::net::SocketAddr, password: &str) -> Vec<u8> {
    let mut message = header(BINDING_SUCCESS, transaction);
    let mut value = vec![0, if from.is_ipv4() { 1 } else { 2 }];
    value.extend((from.port() ^ 0x2112).to_be_bytes());
    let mask = [&MAGIC_COOKIE[..], &transaction].concat();
    match from.ip() {
        std::net::IpAddr::V4(ip) => value.extend(ip.octets().iter().zip(&mask).map(|(a, b)| a ^ b)),
        std::net::IpAddr::V6(ip) => value.extend(ip.octets().iter().zip(&mask).map(|(a, b)| a ^ b)),
    }
    attribute(&mut message, XOR_MAPPED_ADDRESS, &value);
    sealed(message, password)
}

fn header(kind: u16, transaction: TransactionId) -> Vec<u8> {
    let mut message = Vec::with_capacity(128);
    message.extend(kind.to_be_bytes());
    message.extend([0, 0]);
    message.extend(MAGIC_COOKIE);
    message.extend(transaction);
    message
}

fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend(kind.to_be_bytes());
    message.extend((value.len() as u16).to_be_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
    let len = (message.len() - HEADER_BYTES) as u16;
    message[2..4].copy_from_slice(&len.to_be_bytes());
}

/// Adds MESSAGE-INTEGRITY and FINGERPRINT (RFC 8489 sections 14.5 and 14.7).
fn sealed(mut message: Vec<u8>, password: &str) -> Vec<u8> {
    let tag = integrity(&message, password);
    attribute(&mut message, MESSAGE_INTEGRITY, &tag);
    // The length that the checksum covers includes the checksum itself.
    let len = (message.len() - HEADER_BYTES + 8) as u16;
    message[2..4].copy_from_slice(&len.to_be_bytes());
    let sum = crc32(&message) ^ FINGERPRINT_XOR;
    attribute(&mut message, FINGERPRINT, &sum.to_be_bytes());
    message
}

/// HMAC-SHA1 over the message up to the attribute, with a length that ends behind it.
fn integrity(message: &[u8], password: &str) -> [u8; 20] {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
    let len = (message.len() - HEADER_BYTES + 24) as u16;
    let mut context = hmac::Context::with_key(&key);
    context.update(&message[..2]);
    context.update(&len.to_be_bytes());
    context.update(&message[4..]);
    context.sign().as_ref().try_into().expect("SHA-1 has twenty bytes")
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_with_its_password_only() {
        let request = request([7; 12], "them:us", "their password", Role::Controlling, 5);
        assert_eq!(read(&request, "their password"), Some(Message::Request { transaction: [7; 12], nominates: true }));
        assert_eq!(read(&request, "another"), None);
    }

    #[test]
    fn a_success_is_read_with_its_password_only() {
        let success = success([9; 12], "127.0.0.1:5000".parse().unwrap(), "ours");
        assert_eq!(read(&success, "ours"), Some(Message::Success { transaction: [9; 12] }));
        assert_eq!(read(&success, "theirs"), None);
        assert_eq!(read(&success[..30], "ours"), None);
    }

    /// RFC 5769 section 2.2: the sample IPv4 response, password "VOkJxbRl1RmTxUk/WvJxBt".
    #[test]
    fn the_sample_response_of_the_rfc_is_authentic() {
        let sample = [
            0x01, 0x01, 0x00, 0x3c, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87,
            0xdf, 0xae, 0x80, 0x22, 0x00, 0x0b, 0x74, 0x65, 0x73, 0x74, 0x20, 0x76, 0x65, 0x63, 0x74, 0x6f, 0x72, 0x20,
            0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43, 0x00, 0x08, 0x00, 0x14, 0x2b, 0x91,
            0xf5, 0x99, 0xfd, 0x9e, 0x90, 0xc3, 0x8c, 0x74, 0x89, 0xf9, 0x2a, 0xf9, 0xba, 0x53, 0xf0, 0x6b, 0xe7, 0xd7,
            0x80, 0x28, 0x00, 0x04, 0xc0, 0x7d, 0x4c, 0x96,
        ];
        assert!(matches!(read(&sample, "VOkJxbRl1RmTxUk/WvJxBt"), Some(Message::Success { .. })));
    }
}
