//! A pinned core: one glommio executor, one ring and one shard, tick by tick.
//!
//! The one file that names glommio, which starts the thread, pins it and makes its executor. Inside, the worker
//! runs on its own ring and blocks in it when there is nothing to do; the executor's own reactor is never entered.
//! The control plane calls [`spawn`] once per core, sends commands through the [`Handle`], takes events
//! from the channel that it gave, and ends the process when a worker reports its [`Exit`].
//!
//! An idle worker blocks at once. Looking for the next datagram for 5 to 50 us before that never made a datagram
//! cheaper (an echo of one datagram per 8, 15 and 30 us: 1.00 to 1.05 of the CPU; per 100 us: 1.5 to 2.9); it made
//! the round trip shorter only by burning the whole core (24 us to 9 us at one datagram per 30 us).
//!
//! Nothing here knows what a datagram means, and nothing here waits for the control plane.

mod measure;

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc as thread_channel;
use std::time::{Duration, Instant};

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};
use tokio::sync::{mpsc, oneshot};

use crate::host::allowed_cores;
use crate::limits;
use crate::shard::command::{Command, Event, Reply};
use crate::shard::stats::WorkerStats;
use crate::shard::{Datagram, Shard, ShardConfig};
use crate::uring::clock::{self, Clocks};
use crate::uring::mailbox::{self, Mailbox, mailbox};
use crate::uring::{Ring, RingConfig, RingError, Socket, priority, socket};
use measure::{Measure, MeasuredOutbox};

pub use measure::{Histograms, write_hlog};

/// What a worker is made of.
pub struct WorkerConfig {
    /// An index; everything that people see counts from 1: logs ("worker 1/2"), threads, statistics, metrics.
    pub worker: usize,
    /// The core to run on, one of [`allowed_cores`].
    pub core: usize,
    /// One for each of its ports, then any others on the same ports; their indices are the `local` of tuples.
    pub sockets: Vec<Socket>,
    pub ring: RingConfig,
    /// `unix_time` and `ports` are set by the worker itself.
    pub shard: ShardConfig,
    /// How long media may wait for company when the core has no time to spare; nothing while it has.
    pub gather_max: Duration,
}

/// A running worker, as its starter holds it.
pub struct Worker {
    handle: Handle,
    thread: ExecutorJoinHandle<()>,
    goes_first: bool,
}

/// The way for commands into a worker: cheap to clone, usable from any thread, never blocks. A worker ends
/// when its last handle is dropped.
#[derive(Clone)]
pub struct Handle {
    mailbox: mailbox::Handle<Mail>,
}

/// The worker's command queue is full: refuse the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the worker's command queue is full")]
pub struct Full;

/// How a worker ended; anything but `Ok` has to end the process.
#[derive(Debug)]
pub struct Exit {
    /// As in [`WorkerConfig`].
    pub worker: usize,
    pub core: usize,
    pub result: Result<(), WorkerError>,
}

/// Why a worker cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("{0}")]
    Ring(#[from] RingError),
    #[error("the control plane does not take its events: {} wait", limits::EVENT_QUEUE)]
    ControlPlaneStuck,
    #[error("panicked: {0}")]
    Panicked(String),
}

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("core {core} is not one of those that this process may use ({})", list(allowed))]
    CoreNotAllowed { core: usize, allowed: Vec<usize> },
    #[error("cannot make the mailbox of worker {}: {error}", worker + 1)]
    Mailbox { worker: usize, error: io::Error },
    #[error("cannot start the executor of worker {} on core {core}: {message}", worker + 1)]
    Executor { worker: usize, core: usize, message: String },
    #[error("worker {} on core {core}: {error}", worker + 1)]
    Ring { worker: usize, core: usize, error: RingError },
}

