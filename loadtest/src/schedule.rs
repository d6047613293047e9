//! What is due when. The event loop takes due items in order of their times; an item carries the time at which it was
//! *due*, however late it is taken, so that latency counted from it has no coordinated omission. No clock inside.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Nanoseconds since the load test's start.
pub type Nanos = u64;

pub struct Schedule<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    pushed: u64,
}

struct Entry<T> {
    at: Nanos,
    order: u64,
    item: T,
}

impl<T> Default for Schedule<T> {
    fn default() -> Self {
        Schedule { heap: BinaryHeap::new(), pushed: 0 }
    }
}

impl<T> Schedule<T> {
    pub fn push(&mut self, at: Nanos, item: T) {
        self.heap.push(Reverse(Entry { at, order: self.pushed, item }));
        self.pushed += 1;
    }

    /// The earliest item that is due at `now`, with the time at which it was due.
    pub fn pop_due(&mut self, now: Nanos) -> Option<(Nanos, T)> {
        if self.heap.peek()?.0.at > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| (entry.at, entry.item))
    }

    pub fn next_at(&self) -> Option<Nanos> {
        self.heap.peek().map(|entry| entry.0.at)
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl<T> Eq for Entry<T> {}
impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sender due every 20 ms meets a loop that stalls for 100 ms: the five packets that it could not send in time
    /// count with their full delay, as a user would feel it, not as one slow packet.
    #[test]
    fn a_stall_counts_for_every_packet_that_was_due_in_it() {
        let mut schedule = Schedule::default();
        schedule.push(20, "packet");
        let mut delays = Vec::new();
        let mut run_at = |now: Nanos, schedule: &mut Schedule<&'static str>| {
            while let Some((due, item)) = schedule.pop_due(now) {
                delays.push(now - due);
                schedule.push(due + 20, item);
            }
        };
        for now in [20, 40, 60] {
            run_at(now, &mut schedule);
        }
        run_at(160, &mut schedule);
        assert_eq!(delays, vec![0, 0, 0, 80, 60, 40, 20, 0]);
    }

    #[test]
    fn items_due_at_one_time_come_in_the_order_in_which_they_were_pushed() {
        let mut schedule = Schedule::default();
        for name in ["a", "b", "c"] {
            schedule.push(5, name);
        }
        assert_eq!(schedule.next_at(), Some(5));
        let order: Vec<_> = std::iter::from_fn(|| schedule.pop_due(5)).map(|(_, name)| name).collect();
        assert_eq!(order, vec!["a", "b", "c"]);
    }
}
