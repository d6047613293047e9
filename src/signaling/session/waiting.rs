//! Requests that wait for a worker, by the token of the command that went out.
//!
//! Every token is taken once: by its reply, by a refusal to queue it, or by its deadline.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use serde_json::Value;

use super::{ConnectionId, QueryId};
use crate::ids::{ConsumerId, PeerId, ProducerId, Token, TransportId};

/// A request, and what to do when its worker has answered.
pub struct Pending {
    pub asker: Asker,
    pub then: Then,
}

#[derive(Clone, Copy, Debug)]
pub enum Asker {
    /// The connection may be gone, or another one in its place, when the answer is there.
    Peer {
        peer: PeerId,
        connection: ConnectionId,
        serial: u64,
    },
    Query(QueryId),
}

pub enum Then {
    /// The answer is `{}`.
    Answered,
    TransportCreated(TransportId),
    JoinTransportCreated {
        join: u64,
        transport: TransportId,
    },
    IceRestarted,
    Produced(ProducerId),
    ProducerPaused(ProducerId, bool),
    /// With the answer to give.
    Consumed(ConsumerId, Box<Value>),
    ConsumerPaused(ConsumerId, bool),
    Stats,
    Query,
}

#[derive(Default)]
pub struct Waiting {
    last: u64,
    pending: HashMap<Token, Pending>,
    /// All wait equally long, so that they fall due in the order of their coming.
    deadlines: VecDeque<(Instant, Token)>,
}

impl Waiting {
    pub fn push(&mut self, deadline: Instant, pending: Pending) -> Token {
        self.last += 1;
        let token = Token(self.last);
        self.pending.insert(token, pending);
        self.deadlines.push_back((deadline, token));
        token
    }

    pub fn take(&mut self, token: Token) -> Option<Pending> {
        let pending = self.pending.remove(&token);
        while self.deadlines.front().is_some_and(|(_, token)| !self.pending.contains_key(token)) {
            self.deadlines.pop_front();
        }
        pending
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.front().map(|(deadline, _)| *deadline)
    }

    /// The oldest token that waited too long; it still has to be taken.
    pub fn overdue(&self, now: Instant) -> Option<Token> {
        self.deadlines.front().filter(|(deadline, _)| *deadline <= now).map(|(_, token)| *token)
    }
}