/// Starts a worker and returns once its ring works. `events` and `exits` belong to the control plane: an event
/// queue that is full, or gone, ends the worker; `exits` needs room for one message per worker.
pub fn spawn(
    config: WorkerConfig,
    events: mpsc::Sender<Event>,
    exits: mpsc::Sender<Exit>,
) -> Result<Worker, SpawnError> {
    let (worker, core) = (config.worker, config.core);
    let allowed = allowed_cores();
    if !allowed.contains(&core) {
        return Err(SpawnError::CoreNotAllowed { core, allowed });
    }
    let (handle, mailbox) = mailbox(limits::COMMAND_QUEUE).map_err(|error| SpawnError::Mailbox { worker, error })?;
    let (ready, is_ready) = thread_channel::sync_channel(1);
    let thread = executor(&config)
        .spawn(move || async move {
            // Where that is not allowed, the worker takes its turn like everybody else.
            let goes_first = priority::renice(priority::MEDIA);
            let opened = guarded(|| Core::open(config, mailbox, events));
            let mut opened = match opened {
                Ok(Ok(opened)) => opened,
                Ok(Err(error)) => return drop(ready.send(Err(SpawnError::Ring { worker, core, error }))),
                Err(message) => return drop(ready.send(Err(SpawnError::Executor { worker, core, message }))),
            };
            // Fails only where the starter itself has gone, and with it everybody who could care.
            let _ = ready.send(Ok(goes_first));
            let result = guarded(move || opened.run()).unwrap_or_else(|message| Err(WorkerError::Panicked(message)));
            let _ = exits.try_send(Exit { worker, core, result });
        })
        .map_err(|error| SpawnError::Executor { worker, core, message: error.to_string() })?;
    match is_ready.recv() {
        Ok(Ok(goes_first)) => Ok(Worker { handle: Handle { mailbox: handle }, thread, goes_first }),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            let message = thread.join().err().map_or_else(|| "it ended at once".to_owned(), |error| error.to_string());
            Err(SpawnError::Executor { worker, core, message })
        }
    }
}

/// The smallest executor that glommio makes: the worker uses none of its rings, so they get 64 KiB (its least)
/// and not 10 MiB, and its preemption timer, which would interrupt a wait, never fires.
fn executor(config: &WorkerConfig) -> LocalExecutorBuilder {
    LocalExecutorBuilder::new(Placement::Fixed(config.core))
        .name(&format!("worker-{}", config.worker + 1))
        .io_memory(64 << 10)
        .ring_depth(8)
        .preempt_timer(Duration::from_secs(365 * 24 * 3600))
}

impl Worker {
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Whether the kernel lets its thread go before others on its core.
    pub fn goes_first(&self) -> bool {
        self.goes_first
    }

    /// Gives up the starter's handle and waits for the thread, which ends when the other handles are gone too.
    pub fn join(self) {
        drop(self.handle);
        // How it ended has been sent as its `Exit`.
        let _ = self.thread.join();
    }
}

impl Handle {
    /// Queues a command and wakes the worker if it sleeps. Commands to a worker that has ended vanish; its
    /// [`Exit`] is on its way.
    pub fn send(&self, command: Command) -> Result<(), Full> {
        self.mailbox.send(Mail::Command(command)).map_err(|_| Full)
    }

    /// Asks for the worker's distributions since its start; the receiver fails where the worker has ended.
    pub fn histograms(&self) -> Result<oneshot::Receiver<Histograms>, Full> {
        let (reply, receiver) = oneshot::channel();
        self.mailbox.send(Mail::Histograms(reply)).map_err(|_| Full)?;
        Ok(receiver)
    }
}

enum Mail {
    Command(Command),
    Histograms(oneshot::Sender<Histograms>),
}

/// What the worker's thread owns.
struct Core {
    worker: usize,
    core: usize,
    ring: Ring,
    shard: Shard,
    mailbox: Mailbox<Mail>,
    events: mpsc::Sender<Event>,
    measure: Measure,
    gather_max: Duration,
    gather: Duration,
}

impl Core {
    fn open(mut config: WorkerConfig, mailbox: Mailbox<Mail>, events: mpsc::Sender<Event>) -> Result<Core, RingError> {
        let mut ring = Ring::open(config.ring, config.sockets)?;
        ring.listen(&mailbox);
        // Receiving begins here, before anybody is told of the ports.
        ring.wait(Some(Duration::ZERO))?;
        let now = Instant::now();
        config.shard.unix_time = clock::realtime();
        config.shard.ports = socket::ports(ring.sockets()).len() as u8;
        Ok(Core {
            worker: config.worker,
            core: config.core,
            ring,
            shard: Shard::new(config.shard, now),
            mailbox,
            events,
            measure: Measure::new(config.worker, now),
            gather_max: config.gather_max,
            gather: Duration::ZERO,
        })
    }

    /// Ticks until nobody can send commands any more.
    fn run(&mut self) -> Result<(), WorkerError> {
        let mut idle_since = Instant::now();
        while !self.mailbox.is_closed() {
            self.wait(idle_since)?;
            let now = Instant::now();
            self.tick(now)?;
            idle_since = Instant::now();
            self.measure.ticked(now, idle_since);
            if let Some(busy) = self.measure.take_busy() {
                self.gather = gather(busy, self.gather, self.gather_max);
                self.shard.set_gather(self.gather);
            }
        }
        Ok(self.ring.submit()?)
    }

