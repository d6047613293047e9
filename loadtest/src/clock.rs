//! The load test's clock: nanoseconds since its start, monotonic; and kernel receive times, which are of the real-time
//! clock, brought to it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::schedule::Nanos;

/// Seconds from the NTP era to the Unix era (RFC 3550 section 4).
const NTP_OFFSET_S: u64 = 2_208_988_800;

pub struct Clock {
    start: Instant,
    /// Real time of the start, as the last [`sync`](Self::sync) found it.
    real_start_ns: u64,
}

impl Clock {
    pub fn start() -> Clock {
        let mut clock = Clock { start: Instant::now(), real_start_ns: 0 };
        clock.sync();
        clock
    }

    pub fn now(&self) -> Nanos {
        self.start.elapsed().as_nanos() as Nanos
    }

    /// Follows steps and drift of the real-time clock; about once a second.
    pub fn sync(&mut self) {
        let (now, real) = (self.now(), unix_ns());
        self.real_start_ns = real - now;
    }

    /// A kernel receive time on this clock, never later than `now`.
    pub fn of_kernel(&self, real_ns: u64, now: Nanos) -> Nanos {
        real_ns.saturating_sub(self.real_start_ns).min(now)
    }

    pub fn instant(&self, at: Nanos) -> Instant {
        self.start + Duration::from_nanos(at)
    }

    pub fn of_instant(&self, at: Instant) -> Nanos {
        at.saturating_duration_since(self.start).as_nanos() as Nanos
    }

    /// NTP time (32.32 fixed point) of a moment.
    pub fn ntp(&self, at: Nanos) -> u64 {
        let real = self.real_start_ns + at;
        let seconds = real / 1_000_000_000 + NTP_OFFSET_S;
        let fraction = (real % 1_000_000_000) * (1 << 32) / 1_000_000_000;
        (seconds << 32) | fraction
    }

    pub fn real_start(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.real_start_ns)
    }
}

fn unix_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}
