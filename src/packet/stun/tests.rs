//! The vectors of RFC 5769, and messages of the `stun` crate, an independent implementation.

use stun::agent::TransactionId;
use stun::attributes::{AttrType, RawAttribute};
use stun::fingerprint::FINGERPRINT;
use stun::integrity::MessageIntegrity;
use stun::message::{BINDING_REQUEST, Getter, Setter};

use std::net::SocketAddr;

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
    let writer = Writer::error(&mut response, TRANSACTION, ErrorCode::UnknownAttribute, message.unknown_attributes());
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

/// SplitMix64: tests are the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ mixed >> 27
    }

    fn chance(&mut self) -> bool {
        self.next().is_multiple_of(2)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

fn raw(kind: u16, value: &[u8]) -> Box<dyn Setter> {
    Box::new(RawAttribute { typ: AttrType(kind), length: value.len() as u16, value: value.to_vec() })
}

#[test]
fn requests_of_another_implementation_are_read_as_they_were_meant() {
    let mut random = Random(1);
    for _ in 0..2000 {
        let transaction: [u8; 12] = random.bytes(12).try_into().unwrap();
        let ufrag: String = random.next().to_string();
        let password = random.next().to_string();
        let (priority, counter, tie_breaker) = (random.next() as u32, random.next() as u32, random.next());
        let (use_candidate, nominates, controlling) = (random.chance(), random.chance(), random.chance());
        let software = random.next() as usize % 40;

        let mut setters: Vec<Box<dyn Setter>> = vec![Box::new(TransactionId(transaction)), Box::new(BINDING_REQUEST)];
        setters.push(raw(0x8022, &random.bytes(software)));
        setters.push(raw(0x0006, format!("{ufrag}:peer").as_bytes()));
        setters.push(raw(0x0024, &priority.to_be_bytes()));
        setters.push(raw(if controlling { 0x802a } else { 0x8029 }, &tie_breaker.to_be_bytes()));
        if use_candidate {
            setters.push(raw(0x0025, &[]));
        }
        if nominates {
            setters.push(raw(0xc001, &counter.to_be_bytes()));
        }
        setters.push(Box::new(MessageIntegrity::new_short_term_integrity(password.clone())));
        setters.push(Box::new(FINGERPRINT));
        let mut theirs = stun::message::Message::new();
        theirs.build(&setters).unwrap();

        let message = Message::parse(&theirs.raw).unwrap();
        assert_eq!((message.class(), message.is_binding()), (Class::Request, true));
        assert_eq!(message.transaction(), transaction);
        assert_eq!(message.local_ufrag(), Some(ufrag.as_str()));
        assert_eq!(message.priority(), Some(priority));
        let role = if controlling { Role::Controlling(tie_breaker) } else { Role::Controlled(tie_breaker) };
        assert_eq!(message.role(), Some(role));
        assert_eq!(message.use_candidate(), use_candidate);
        assert_eq!(message.nomination(), nominates.then_some(counter));
        assert!(message.verify_fingerprint() && message.verify_integrity(&integrity_key(&password)));
    }
}

#[test]
fn another_implementation_reads_our_responses_as_they_were_meant() {
    let mut random = Random(2);
    for _ in 0..500 {
        let transaction: [u8; 12] = random.bytes(12).try_into().unwrap();
        let password = random.next().to_string();
        let address = if random.chance() {
            SocketAddr::from((<[u8; 4]>::try_from(random.bytes(4)).unwrap(), random.next() as u16))
        } else {
            SocketAddr::from((<[u8; 16]>::try_from(random.bytes(16)).unwrap(), random.next() as u16))
        };
        let mut out = [0; RESPONSE_BYTES];
        let writer = Writer::success(&mut out, transaction, address);
        let len = writer.finish(Some(&integrity_key(&password))).unwrap();

        let mut message = stun::message::Message::new();
        message.unmarshal_binary(&out[..len]).unwrap();
        assert_eq!(message.transaction_id, TransactionId(transaction));
        let mut mapped = stun::xoraddr::XorMappedAddress::default();
        mapped.get_from(&message).unwrap();
        assert_eq!((mapped.ip, mapped.port), (address.ip(), address.port()));
        FINGERPRINT.check(&message).unwrap();
        MessageIntegrity::new_short_term_integrity(password).check(&mut message).unwrap();
    }
}
