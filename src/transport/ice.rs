//! ICE-lite (RFC 8445 section 2.5): answers connectivity checks, remembers the tuples that they came from,
//! tells which of them to send to, and for how long.
//!
//! Owned by a transport; its shard hands it every STUN datagram whose ufrag is the transport's. Always the
//! controlled agent, never sends a check of its own, and changes nothing before a check is authenticated.

use std::net::SocketAddr;
use std::time::Instant;

use aws_lc_rs::hmac;
use serde::Serialize;

use crate::limits;
use crate::packet::stun::{Class, ErrorCode, Message, Role, Writer, integrity_key};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IceState {
    /// No check arrived yet.
    New,
    /// A check arrived; its tuple is used although the peer nominated none.
    Connected,
    /// The peer nominated the tuple in use.
    Completed,
    /// The peer's consent ran out (RFC 7675); a further check connects again.
    Disconnected,
}

/// A path: the peer's address, and the index of the worker's own port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    pub remote: SocketAddr,
    pub local: u8,
}

/// The characters of a ufrag and a password (RFC 8445 section 5.3, `ice-char`).
const ICE_CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const UFRAG_CHARS: usize = 32;
const PASSWORD_CHARS: usize = 32;

/// One generation of short-term credentials. 32 characters each: 192 bits, over the 24 and 128 bits that RFC 8445
/// asks for. The key that a password makes is 1.2 kB large, and made again for each check: a peer sends one every few seconds.
pub struct Credentials {
    ufrag: String,
    password: String,
}

impl Credentials {
    /// Random bytes that [`from_random`](Self::from_random) turns into credentials.
    pub const RANDOM_BYTES: usize = UFRAG_CHARS + PASSWORD_CHARS;

    /// `random` must come from a secure generator.
    pub fn from_random(random: &[u8; Credentials::RANDOM_BYTES]) -> Self {
        let text = |bytes: &[u8]| bytes.iter().map(|byte| ICE_CHARS[usize::from(byte & 63)] as char).collect();
        let ufrag = text(&random[..UFRAG_CHARS]);
        let password = text(&random[UFRAG_CHARS..]);
        Credentials { ufrag, password }
    }

    pub fn ufrag(&self) -> &str {
        &self.ufrag
    }

    pub fn password(&self) -> &str {
        &self.password
    }
}

/// The receiver's ufrag in a STUN datagram, by which a shard finds the transport. Nothing is authenticated.
pub fn parse_ufrag(datagram: &[u8]) -> Option<&str> {
    Message::parse(datagram)?.local_ufrag()
}

/// Why a STUN datagram changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IceRefusal {
    #[error("not a STUN message, or its fingerprint is wrong")]
    Malformed,
    #[error("a response or an indication; only requests are answered")]
    NotARequest,
    #[error("USERNAME, MESSAGE-INTEGRITY or FINGERPRINT is missing")]
    Incomplete,
    #[error("the ufrag or the password is wrong")]
    WrongCredentials,
    #[error("an attribute that must be understood is not")]
    UnknownAttribute,
    #[error("the peer claims the controlled role, which a lite agent cannot give up")]
    RoleConflict,
}

/// What [`IceLite::handle_check`] did.
#[derive(Debug, Default)]
pub struct CheckOutcome {
    /// The first bytes of `out` that go back to where the check came from; 0 when nothing does.
    pub response_len: usize,
    /// Why the check was refused; then nothing below is set.
    pub refused: Option<IceRefusal>,
    /// The check's tuple was not known before.
    pub added: bool,
    /// A tuple that had to make room for it.
    pub removed: Option<Tuple>,
    /// [`IceLite::selected`] is another tuple.
    pub selected_changed: bool,
    /// [`IceLite::state`] is another state.
    pub state_changed: bool,
    /// The ufrag before the last restart, which no check can carry any more.
    pub retired_ufrag: Option<String>,
}

