//! The control plane over real sockets, with a worker that answers from a thread: the same conversation over
//! every framing has to end in the same answers, and nothing that a client sends may disturb another.

mod abuse;
mod call;
mod client;
mod http;
mod lifecycle;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc as thread_channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::limits;
use crate::shard::command::{Command, Event};
use crate::signaling::fake_worker;
use crate::signaling::hub::{QueueFull, WorkerLink};
use crate::signaling::server::{RunError, Server, Stop};
use crate::signaling::settings::SignalingConfig;
use client::{Http, http};

/// Longer than anything in these tests takes, shorter than anybody waits.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running control plane and the thread of its only worker.
struct Running {
    address: SocketAddr,
    stop: Option<oneshot::Sender<Stop>>,
    thread: Option<thread::JoinHandle<Result<(), RunError>>>,
    worker: Arc<FakeWorker>,
    events: mpsc::Sender<Event>,
}

#[derive(Default)]
struct FakeWorker {
    commands: Mutex<Vec<Command>>,
    /// Takes commands and says nothing.
    silent: AtomicBool,
    /// Its queue has no room.
    full: AtomicBool,
}

fn start() -> Running {
    start_with(|_| {})
}

fn start_with(change: impl FnOnce(&mut SignalingConfig)) -> Running {
    let mut config = SignalingConfig { listen: ([127, 0, 0, 1], 0).into(), ..SignalingConfig::default() };
    change(&mut config);
    let server = Server::bind(config).unwrap();
    let address = server.address();
    let (events, received) = mpsc::channel(4096);
    let (stop, stopped) = oneshot::channel();
    let worker = Arc::new(FakeWorker::default());
    let link = link(worker.clone(), events.clone());
    let thread =
        thread::spawn(move || server.run(vec![link], received, async { stopped.await.unwrap_or(Stop::Asked) }));
    Running { address, stop: Some(stop), thread: Some(thread), worker, events }
}

fn link(worker: Arc<FakeWorker>, events: mpsc::Sender<Event>) -> WorkerLink {
    let (queue, commands) = thread_channel::channel::<Command>();
    let answering = worker.clone();
    thread::spawn(move || {
        for command in commands {
            let answer = fake_worker::answer(&command).filter(|_| !answering.silent.load(Ordering::Relaxed));
            answering.commands.lock().unwrap().push(command);
            if answer.is_some_and(|answer| events.blocking_send(answer).is_err()) {
                return;
            }
        }
    });
    let send = move |command| match worker.full.load(Ordering::Relaxed) {
        true => Err(QueueFull),
        false => queue.send(command).map_err(|_| QueueFull),
    };
    WorkerLink { facts: fake_worker::facts(10_000), send: Box::new(send) }
}

impl Running {
    fn get(&self, path: &str) -> Http {
        http(self.address, "GET", path, &[], "")
    }

    /// One number of `/metrics`.
    fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").body;
        let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
        let line = line.unwrap_or_else(|| panic!("{name} in\n{text}"));
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    }

    /// Waits until a number of `/metrics` is this.
    #[track_caller]
    fn metric_becomes(&self, name: &str, value: f64) {
        let start = Instant::now();
        while self.metric(name) != value {
            assert!(start.elapsed() < PATIENCE, "{name} is {} and not {value}", self.metric(name));
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn commands(&self) -> Vec<Command> {
        self.worker.commands.lock().unwrap().clone()
    }

    #[track_caller]
    fn waits_for_command(&self, wanted: impl Fn(&Command) -> bool) {
        let start = Instant::now();
        while !self.commands().iter().any(&wanted) {
            assert!(start.elapsed() < PATIENCE, "{:?}", self.commands());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Stops and returns how it ended.
    fn stop(&mut self, why: Stop) -> Result<(), RunError> {
        let _ = self.stop.take().unwrap().send(why);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = self.stop.take().map(|stop| stop.send(Stop::WorkerEnded("the test is over".to_owned())));
            let _ = thread.join();
        }
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}
