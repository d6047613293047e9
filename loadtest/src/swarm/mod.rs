//! All participants of a load test, driven by one thread: due tasks first, then whatever sockets have to say. Phases:
//! everybody joins, a warm-up, the measurement, a moment for the last packets, good-bye.

mod incoming;
mod outgoing;
mod participants;
mod reports;
pub mod selftest;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;

use crate::client::dtls::Identity;
use crate::client::sending::PACKET_BYTES_MAX;
use crate::client::signaling::{Direction, Offer, Signaling};
use crate::client::transport::Transport;
use crate::clock::Clock;
use crate::measure::{Joins, Measures, SecondStart, StreamSum, Totals};
use crate::media::source::Draft;
use crate::media::turns::Turns;
use crate::proc::{Usage, Watched};
use crate::random::Random;
use crate::scenario::Scenario;
use crate::schedule::{Nanos, Schedule};
use crate::sys::{self, ClientSockets, Epoll, Receiver};
use participants::Participant;

const SECOND: Nanos = 1_000_000_000;
/// Time for packets on their way when the measurement ends.
const DRAIN: Nanos = 300_000_000;
/// What is due to be sent and what has arrived take turns of so long where there is much of both. A load test that is late
/// goes on receiving: what it left in its sockets would be lost and asked for again, and make it later still.
const TURN: Nanos = 1_000_000;
/// Datagrams of one GSO run that we send.
const RUN_PACKETS: usize = 16;
/// Beyond so many packets per second sockets are looked at by the clock instead of packet by packet.
const BUSY_PACKETS: u64 = 10_000;
const PACE_SECONDS: usize = 5;
const BUSY_PACE: Nanos = 400_000;
/// The same beyond ten times as many: several datagrams wait in each socket, and are taken with one call.
const BUSIEST_PACE: Nanos = 2_000_000;
/// Tasks may be late by so much where sockets are looked at by the clock.
const TASK_PACE: Nanos = 100_000;
const LONGEST_WAIT: Duration = Duration::from_millis(100);
const KEEP_ALIVE: Nanos = 20 * SECOND;
/// People who join during the measurement should be connected after this.
const JOIN_PATIENCE: Nanos = 5 * SECOND;
/// A join that takes longer than this failed.
const JOIN_TIMEOUT: Nanos = 20 * SECOND;

/// Where the load goes and who is watched meanwhile.
pub struct Target {
    pub server: SocketAddr,
    pub protocol: Protocol,
    pub watched: Watched,
    pub sockets: ClientSockets,
    /// Makes room names of one run differ from another's.
    pub room_prefix: String,
}

/// How to speak with a server.
pub struct Protocol {
    /// WebSocket subprotocol.
    pub name: &'static str,
    /// Path and query for a room and a participant's name.
    pub path: fn(room: &str, name: &str) -> String,
    pub signaling: fn(room: &str, name: &str, Offer) -> Box<dyn Signaling>,
}

/// What a run yields.
pub struct Outcome {
    pub measures: Measures,
    /// The measured time.
    pub seconds: f64,
    pub totals: Totals,
    pub streams: StreamSum,
    /// Pictures that stood still when the measurement ended.
    pub stalled: u64,
    /// Of the whole run: most join before the measurement.
    pub joined: u64,
    pub join_failures: u64,
    /// Use of the server's CPU in the measured time, with its memory at the end.
    pub server: Option<Usage>,
    pub server_resident_at_start: u64,
    pub own: Usage,
    pub profile: &'static str,
    pub participants: usize,
    pub clock: Clock,
    pub measured_from: Nanos,
}

/// Called once per second with the line of the timeline that just ended.
pub type OnSecond<'a> = &'a mut dyn FnMut(&crate::measure::Second, Phase, &Totals);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Joining,
    WarmUp,
    Measuring,
    Draining,
}

#[derive(Clone, Copy)]
enum Task {
    Join { room: usize, index: usize },
    GiveUpJoin { participant: usize },
    Frame { transport: usize, sending: usize },
    Ice { transport: usize },
    Dtls { transport: usize },
    Report { transport: usize },
    Feedback { transport: usize },
    Repair { transport: usize },
    Turn { room: usize, chair: usize },
    Churn,
    KeepAlive,
    Listen { participant: usize },
    Second,
    WarmUp,
    Measure,
    StopMeasuring,
    Finish,
}

