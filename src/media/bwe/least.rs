//! The least value of a stretch of time and of the one before it: what there is without a queue, until it is so long ago that the
//! path may have changed. It knows nothing of what the values are.

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Least {
    /// Of this stretch and of the last.
    stretches: [Option<i64>; 2],
    until_us: u64,
}

impl Least {
    pub(super) fn add(&mut self, value: i64, now_us: u64, stretch_us: u64) {
        if now_us >= self.until_us {
            self.stretches = [None, self.stretches[0]];
            self.until_us = now_us + stretch_us;
        }
        self.stretches[0] = Some(self.stretches[0].map_or(value, |least| least.min(value)));
    }

    pub(super) fn get(&self) -> Option<i64> {
        self.stretches.into_iter().flatten().min()
    }

    /// What was before counts no more.
    pub(super) fn forget_all_but(&mut self, value: i64) {
        self.stretches = [Some(value), None];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_is_remembered_for_one_stretch_at_least_and_two_at_most() {
        let mut least = Least::default();
        let mut after_s = |seconds: u64, value| {
            least.add(value, seconds * 1_000_000, 30_000_000);
            least.get().unwrap()
        };
        assert_eq!(after_s(1, 40_000), 40_000);
        for seconds in 2..=31 {
            assert_eq!(after_s(seconds, 400_000), 40_000, "a queue, or a longer path: {seconds} s");
        }
        (32..=61).for_each(|seconds| {
            after_s(seconds, 400_000);
        });
        assert_eq!(after_s(62, 390_000), 390_000, "a longer path");
    }

    #[test]
    fn what_is_forgotten_comes_back_no_more() {
        let mut least = Least::default();
        least.add(10, 0, 100);
        least.add(20, 100, 100);
        least.forget_all_but(30);
        assert_eq!(least.get(), Some(30));
    }
}
