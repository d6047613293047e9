//! One io_uring with everything that a worker waits for: datagrams, sends, its mailbox, a deadline.
//!
//! Driven by one thread. [`Ring::wait`] is the only place that blocks. All requests are tied to memory that
//! the ring owns and that it unmaps only after the kernel has let go of it.

use std::io;
use std::marker::PhantomData;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use io_uring::{EnterFlags, IoUring, opcode, squeue, types};

use super::mailbox::Mailbox;
use super::probe;
use super::recv::{Received, Receiver};
use super::send::Sender;
use super::socket::Socket;
use crate::limits;
use crate::shard::outbox::{Destination, Outbox};

/// A worker's ring: its sockets, receive slots and send slots.
pub struct Ring {
    uring: IoUring,
    receiver: Receiver,
    sender: Sender,
    sockets: Vec<Socket>,
    alarm: Option<Alarm>,
    counters: Counters,
    submit_batch: usize,
    /// Sends that the kernel has not been told of.
    unsubmitted: usize,
    /// Since when the kernel has been handed sends without what arrived being taken into the receive slots.
    handing_since: Option<Instant>,
    /// The kernel takes requests from the thread that opened the ring only (`SINGLE_ISSUER`).
    not_send: PhantomData<*const ()>,
}

/// Sizes of a ring's pools.
#[derive(Clone, Copy, Debug)]
pub struct RingConfig {
    /// A power of two.
    pub receive_slots: u16,
    pub send_slots: u16,
    /// Sends that wait for each other before one system call takes them all.
    pub submit_batch: usize,
}

impl Default for RingConfig {
    fn default() -> Self {
        RingConfig {
            receive_slots: limits::RECEIVE_SLOTS,
            send_slots: limits::SEND_SLOTS,
            submit_batch: limits::SUBMIT_BATCH,
        }
    }
}

/// The ring does not work, or no longer: the worker has to end.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    #[error("cannot set up io_uring: {step}: {error}")]
    Setup { step: &'static str, error: io::Error },
    #[error("cannot wait in io_uring: {0}")]
    Enter(io::Error),
    #[error("cannot receive on UDP port {port}: {error}")]
    Receive { port: u16, error: io::Error },
    #[error("cannot read the mailbox's eventfd: {0}")]
    Mailbox(io::Error),
}

/// What a ring did since it was opened. A message is what one system call would carry: a datagram or a train.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub messages_received: u64,
    pub datagrams_received: u64,
    pub bytes_received: u64,
    /// Datagrams or trains that did not fit their slot.
    pub truncated: u64,
    pub unknown_family: u64,
    /// How often receiving stopped until slots came back; the datagrams wait in the socket meanwhile.
    pub out_of_receive_slots: u64,
    pub receive_errors: u64,

    pub messages_sent: u64,
    pub datagrams_sent: u64,
    pub bytes_sent: u64,
    /// Runs that the kernel or the device would not cut; they went out datagram by datagram.
    pub segmentation_refused: u64,
    /// Messages lost because the socket's send buffer was full (EAGAIN).
    pub send_buffer_full: u64,
    /// Messages lost because the device's queue was full (ENOBUFS) or the kernel had no memory.
    pub device_queue_full: u64,
    /// Messages longer than the path's MTU.
    pub too_long: u64,
    /// Messages to where there is no route, or of a family that the socket does not speak.
    pub unreachable: u64,
    pub other_send_errors: u64,
}

impl Counters {
    pub(super) fn count_send_error(&mut self, code: i32) {
        *match code {
            libc::EAGAIN => &mut self.send_buffer_full,
            libc::ENOBUFS | libc::ENOMEM => &mut self.device_queue_full,
            libc::EMSGSIZE => &mut self.too_long,
            libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EADDRNOTAVAIL | libc::ENETDOWN => {
                &mut self.unreachable
            }
            _ => &mut self.other_send_errors,
        } += 1;
    }
}

/// The pending read of a mailbox's eventfd.
struct Alarm {
    fd: RawFd,
    /// Where the kernel writes the number of wake-ups.
    count: Box<u64>,
    armed: bool,
}

