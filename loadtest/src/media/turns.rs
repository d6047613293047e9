//! Who talks: in each room a few chairs are taken in turns of random length. Pure; the event loop says when a turn ends.

use crate::random::Random;
use crate::schedule::Nanos;

pub struct Turns {
    random: Random,
    /// Per room, the index of the participant who has each chair. Chair 0 is the one that viewers follow.
    chairs: Vec<Vec<usize>>,
    /// Participants of a room that may talk: the senders.
    people: usize,
    mean_s: f64,
}

impl Turns {
    pub fn new(seed: u64, rooms: usize, chairs: usize, people: usize, mean_s: f64) -> Self {
        let chairs = chairs.min(people);
        Turns {
            random: Random::new(seed, 0x7475_726e),
            chairs: vec![(0..chairs).collect(); rooms],
            people,
            mean_s: mean_s.max(0.1),
        }
    }

    pub fn chairs(&self) -> usize {
        self.chairs.first().map_or(0, Vec::len)
    }

    pub fn speaks(&self, room: usize, index: usize) -> bool {
        self.chairs[room].contains(&index)
    }

    /// Whom viewers follow.
    pub fn speaker(&self, room: usize) -> Option<usize> {
        self.chairs[room].first().copied()
    }

    /// Gives the chair to another participant who has none, and returns how long that turn lasts: 0.5 to 1.5 times
    /// the mean.
    pub fn pass_on(&mut self, room: usize, chair: usize) -> Nanos {
        let start = self.random.below(self.people as u64) as usize;
        let next = (0..self.people).map(|step| (start + step) % self.people).find(|who| !self.speaks(room, *who));
        if let Some(next) = next {
            self.chairs[room][chair] = next;
        }
        ((0.5 + self.random.share()) * self.mean_s * 1e9) as Nanos
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_goes_to_somebody_else_and_nobody_has_two_chairs() {
        let mut turns = Turns::new(1, 1, 2, 5, 6.0);
        for _ in 0..100 {
            let before = turns.speaker(0);
            let length = turns.pass_on(0, 0);
            assert!((3_000_000_000..=9_000_000_000).contains(&length));
            assert_ne!(turns.speaker(0), before);
            assert_eq!((0..5).filter(|who| turns.speaks(0, *who)).count(), 2);
        }
    }
}
