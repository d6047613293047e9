//! Whether so little is sent that the path cannot be judged by it ("application limited").

/// A sender at less than this share of the estimate saves up...
const SHARE: f64 = 0.65;
/// ...over half a second, and is limited while the savings are beyond the one, until they are below the other.
const WINDOW_S: f64 = 0.5;
const ENTER: f64 = 0.8;
const LEAVE: f64 = 0.5;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SendBudget {
    pending: u64,
    saved_bytes: f64,
    updated_us: u64,
    limited: bool,
}

impl SendBudget {
    #[inline]
    pub(super) fn sent(&mut self, bytes: u16) {
        self.pending += bytes as u64;
    }

    /// Whether the sender is limited, for this estimate.
    pub(super) fn update(&mut self, estimate_bps: u64, now_us: u64) -> bool {
        let seconds = now_us.saturating_sub(self.updated_us) as f64 / 1e6;
        self.updated_us = now_us;
        let bytes_per_s = estimate_bps as f64 * SHARE / 8.0;
        let most = bytes_per_s * WINDOW_S;
        let saved = self.saved_bytes + bytes_per_s * seconds.min(1.0) - std::mem::take(&mut self.pending) as f64;
        self.saved_bytes = saved.clamp(-most, most);
        if self.saved_bytes > ENTER * most {
            self.limited = true;
        } else if self.saved_bytes < LEAVE * most {
            self.limited = false;
        }
        self.limited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(share_percent: u64, seconds: u64) -> bool {
        let mut budget = SendBudget::default();
        let mut limited = false;
        for n in 1..=seconds * 20 {
            let bytes = 1_000_000 / 8 / 20 * share_percent / 100;
            budget.sent(bytes as u16);
            limited = budget.update(1_000_000, n * 50_000);
        }
        limited
    }

    #[test]
    fn a_sender_far_below_the_estimate_is_limited_and_one_near_it_is_not() {
        assert!(at(20, 5));
        assert!(at(50, 10));
        assert!(!at(70, 10));
        assert!(!at(100, 10));
    }
}