/// What a readiness token is of.
enum Token {
    Transport(usize),
    Wire(usize),
}

const WIRE_BIT: u64 = 1 << 32;

impl Token {
    fn to_u64(&self) -> u64 {
        match self {
            Token::Transport(place) => *place as u64,
            Token::Wire(place) => WIRE_BIT | *place as u64,
        }
    }

    fn of(token: u64) -> Token {
        let place = (token & (WIRE_BIT - 1)) as usize;
        if token & WIRE_BIT == 0 { Token::Transport(place) } else { Token::Wire(place) }
    }
}

pub struct Swarm {
    scenario: Scenario,
    target: Target,
    clock: Clock,
    epoll: Epoll,
    schedule: Schedule<Task>,
    /// Transports whose sockets are looked at one by one, outside of the epoll: where most of them have something each time,
    /// that is cheaper, and the server does not pay for waking anybody up, which elsewhere happens on other machines.
    unwatched: Vec<usize>,
    /// Never shrinks: a place names one participant for ever.
    participants: Vec<Participant>,
    transports: Vec<Option<Transport>>,
    /// Sources that were ever made.
    sources: u32,
    turns: Turns,
    identity: Identity,
    random: Random,
    measures: Measures,
    phase: Phase,
    profile: &'static str,
    second_start: SecondStart,
    started: Option<Started>,
    stopped: Option<Started>,
    stalled: u64,
    finished: bool,
    scratch: Vec<u8>,
    drafts: Vec<Draft>,
}

/// Counters when the measurement began or ended.
#[derive(Clone, Copy)]
struct Started {
    at: Nanos,
    totals: Totals,
    usages: [Usage; 2],
    streams: StreamSum,
}

impl Swarm {
    pub fn new(scenario: Scenario, target: Target) -> anyhow::Result<Swarm> {
        let clock = Clock::start();
        let chairs = scenario.microphone.as_ref().map_or(1, |microphone| microphone.speakers);
        let turn_s = scenario.microphone.as_ref().map_or(6.0, |microphone| microphone.turn_s);
        let turns = Turns::new(scenario.seed, scenario.rooms, chairs, scenario.senders(), turn_s);
        let mut schedule = Schedule::default();
        let total = scenario.rooms * scenario.participants;
        let before = total - scenario.joins_measured;
        let joining = |people: usize| (people as f64 / scenario.joins_per_second * 1e9) as Nanos;
        let joined = joining(before);
        let measure_at = joined + (scenario.warmup_s * 1e9) as Nanos;
        for k in 0..total {
            let at = if k < before { joining(k) } else { measure_at + joining(k - before) };
            schedule.push(at, Task::Join { room: k % scenario.rooms, index: k / scenario.rooms });
        }
        let stop_at = measure_at + (scenario.duration_s * 1e9) as Nanos;
        schedule.push(joined, Task::WarmUp);
        schedule.push(measure_at, Task::Measure);
        schedule.push(stop_at, Task::StopMeasuring);
        schedule.push(stop_at + DRAIN, Task::Finish);
        schedule.push(SECOND, Task::Second);
        schedule.push(KEEP_ALIVE, Task::KeepAlive);
        for room in 0..scenario.rooms {
            for chair in 0..turns.chairs() {
                schedule.push(joined, Task::Turn { room, chair });
            }
        }
        if scenario.churn_per_minute > 0.0 {
            schedule.push(joined, Task::Churn);
        }
        Ok(Swarm {
            random: Random::new(scenario.seed, 0x0073_7761_726d),
            scenario,
            target,
            clock,
            epoll: Epoll::new().context("epoll")?,
            schedule,
            unwatched: Vec::new(),
            participants: Vec::new(),
            transports: Vec::new(),
            sources: 0,
            turns,
            identity: Identity::generate()?,
            measures: Measures::default(),
            phase: Phase::Joining,
            profile: "",
            second_start: SecondStart::default(),
            started: None,
            stopped: None,
            stalled: 0,
            finished: false,
            scratch: vec![0; PACKET_BYTES_MAX * (RUN_PACKETS + 1)],
            drafts: Vec::new(),
        })
    }

