//! ICE of one transport that has one remote candidate: a server on the same host or network. Sends checks until one
//! succeeds, then consent checks (RFC 7675); answers the peer's. Sans-IO: bytes and `now` in, bytes out.

use std::net::SocketAddr;

use super::stun::{self, Message, Role, TransactionId};
use crate::random::Random;
use crate::schedule::Nanos;

const FIRST_RETRY: Nanos = 50_000_000;
const RETRY_MAX: Nanos = 800_000_000;
/// RFC 7675 section 5.1: a check about every five seconds.
const CONSENT_INTERVAL: Nanos = 5_000_000_000;
const CONSENT_TIMEOUT: Nanos = 30_000_000_000;

#[derive(Clone, Debug, Default)]
pub struct Credentials {
    pub ufrag: String,
    pub password: String,
}

pub struct Ice {
    pub local: Credentials,
    remote: Credentials,
    role: Role,
    random: Random,
    transaction: TransactionId,
    retry: Nanos,
    pub next_at: Nanos,
    pub connected_at: Option<Nanos>,
    heard_at: Nanos,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Nothing,
    Answer(Vec<u8>),
    /// The first check that succeeded.
    Connected,
}

impl Ice {
    pub fn new(local: Credentials, remote: Credentials, role: Role, mut random: Random, now: Nanos) -> Self {
        let transaction = transaction(&mut random);
        Ice {
            local,
            remote,
            role,
            random,
            transaction,
            retry: FIRST_RETRY,
            next_at: now,
            connected_at: None,
            heard_at: now,
        }
    }

    /// Credentials that nobody guesses on loopback; fresh for each transport.
    pub fn credentials(random: &mut Random) -> Credentials {
        Credentials { ufrag: random.text(8), password: random.text(24) }
    }

    /// The check that is due at `next_at`. `None` when consent has expired.
    pub fn poll(&mut self, now: Nanos) -> Option<Vec<u8>> {
        if self.connected_at.is_some() {
            if now > self.heard_at + CONSENT_TIMEOUT {
                return None;
            }
            self.transaction = transaction(&mut self.random);
            self.next_at = now + CONSENT_INTERVAL;
        } else {
            self.next_at = now + self.retry;
            self.retry = (self.retry * 2).min(RETRY_MAX);
        }
        let username = format!("{}:{}", self.remote.ufrag, self.local.ufrag);
        let tie_breaker = 0x5253_4c54_0000_0001;
        Some(stun::request(self.transaction, &username, &self.remote.password, self.role, tie_breaker))
    }

    pub fn receive(&mut self, datagram: &[u8], from: SocketAddr, now: Nanos) -> Outcome {
        match stun::read(datagram, &self.remote.password) {
            Some(Message::Success { transaction }) if transaction == self.transaction => {
                self.heard_at = now;
                if self.connected_at.is_some() {
                    return Outcome::Nothing;
                }
                self.connected_at = Some(now);
                self.next_at = now + CONSENT_INTERVAL;
                return Outcome::Connected;
            }
            _ => {}
        }
        match stun::read(datagram, &self.local.password) {
            Some(Message::Request { transaction, .. }) => {
                Outcome::Answer(stun::success(transaction, from, &self.local.password))
            }
            _ => Outcome::Nothing,
        }
    }
}

fn transaction(random: &mut Random) -> TransactionId {
    let (a, b) = (random.draw().to_be_bytes(), random.draw().to_be_bytes());
    let mut id = [0; 12];
    id[..8].copy_from_slice(&a);
    id[8..].copy_from_slice(&b[..4]);
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Ice, Ice) {
        let mut random = Random::new(1, 1);
        let (a, b) = (Ice::credentials(&mut random), Ice::credentials(&mut random));
        let one = Ice::new(a.clone(), b.clone(), Role::Controlling, Random::new(1, 2), 0);
        (one, Ice::new(b, a, Role::Controlled, Random::new(1, 3), 0))
    }

    #[test]
    fn a_check_and_its_answer_connect() {
        let (mut one, mut two) = pair();
        let from = "127.0.0.1:9".parse().unwrap();
        let check = one.poll(0).unwrap();
        let Outcome::Answer(answer) = two.receive(&check, from, 1) else { panic!("no answer") };
        assert_eq!(one.receive(&answer, from, 2), Outcome::Connected);
        assert_eq!(one.receive(&answer, from, 3), Outcome::Nothing);
    }

    #[test]
    fn consent_ends_when_nobody_answers_for_thirty_seconds() {
        let (mut one, mut two) = pair();
        let from = "127.0.0.1:9".parse().unwrap();
        let check = one.poll(0).unwrap();
        let Outcome::Answer(answer) = two.receive(&check, from, 1) else { panic!("no answer") };
        one.receive(&answer, from, 2);
        assert!(one.poll(CONSENT_TIMEOUT).is_some());
        assert!(one.poll(CONSENT_TIMEOUT + 3).is_none());
    }
}
