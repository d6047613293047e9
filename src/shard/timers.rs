//! One deadline for each transport, and one for each room in which somebody speaks; earliest first.
//!
//! A transport asks its parts for their deadlines and arms the earliest. Arming again moves it; an entry
//! that was moved stays in the heap and is passed over when it comes up, so a heap never holds more than
//! the arms since then.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use crate::shard::table::Key;

pub struct Timers<T> {
    heap: BinaryHeap<Reverse<(Instant, Key<T>)>>,
}

/// The part of a timer that the armed thing keeps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Armed(Option<Instant>);

impl<T> Timers<T> {
    pub fn new() -> Self {
        Timers { heap: BinaryHeap::with_capacity(1024) }
    }

    /// Arms `key` for `deadline`, unless it is armed for that or an earlier time: then it comes up early,
    /// does nothing, and is armed anew.
    pub fn arm(&mut self, key: Key<T>, armed: &mut Armed, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return };
        if armed.0.is_some_and(|at| at <= deadline) {
            return;
        }
        armed.0 = Some(deadline);
        self.heap.push(Reverse((deadline, key)));
    }

    /// The next key whose time has come. The caller clears it with [`Armed::fire`].
    pub fn due(&mut self, now: Instant) -> Option<(Key<T>, Instant)> {
        let Reverse((at, key)) = *self.heap.peek()?;
        if at > now {
            return None;
        }
        self.heap.pop();
        Some((key, at))
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }
}

impl Armed {
    /// Whether the entry that came up is the one in force; one that was moved since is not.
    pub fn fire(&mut self, at: Instant) -> bool {
        let fires = self.0 == Some(at);
        if fires {
            self.0 = None;
        }
        fires
    }
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::table::Table;
    use std::time::Duration;

    #[test]
    fn a_timer_that_is_moved_forward_fires_once_and_at_the_earlier_time() {
        let start = Instant::now();
        let mut table = Table::new(1);
        let key = table.insert(()).unwrap();
        let (mut timers, mut armed) = (Timers::new(), Armed::default());
        timers.arm(key, &mut armed, Some(start + Duration::from_millis(50)));
        timers.arm(key, &mut armed, Some(start + Duration::from_millis(20)));
        timers.arm(key, &mut armed, Some(start + Duration::from_millis(90)));
        assert_eq!(timers.next_deadline(), Some(start + Duration::from_millis(20)));

        let (_, at) = timers.due(start + Duration::from_millis(20)).unwrap();
        assert!(armed.fire(at));
        let (_, at) = timers.due(start + Duration::from_secs(1)).unwrap();
        assert!(!armed.fire(at));
        assert!(timers.due(start + Duration::from_secs(1)).is_none());
    }
}
