//! Which worker a room goes to: the one with the least to do, in turn among equals.
//!
//! A room lives whole on one worker, so this is the only decision that spreads load. The registry keeps
//! the counts; the hub reports a worker's own measure of being overloaded.

use crate::signaling::overload::Overload;

pub struct Placement {
    workers: Vec<Load>,
    /// Where the search among equals begins.
    turn: usize,
}

#[derive(Clone, Debug, Default)]
pub struct Load {
    /// Transports and consumers of the worker's rooms: what costs packets.
    pub load: usize,
    pub rooms: usize,
    /// The worker says that it has no time left: no new room, and nobody more in its rooms.
    pub overload: Overload,
}

impl Placement {
    pub fn new(workers: usize) -> Placement {
        Placement { workers: vec![Load::default(); workers], turn: 0 }
    }

    /// `None` when every worker is overloaded.
    pub fn choose(&mut self) -> Option<usize> {
        let count = self.workers.len();
        let in_turn = (0..count).map(|step| (self.turn + step) % count);
        let chosen = in_turn
            .filter(|worker| !self.workers[*worker].overload.is_on())
            .min_by_key(|worker| (self.workers[*worker].load, self.workers[*worker].rooms))?;
        self.turn = (chosen + 1) % count;
        Some(chosen)
    }

    pub fn worker(&mut self, worker: usize) -> &mut Load {
        &mut self.workers[worker]
    }

    pub fn loads(&self) -> &[Load] {
        &self.workers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_take_turns() {
        let mut placement = Placement::new(3);
        let chosen: Vec<_> = (0..6).map(|_| placement.choose().unwrap()).collect();
        assert_eq!(chosen, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn the_least_loaded_worker_is_taken_whoever_is_next() {
        let mut placement = Placement::new(3);
        placement.worker(0).load = 10;
        placement.worker(2).load = 5;
        assert_eq!(placement.choose(), Some(1));
        placement.worker(1).load = 7;
        assert_eq!(placement.choose(), Some(2));
    }

    #[test]
    fn of_two_idle_workers_the_one_with_fewer_rooms_is_taken() {
        let mut placement = Placement::new(2);
        placement.worker(0).rooms = 1;
        assert_eq!(placement.choose(), Some(1));
        assert_eq!(placement.choose(), Some(1));
    }

    fn overload(placement: &mut Placement, worker: usize) {
        (1..=10).for_each(|second| placement.worker(worker).overload.take(second, true));
    }

    #[test]
    fn an_overloaded_worker_gets_no_room() {
        let mut placement = Placement::new(2);
        overload(&mut placement, 0);
        placement.worker(1).load = 1000;
        assert_eq!(placement.choose(), Some(1));
        overload(&mut placement, 1);
        assert_eq!(placement.choose(), None);
    }
}
