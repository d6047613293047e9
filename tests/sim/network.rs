//! Virtual links: every datagram between a client and the shard passes here, in one seeded order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// What a link does to the datagrams of one direction.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    pub delay: Duration,
    /// Up to so much more, drawn for each datagram: reorders when it exceeds their distance.
    pub jitter: Duration,
    /// Share of datagrams that are lost, 0 to 1.
    pub loss: f64,
    /// How long everything is lost once loss begins, on average (Gilbert's model); zero: each by its own fate.
    pub burst: Duration,
    /// Share that arrives twice.
    pub duplication: f64,
    /// Bits per second that fit through, with a queue of 300 ms in front; `None` is no limit.
    pub rate_bps: Option<u64>,
    /// Bytes of that queue, where it is another.
    pub queue_bytes: Option<u64>,
}

impl Default for Link {
    fn default() -> Self {
        Link {
            delay: Duration::from_millis(10),
            jitter: Duration::ZERO,
            loss: 0.0,
            burst: Duration::ZERO,
            duplication: 0.0,
            rate_bps: None,
            queue_bytes: None,
        }
    }
}

/// Longest time that a datagram may wait in front of a limited link.
const QUEUE: Duration = Duration::from_millis(300);

pub struct Flight {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
}

pub struct Network {
    flights: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    cargo: Vec<Option<Flight>>,
    count: u64,
    rng: StdRng,
}

/// When a limited link is free again, and whether it loses a burst.
#[derive(Clone, Copy, Debug, Default)]
pub struct Busy {
    free: Option<Instant>,
    in_burst: bool,
    /// Datagrams that the queue in front of it had no room for.
    pub overflowed: u64,
    /// When the burst, or the calm between two, ends.
    turns: Option<Instant>,
}

impl Network {
    pub fn new(seed: u64) -> Self {
        Network { flights: BinaryHeap::new(), cargo: Vec::new(), count: 0, rng: StdRng::seed_from_u64(seed) }
    }

    pub fn send(&mut self, now: Instant, link: Link, busy: &mut Busy, flight: Flight) {
        if self.loses(now, link, busy) {
            return;
        }
        let mut leaves = now;
        if let Some(rate) = link.rate_bps {
            let start = busy.free.map_or(now, |free| free.max(now));
            let bytes = link.queue_bytes.map(|bytes| Duration::from_secs_f64(bytes as f64 * 8.0 / rate as f64));
            if start - now > bytes.unwrap_or(QUEUE) {
                busy.overflowed += 1;
                return;
            }
            leaves = start + Duration::from_secs_f64((flight.bytes.len() + 28) as f64 * 8.0 / rate as f64);
            busy.free = Some(leaves);
        }
        let copies = 1 + u32::from(self.rng.random::<f64>() < link.duplication);
        for _ in 0..copies {
            let extra = link.jitter.mul_f64(self.rng.random::<f64>());
            let at = leaves + link.delay + extra;
            self.cargo.push(Some(Flight { from: flight.from, to: flight.to, bytes: flight.bytes.clone() }));
            self.flights.push(Reverse((at, self.count, self.cargo.len() - 1)));
            self.count += 1;
        }
    }

    fn loses(&mut self, now: Instant, link: Link, busy: &mut Busy) -> bool {
        if link.burst.is_zero() || link.loss == 0.0 {
            return self.rng.random::<f64>() < link.loss;
        }
        let mut turns = *busy.turns.get_or_insert(now);
        while turns <= now {
            busy.in_burst = !busy.in_burst;
            let mean = if busy.in_burst { link.burst } else { link.burst.mul_f64((1.0 - link.loss) / link.loss) };
            turns += mean.mul_f64(-(1.0 - self.rng.random::<f64>()).ln());
        }
        busy.turns = Some(turns);
        busy.in_burst
    }

    pub fn next_arrival(&self) -> Option<Instant> {
        self.flights.peek().map(|Reverse((at, _, _))| *at)
    }

    pub fn arrival(&mut self, now: Instant) -> Option<Flight> {
        let Reverse((at, _, index)) = *self.flights.peek()?;
        if at > now {
            return None;
        }
        self.flights.pop();
        self.cargo[index].take()
    }
}
