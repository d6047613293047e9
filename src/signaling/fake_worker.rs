//! A worker for tests: answers every command as a shard would that has nothing against it.

use crate::shard::command::{Command, Event, Fingerprint, FingerprintHash, Refusal, Reply};
use crate::shard::stats::WorkerStats;
use crate::signaling::session::WorkerFacts;

pub fn facts(first_port: u16) -> WorkerFacts {
    let fingerprints = vec![Fingerprint { hash: FingerprintHash::Sha256, value: vec![0xab; 32] }];
    WorkerFacts { ports: vec![first_port, first_port + 1], fingerprints }
}

pub fn answer(command: &Command) -> Option<Event> {
    let reply = match command {
        Command::CreateTransport { transport, .. } => Reply::TransportCreated {
            ufrag: format!("ufrag-{transport}"),
            password: "a-password-of-thirty-two-letters".to_owned(),
            local: 1,
        },
        Command::RestartIce { .. } => {
            Reply::IceRestarted { ufrag: "another-ufrag".to_owned(), password: "another-password".to_owned() }
        }
        Command::TransportStats { .. }
        | Command::ProducerStats { .. }
        | Command::ConsumerStats { .. }
        | Command::RoomStats { .. } => Reply::Stats(Vec::new()),
        Command::WorkerStats { .. } => Reply::WorkerStats(Box::new(WorkerStats {
            worker: 1,
            ports: vec![10_000],
            discards: vec![("oversized", 3), ("unknown-source", 0)],
            packets_received: 42,
            ..WorkerStats::default()
        })),
        _ => Reply::Done,
    };
    Some(Event::Reply { token: command.token()?, result: Ok(reply) })
}

pub fn refusal(command: &Command, refusal: Refusal) -> Option<Event> {
    Some(Event::Reply { token: command.token()?, result: Err(refusal) })
}