/// What [`IceLite::handle_timeout`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeoutOutcome {
    pub selected_changed: bool,
    pub state_changed: bool,
}

/// The ICE side of one transport.
pub struct IceLite {
    credentials: Credentials,
    /// Those before a restart, valid until the first check with the restarted ones.
    previous: Option<Box<Credentials>>,
    tuples: Vec<KnownTuple>,
    selected: Option<Tuple>,
    state: IceState,
    /// The highest renomination counter seen in this generation.
    nomination: u32,
}

struct KnownTuple {
    tuple: Tuple,
    checked_at: Instant,
}

impl IceLite {
    pub fn new(credentials: Credentials) -> Self {
        IceLite { credentials, previous: None, tuples: Vec::new(), selected: None, state: IceState::New, nomination: 0 }
    }

    /// Takes new credentials. Media goes on over the selected tuple, and the old credentials stay valid until the
    /// first check with the new ones. Returns the ufrag of an earlier restart that this one cuts short.
    pub fn restart(&mut self, credentials: Credentials) -> Option<String> {
        let retired = self.previous.take();
        self.previous = Some(Box::new(std::mem::replace(&mut self.credentials, credentials)));
        retired.map(|credentials| credentials.ufrag)
    }

    /// The ufrags under which checks may arrive: the current one, and during a restart the one before.
    pub fn local_ufrags(&self) -> impl Iterator<Item = &str> {
        [Some(&self.credentials), self.previous.as_deref()].into_iter().flatten().map(Credentials::ufrag)
    }

    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    pub fn state(&self) -> IceState {
        self.state
    }

    /// Where to send. `None` before the first check and after consent ran out.
    pub fn selected(&self) -> Option<Tuple> {
        self.selected
    }

    /// Tuples that sent an authentic check; data from others is not the peer's.
    pub fn tuples(&self) -> impl ExactSizeIterator<Item = Tuple> {
        self.tuples.iter().map(|known| known.tuple)
    }

