//! The clocks that need a system call: CPU time of a thread, the wall clock of kernel timestamps.
//!
//! The worker uses them once per tick or per second, the benches around what they measure.

use std::time::{Duration, Instant};

/// CPU time, user and system, that the calling thread has used since it started.
pub fn thread_cpu() -> Duration {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// CPU time, user and system, that the whole process has used since it started.
pub fn process_cpu() -> Duration {
    read(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// Time since the Unix epoch, on the clock that the kernel stamps received datagrams with.
pub fn realtime() -> Duration {
    read(libc::CLOCK_REALTIME)
}

/// One moment on both clocks: the one that Ringside reckons with, and the one of the kernel's stamps. They agree on how long
/// ago something was.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    pub now: Instant,
    unix_now: Duration,
}

impl Clocks {
    pub fn read() -> Clocks {
        Clocks::at(Instant::now())
    }

    /// `now` was read just before.
    pub fn at(now: Instant) -> Clocks {
        Clocks { now, unix_now: realtime() }
    }

    /// When the kernel stamped a datagram; `now` where that was after these clocks were read.
    pub fn stamped(&self, stamp: Duration) -> Option<Instant> {
        self.now.checked_sub(self.unix_now.saturating_sub(stamp))
    }
}

/// How often the calling thread has gone to sleep by itself since it started. A thread that waits without
/// polling adds one for each time that something wakes it.
pub fn voluntary_switches() -> u64 {
    // SAFETY: all-zero bytes are a valid `rusage`, a struct of integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live, writable `rusage`.
    let result = unsafe { libc::getrusage(libc::RUSAGE_THREAD, &mut usage) };
    assert_eq!(result, 0, "RUSAGE_THREAD exists since Linux 2.6.26");
    usage.ru_nvcsw as u64
}

fn read(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live, writable `timespec`.
    let result = unsafe { libc::clock_gettime(clock, &mut time) };
    assert_eq!(result, 0, "the clock exists on every Linux that has io_uring");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows_in_the_cpu_time_of_the_thread_that_did_it() {
        let before = thread_cpu();
        let sum = std::hint::black_box((0..200_000u64).map(std::hint::black_box).sum::<u64>());
        assert!(sum > 0);
        assert!(thread_cpu() > before);
        assert!(process_cpu() > Duration::ZERO);
    }

    #[test]
    fn a_stamp_is_as_old_on_either_clock_and_never_of_the_future() {
        let (now, unix_now, age) = (Instant::now(), Duration::from_secs(1_700_000_000), Duration::from_millis(7));
        let clocks = Clocks { now, unix_now };
        assert_eq!(clocks.stamped(unix_now - age), Some(now - age));
        assert_eq!(clocks.stamped(unix_now + age), Some(now));
    }

    #[test]
    fn the_wall_clock_is_past_the_year_2020() {
        assert!(realtime() > Duration::from_secs(1_577_836_800));
    }
}