    /// One turn: datagrams, what is due, commands, then everything that they want sent.
    fn tick(&mut self, start: Instant) -> Result<(), WorkerError> {
        let now = self.receive(start)?;
        if self.shard.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.shard.handle_timeout(now);
        }
        self.obey(now);
        self.shard.flush(now, &mut MeasuredOutbox { ring: &mut self.ring, measure: &mut self.measure });
        if self.measure.departing(self.shard.departed()) {
            self.ring.submit()?;
            self.measure.submitted(Instant::now());
        }
        self.report(now)
    }

    /// Submits what the tick left, and blocks until a datagram, a command or the shard's deadline.
    fn wait(&mut self, now: Instant) -> Result<(), WorkerError> {
        let at_most = self.shard.next_deadline().map(|deadline| deadline.saturating_duration_since(now));
        if at_most != Some(Duration::ZERO) && self.mailbox.park() {
            // Whoever waits for company when sending can wait for it when receiving, and wakes up less often.
            let linger = self.gather / LINGER_SHARE;
            match linger < LINGER_LEAST {
                true => self.ring.wait(at_most)?,
                false => {
                    self.ring.wait_for(limits::LINGER_COMPLETIONS, Some(at_most.map_or(linger, |at| at.min(linger))))?
                }
            }
            self.mailbox.unpark();
        } else {
            self.ring.wait(Some(Duration::ZERO))?;
        }
        Ok(())
    }

    /// Takes what has arrived. A drain that filled every slot is followed by another at once: what is behind goes on to its
    /// receivers in larger messages. Each has a time of its own, so that what comes during a long one is not taken for
    /// older than it is; returns that of the last.
    fn receive(&mut self, start: Instant) -> Result<Instant, WorkerError> {
        let (mut clocks, mut datagrams) = (Clocks::at(start), 0);
        for drain in 1.. {
            let (mut slots, now) = (0, clocks.now);
            while let Some(mut received) = self.ring.receive() {
                slots += 1;
                let (source, local) = (received.source(), received.local());
                let received_at = received.received_at().and_then(|stamp| clocks.stamped(stamp));
                for bytes in received.datagrams() {
                    datagrams += 1;
                    self.shard.handle_datagram(now, Datagram { source, local, bytes, received_at });
                }
            }
            // The clock is only read where there is more to take.
            if slots < limits::RECEIVE_SLOTS || drain == limits::DRAINS_PER_TICK || start.elapsed() >= limits::DRAINING
            {
                break;
            }
            self.ring.wait(Some(Duration::ZERO))?;
            clocks = Clocks::read();
        }
        self.measure.drained(datagrams);
        Ok(clocks.now)
    }

    fn obey(&mut self, now: Instant) {
        for _ in 0..limits::COMMANDS_PER_TICK {
            match self.mailbox.take() {
                Some(Mail::Command(command)) => self.shard.handle_command(now, command),
                // Fails where the asker no longer waits.
                Some(Mail::Histograms(reply)) => drop(reply.send(self.measure.histograms())),
                None => break,
            }
        }
    }

    fn report(&mut self, now: Instant) -> Result<(), WorkerError> {
        while let Some(mut event) = self.shard.poll_event() {
            if let Event::Reply { result: Ok(Reply::WorkerStats(stats)), .. } = &mut event {
                self.complete(now, stats);
            }
            self.events.try_send(event).map_err(|_| WorkerError::ControlPlaneStuck)?;
        }
        Ok(())
    }

    /// Adds to the shard's statistics what the worker and its ring know.
    fn complete(&mut self, now: Instant, stats: &mut WorkerStats) {
        stats.worker = self.worker + 1;
        stats.core = Some(self.core);
        stats.ports = socket::ports(self.ring.sockets());
        self.measure.fill(now, stats);
        let counters = self.ring.counters();
        stats.messages_sent = counters.messages_sent;
        stats.discards.extend([
            ("truncated", counters.truncated),
            ("unknown-family", counters.unknown_family),
            ("send-buffer-full", counters.send_buffer_full),
            ("device-queue-full", counters.device_queue_full),
            ("too-long", counters.too_long),
            ("unreachable", counters.unreachable),
            ("send-error", counters.other_send_errors),
        ]);
    }
}

