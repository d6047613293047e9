//! Whether a worker has no time left, decided so that the answer does not flap.
//!
//! Fed with one verdict for each second that a worker measured. A single bad second is a key frame for everybody, or
//! a neighbour on the same host; two in a row are load. And who was refused must not be let in by a single second in
//! which others happened to be silent. The hub feeds it, placement and `/ready` ask it; it looks at no clock.

use crate::limits::{OVERLOAD_BEGINS_AFTER, OVERLOAD_ENDS_AFTER};

/// The state of one worker.
#[derive(Clone, Copy, Debug, Default)]
pub struct Overload {
    is_on: bool,
    /// The last second that was taken.
    second: u64,
    /// Seconds in a row that speak against the state.
    against: u32,
}

impl Overload {
    /// Takes a second, by its number among all that the worker measured. The same one counts once, however
    /// often it is told.
    pub fn take(&mut self, second: u64, is_bad: bool) {
        if second <= self.second {
            return;
        }
        self.second = second;
        self.against = if is_bad == self.is_on { 0 } else { self.against + 1 };
        let enough = if self.is_on { OVERLOAD_ENDS_AFTER } else { OVERLOAD_BEGINS_AFTER };
        if self.against >= enough {
            (self.is_on, self.against) = (!self.is_on, 0);
        }
    }

    pub fn is_on(&self) -> bool {
        self.is_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays seconds, `x` for a bad one; what was said after each, `X` for overloaded.
    fn play(seconds: &str) -> String {
        let mut overload = Overload::default();
        let after = |(number, second): (usize, char)| {
            overload.take(number as u64 + 1, second == 'x');
            if overload.is_on() { 'X' } else { '.' }
        };
        seconds.chars().enumerate().map(after).collect()
    }

    #[test]
    fn it_takes_two_bad_seconds_in_a_row_to_begin_and_three_good_ones_to_end() {
        for (seconds, said) in [
            ("....", "...."),
            ("x.x.x.x.", "........"),
            (".xx.....", "..XXX..."),
            ("xx..x..x...", ".XXXXXXXXX."),
            ("xxxxxx...xx", ".XXXXXXX..X"),
            ("xx.x.x.x...", ".XXXXXXXXX."),
        ] {
            assert_eq!(play(seconds), said, "{seconds}");
        }
    }

    #[test]
    fn a_load_that_swings_each_second_changes_nothing() {
        let swinging = "x.".repeat(50);
        assert!(!play(&swinging).contains('X'));
        assert!(!play(&format!("xx{swinging}"))[1..].contains('.'));
    }

    #[test]
    fn a_second_that_is_told_twice_counts_once() {
        let mut overload = Overload::default();
        (0..10).for_each(|_| overload.take(7, true));
        assert!(!overload.is_on());
        overload.take(8, true);
        assert!(overload.is_on());
        (0..10).for_each(|_| overload.take(9, false));
        assert!(overload.is_on());
    }
}
