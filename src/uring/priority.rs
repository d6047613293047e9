//! Who goes first where threads share a core: media before signaling, and before whatever else runs on the machine.

/// Of a worker: ten times the weight of an ordinary thread, because a worker that waits 3 ms for its own core makes 200
/// packets late.
pub const MEDIA: i32 = -10;
/// Of the thread that does the signaling: a third of an ordinary thread's weight, where there is not enough for all.
pub const SIGNALING: i32 = 5;

/// Gives the calling thread this nice value (19 is served last, -20 first). `false` where the kernel does not let it: below
/// its present value that takes CAP_SYS_NICE or RLIMIT_NICE.
pub fn renice(nice: i32) -> bool {
    // SAFETY: the call takes no pointers; on Linux a "process" of 0 is the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_may_always_step_back_and_only_itself_does() {
        let stepped_back = std::thread::spawn(|| {
            assert!(renice(7));
            nice()
        });
        assert_eq!(stepped_back.join().expect("no panic"), 7);
        assert_ne!(nice(), 7);
    }

    fn nice() -> i32 {
        // SAFETY: the call takes no pointers.
        unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
    }
}