/// How long media waits for company in the next moment, by what share of its core the thread used in the last one:
/// nothing up to 50 %, `most` from 80 % on. It rises within a few moments, before datagrams pile up, and falls within
/// seconds, because gathering lowers the share that it is chosen by.
fn gather(busy: f64, before: Duration, most: Duration) -> Duration {
    let wanted = most.mul_f64(((busy - GATHER_FROM) / (GATHER_FULL - GATHER_FROM)).clamp(0.0, 1.0));
    let gather = if wanted > before { (before + wanted) / 2 } else { (before * 15 + wanted) / 16 };
    // Less than a tick under load takes: no company would come.
    if gather < GATHER_LEAST { Duration::ZERO } else { gather }
}

const GATHER_FROM: f64 = 0.50;
const GATHER_FULL: f64 = 0.80;
const GATHER_LEAST: Duration = Duration::from_micros(200);
/// The part of what media may wait for company that a busy worker waits for a drain worth waking up for.
const LINGER_SHARE: u32 = 8;
/// Shorter waits would end more often with nothing than save a wake-up.
const LINGER_LEAST: Duration = Duration::from_micros(200);

/// Runs `work`; a panic becomes its message.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| panic_message(&*panic))
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a message").to_owned()
}

fn list(cores: &[usize]) -> String {
    cores.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::transport::dtls::Identity;
    use crate::uring::socket::SocketOptions;

    #[test]
    fn what_a_further_drain_takes_is_dated_by_that_drain() {
        let socket = Socket::bind("127.0.0.1:0".parse().unwrap(), SocketOptions::default()).unwrap();
        let (address, (_handle, mailbox)) = (socket.address(), mailbox(1).unwrap());
        let shard = ShardConfig {
            identity: Identity::generate(),
            seed: [7; 32],
            unix_time: Duration::ZERO,
            ports: 1,
            history_bytes: 1 << 20,
            hold: Duration::ZERO,
        };
        let (ring, sockets, gather_max) = (RingConfig::default(), vec![socket], Duration::ZERO);
        let config = WorkerConfig { worker: 0, core: 0, sockets, ring, shard, gather_max };
        let mut core = Core::open(config, mailbox, mpsc::channel(1).0).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut receive = |datagrams: u16| {
            (0..datagrams).for_each(|_| assert_eq!(sender.send_to(&[0x80; 20], address).unwrap(), 20));
            let start = Instant::now();
            // All of them, or as many as there are slots.
            let taken =
                |core: &Core| core.ring.counters().out_of_receive_slots > 0 || datagrams < limits::RECEIVE_SLOTS;
            for _ in 0..100 {
                core.ring.wait(Some(Duration::ZERO)).unwrap();
                if taken(&core) {
                    break;
                }
            }
            (start, core.receive(start).unwrap(), core.shard.counters().packets_received)
        };
        let (start, dated, received) = receive(3);
        assert_eq!((dated, received), (start, 3), "one drain has one time, which is the tick's");
        let (start, dated, received) = receive(limits::RECEIVE_SLOTS + 6);
        assert_eq!(received, 3 + u64::from(limits::RECEIVE_SLOTS) + 6);
        assert!(dated > start);
    }

    #[test]
    fn media_waits_for_company_only_where_cpu_is_scarce_and_never_longer_than_allowed() {
        let most = Duration::from_millis(5);
        let settled = |busy| (0..20).fold(Duration::ZERO, |before, _| gather(busy, before, most));
        let after_a_rush = |moments| (0..moments).fold(most, |before, _| gather(0.1, before, most));
        assert_eq!(settled(0.3), Duration::ZERO);
        assert_eq!(settled(0.5), Duration::ZERO);
        assert!((2_400..=2_500).contains(&settled(0.65).as_micros()), "{:?}", settled(0.65));
        assert!((4_990..=5_000).contains(&settled(1.0).as_micros()), "{:?}", settled(1.0));
        assert!((0..3).fold(Duration::ZERO, |before, _| gather(1.0, before, most)) > most * 3 / 4, "at once");
        assert!(after_a_rush(4) > most / 2, "a calm moment is not the end of a rush");
        assert_eq!(after_a_rush(80), Duration::ZERO);
        assert_eq!(gather(1.0, Duration::ZERO, Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn a_panic_becomes_the_message_that_main_prints() {
        assert_eq!(guarded(|| 7), Ok(7));
        assert_eq!(guarded(|| -> u8 { panic!("slot {} is lost", 3) }), Err("slot 3 is lost".to_owned()));
        assert_eq!(guarded(|| -> u8 { panic!("plain") }), Err("plain".to_owned()));
        assert_eq!(WorkerError::Panicked("plain".to_owned()).to_string(), "panicked: plain");
    }
}
