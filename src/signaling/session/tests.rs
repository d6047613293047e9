//! Whole conversations with the control plane, without a socket: connections say things, a fake
//! worker answers, everything that anybody hears is looked at.

mod chaos;
mod peers;
mod refusals;
mod streams;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::*;
use crate::shard::stats::WorkerStats;
use crate::signaling::fake_worker;

pub const MIC: &str = include_str!("../../../tests/fixtures/chromium156-msc3.24.1.produce.mic.json");
pub const SIMULCAST: &str =
    include_str!("../../../tests/fixtures/chromium156-msc3.24.1.produce.webcam-vp8-simulcast3.json");
pub const CAPABILITIES: &str =
    include_str!("../../../tests/fixtures/chromium156-msc3.24.1.device.recvRtpCapabilities.json");

pub fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The control plane with everything that came out of it, sorted by who it was for.
struct Stage {
    control: Control,
    now: Instant,
    /// Whether workers answer; otherwise commands pile up.
    workers_answer: bool,
    commands: Vec<(usize, Command)>,
    heard: HashMap<ConnectionId, Vec<Notification>>,
    answers: HashMap<(ConnectionId, Option<u64>), Result<Value, Failure>>,
    closed: HashMap<ConnectionId, CloseReason>,
    queries: HashMap<QueryId, Result<Reply, Failure>>,
    last: u64,
}

impl Stage {
    fn new() -> Stage {
        Stage::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut SignalingConfig)) -> Stage {
        let mut config = SignalingConfig::default();
        change(&mut config);
        let workers = vec![fake_worker::facts(10_000), fake_worker::facts(10_050)];
        let mut seed = 0u64;
        // splitmix64: a seed is enough for ids.
        let random = move || {
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        Stage {
            control: Control::new(Arc::new(config), workers, Box::new(random)),
            now: Instant::now(),
            workers_answer: true,
            commands: Vec::new(),
            heard: HashMap::new(),
            answers: HashMap::new(),
            closed: HashMap::new(),
            queries: HashMap::new(),
            last: 0,
        }
    }

    /// Carries out what the control plane wants, until it wants no more.
    fn settle(&mut self) {
        while let Some(output) = self.control.poll_output() {
            match output {
                Output::Respond { connection, serial, result } => {
                    let before = self.answers.insert((connection, serial), result);
                    assert!(before.is_none() || serial.is_none(), "request {serial:?} is answered once");
                }
                Output::Notify { connection, notification } => {
                    self.heard.entry(connection).or_default().push(notification);
                }
                Output::Close { connection, reason } => {
                    self.closed.insert(connection, reason);
                    self.control.disconnect(self.now, connection);
                }
                Output::Command { worker, command } => {
                    let event = fake_worker::answer(&command).filter(|_| self.workers_answer);
                    self.commands.push((worker, command));
                    if let Some(event) = event {
                        self.control.handle_event(event);
                    }
                }
                Output::Answer { query, result } => {
                    self.queries.insert(query, result);
                }
            }
        }
    }

    /// The worker measured the same for these seconds.
    fn measured(&mut self, worker: usize, seconds: std::ops::RangeInclusive<u64>, stats: &WorkerStats) {
        for second in seconds {
            self.control.measured(worker, &mut WorkerStats { seconds: second, ..stats.clone() });
        }
    }

    fn try_connect(&mut self, hello: Hello) -> Result<ConnectionId, Failure> {
        self.last += 1;
        let connection = ConnectionId(self.last);
        let result = self.control.connect(self.now, connection, hello);
        self.settle();
        result.map(|()| connection)
    }

    fn connect(&mut self, room: &str, peer: &str) -> ConnectionId {
        self.try_connect(hello(room, peer)).unwrap()
    }

    fn disconnect(&mut self, connection: ConnectionId) {
        self.control.disconnect(self.now, connection);
        self.settle();
    }

    /// Sends a request and returns its serial.
    fn send(&mut self, connection: ConnectionId, method: &str, data: Value) -> u64 {
        self.last += 1;
        let request = Request { method: method.to_owned(), data };
        self.control.handle_request(self.now, connection, self.last, request);
        self.settle();
        self.last
    }

    fn try_request(&mut self, connection: ConnectionId, method: &str, data: Value) -> Result<Value, Failure> {
        let serial = self.send(connection, method, data);
        self.answers.remove(&(connection, Some(serial))).unwrap_or_else(|| panic!("{method} is answered"))
    }

    #[track_caller]
    fn request(&mut self, connection: ConnectionId, method: &str, data: Value) -> Value {
        self.try_request(connection, method, data).unwrap_or_else(|failure| panic!("{method}: {failure}"))
    }

    #[track_caller]
    fn refused(&mut self, connection: ConnectionId, method: &str, data: Value) -> ErrorCode {
        match self.try_request(connection, method, data) {
            Ok(answer) => panic!("{method} is answered with {answer}"),
            Err(failure) => failure.code,
        }
    }

    fn transport(&mut self, connection: ConnectionId, direction: &str) -> String {
        text(&self.request(connection, "create-transport", json!({"direction": direction}))["id"])
    }

    fn produce(&mut self, connection: ConnectionId, transport: &str, body: &str) -> String {
        let mut body = parsed(body);
        body["transportId"] = json!(transport);
        text(&self.request(connection, "produce", body)["id"])
    }

    fn consume(&mut self, connection: ConnectionId, producer: &str) -> Value {
        let data = json!({"producerId": producer, "rtpCapabilities": parsed(CAPABILITIES)});
        self.request(connection, "consume", data)
    }

    /// What the connection heard since the last look, as (method, data).
    fn heard(&mut self, connection: ConnectionId) -> Vec<(&'static str, Value)> {
        let heard = self.heard.remove(&connection).unwrap_or_default();
        heard.into_iter().map(|heard| (heard.method, (*heard.data).clone())).collect()
    }

    fn methods_heard(&mut self, connection: ConnectionId) -> Vec<&'static str> {
        self.heard(connection).into_iter().map(|(method, _)| method).collect()
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.control.handle_timeout(self.now);
        self.settle();
    }

    fn total(&self, what: &str) -> usize {
        self.control.totals().into_iter().find(|(name, _)| *name == what).unwrap().1
    }

    /// The last command that went to a worker.
    fn last_command(&self) -> &Command {
        &self.commands.last().unwrap().1
    }
}

fn hello(room: &str, peer: &str) -> Hello {
    Hello { room: room.to_owned(), peer: Some(peer.to_owned()), ..Hello::default() }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is text")).to_owned()
}

fn fingerprint() -> Value {
    json!({"role": "client", "fingerprints": [{"algorithm": "sha-256", "value": (["AB"; 32].join(":"))}]})
}
