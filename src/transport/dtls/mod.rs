//! DTLS 1.2 over dimpl: handshake, fingerprint check, SRTP keys (RFC 5763, RFC 5764).
//!
//! An [`Endpoint`] belongs to one transport; its shard feeds it datagrams of authenticated tuples and the time,
//! and polls it after each call. It never hands out keys before the peer's certificate matched a fingerprint
//! from signaling, and never answers before signaling said who the peer is. Once the peer has used the keys, little of
//! the connection is kept ([`settle`](Endpoint::settle)).

mod settled;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{self, digest};
use dimpl::{Config, Dtls, DtlsCertificate, Error, SecurityError, SrtpProfile, TimeoutError};
use serde::Serialize;

use crate::limits;
use crate::transport::srtp::{Keys, Profile};
use settled::{PeerKey, Settled};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DtlsState {
    /// Signaling has not told the peer's role and fingerprints.
    New,
    Connecting,
    Connected,
    Failed,
    /// The peer or this side sent close_notify.
    Closed,
}

/// The role that the *peer* takes in the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DtlsRole {
    Auto,
    Client,
    Server,
}

/// The hash of a certificate in DER form (RFC 8122 section 5). Displayed as `AB:CD:..`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    pub hash: FingerprintHash,
    /// 32, 48 or 64 bytes, as the hash says.
    pub value: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FingerprintHash {
    Sha256,
    Sha384,
    Sha512,
}

impl FingerprintHash {
    pub const ALL: [FingerprintHash; 3] = [FingerprintHash::Sha256, FingerprintHash::Sha384, FingerprintHash::Sha512];

    /// As SDP and `dtlsParameters` write it.
    pub const fn name(self) -> &'static str {
        match self {
            FingerprintHash::Sha256 => "sha-256",
            FingerprintHash::Sha384 => "sha-384",
            FingerprintHash::Sha512 => "sha-512",
        }
    }

    fn algorithm(self) -> &'static digest::Algorithm {
        match self {
            FingerprintHash::Sha256 => &digest::SHA256,
            FingerprintHash::Sha384 => &digest::SHA384,
            FingerprintHash::Sha512 => &digest::SHA512,
        }
    }
}

impl Fingerprint {
    fn of(hash: FingerprintHash, certificate: &[u8]) -> Self {
        Fingerprint { hash, value: digest(hash.algorithm(), certificate).as_ref().to_vec() }
    }

    fn matches(&self, certificate: &[u8]) -> bool {
        digest(self.hash.algorithm(), certificate).as_ref() == self.value
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.value.iter().enumerate() {
            let separator = if at == 0 { "" } else { ":" };
            write!(f, "{separator}{byte:02X}")?;
        }
        Ok(())
    }
}

/// This process's certificate with its key and fingerprints; cheap to clone. One serves all transports.
#[derive(Clone)]
pub struct Identity {
    inner: Arc<IdentityInner>,
}

struct IdentityInner {
    certificate: DtlsCertificate,
    fingerprints: [Fingerprint; 3],
    config: Arc<Config>,
}

impl Identity {
    /// A self-signed certificate over a fresh ECDSA P-256 key, valid for a year (which WebRTC peers ignore: the
    /// fingerprint is what they trust). Panics when the system yields no randomness; call it once, at start.
    pub fn generate() -> Self {
        let certificate = dimpl::certificate::generate_self_signed_certificate().expect("a key and a certificate");
        let fingerprints = FingerprintHash::ALL.map(|hash| Fingerprint::of(hash, &certificate.certificate));
        let config = Config::builder()
            .with_crypto_provider(settled::provider())
            .mtu(MTU_BYTES)
            .max_queue_rx(limits::DTLS_RECEIVE_QUEUE)
            .require_client_certificate(true)
            // The tuple passed an authenticated connectivity check, which proves more than a cookie does, and a
            // hello in several datagrams would pay a round trip for it.
            .use_server_cookie(false)
            .flight_start_rto(FIRST_RETRY)
            .flight_retries(RETRIES)
            .handshake_timeout(limits::HANDSHAKE_TIMEOUT)
            .build()
            .expect("a valid configuration");
        Identity { inner: Arc::new(IdentityInner { certificate, fingerprints, config: Arc::new(config) }) }
    }

    /// SHA-256, SHA-384 and SHA-512, in this order.
    pub fn fingerprints(&self) -> &[Fingerprint] {
        &self.inner.fingerprints
    }

    fn connection(&self, now: Instant) -> Dtls {
        let certificate = DtlsCertificate {
            certificate: self.inner.certificate.certificate.clone(),
            private_key: self.inner.certificate.private_key.clone(),
        };
        Dtls::new_12(Arc::clone(&self.inner.config), certificate, now)
    }
}

