//! The middle of the control plane: what framings share, and the only owner of the pure [`Control`].
//!
//! Everything happens on one thread: an input is handed to [`Control`], and all that it wants done is
//! done before the next one: messages into the bounded queues of connections, commands to workers, answers
//! to questions of the HTTP side. Called by the framings, the HTTP side and the tasks of [`Hub::start`].
//! Never waits while it holds the state.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::limits;
use crate::shard::command::{Command, Event, Reply};
use crate::shard::stats::WorkerStats;
use crate::signaling::error::{ErrorCode, Failure};
use crate::signaling::message::Request;
use crate::signaling::outgoing::{self, Connection, Outgoing, Sink};
use crate::signaling::session::{CloseReason, ConnectionId, Control, Hello, Output, QueryId, WorkerFacts};
use crate::signaling::settings::SignalingConfig;

/// How a worker is reached.
pub struct WorkerLink {
    pub facts: WorkerFacts,
    /// Queues a command without waiting.
    pub send: Box<dyn Fn(Command) -> Result<(), QueueFull> + Send>,
}

/// The worker's queue has no room; the command is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

/// Cheap to clone; everybody has the same one.
#[derive(Clone)]
pub struct Hub {
    shared: Arc<Shared>,
}

struct Shared {
    config: Arc<SignalingConfig>,
    state: Mutex<State>,
    /// The next deadline came nearer.
    rearm: Notify,
    /// A worker does not take its commands any more.
    stuck: Notify,
}

struct State {
    control: Control,
    connections: HashMap<ConnectionId, Sink>,
    workers: Vec<Link>,
    queries: HashMap<QueryId, oneshot::Sender<Result<Reply, Failure>>>,
    last: u64,
    /// When the timer will look next.
    armed: Option<Instant>,
}

struct Link {
    send: Box<dyn Fn(Command) -> Result<(), QueueFull> + Send>,
    /// Commands that must not be lost and found the queue full.
    backlog: VecDeque<Command>,
}

/// How soon a full queue is tried again; the worker empties it in a tick.
const BACKLOG_RETRY: Duration = Duration::from_millis(5);

/// How often workers are asked how they are while there is somebody to serve.
const MEASURE_INTERVAL: Duration = Duration::from_secs(1);

impl Hub {
    pub fn new(config: Arc<SignalingConfig>, workers: Vec<WorkerLink>) -> Hub {
        let facts = workers.iter().map(|worker| worker.facts.clone()).collect();
        let links = workers.into_iter().map(|worker| Link { send: worker.send, backlog: VecDeque::new() });
        let control = Control::new(config.clone(), facts, Box::new(system_random));
        let state = State {
            control,
            connections: HashMap::new(),
            workers: links.collect(),
            queries: HashMap::new(),
            last: 0,
            armed: None,
        };
        let shared = Shared { config, state: Mutex::new(state), rearm: Notify::new(), stuck: Notify::new() };
        Hub { shared: Arc::new(shared) }
    }

    /// Spawns what goes on by itself: the workers' events, deadlines, measuring.
    pub fn start(&self, mut events: mpsc::Receiver<Event>) {
        let hub = self.clone();
        tokio::spawn(async move {
            const EVENTS_AT_ONCE: usize = 256;
            let mut batch = Vec::with_capacity(EVENTS_AT_ONCE);
            while events.recv_many(&mut batch, EVENTS_AT_ONCE).await > 0 {
                hub.with(|control, _| batch.drain(..).for_each(|event| control.handle_event(event)));
            }
        });
        tokio::spawn(self.clone().keep_deadlines());
        tokio::spawn(self.clone().keep_measuring());
    }

    pub fn config(&self) -> &Arc<SignalingConfig> {
        &self.shared.config
    }

    /// Ends when a worker takes no commands any more.
    pub async fn stuck(&self) {
        self.shared.stuck.notified().await;
    }

    // ---- for framings

    /// Lets a connection into a room. What it is to be told waits in the queue.
    pub fn connect(&self, hello: Hello) -> Result<Connection, Failure> {
        let mut state = self.lock();
        if state.is_behind() {
            state.control.counters.error(ErrorCode::Overloaded);
            return Err(Failure::new(ErrorCode::Overloaded, "a worker is behind with closing what others left"));
        }
        state.last += 1;
        let id = ConnectionId(state.last);
        let (sink, connection) = outgoing::connection(id);
        state.connections.insert(id, sink);
        let entered = state.control.connect(Instant::now(), id, hello);
        if entered.is_err() {
            state.connections.remove(&id);
        }
        self.settle(state);
        entered.map(|()| connection)
    }