    /// Runs to the end of the scenario.
    pub fn run(mut self, on_second: OnSecond<'_>) -> anyhow::Result<Outcome> {
        let mut receiver = Receiver::default();
        let mut ready = Vec::new();
        let mut polled_at = 0;
        sys::sleep_precisely();
        self.second_start.usages = self.usages();
        while !self.finished {
            let now = self.perform_due(on_second);
            let next_task = self.schedule.next_at().unwrap_or(Nanos::MAX);
            let pace = self.pace();
            if now < polled_at + pace {
                // Receive times are the kernel's, so looking later changes no latency, and a server whose packets wake
                // nobody up pays for forwarding only.
                if next_task > now {
                    let until = next_task.max(now + TASK_PACE).min(polled_at + pace);
                    std::thread::sleep(Duration::from_nanos(until - now));
                }
                continue;
            }
            polled_at = now;
            let wait = if pace > 0 { 0 } else { next_task.saturating_sub(now) };
            self.epoll.wait(&mut ready, Duration::from_nanos(wait).min(LONGEST_WAIT)).context("epoll")?;
            let mut turn = now;
            let unwatched = std::mem::take(&mut self.unwatched);
            for at in &unwatched {
                self.receive_datagrams(*at, &mut receiver);
            }
            self.unwatched = unwatched;
            for one in &ready {
                match Token::of(one.token) {
                    Token::Transport(transport) => self.receive_datagrams(transport, &mut receiver),
                    Token::Wire(participant) => self.listen(participant),
                }
                // A handshake or a message full of consumers takes a millisecond or two, and many may be ready: media that
                // is due meanwhile must not wait for all of them.
                let now = self.clock.now();
                if now >= turn + TURN && self.schedule.next_at().is_some_and(|at| at < now) {
                    turn = self.perform_due(on_second);
                }
            }
        }
        let streams = self.stream_sum(self.clock.now());
        self.part();
        self.outcome(&streams)
    }

    /// Does what is due, for one turn at most, and says what time it is then.
    fn perform_due(&mut self, on_second: OnSecond<'_>) -> Nanos {
        let mut now = self.clock.now();
        let turn = now;
        while now < turn + TURN {
            let Some((due, task)) = self.schedule.pop_due(now) else { break };
            self.perform(due, task, now, on_second);
            now = self.clock.now();
        }
        now
    }

    /// Time between two looks at the sockets: none while little comes, so that an idle test sleeps in the kernel. By the
    /// busiest of the last seconds, for where the test itself is late, little comes for that reason alone.
    fn pace(&self) -> Nanos {
        let seconds = self.measures.seconds.iter().rev().take(PACE_SECONDS);
        match seconds.map(|second| second.received_packets).max().unwrap_or(0) {
            ..=BUSY_PACKETS => 0,
            packets if packets < 10 * BUSY_PACKETS => BUSY_PACE,
            _ => BUSIEST_PACE,
        }
    }

    /// Takes the sockets of receivers out of the epoll while very much comes, and puts them back when it does not.
    fn choose_watched(&mut self) -> anyhow::Result<()> {
        if self.pace() < BUSIEST_PACE {
            for at in self.unwatched.drain(..) {
                if let Some(transport) = &self.transports[at] {
                    self.epoll.watch_readable(&transport.socket, Token::Transport(at).to_u64())?;
                }
            }
            return Ok(());
        }
        self.unwatched.retain(|at| self.transports[*at].is_some());
        let newest = self.unwatched.last().map_or(0, |at| at + 1);
        for (at, transport) in self.transports.iter().enumerate().skip(newest) {
            if let Some(transport) = transport.as_ref().filter(|one| one.direction == Direction::Receive) {
                self.epoll.unwatch(&transport.socket)?;
                self.unwatched.push(at);
            }
        }
        Ok(())
    }