impl Ring {
    /// Opens a ring over `sockets` (at most 256; their indices are the `local` of destinations and received
    /// datagrams). Receiving begins with the first [`wait`](Self::wait), on the thread that calls this.
    pub fn open(config: RingConfig, sockets: Vec<Socket>) -> Result<Ring, RingError> {
        let failed = |step| move |error| RingError::Setup { step, error };
        assert!(sockets.len() <= 256, "a local is a byte");
        let requests = usize::from(config.send_slots) + sockets.len() + 1;
        let completions = requests + usize::from(config.receive_slots) + sockets.len();
        let uring = probe::builder()
            .setup_cqsize(completions.next_power_of_two() as u32)
            .build(requests.next_power_of_two() as u32)
            .map_err(failed("io_uring_setup"))?;
        let fds: Vec<RawFd> = sockets.iter().map(Socket::fd).collect();
        if !fds.is_empty() {
            uring.submitter().register_files(&fds).map_err(failed("register the sockets"))?;
        }
        let receiver =
            Receiver::new(config.receive_slots, sockets.len(), &uring).map_err(failed("register the receive slots"))?;
        let sender = Sender::new(config.send_slots).map_err(failed("map the send slots"))?;
        Ok(Ring {
            uring,
            receiver,
            sender,
            sockets,
            alarm: None,
            counters: Counters::default(),
            submit_batch: config.submit_batch.max(1),
            unsubmitted: 0,
            handing_since: None,
            not_send: PhantomData,
        })
    }

    /// Messages to `mailbox` end a wait from here on.
    pub fn listen<T>(&mut self, mailbox: &Mailbox<T>) {
        self.alarm = Some(Alarm { fd: mailbox.event_fd(), count: Box::new(0), armed: false });
    }

    /// Submits what was committed, then blocks until something has happened or `at_most` has passed (`None`:
    /// for ever; zero: not at all). Afterwards [`receive`](Self::receive) yields what arrived.
    pub fn wait(&mut self, at_most: Option<Duration>) -> Result<(), RingError> {
        self.wait_for(1, at_most)
    }

    /// The same, but blocks until so much has happened.
    pub fn wait_for(&mut self, completions: u32, at_most: Option<Duration>) -> Result<(), RingError> {
        self.arm();
        if self.receiver.has_pending() || at_most == Some(Duration::ZERO) || !self.uring.completion().is_empty() {
            self.enter(0, None)?;
        } else {
            self.enter(completions, at_most)?;
        }
        self.reap()
    }

