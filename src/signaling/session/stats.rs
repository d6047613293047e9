//! `get-stats`, and the questions that the HTTP side asks of workers.

use std::time::Instant;

use serde_json::{Value, json};

use super::waiting::{Asker, Then};
use super::{Control, QueryId};
use crate::ids::PeerId;
use crate::shard::command::{Command, Reply};
use crate::shard::stats::{Stats, WorkerStats};
use crate::signaling::error::{ErrorCode, Failure};
use crate::signaling::message::Subject;

impl Control {
    /// A peer may ask about what it owns.
    pub(super) fn stats(
        &mut self,
        now: Instant,
        peer: PeerId,
        asker: Asker,
        subject: Subject,
    ) -> Result<Option<Value>, Failure> {
        match subject {
            Subject::Transport(transport) => self.own_transport(peer, transport).map(|_| ())?,
            Subject::Producer(producer) => self.own_producer(peer, producer).map(|_| ())?,
            Subject::Consumer(consumer) => self.worker_of_consumer(peer, consumer).map(|_| ())?,
        }
        let worker = self.worker_of(peer)?;
        self.ask(now, asker, worker, Then::Stats, |token| match subject {
            Subject::Transport(transport) => Command::TransportStats { token, transport },
            Subject::Producer(producer) => Command::ProducerStats { token, producer },
            Subject::Consumer(consumer) => Command::ConsumerStats { token, consumer },
        })
    }

    pub(super) fn stats_answer(&self, reply: Reply) -> Result<Value, Failure> {
        match reply {
            Reply::Stats(rows) => Ok(json!({ "stats": self.rows(&rows) })),
            _ => Err(ErrorCode::Internal.into()),
        }
    }

    /// The rows with peers under the names that clients know.
    pub fn rows(&self, rows: &[Stats]) -> Vec<Value> {
        let named = |row: &Stats| {
            let peer = match row {
                Stats::Transport(row) => row.peer_id,
                Stats::Producer(row) => row.peer_id,
                Stats::Consumer(row) => row.peer_id,
            };
            let mut value = json!(row);
            if let Some(peer) = self.registry.peers.get(&peer) {
                value["peerId"] = json!(peer.name);
            }
            value
        };
        rows.iter().map(named).collect()
    }

    /// Statistics of everything in a room; comes back as an [`Output::Answer`](super::Output::Answer).
    pub fn query_room(&mut self, now: Instant, query: QueryId, name: &str) -> Result<(), Failure> {
        let room = self.registry.room_named(name).ok_or(ErrorCode::NotFound)?;
        let worker = self.registry.rooms[&room].worker;
        self.ask(now, Asker::Query(query), worker, Then::Query, |token| Command::RoomStats { token, room })?;
        Ok(())
    }

    pub fn query_worker(&mut self, now: Instant, query: QueryId, worker: usize) {
        // A query has no owner whose requests could be too many.
        let _ = self.ask(now, Asker::Query(query), worker, Then::Query, |token| Command::WorkerStats { token });
    }

    /// Takes a worker's own measure into account for who may come, and notes in it whether anybody may.
    pub fn measured(&mut self, worker: usize, stats: &mut WorkerStats) {
        let is_late = u128::from(stats.recent_late_us) > self.config.latency_limit.as_micros();
        let overload = &mut self.registry.placement.worker(worker).overload;
        overload.take(stats.seconds, stats.busy > self.config.busy_limit || is_late);
        stats.overloaded = overload.is_on();
    }

    /// Every worker has no time left.
    pub fn is_overloaded(&self) -> bool {
        self.registry.placement.loads().iter().all(|load| load.overload.is_on())
    }

    /// Whether workers are to be asked how they are: somebody is here, or one has to recover.
    pub fn is_measuring(&self) -> bool {
        self.peers() > 0 || self.registry.placement.loads().iter().any(|load| load.overload.is_on())
    }
}