    pub fn request(&self, connection: ConnectionId, serial: u64, request: Request) {
        self.with(|control, now| control.handle_request(now, connection, serial, request));
    }

    pub fn malformed(&self, connection: ConnectionId, serial: Option<u64>, detail: &'static str) {
        self.with(|control, now| control.handle_malformed(now, connection, serial, detail));
    }

    pub fn idle_frame(&self, connection: ConnectionId) {
        self.with(|control, now| control.handle_idle_frame(now, connection));
    }

    /// The framing's connection is over.
    pub fn disconnect(&self, connection: ConnectionId) {
        let mut state = self.lock();
        state.connections.remove(&connection);
        state.control.disconnect(Instant::now(), connection);
        self.settle(state);
    }

    /// The framing has a reason to end the connection: the client is told, if it can be, after what waits for it.
    pub fn close(&self, connection: ConnectionId, reason: CloseReason) {
        let mut state = self.lock();
        state.close(connection, reason);
        self.settle(state);
    }

    /// A connection that never came in, or that is given up without a word.
    pub fn count_close(&self, reason: CloseReason) {
        self.lock().control.counters.close(reason);
    }

    // ---- for the HTTP side

    /// Looks at or changes the control plane; what follows is done before it returns.
    pub fn with<T>(&self, act: impl FnOnce(&mut Control, Instant) -> T) -> T {
        let mut state = self.lock();
        let result = act(&mut state.control, Instant::now());
        self.settle(state);
        result
    }

    /// Every worker's own statistics; one that does not answer in time fails the whole.
    pub async fn worker_stats(&self) -> Result<Vec<WorkerStats>, Failure> {
        let count = self.lock().workers.len();
        let asked: Vec<_> = (0..count)
            .map(|worker| {
                self.query(|control, now, query| {
                    control.query_worker(now, query, worker);
                    Ok(())
                })
            })
            .collect();
        let mut stats = Vec::with_capacity(count);
        for (worker, answer) in asked.into_iter().enumerate() {
            let Reply::WorkerStats(mut row) = answered(answer?).await? else {
                return Err(ErrorCode::Internal.into());
            };
            self.lock().control.measured(worker, &mut row);
            stats.push(*row);
        }
        Ok(stats)
    }

    /// One row for each transport, producer layer and consumer of a room.
    pub async fn room_stats(&self, name: &str) -> Result<Vec<Value>, Failure> {
        let answer = self.query(|control, now, query| control.query_room(now, query, name))?;
        match answered(answer).await? {
            Reply::Stats(rows) => Ok(self.with(|control, _| control.rows(&rows))),
            _ => Err(ErrorCode::Internal.into()),
        }
    }

    fn query(
        &self,
        ask: impl FnOnce(&mut Control, Instant, QueryId) -> Result<(), Failure>,
    ) -> Result<oneshot::Receiver<Result<Reply, Failure>>, Failure> {
        let mut state = self.lock();
        state.last += 1;
        let query = QueryId(state.last);
        let (sender, receiver) = oneshot::channel();
        state.queries.insert(query, sender);
        let asked = ask(&mut state.control, Instant::now(), query);
        if asked.is_err() {
            state.queries.remove(&query);
        }
        self.settle(state);
        asked.map(|()| receiver)
    }

    // ---- the end

    /// Tells everybody that the server stops, and takes nobody new.
    pub fn drain(&self) {
        let deadline_ms = u64::try_from(self.shared.config.drain.as_millis()).unwrap_or(u64::MAX);
        self.with(|control, _| control.drain(deadline_ms));
    }

    pub fn close_all(&self) {
        let mut state = self.lock();
        let connections: Vec<ConnectionId> = state.connections.keys().copied().collect();
        for connection in connections {
            state.close(connection, CloseReason::GoingDown);
        }
        self.settle(state);
    }

    pub fn connections(&self) -> usize {
        self.lock().connections.len()
    }