    fn perform(&mut self, due: Nanos, task: Task, now: Nanos, on_second: OnSecond<'_>) {
        match task {
            Task::Join { room, index } => self.join(room, index, due),
            Task::GiveUpJoin { participant } => self.give_up_join(participant),
            Task::Frame { transport, sending } => self.send_frames(transport, sending, now),
            Task::Ice { transport } => self.check(transport, now),
            Task::Dtls { transport } => self.handshake_timeout(transport, now),
            Task::Report { transport } => self.report(transport, due, now),
            Task::Feedback { transport } => self.feedback(transport, due),
            Task::Repair { transport } => self.repair(transport, now),
            Task::Turn { room, chair } => {
                let lasts = self.turns.pass_on(room, chair);
                self.schedule.push(due + lasts, task);
                if chair == 0 && self.scenario.view.speaker {
                    self.rearrange_room(room);
                }
            }
            Task::Churn => self.churn(due),
            Task::KeepAlive => {
                self.keep_alive();
                self.schedule.push(due + KEEP_ALIVE, task);
            }
            Task::Listen { participant } => self.listen(participant),
            Task::Second => {
                self.end_second(now, on_second);
                if let Err(error) = self.choose_watched() {
                    self.measures.fail(format!("epoll: {error:#}"));
                }
                self.schedule.push(due + SECOND, task);
            }
            Task::WarmUp => self.phase = Phase::WarmUp,
            Task::Measure => self.measure(now),
            Task::StopMeasuring => {
                self.phase = Phase::Draining;
                self.note_unconnected(now, JOIN_PATIENCE, "5 s after they were due");
                let streams = self.transports.iter_mut().flatten().flat_map(|transport| transport.streams.iter_mut());
                self.stalled = streams.map(|stream| u64::from(stream.end_at(now))).sum();
                self.stopped = Some(self.snapshot(now));
            }
            Task::Finish => self.finished = true,
        }
    }

    fn measure(&mut self, now: Nanos) {
        self.note_unconnected(now, 0, "when the measurement began: raise warmup_s or lower joins_per_second");
        if self.scenario.joins_measured > 0 {
            self.measures.join = Joins::default();
        }
        self.phase = Phase::Measuring;
        self.measures.forward.clear();
        self.measures.interval.clear();
        self.measures.lag.clear();
        self.started = Some(self.snapshot(now));
    }

    /// Says how many of those who were due this long ago are not connected.
    fn note_unconnected(&mut self, now: Nanos, patience: Nanos, when: &str) {
        let due = (0..self.participants.len()).filter(|place| self.participants[*place].due + patience <= now);
        let late: Vec<usize> = due.filter(|place| self.participants[*place].is_incomplete(&self.transports)).collect();
        for place in late.iter().filter(|_| patience > 0) {
            self.note_join_failure(*place);
        }
        let late = late.len();
        if late > 0 {
            self.measures.errors.push(format!("{late} participants were not connected {when}"));
        }
    }

    fn snapshot(&self, now: Nanos) -> Started {
        Started { at: now, totals: self.measures.now, usages: self.usages(), streams: self.stream_sum(now) }
    }

    fn stream_sum(&self, now: Nanos) -> StreamSum {
        let mut sum = self.measures.gone;
        for stream in self.transports.iter().flatten().flat_map(|transport| transport.streams.iter()) {
            sum.add(stream, now);
        }
        sum
    }

    /// Of the server and of the load test itself.
    fn usages(&self) -> [Usage; 2] {
        [self.target.watched.usage(), Usage::of_this_thread()]
    }

    fn end_second(&mut self, now: Nanos, on_second: OnSecond<'_>) {
        self.clock.sync();
        let usages = self.usages();
        let measured = self.phase == Phase::Measuring;
        let before = self.second_start;
        let second = self.measures.end_second(now, &before, measured, usages);
        self.second_start = SecondStart { at: now, totals: self.measures.now, usages };
        on_second(&second, self.phase, &self.measures.now);
    }

    fn outcome(self, streams: &StreamSum) -> anyhow::Result<Outcome> {
        let (started, stopped) = self.started.zip(self.stopped).context("the run ended before its measurement")?;
        // Packets on their way when the measurement ended are waited for; pictures are judged at its end.
        let (mut streams, at_end) = (streams.since(&started.streams), stopped.streams.since(&started.streams).counts);
        let counts = &mut streams.counts;
        (counts.frames, counts.freezes, counts.frozen_ns) = (at_end.frames, at_end.freezes, at_end.frozen_ns);
        let server = (!self.target.watched.is_empty()).then(|| stopped.usages[0].since(&started.usages[0]));
        Ok(Outcome {
            seconds: (stopped.at - started.at) as f64 / 1e9,
            totals: stopped.totals.since(&started.totals),
            streams,
            stalled: self.stalled,
            joined: self.measures.now.joined,
            join_failures: self.measures.now.join_failures,
            server,
            server_resident_at_start: started.usages[0].resident_bytes,
            own: stopped.usages[1].since(&started.usages[1]),
            profile: self.profile,
            participants: self.scenario.rooms * self.scenario.participants,
            clock: self.clock,
            measured_from: started.at,
            measures: self.measures,
        })
    }
}
