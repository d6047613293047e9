//! Bodies of the fuzz targets of what a stranger's datagram reaches first: STUN, ICE, SRTP, DTLS.
//!
//! Each takes any bytes and panics only for a bug: a parser that panics itself, or bytes that were accepted
//! although nobody authenticated them. `fuzz/` calls them under libFuzzer, and `tests/fuzz_transport.rs` with
//! damaged real messages in every test run.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::LazyLock;
use std::time::Instant;

use crate::limits;
use crate::packet::stun::{self, Message, RESPONSE_BYTES};
use crate::transport::dtls::{DtlsRole, Endpoint, Fingerprint, FingerprintHash, Identity, Output};
use crate::transport::ice::{Credentials, IceLite, IceState, Tuple};
use crate::transport::srtp::{Inbound, Keys, Profile};

/// Random bytes of the credentials and keys below; nobody else's messages match them.
const SECRET: [u8; Credentials::RANDOM_BYTES] = [0x5a; Credentials::RANDOM_BYTES];

/// A datagram: what is read as STUN lies inside it.
pub fn stun(data: &[u8]) {
    let Some(message) = Message::parse(data) else { return };
    assert!(data.len() >= 20 && message.len() == data.len());
    assert!(message.username().is_none_or(|username| username.len() <= data.len() - 24));
    assert!(message.local_ufrag().is_none_or(|ufrag| !ufrag.contains(':')));
    assert!(message.has_fingerprint() || !message.verify_fingerprint());
    assert!(!message.verify_integrity(&stun::integrity_key("a password that nobody else knows")));
}

/// A check from a stranger: nothing changes, and the answer is no larger than the question.
pub fn ice_check(data: &[u8]) {
    let mut ice = IceLite::new(Credentials::from_random(&SECRET));
    let source = Tuple { remote: SocketAddr::from((Ipv4Addr::LOCALHOST, 9)), local: 0 };
    let mut out = [0; RESPONSE_BYTES];
    let outcome = ice.handle_check(Instant::now(), data, source, &mut out);
    assert!(outcome.refused.is_some() && !outcome.added && !outcome.selected_changed);
    assert!(outcome.response_len <= data.len());
    assert!(outcome.response_len == 0 || Message::parse(&out[..outcome.response_len]).is_some());
    assert!(ice.state() == IceState::New && ice.selected().is_none() && ice.tuples().len() == 0);
}

/// A packet from a stranger under each profile, as RTP with any header length and as RTCP: it is refused.
pub fn srtp_open(data: &[u8]) {
    for profile in Profile::ALL {
        let exported = vec![0x5a; profile.exported_len()];
        let Some(keys) = Keys::from_exporter(profile, &exported, false) else { panic!("the profile's own length") };
        let mut inbound = Inbound::new(&keys);
        let mut out = vec![0; data.len()];
        let lengths = [0, 12, usize::from(data.first().copied().unwrap_or(0)), data.len(), usize::MAX];
        for header_len in lengths {
            assert!(inbound.open_rtp(data, header_len, &mut out).is_err());
        }
        assert!(inbound.open_rtcp(&mut data.to_vec()).is_err());
    }
}

/// Datagrams of a stranger (each behind a byte that tells its length in eights) in both roles: no keys.
pub fn dtls(data: &[u8]) {
    static IDENTITY: LazyLock<Identity> = LazyLock::new(Identity::generate);
    let fingerprint = Fingerprint { hash: FingerprintHash::Sha256, value: vec![0; 32] };
    let mut buf = [0; limits::DATAGRAM_BYTES];
    for peer_role in [DtlsRole::Client, DtlsRole::Server] {
        let now = Instant::now();
        let mut endpoint = Endpoint::new(&IDENTITY);
        assert!(endpoint.start(now, peer_role, vec![fingerprint.clone()]).is_ok());
        let mut rest = data;
        while let Some((eights, behind)) = rest.split_first() {
            let (datagram, next) = behind.split_at(behind.len().min(8 * usize::from(*eights)));
            endpoint.handle_datagram(now, datagram);
            while let Some(output) = endpoint.poll(&mut buf) {
                assert!(!matches!(output, Output::Connected(_)));
            }
            rest = next;
        }
    }
}
