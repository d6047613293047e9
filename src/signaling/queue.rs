//! A bounded queue from one task to another that occupies what waits in it.
//!
//! A server has thousands of connections, mostly silent, with two queues each. The runtime's own channel holds room for 32 items
//! from its first moment on, and three times as much after a burst; this one gives its room back when it has been emptied.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Items that an empty queue keeps its room for.
const KEPT: usize = 4;

/// At most `bound` items wait.
pub fn queue<T>(bound: usize) -> (Sender<T>, Receiver<T>) {
    let waiting = Mutex::new(Waiting { items: VecDeque::new(), bound, has_sender: true, has_receiver: true });
    let shared = Arc::new(Shared { waiting, changed: Notify::new() });
    (Sender(shared.clone()), Receiver(shared))
}

/// The end that never waits.
pub struct Sender<T>(Arc<Shared<T>>);

pub struct Receiver<T>(Arc<Shared<T>>);

/// Why an item was not taken; it is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Full,
    /// Nobody will ever take it.
    Closed,
}

struct Shared<T> {
    waiting: Mutex<Waiting<T>>,
    changed: Notify,
}

struct Waiting<T> {
    items: VecDeque<T>,
    bound: usize,
    has_sender: bool,
    has_receiver: bool,
}

impl<T> Sender<T> {
    pub fn send(&self, item: T) -> Result<(), Refused> {
        let mut waiting = self.0.lock();
        match () {
            () if !waiting.has_receiver => return Err(Refused::Closed),
            () if waiting.items.len() == waiting.bound => return Err(Refused::Full),
            () => waiting.items.push_back(item),
        }
        drop(waiting);
        self.0.changed.notify_one();
        Ok(())
    }
}

impl<T> Receiver<T> {
    /// `None` when the sender is gone and everything was taken. May be cancelled: nothing gets lost.
    pub async fn next(&mut self) -> Option<T> {
        loop {
            {
                let mut waiting = self.0.lock();
                if let Some(item) = waiting.items.pop_front() {
                    if waiting.items.is_empty() {
                        waiting.items.shrink_to(KEPT);
                    }
                    return Some(item);
                }
                if !waiting.has_sender {
                    return None;
                }
            }
            self.0.changed.notified().await;
        }
    }
}

impl<T> Shared<T> {
    /// Nothing can panic while it is held.
    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.lock().has_sender = false;
        self.0.changed.notify_one();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut waiting = self.0.lock();
        waiting.has_receiver = false;
        let unheard = std::mem::take(&mut waiting.items);
        drop(waiting);
        drop(unheard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn items_come_in_order_and_a_full_queue_takes_more_when_one_was_taken() {
        let (sender, mut receiver) = queue(3);
        let sent: Vec<_> = (0..5).map(|item| sender.send(item)).collect();
        assert_eq!(sent, [Ok(()), Ok(()), Ok(()), Err(Refused::Full), Err(Refused::Full)]);
        assert_eq!(run(receiver.next()), Some(0));
        assert_eq!(sender.send(5), Ok(()));
        let rest = run(async { [receiver.next().await, receiver.next().await, receiver.next().await] });
        assert_eq!(rest, [Some(1), Some(2), Some(5)]);
    }

    #[test]
    fn who_waits_is_woken_by_an_item_and_by_the_end() {
        let (sender, mut receiver) = queue(3);
        let seen = run(async {
            let waiting = async { [receiver.next().await, receiver.next().await, receiver.next().await] };
            let sending = async {
                tokio::task::yield_now().await;
                sender.send(1).unwrap();
                tokio::task::yield_now().await;
                sender.send(2).unwrap();
                drop(sender);
            };
            tokio::join!(waiting, sending).0
        });
        assert_eq!(seen, [Some(1), Some(2), None]);
    }

    #[test]
    fn what_nobody_will_take_is_refused_and_what_waited_is_freed() {
        let (sender, receiver) = queue(3);
        let item = Arc::new(());
        sender.send(item.clone()).unwrap();
        drop(receiver);
        assert_eq!(Arc::strong_count(&item), 1);
        assert_eq!(sender.send(item), Err(Refused::Closed));
    }

    #[test]
    fn an_emptied_queue_gives_its_room_back() {
        let (sender, mut receiver) = queue(4_096);
        (0..1_000).for_each(|item| sender.send(item).unwrap());
        assert!(sender.0.lock().items.capacity() >= 1_000);
        run(async { while receiver.next().await != Some(999) {} });
        assert!(sender.0.lock().items.capacity() <= KEPT);
    }
}