    /// Answers one STUN datagram. `out` should have [`RESPONSE_BYTES`](crate::packet::stun::RESPONSE_BYTES).
    pub fn handle_check(&mut self, now: Instant, datagram: &[u8], source: Tuple, out: &mut [u8]) -> CheckOutcome {
        let Some(message) = Message::parse(datagram) else {
            return refuse(IceRefusal::Malformed);
        };
        if message.class() != Class::Request || !message.is_binding() {
            return refuse(IceRefusal::NotARequest);
        }
        if message.has_fingerprint() && !message.verify_fingerprint() {
            return refuse(IceRefusal::Malformed);
        }
        let Some(ufrag) = message.local_ufrag().filter(|_| message.has_integrity() && message.has_fingerprint()) else {
            return refuse_aloud(&message, out, IceRefusal::Incomplete, ErrorCode::BadRequest, None);
        };
        let Some(generation) = self.generation(ufrag) else {
            return refuse_aloud(&message, out, IceRefusal::WrongCredentials, ErrorCode::Unauthenticated, None);
        };
        let key = self.key(generation);
        if !message.verify_integrity(&key) {
            return refuse_aloud(&message, out, IceRefusal::WrongCredentials, ErrorCode::Unauthenticated, None);
        }
        // From here on the peer is known to hold the password.
        if !message.unknown_attributes().is_empty() {
            let refusal = IceRefusal::UnknownAttribute;
            return refuse_aloud(&message, out, refusal, ErrorCode::UnknownAttribute, Some(&key));
        }
        if let Some(Role::Controlled(_)) = message.role() {
            return refuse_aloud(&message, out, IceRefusal::RoleConflict, ErrorCode::RoleConflict, Some(&key));
        }
        let response = Writer::success(out, message.transaction(), source.remote).finish(Some(&key));
        let mut outcome = CheckOutcome { response_len: response.unwrap_or(0), ..CheckOutcome::default() };
        if generation == Generation::Current {
            outcome.retired_ufrag = self.retire_previous();
        }
        self.remember(now, source, &mut outcome);
        self.select(&message, source, &mut outcome);
        outcome
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called; a check may move it.
    pub fn next_deadline(&self) -> Option<Instant> {
        let selected = self.selected?;
        let known = self.tuples.iter().find(|known| known.tuple == selected)?;
        Some(known.checked_at + limits::CONSENT_TIMEOUT)
    }

    /// Ends consent for a selected tuple that sent no check for [`limits::CONSENT_TIMEOUT`]: another tuple that
    /// did takes its place, or the transport is disconnected. Consent is of a tuple, not of a peer, so that
    /// nobody can nominate a stranger's address once and keep it flooded from elsewhere (RFC 7675 section 4).
    pub fn handle_timeout(&mut self, now: Instant) -> TimeoutOutcome {
        match self.next_deadline() {
            Some(deadline) if deadline <= now => {}
            _ => return TimeoutOutcome::default(),
        }
        let freshest = self.tuples.iter().max_by_key(|known| known.checked_at);
        self.selected = freshest.filter(|known| known.checked_at + limits::CONSENT_TIMEOUT > now).map(|k| k.tuple);
        let state = if self.selected.is_some() { IceState::Connected } else { IceState::Disconnected };
        TimeoutOutcome { selected_changed: true, state_changed: self.enter(state) }
    }

    fn generation(&self, ufrag: &str) -> Option<Generation> {
        if ufrag == self.credentials.ufrag {
            return Some(Generation::Current);
        }
        self.previous.as_ref().filter(|previous| previous.ufrag == ufrag).map(|_| Generation::Previous)
    }

    fn key(&self, generation: Generation) -> hmac::Key {
        let credentials = match (&self.previous, generation) {
            (Some(previous), Generation::Previous) => previous,
            _ => &self.credentials,
        };
        integrity_key(&credentials.password)
    }

    fn retire_previous(&mut self) -> Option<String> {
        let previous = self.previous.take()?;
        // Nomination counters begin anew with each generation.
        self.nomination = 0;
        Some(previous.ufrag)
    }

    /// Notes the check's tuple; the one that was silent longest makes room, but never the selected one.
    fn remember(&mut self, now: Instant, source: Tuple, outcome: &mut CheckOutcome) {
        if let Some(known) = self.tuples.iter_mut().find(|known| known.tuple == source) {
            known.checked_at = now;
            return;
        }
        if self.tuples.len() == limits::TUPLES_PER_TRANSPORT {
            let selected = self.selected;
            let oldest = (0..self.tuples.len())
                .filter(|at| Some(self.tuples[*at].tuple) != selected)
                .min_by_key(|at| self.tuples[*at].checked_at);
            outcome.removed = oldest.map(|at| self.tuples.swap_remove(at).tuple);
        }
        self.tuples.push(KnownTuple { tuple: source, checked_at: now });
        outcome.added = true;
    }

    /// The newest nomination wins. Without any, the first tuple that works is used.
    fn select(&mut self, message: &Message<'_>, source: Tuple, outcome: &mut CheckOutcome) {
        let nominated = match message.nomination().filter(|counter| *counter != 0) {
            // Renomination: a late or repeated check with an older counter must not move the path back.
            Some(counter) if counter < self.nomination => false,
            Some(counter) => {
                let renewed = counter > self.nomination;
                self.nomination = counter;
                renewed || self.selected == Some(source)
            }
            None => message.use_candidate(),
        };
        if nominated || self.selected.is_none() {
            outcome.selected_changed = self.selected != Some(source);
            self.selected = Some(source);
            outcome.state_changed = self.enter(if nominated { IceState::Completed } else { IceState::Connected });
        }
    }

    fn enter(&mut self, state: IceState) -> bool {
        std::mem::replace(&mut self.state, state) != state
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Generation {
    Current,
    Previous,
}

fn refuse(refusal: IceRefusal) -> CheckOutcome {
    CheckOutcome { refused: Some(refusal), ..CheckOutcome::default() }
}

/// Refuses with an error response, unless that were larger than the request: a spoofed source must not make us
/// send more than was sent to us.
fn refuse_aloud(
    message: &Message<'_>,
    out: &mut [u8],
    refusal: IceRefusal,
    code: ErrorCode,
    key: Option<&hmac::Key>,
) -> CheckOutcome {
    let response = Writer::error(out, message.transaction(), code, message.unknown_attributes()).finish(key);
    let response_len = response.filter(|len| *len <= message.len()).unwrap_or(0);
    CheckOutcome { response_len, refused: Some(refusal), ..CheckOutcome::default() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use stun::agent::TransactionId;
    use stun::attributes::{ATTR_USERNAME, AttrType, RawAttribute};
    use stun::fingerprint::FINGERPRINT;
    use stun::integrity::MessageIntegrity;
    use stun::message::{BINDING_REQUEST, Getter, Setter};

    use super::*;
    use crate::packet::stun::RESPONSE_BYTES;

    /// A check as the `stun` crate writes it, attribute by attribute.
    struct Check {
        attributes: Vec<RawAttribute>,
        ufrag: String,
        password: String,
    }

    impl Check {
        fn of(credentials: &Credentials) -> Self {
            let (ufrag, password) = (credentials.ufrag.clone(), credentials.password.clone());
            Check { attributes: Vec::new(), ufrag, password }.with(0x24, &[0x6e, 0, 1, 0xff])
        }

        fn with(mut self, kind: u16, value: &[u8]) -> Self {
            let attribute = RawAttribute { typ: AttrType(kind), length: value.len() as u16, value: value.to_vec() };
            self.attributes.push(attribute);
            self
        }

        fn nominating(self) -> Self {
            self.with(0x25, &[])
        }

        fn renominating(self, counter: u32) -> Self {
            self.with(0xc001, &counter.to_be_bytes())
        }

        fn password(mut self, password: &str) -> Self {
            self.password = password.to_owned();
            self
        }

        fn bytes(self) -> Vec<u8> {
            let mut setters: Vec<Box<dyn Setter>> = vec![Box::new(TransactionId([9; 12])), Box::new(BINDING_REQUEST)];
            setters.extend(self.attributes.into_iter().map(|attribute| Box::new(attribute) as Box<dyn Setter>));
            let username = format!("{}:theirs", self.ufrag);
            setters.push(Box::new(stun::textattrs::Username::new(ATTR_USERNAME, username)));
            setters.push(Box::new(MessageIntegrity::new_short_term_integrity(self.password)));
            setters.push(Box::new(FINGERPRINT));
            let mut message = stun::message::Message::new();
            message.build(&setters).unwrap();
            message.raw
        }
    }

    /// One agent and what it did last.
    struct Agent {
        ice: IceLite,
        start: Instant,
        now: Instant,
    }

    impl Agent {
        fn new() -> Self {
            let start = Instant::now();
            Agent { ice: IceLite::new(credentials(1)), start, now: start }
        }

        fn at(&mut self, seconds: u64) -> &mut Self {
            self.now = self.start + Duration::from_secs(seconds);
            self
        }

        fn receive(&mut self, check: Check, source: Tuple) -> CheckOutcome {
            self.receive_bytes(&check.bytes(), source).0
        }

        fn receive_bytes(&mut self, datagram: &[u8], source: Tuple) -> (CheckOutcome, Vec<u8>) {
            let mut out = [0; RESPONSE_BYTES];
            let outcome = self.ice.handle_check(self.now, datagram, source, &mut out);
            let response = out[..outcome.response_len].to_vec();
            (outcome, response)
        }

        fn check(&self) -> Check {
            Check::of(&self.ice.credentials)
        }

        fn assert_untouched(&self) {
            assert_eq!(self.ice.state(), IceState::New);
            assert_eq!(self.ice.selected(), None);
            assert_eq!(self.ice.tuples().len(), 0);
        }
    }

    fn credentials(seed: u8) -> Credentials {
        Credentials::from_random(&std::array::from_fn(|at| (at as u8).wrapping_mul(37).wrapping_add(seed)))
    }

    fn tuple(port: u16) -> Tuple {
        Tuple { remote: SocketAddr::from(([192, 0, 2, 1], port)), local: 0 }
    }

    fn error_code(response: &[u8]) -> u16 {
        let mut message = stun::message::Message::new();
        message.unmarshal_binary(response).unwrap();
        let mut code = stun::error_code::ErrorCodeAttribute::default();
        code.get_from(&message).unwrap();
        code.code.0
    }

    #[test]
    fn credentials_are_32_characters_each_of_the_ice_alphabet() {
        let credentials = credentials(5);
        for text in [credentials.ufrag(), credentials.password()] {
            assert_eq!(text.len(), 32);
            assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/'));
        }
        assert_ne!(credentials.ufrag(), credentials.password());
    }

    #[test]
    fn the_first_check_makes_its_tuple_usable_and_a_nomination_completes() {
        let mut agent = Agent::new();
        let outcome = agent.receive(agent.check(), tuple(1));
        assert!(outcome.added && outcome.selected_changed && outcome.state_changed && outcome.refused.is_none());
        assert_eq!(agent.ice.state(), IceState::Connected);
        assert_eq!(agent.ice.selected(), Some(tuple(1)));

        let outcome = agent.receive(agent.check().nominating(), tuple(1));
        assert!(!outcome.added && !outcome.selected_changed && outcome.state_changed);
        assert_eq!(agent.ice.state(), IceState::Completed);
    }

    #[test]
    fn a_check_is_answered_with_the_address_it_came_from() {
        let mut agent = Agent::new();
        for remote in ["192.0.2.9:4000", "[2001:db8::7]:4000"] {
            let source = Tuple { remote: remote.parse().unwrap(), local: 3 };
            let (_, response) = agent.receive_bytes(&agent.check().bytes(), source);
            let mut message = stun::message::Message::new();
            message.unmarshal_binary(&response).unwrap();
            assert_eq!(message.typ, stun::message::BINDING_SUCCESS);
            assert_eq!(message.transaction_id, TransactionId([9; 12]));
            let mut mapped = stun::xoraddr::XorMappedAddress::default();
            mapped.get_from(&message).unwrap();
            assert_eq!(SocketAddr::new(mapped.ip, mapped.port), source.remote);
            FINGERPRINT.check(&message).unwrap();
            let password = agent.ice.credentials.password.clone();
            MessageIntegrity::new_short_term_integrity(password).check(&mut message).unwrap();
        }
    }

    #[test]
    fn the_newest_nomination_wins_and_a_plain_check_moves_nothing() {
        let mut agent = Agent::new();
        agent.receive(agent.check().nominating(), tuple(1));
        assert!(!agent.receive(agent.check(), tuple(2)).selected_changed);
        assert_eq!(agent.ice.selected(), Some(tuple(1)));
        assert!(agent.receive(agent.check().nominating(), tuple(2)).selected_changed);
        assert_eq!(agent.ice.selected(), Some(tuple(2)));
    }

    #[test]
    fn renomination_follows_the_highest_counter_only() {
        let mut agent = Agent::new();
        agent.receive(agent.check().renominating(1), tuple(1));
        assert_eq!(agent.ice.state(), IceState::Completed);
        agent.receive(agent.check().renominating(3), tuple(2));
        assert_eq!(agent.ice.selected(), Some(tuple(2)));
        for stale in [1, 2, 3] {
            assert!(!agent.receive(agent.check().renominating(stale), tuple(1)).selected_changed);
        }
        assert_eq!(agent.ice.selected(), Some(tuple(2)));
        assert!(agent.receive(agent.check().renominating(4), tuple(1)).selected_changed);
    }

    #[test]
    fn a_wrong_password_or_ufrag_changes_nothing_and_is_answered_401() {
        let mut agent = Agent::new();
        for check in [agent.check().password("wrong"), Check::of(&credentials(2))] {
            let (outcome, response) = agent.receive_bytes(&check.nominating().bytes(), tuple(1));
            assert_eq!(outcome.refused, Some(IceRefusal::WrongCredentials));
            assert_eq!(error_code(&response), 401);
            agent.assert_untouched();
        }
    }

    #[test]
    fn any_flipped_bit_of_a_check_changes_nothing() {
        let mut agent = Agent::new();
        let check = agent.check().nominating().bytes();
        for at in 0..check.len() {
            for bit in 0..8 {
                let mut bytes = check.clone();
                bytes[at] ^= 1 << bit;
                let (outcome, response) = agent.receive_bytes(&bytes, tuple(1));
                assert!(outcome.refused.is_some(), "byte {at} bit {bit}");
                assert!(response.len() <= bytes.len());
                agent.assert_untouched();
            }
        }
    }

    #[test]
    fn a_peer_that_claims_to_be_controlled_is_answered_487() {
        let mut agent = Agent::new();
        let check = agent.check().with(0x8029, &[1; 8]).nominating().bytes();
        let (outcome, response) = agent.receive_bytes(&check, tuple(1));
        assert_eq!(outcome.refused, Some(IceRefusal::RoleConflict));
        assert_eq!(error_code(&response), 487);
        agent.assert_untouched();
        assert_eq!(agent.receive(agent.check().with(0x802a, &[1; 8]), tuple(1)).refused, None);
    }

    #[test]
    fn an_unknown_required_attribute_is_answered_420_with_its_name() {
        let mut agent = Agent::new();
        let check = agent.check().with(0x7123, b"odd").with(0x9123, b"optional").bytes();
        let (outcome, response) = agent.receive_bytes(&check, tuple(1));
        assert_eq!(outcome.refused, Some(IceRefusal::UnknownAttribute));
        assert_eq!(error_code(&response), 420);
        let mut message = stun::message::Message::new();
        message.unmarshal_binary(&response).unwrap();
        assert_eq!(message.get(stun::attributes::ATTR_UNKNOWN_ATTRIBUTES).unwrap(), [0x71, 0x23]);
        agent.assert_untouched();
    }

    #[test]
    fn a_request_without_credentials_is_refused_and_never_answered_with_more_bytes() {
        let mut agent = Agent::new();
        let mut message = stun::message::Message::new();
        message.build(&[Box::new(TransactionId([9; 12])), Box::new(BINDING_REQUEST)]).unwrap();
        let (outcome, response) = agent.receive_bytes(&message.raw, tuple(1));
        assert_eq!(outcome.refused, Some(IceRefusal::Incomplete));
        assert!(response.is_empty());
        agent.assert_untouched();
    }

    #[test]
    fn a_ninth_tuple_takes_the_place_of_the_longest_silent_one_but_not_of_the_selected() {
        let mut agent = Agent::new();
        agent.receive(agent.check().nominating(), tuple(1));
        for second in 2..=8 {
            let outcome = agent.at(second).receive(Check::of(&credentials(1)), tuple(second as u16));
            assert!(outcome.added && outcome.removed.is_none());
        }
        agent.at(9).receive(Check::of(&credentials(1)), tuple(2));
        let outcome = agent.at(10).receive(Check::of(&credentials(1)), tuple(9));
        assert_eq!(outcome.removed, Some(tuple(3)));
        assert_eq!(agent.ice.tuples().len(), limits::TUPLES_PER_TRANSPORT);
        assert!(agent.ice.tuples().any(|known| known == tuple(1)));
    }

    #[test]
    fn without_a_check_for_thirty_seconds_consent_is_over_and_a_check_brings_it_back() {
        let mut agent = Agent::new();
        assert_eq!(agent.ice.next_deadline(), None);
        agent.receive(agent.check().nominating(), tuple(1));
        agent.at(20).receive(Check::of(&credentials(1)).nominating(), tuple(1));
        agent.at(49);
        assert_eq!(agent.ice.handle_timeout(agent.now), TimeoutOutcome::default());
        assert_eq!(agent.ice.next_deadline(), Some(agent.start + Duration::from_secs(50)));

        agent.at(50);
        let outcome = agent.ice.handle_timeout(agent.now);
        assert!(outcome.selected_changed && outcome.state_changed);
        assert_eq!(agent.ice.state(), IceState::Disconnected);
        assert_eq!(agent.ice.selected(), None);
        assert_eq!(agent.ice.next_deadline(), None);

        let outcome = agent.at(60).receive(Check::of(&credentials(1)), tuple(1));
        assert!(outcome.selected_changed && outcome.state_changed);
        assert_eq!(agent.ice.state(), IceState::Connected);
    }

    #[test]
    fn a_nominated_address_that_falls_silent_is_left_for_one_that_checks() {
        let mut agent = Agent::new();
        agent.receive(agent.check(), tuple(1));
        agent.receive(agent.check().nominating(), tuple(2));
        for second in [10, 20, 29] {
            agent.at(second).receive(Check::of(&credentials(1)), tuple(1));
        }
        agent.at(30);
        assert!(agent.ice.handle_timeout(agent.now).selected_changed);
        assert_eq!(agent.ice.selected(), Some(tuple(1)));
        assert_eq!(agent.ice.state(), IceState::Connected);
    }

    #[test]
    fn a_restart_keeps_the_path_and_the_old_credentials_until_the_first_new_check() {
        let mut agent = Agent::new();
        agent.receive(agent.check().renominating(5), tuple(1));
        assert_eq!(agent.ice.restart(credentials(2)), None);
        assert_eq!(agent.ice.selected(), Some(tuple(1)));
        let ufrags: Vec<String> = agent.ice.local_ufrags().map(str::to_owned).collect();
        assert_eq!(ufrags, [credentials(2).ufrag, credentials(1).ufrag]);
        assert_eq!(agent.receive(Check::of(&credentials(1)), tuple(1)).refused, None);

        let outcome = agent.receive(Check::of(&credentials(2)).renominating(1), tuple(2));
        assert_eq!(outcome.retired_ufrag, Some(credentials(1).ufrag));
        assert_eq!(agent.ice.selected(), Some(tuple(2)), "the counter begins anew");
        let outcome = agent.receive(Check::of(&credentials(1)).nominating(), tuple(3));
        assert_eq!(outcome.refused, Some(IceRefusal::WrongCredentials));
    }

    #[test]
    fn a_second_restart_retires_the_first_generation_at_once() {
        let mut agent = Agent::new();
        assert_eq!(agent.ice.restart(credentials(2)), None);
        assert_eq!(agent.ice.restart(credentials(3)), Some(credentials(1).ufrag));
        assert_eq!(agent.receive(Check::of(&credentials(2)), tuple(1)).refused, None);
        assert_eq!(agent.receive(Check::of(&credentials(1)), tuple(1)).refused, Some(IceRefusal::WrongCredentials));
    }

    #[test]
    fn responses_and_indications_are_not_answered() {
        let mut agent = Agent::new();
        for typ in [stun::message::BINDING_SUCCESS, stun::message::BINDING_ERROR] {
            let mut message = stun::message::Message::new();
            message.build(&[Box::new(TransactionId([9; 12])), Box::new(typ), Box::new(FINGERPRINT)]).unwrap();
            let (outcome, response) = agent.receive_bytes(&message.raw, tuple(1));
            assert_eq!(outcome.refused, Some(IceRefusal::NotARequest));
            assert!(response.is_empty());
        }
        agent.assert_untouched();
    }
}