    // ---- inside

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what the control plane wants done, until it wants no more.
    fn settle(&self, mut state: MutexGuard<'_, State>) {
        while let Some(output) = state.control.poll_output() {
            match output {
                Output::Respond { connection, serial, result } => {
                    state.deliver(connection, Outgoing::Response { serial, result });
                }
                Output::Notify { connection, notification } => {
                    state.deliver(connection, Outgoing::Notification(notification));
                }
                Output::Close { connection, reason } => state.close(connection, reason),
                Output::Command { worker, command } => state.command(worker, command),
                Output::Answer { query, result } => {
                    if let Some(asker) = state.queries.remove(&query) {
                        let _ = asker.send(result);
                    }
                }
            }
        }
        if state.workers.iter().any(|worker| worker.backlog.len() > limits::COMMAND_BACKLOG) {
            self.shared.stuck.notify_one();
        }
        let next = state.next_deadline();
        if next.is_some_and(|next| state.armed.is_none_or(|armed| next < armed)) {
            state.armed = next;
            self.shared.rearm.notify_one();
        }
    }

    async fn keep_deadlines(self) {
        loop {
            let armed = self.lock().armed;
            match armed {
                Some(deadline) => tokio::select! {
                    () = tokio::time::sleep_until(deadline.into()) => {
                        let mut state = self.lock();
                        state.armed = None;
                        state.flush_backlogs();
                        state.control.handle_timeout(Instant::now());
                        self.settle(state);
                    }
                    () = self.shared.rearm.notified() => {}
                },
                None => self.shared.rearm.notified().await,
            }
        }
    }

    /// Nobody here: nobody is asked, so that an idle server sleeps.
    async fn keep_measuring(self) {
        loop {
            tokio::time::sleep(MEASURE_INTERVAL).await;
            if self.with(|control, _| control.is_measuring())
                && let Err(failure) = self.worker_stats().await
            {
                tracing::warn!("a worker does not answer: {failure}");
            }
        }
    }
}

impl State {
    fn deliver(&mut self, connection: ConnectionId, message: Outgoing) {
        let Some(sink) = self.connections.get(&connection) else { return };
        if sink.push(message).is_err() {
            self.cut(connection, CloseReason::Slow);
        }
    }

    fn close(&mut self, connection: ConnectionId, reason: CloseReason) {
        let Some(sink) = self.connections.get(&connection) else { return };
        if sink.push(Outgoing::Close(reason)).is_err() {
            return self.cut(connection, CloseReason::Slow);
        }
        self.connections.remove(&connection);
        self.control.counters.close(reason);
        self.control.disconnect(Instant::now(), connection);
    }

    fn cut(&mut self, connection: ConnectionId, reason: CloseReason) {
        if let Some(sink) = self.connections.remove(&connection) {
            sink.cut();
            self.control.counters.close(reason);
            self.control.disconnect(Instant::now(), connection);
        }
    }

    /// What somebody waits for is refused when the queue is full; what closes things waits its turn.
    fn command(&mut self, worker: usize, command: Command) {
        let link = &mut self.workers[worker];
        match command.token() {
            Some(token) => {
                if !link.backlog.is_empty() || (link.send)(command).is_err() {
                    self.control.command_refused(token);
                }
            }
            None => {
                link.backlog.push_back(command);
                link.flush();
            }
        }
    }

    /// Commands that must not be lost wait: whoever comes and goes would make it more of them.
    fn is_behind(&self) -> bool {
        self.workers.iter().any(|worker| !worker.backlog.is_empty())
    }

    fn flush_backlogs(&mut self) {
        self.workers.iter_mut().for_each(Link::flush);
    }

    fn next_deadline(&self) -> Option<Instant> {
        let retry = self.is_behind().then(|| Instant::now() + BACKLOG_RETRY);
        self.control.next_deadline().into_iter().chain(retry).min()
    }
}

impl Link {
    fn flush(&mut self) {
        while let Some(command) = self.backlog.front() {
            if (self.send)(command.clone()).is_err() {
                return;
            }
            self.backlog.pop_front();
        }
    }
}

async fn answered(answer: oneshot::Receiver<Result<Reply, Failure>>) -> Result<Reply, Failure> {
    answer.await.unwrap_or(Err(ErrorCode::Internal.into()))
}

/// From the system's generator; there is no way on without it.
fn system_random() -> u64 {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system has a random number generator");
    u64::from_ne_bytes(bytes)
}
