//! The bounded queue of commands from the control plane to a worker, and the eventfd that wakes it.
//!
//! The control plane holds [`Handle`]s and never waits; a full queue is an error that it turns into a refusal.
//! The worker holds the [`Mailbox`], looks into it once per tick and, before it blocks, says so: only then
//! does a sender pay for a system call, and of many senders only one.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};

/// The control plane's end: cheap to clone, usable from any thread, never blocks.
pub struct Handle<T> {
    queue: SyncSender<T>,
    wake: Arc<Wake>,
}

/// The queue holds as many messages as it may. The message comes back.
#[derive(Debug, thiserror::Error)]
#[error("the worker's command queue is full")]
pub struct Full<T>(pub T);

/// The worker's end.
pub struct Mailbox<T> {
    queue: Receiver<T>,
    /// Taken out of the queue by the look before parking, not yet handed out.
    next: Option<T>,
    wake: Arc<Wake>,
    closed: bool,
}

/// Makes a mailbox for at most `capacity` messages.
pub fn mailbox<T: Send>(capacity: usize) -> io::Result<(Handle<T>, Mailbox<T>)> {
    let (sender, receiver) = sync_channel(capacity);
    let wake = Arc::new(Wake { event: eventfd()?, parked: AtomicBool::new(false) });
    let handle = Handle { queue: sender, wake: wake.clone() };
    Ok((handle, Mailbox { queue: receiver, next: None, wake, closed: false }))
}

impl<T> Handle<T> {
    /// Queues a message and wakes the worker if it sleeps. A worker that has ended takes nothing: its
    /// messages are dropped here, because its end is reported on its own way.
    pub fn send(&self, message: T) -> Result<(), Full<T>> {
        match self.queue.try_send(message) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(message)) => return Err(Full(message)),
        }
        self.wake.notify();
        Ok(())
    }
}

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        Handle { queue: self.queue.clone(), wake: self.wake.clone() }
    }
}

impl<T> Drop for Handle<T> {
    /// The last handle to go ends the worker, which has to wake up to notice.
    fn drop(&mut self) {
        let (unconnected, _) = sync_channel(0);
        drop(std::mem::replace(&mut self.queue, unconnected));
        self.wake.notify();
    }
}

impl<T> Mailbox<T> {
    /// The oldest message, if there is one. Never waits.
    pub fn take(&mut self) -> Option<T> {
        if let Some(message) = self.next.take() {
            return Some(message);
        }
        match self.queue.try_recv() {
            Ok(message) => Some(message),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                self.closed = true;
                None
            }
        }
    }

    /// Every handle is gone and the queue is empty: nobody will ever send again.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Announces that the worker is about to block. `false`: a message is there, do not block. After `true`
    /// every message writes to the eventfd until [`unpark`](Self::unpark).
    pub fn park(&mut self) -> bool {
        self.wake.parked.store(true, Ordering::Relaxed);
        // Pairs with the fence in `notify`: either this look finds the message, or its sender sees `parked`.
        fence(Ordering::SeqCst);
        self.next = self.take();
        let may_block = self.next.is_none() && !self.closed;
        if !may_block {
            self.unpark();
        }
        may_block
    }

    /// The worker is awake and will look into the queue by itself.
    pub fn unpark(&mut self) {
        self.wake.parked.store(false, Ordering::Relaxed);
    }

    /// What the ring reads while the worker blocks.
    pub(super) fn event_fd(&self) -> RawFd {
        self.wake.event.as_raw_fd()
    }
}

struct Wake {
    event: File,
    /// The worker blocks or is about to. The first sender that clears it writes to the eventfd for all.
    parked: AtomicBool,
}

impl Wake {
    fn notify(&self) {
        fence(Ordering::SeqCst);
        if self.parked.load(Ordering::Relaxed) && self.parked.swap(false, Ordering::AcqRel) {
            // Fails only at 2^64 - 1 unread wake-ups, where the worker is awake anyway.
            let _ = (&self.event).write(&1u64.to_ne_bytes());
        }
    }
}

/// Blocking by design: io_uring answers EAGAIN at once, and does not wait, for a descriptor with O_NONBLOCK.
fn eventfd() -> io::Result<File> {
    // SAFETY: `eventfd` takes no pointers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was opened on the line above and has no other owner.
    Ok(unsafe { File::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn messages_come_out_in_order_and_a_full_queue_gives_the_message_back() {
        let (handle, mut mailbox) = mailbox(2).unwrap();
        handle.send(1).unwrap();
        handle.send(2).unwrap();
        assert_eq!(handle.send(3).unwrap_err().0, 3);
        assert_eq!(mailbox.take(), Some(1));
        assert_eq!(mailbox.take(), Some(2));
        assert_eq!(mailbox.take(), None);
    }

    #[test]
    fn a_message_before_parking_keeps_the_worker_awake() {
        let (handle, mut mailbox) = mailbox(2).unwrap();
        handle.send(7).unwrap();
        assert!(!mailbox.park());
        assert_eq!(mailbox.take(), Some(7));
        assert!(mailbox.park());
    }

    #[test]
    fn many_messages_to_a_parked_worker_write_one_wake_up() {
        let (handle, mut mailbox) = mailbox(100).unwrap();
        assert!(mailbox.park());
        for n in 0..100 {
            handle.clone().send(n).unwrap();
        }
        let mut count = [0; 8];
        (&mailbox.wake.event).read_exact(&mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 1);
    }

    #[test]
    fn the_last_handle_to_go_closes_the_mailbox_and_wakes_the_worker() {
        let (handle, mut mailbox) = mailbox::<u8>(1).unwrap();
        let second = handle.clone();
        drop(handle);
        assert!(mailbox.park());
        drop(second);
        let mut count = [0; 8];
        (&mailbox.wake.event).read_exact(&mut count).unwrap();
        assert!(!mailbox.park());
        assert_eq!(mailbox.take(), None);
        assert!(mailbox.is_closed());
    }
}