    /// Lends out the next datagram or train of those that had arrived by the last wait.
    pub fn receive(&mut self) -> Option<Received<'_>> {
        self.receiver.next(&mut self.counters)
    }

    /// Hands the kernel what was committed, without waiting for anything.
    pub fn submit(&mut self) -> Result<(), RingError> {
        if self.unsubmitted > 0 {
            self.hand_over()?;
        }
        self.reap()
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    pub fn sockets(&self) -> &[Socket] {
        &self.sockets
    }

    /// Queues the requests that should always be in the kernel and are not.
    fn arm(&mut self) {
        while let Some(entry) = self.receiver.arm_next() {
            self.push(&entry);
        }
        if let Some(alarm) = self.alarm.as_mut().filter(|alarm| !alarm.armed) {
            alarm.armed = true;
            let count: *mut u64 = &raw mut *alarm.count;
            let read = opcode::Read::new(types::Fd(alarm.fd), count.cast(), 8).build();
            self.push(&read.user_data(Tag::Alarm.pack()));
        }
    }

    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: requests come from `arm_next`, `commit` and the alarm; all point into memory that the ring owns,
        // keeps in place, and unmaps only after it has cancelled every request (`drop`).
        let pushed = unsafe { self.uring.submission().push(entry) };
        // The queue has room for every send slot, one request per socket and the alarm.
        assert!(pushed.is_ok(), "more requests than slots");
    }

    fn enter(&mut self, want: u32, at_most: Option<Duration>) -> Result<(), RingError> {
        let queued = self.uring.submission().len() as u32;
        let submitter = self.uring.submitter();
        let result = match at_most.filter(|_| want > 0) {
            Some(at_most) => {
                let timespec = types::Timespec::from(at_most);
                submitter.submit_with_args(want as usize, &types::SubmitArgs::new().timespec(&timespec))
            }
            // SAFETY: no argument is passed, and the flags are those of a plain wait.
            None => unsafe { submitter.enter::<libc::sigset_t>(queued, want, EnterFlags::GETEVENTS.bits(), None) },
        };
        (self.unsubmitted, self.handing_since) = (0, None);
        tolerate(result)
    }

    /// Submits without running the kernel's side of completions: received datagrams can wait for the tick's end. In a long
    /// tick they are taken into the slots meanwhile, because a socket's buffer may hold but a few milliseconds of them.
    fn hand_over(&mut self) -> Result<(), RingError> {
        let queued = self.uring.submission().len() as u32;
        let now = Instant::now();
        let since = self.handing_since.get_or_insert(now);
        let is_long = now.saturating_duration_since(*since) >= limits::RECEIVE_EVERY;
        let flags = if is_long { EnterFlags::GETEVENTS } else { EnterFlags::empty() };
        if is_long {
            *since = now;
        }
        // SAFETY: no argument is passed.
        let result = unsafe { self.uring.submitter().enter::<libc::sigset_t>(queued, 0, flags.bits(), None) };
        self.unsubmitted = 0;
        tolerate(result)
    }

    /// Sorts all completions to whom they belong.
    fn reap(&mut self) -> Result<(), RingError> {
        let mut failed = None;
        for entry in self.uring.completion() {
            match Tag::unpack(entry.user_data()) {
                Tag::Receive(local) => {
                    if let Err(error) = self.receiver.completed(local, &entry, &mut self.counters) {
                        let port = self.sockets[usize::from(local)].address().port();
                        failed = Some(RingError::Receive { port, error });
                    }
                }
                Tag::Send(slot) => self.sender.completed(slot, entry.result(), &mut self.counters),
                Tag::Alarm => {
                    if let Some(alarm) = &mut self.alarm {
                        alarm.armed = false;
                    }
                    if entry.result() < 0 && -entry.result() != libc::EINTR && -entry.result() != libc::ECANCELED {
                        failed = Some(RingError::Mailbox(io::Error::from_raw_os_error(-entry.result())));
                    }
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

impl Outbox for Ring {
    fn reserve(&mut self, destination: Destination, capacity: usize) -> Option<&mut [u8]> {
        if !self.sender.has_room() {
            // A failure shows again in the next wait, which reports it.
            let _ = self.submit();
        }
        self.sender.reserve(destination, capacity)
    }

    fn commit(&mut self, len: usize, segment: usize) {
        let Some(entry) = self.sender.commit(len, segment, &self.sockets, &mut self.counters) else { return };
        self.push(&entry);
        self.unsubmitted += 1;
        if self.unsubmitted >= self.submit_batch {
            // As in `reserve`.
            let _ = self.submit();
        }
    }
}

impl Drop for Ring {
    /// The kernel must have let go of the slots before they are unmapped.
    fn drop(&mut self) {
        let cancelled = self.uring.submitter().register_sync_cancel(None, types::CancelBuilder::any());
        let nothing_left = match &cancelled {
            Ok(()) => true,
            Err(error) => error.raw_os_error() == Some(libc::ENOENT),
        };
        if !nothing_left {
            self.receiver.leak();
            self.sender.leak();
            if let Some(alarm) = self.alarm.take() {
                Box::leak(alarm.count);
            }
        }
    }
}

/// Whom a completion belongs to, as the 64 bits that travel with its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    Receive(u8),
    Send(u16),
    Alarm,
}

impl Tag {
    pub(super) fn pack(self) -> u64 {
        match self {
            Tag::Alarm => 0,
            Tag::Receive(local) => 1 << 32 | u64::from(local),
            Tag::Send(slot) => 2 << 32 | u64::from(slot),
        }
    }

    fn unpack(data: u64) -> Tag {
        match data >> 32 {
            1 => Tag::Receive(data as u8),
            2 => Tag::Send(data as u16),
            _ => Tag::Alarm,
        }
    }
}

/// What a wait may answer without being broken: the deadline, a signal, completions to be taken first.
fn tolerate(result: io::Result<usize>) -> Result<(), RingError> {
    match result {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error() {
            Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
            _ => Err(RingError::Enter(error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_survives_the_kernel() {
        for tag in [Tag::Alarm, Tag::Receive(0), Tag::Receive(255), Tag::Send(0), Tag::Send(u16::MAX)] {
            assert_eq!(Tag::unpack(tag.pack()), tag);
        }
    }
}
