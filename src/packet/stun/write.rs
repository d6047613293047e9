//! Binding responses, written into a caller's buffer.

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::hmac;

use super::{
    ATTRIBUTE_HEADER_BYTES, COOKIE, FINGERPRINT_BYTES, HEADER_BYTES, UNKNOWN_ATTRIBUTES_NAMED, attribute, fingerprint,
    integrity,
};

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
    pub(super) out: &'a mut [u8],
    pub(super) len: usize,
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

    /// A Binding request with these bytes as its attributes, whole ones or not. The product sends no checks; the bodies of
    /// fuzz targets sign what a hostile peer could.
    pub(crate) fn request(out: &'a mut [u8], transaction: [u8; 12], attributes: &[u8]) -> Self {
        let mut writer = Writer::new(out, 0x0001, transaction);
        writer.bytes(attributes);
        writer
    }

    pub(super) fn new(out: &'a mut [u8], message_type: u16, transaction: [u8; 12]) -> Self {
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
            IpAddr::V4(ip) => {
                value[1] = 1;
                value[4..8].copy_from_slice(&(ip.to_bits() ^ COOKIE).to_be_bytes());
                8
            }
            IpAddr::V6(ip) => {
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

    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
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