/// Largest datagram that a handshake sends; leaves room for IPv6 and a tunnel under 1280.
const MTU_BYTES: usize = 1200;
/// With dimpl's jitter of a quarter, 75 to 125 ms: a lost datagram costs a caller less than 200 ms.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// Doubling from 100 ms this outlasts [`limits::HANDSHAKE_TIMEOUT`], which is then what ends a handshake.
const RETRIES: usize = 9;
/// dimpl says "no deadline" with an instant some years away.
const NEVER: Duration = Duration::from_secs(24 * 3600);
/// dimpl panics when a buffer cannot hold the peer's certificate, which arrived in its receive queue.
const CERTIFICATE_BYTES: usize = limits::DTLS_RECEIVE_QUEUE * limits::DATAGRAM_BYTES;

/// Why [`Endpoint::start`] said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    #[error("the handshake was started already")]
    AlreadyStarted,
    #[error("no fingerprint to check the peer's certificate against")]
    NoFingerprint,
}

/// What [`Endpoint::poll`] yields.
pub enum Output<'a> {
    /// Goes to the selected tuple.
    Datagram(&'a [u8]),
    /// The peer holds the certificate that signaling announced; these keys are good. Once.
    Connected(Keys),
    /// The handshake is over without keys, for this reason; the last output.
    Failed(&'static str),
    /// The connection was closed by either side; the last output.
    Closed,
}

/// One transport's DTLS connection.
pub struct Endpoint {
    identity: Identity,
    phase: Phase,
    /// When dimpl wants to be called; known after a full round of [`poll`](Self::poll), gone with the next call.
    deadline: Option<Instant>,
}

enum Phase {
    /// Signaling has not told the peer's role and fingerprints; its first datagrams wait here.
    Waiting {
        held: Vec<Box<[u8]>>,
    },
    Running(Box<Connection>),
    Settled(Box<Settled>),
    /// Failed or closed; `reported` once [`Endpoint::poll`] said so. Everything else is freed.
    Ended {
        failure: Option<&'static str>,
        reported: bool,
    },
}

struct Connection {
    dtls: Dtls,
    /// Bytes that arrived until the handshake was complete: no certificate in them is larger.
    received: usize,
    /// The latest time told, against which a deadline of dimpl's is recognised as none.
    now: Instant,
    fingerprints: Vec<Fingerprint>,
    /// Known when the peer's Finished has been opened.
    peer_key: Option<PeerKey>,
    local_is_client: bool,
    certificate_matched: bool,
    connected: bool,
    /// This side sent close_notify.
    closing: bool,
    /// The handshake is complete, but whether it yielded keys shows only with the next output.
    awaits_keys: bool,
}

/// One output of dimpl, without its borrow of the buffer.
enum Step {
    Datagram(usize),
    Keys(Keys),
    Failed(&'static str),
    Closed,
    Idle(Option<Instant>),
    Continue,
}

impl Endpoint {
    /// Costs nothing to speak of; the handshake's state begins with [`start`](Self::start).
    pub fn new(identity: &Identity) -> Self {
        Endpoint { identity: identity.clone(), phase: Phase::Waiting { held: Vec::new() }, deadline: None }
    }

    /// Begins the handshake: as client when the peer is the server, otherwise as server, which answers the
    /// datagrams that arrived before. Call [`poll`](Self::poll) afterwards.
    pub fn start(
        &mut self,
        now: Instant,
        peer_role: DtlsRole,
        fingerprints: Vec<Fingerprint>,
    ) -> Result<(), StartError> {
        let Phase::Waiting { held } = &mut self.phase else {
            return Err(StartError::AlreadyStarted);
        };
        if fingerprints.is_empty() {
            return Err(StartError::NoFingerprint);
        }
        let held = std::mem::take(held);
        let local_is_client = peer_role == DtlsRole::Server;
        let mut dtls = self.identity.connection(now);
        dtls.set_active(local_is_client);
        self.phase = Phase::Running(Box::new(Connection {
            dtls,
            received: 0,
            now,
            fingerprints,
            peer_key: None,
            local_is_client,
            certificate_matched: false,
            connected: false,
            closing: false,
            awaits_keys: false,
        }));
        self.handle_timeout(now);
        for datagram in held {
            self.handle_datagram(now, &datagram);
        }
        Ok(())
    }

    /// Takes a datagram whose first byte is 20 to 63 (RFC 7983). Before [`start`](Self::start) up to
    /// [`limits::DTLS_HELD_DATAGRAMS`] are kept; a further one is dropped, as the peer repeats it anyway.
    pub fn handle_datagram(&mut self, now: Instant, datagram: &[u8]) {
        if datagram.len() > limits::DATAGRAM_BYTES {
            return;
        }
        let outcome = match &mut self.phase {
            Phase::Waiting { held } => {
                if held.len() < limits::DTLS_HELD_DATAGRAMS {
                    held.push(datagram.into());
                }
                return;
            }
            Phase::Running(connection) => connection.handle_datagram(now, datagram),
            Phase::Settled(settled) => return settled.handle_datagram(datagram),
            Phase::Ended { .. } => return,
        };
        self.deadline = None;
        self.fail_on_error(outcome);
    }

    /// Repeats what got lost. Call it at [`next_deadline`](Self::next_deadline).
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Phase::Running(connection) = &mut self.phase {
            let outcome = connection.handle_timeout(now);
            self.deadline = None;
            self.fail_on_error(outcome);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due. Known from `poll` returning `None` until the next call
    /// with a datagram or the time: who cannot send for lack of an address does not spin on an old deadline.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Yields what there is to send or to tell; call it until `None` after each other call. `buf` should hold
    /// [`limits::DATAGRAM_BYTES`].
    pub fn poll<'a>(&mut self, buf: &'a mut [u8]) -> Option<Output<'a>> {
        loop {
            let step = match &mut self.phase {
                Phase::Waiting { .. } => return None,
                Phase::Running(connection) => connection.step(buf),
                Phase::Settled(settled) if settled.closing => match settled.take_farewell() {
                    Some(farewell) => {
                        buf[..farewell.len()].copy_from_slice(&farewell);
                        Step::Datagram(farewell.len())
                    }
                    None => Step::Closed,
                },
                Phase::Settled(_) => return None,
                Phase::Ended { reported: true, .. } => return None,
                Phase::Ended { failure, reported } => {
                    *reported = true;
                    return Some(failure.map_or(Output::Closed, Output::Failed));
                }
            };
            match step {
                Step::Continue => {}
                Step::Datagram(len) => return Some(Output::Datagram(&buf[..len])),
                Step::Keys(keys) => return Some(Output::Connected(keys)),
                Step::Failed(reason) => self.end(Some(reason)),
                Step::Closed => self.end(None),
                Step::Idle(deadline) => {
                    self.deadline = deadline;
                    return None;
                }
            }
        }
    }

    /// Frees what was kept for the handshake. Call it when a packet of the peer has proved authentic under the exported keys:
    /// then the peer has finished too, and no flight is ever repeated. Before that, or twice, it does nothing.
    pub fn settle(&mut self) {
        let Phase::Running(connection) = &mut self.phase else { return };
        if let Some(settled) = connection.settle() {
            self.phase = Phase::Settled(Box::new(settled));
            self.deadline = None;
        }
    }

    /// Says goodbye with close_notify when connected (one more [`poll`](Self::poll) yields it), otherwise just
    /// ends.
    pub fn close(&mut self) {
        match &mut self.phase {
            Phase::Running(connection) if connection.connected => {
                // Closing twice queues nothing more; an error would mean that dimpl is closed already.
                let _ = connection.dtls.close();
                connection.closing = true;
            }
            Phase::Settled(settled) => settled.closing = true,
            Phase::Ended { .. } => {}
            _ => self.end(None),
        }
    }

    pub fn state(&self) -> DtlsState {
        match &self.phase {
            Phase::Waiting { .. } => DtlsState::New,
            Phase::Running(connection) if connection.closing => DtlsState::Closed,
            Phase::Running(connection) if connection.connected => DtlsState::Connected,
            Phase::Running(_) => DtlsState::Connecting,
            Phase::Settled(settled) if settled.closing => DtlsState::Closed,
            Phase::Settled(_) => DtlsState::Connected,
            Phase::Ended { failure: Some(_), .. } => DtlsState::Failed,
            Phase::Ended { failure: None, .. } => DtlsState::Closed,
        }
    }

    fn fail_on_error(&mut self, outcome: Result<(), Error>) {
        if let Err(error) = outcome {
            // Behind the handshake only an authenticated fatal alert or a protocol violation by the peer ends up
            // here: it is gone, though without the courtesy of close_notify.
            let connected = matches!(&self.phase, Phase::Running(connection) if connection.connected);
            self.end(if connected { None } else { Some(reason(&error)) });
        }
    }

    fn end(&mut self, failure: Option<&'static str>) {
        self.phase = Phase::Ended { failure, reported: false };
        self.deadline = None;
    }
}

impl Connection {
    fn handle_datagram(&mut self, now: Instant, datagram: &[u8]) -> Result<(), Error> {
        if !self.connected {
            self.received = self.received.saturating_add(datagram.len());
        }
        self.handle_timeout(now)?;
        let (outcome, opened) = settled::watch(|| self.dtls.handle_packet(datagram));
        self.peer_key = opened.or(self.peer_key.take());
        outcome
    }

    /// What remains when nothing of the handshake is needed any more; leaves a connection that was closed here.
    fn settle(&mut self) -> Option<Settled> {
        if !self.connected || self.closing {
            return None;
        }
        let peer = self.peer_key.take()?;
        let mut buf = [0; limits::DATAGRAM_BYTES];
        let farewell = match self.dtls.close().map(|()| self.dtls.poll_output(&mut buf)) {
            Ok(dimpl::Output::Packet(packet)) => Some(packet.to_vec().into_boxed_slice()),
            // dimpl took the connection for closed: there is nobody to say goodbye to.
            _ => None,
        };
        Some(Settled::new(peer, farewell))
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        self.now = now;
        self.dtls.handle_timeout(now)
    }

    /// One output of dimpl; a datagram stands in `buf`.
    fn step(&mut self, buf: &mut [u8]) -> Step {
        let certificate = self.received.min(CERTIFICATE_BYTES);
        if self.connected || certificate <= buf.len() {
            return self.output(buf);
        }
        let mut scratch = vec![0; certificate];
        let step = self.output(&mut scratch);
        if let Step::Datagram(len) = step {
            match buf.get_mut(..len) {
                Some(room) => room.copy_from_slice(&scratch[..len]),
                // The peer's retransmission brings it out again.
                None => return Step::Continue,
            }
        }
        step
    }

    fn output(&mut self, buf: &mut [u8]) -> Step {
        match self.dtls.poll_output(buf) {
            dimpl::Output::Packet(packet) => Step::Datagram(packet.len()),
            dimpl::Output::PeerCert(certificate) => {
                self.certificate_matched = self.fingerprints.iter().any(|known| known.matches(certificate));
                if self.certificate_matched {
                    Step::Continue
                } else {
                    Step::Failed("the peer's certificate matches none of its fingerprints")
                }
            }
            dimpl::Output::Connected => {
                self.awaits_keys = true;
                Step::Continue
            }
            dimpl::Output::KeyingMaterial(exported, profile) => self.keys(&exported, profile),
            dimpl::Output::CloseNotify => Step::Closed,
            _ if self.awaits_keys => Step::Failed("the peer offered no SRTP profile that Ringside knows"),
            dimpl::Output::Timeout(_) if self.closing => Step::Closed,
            dimpl::Output::Timeout(deadline) => Step::Idle((deadline < self.now + NEVER).then_some(deadline)),
            // A caller's bug; going on would ask for the same output for ever.
            dimpl::Output::BufferTooSmall { .. } => Step::Failed("polled with less room than a datagram needs"),
            // Application data: there are no data channels.
            _ => Step::Continue,
        }
    }

    fn keys(&mut self, exported: &[u8], profile: SrtpProfile) -> Step {
        if !self.certificate_matched {
            return Step::Failed("the peer showed no certificate");
        }
        let profile = match profile {
            SrtpProfile::AEAD_AES_128_GCM => Profile::AeadAes128Gcm,
            SrtpProfile::AEAD_AES_256_GCM => Profile::AeadAes256Gcm,
            SrtpProfile::AES128_CM_SHA1_80 => Profile::Aes128CmSha1_80,
            _ => return Step::Failed("an SRTP profile that Ringside does not know was negotiated"),
        };
        match Keys::from_exporter(profile, exported, self.local_is_client) {
            Some(keys) => {
                self.awaits_keys = false;
                self.connected = true;
                self.fingerprints = Vec::new();
                Step::Keys(keys)
            }
            None => Step::Failed("the exported keys have an unexpected length"),
        }
    }
}

/// dimpl's errors in an operator's words.
fn reason(error: &Error) -> &'static str {
    match error {
        Error::Timeout(TimeoutError::Connect | TimeoutError::Handshake) => {
            "the handshake took too long: is UDP from the peer blocked half-way?"
        }
        Error::CertificateError(_) => "the peer's certificate is missing or unusable",
        Error::SecurityError(SecurityError::FatalAlert { .. }) => "the peer sent a fatal alert",
        Error::SecurityError(SecurityError::ExtendedMasterSecretNotNegotiated) => {
            "the peer does not support the extended master secret"
        }
        Error::SecurityError(SecurityError::NoMutuallyAcceptableCipherSuite | SecurityError::NoCommonCipherSuite) => {
            "no cipher suite in common"
        }
        Error::SecurityError(
            SecurityError::UnsupportedClientVersion(_) | SecurityError::UnsupportedServerVersion(_),
        ) => "the peer does not support DTLS 1.2",
        Error::SecurityError(_) => "the handshake violates the protocol's security rules",
        Error::CryptoError(_) => "a signature or key of the handshake is wrong",
        Error::ReceiveQueueFull => "the peer sent too many handshake datagrams",
        _ => "the handshake violates the protocol",
    }
}

#[cfg(test)]
mod tests;
