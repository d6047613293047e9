//! Whether a picture flows at all: the first layer of each consumer, in the order of importance.
//!
//! What a link cannot carry harms everybody on it, sound above all, so a picture that has no smaller form is stopped. But
//! a picture that stops is noticed more than any other change, costs a key frame to bring back, and an estimate is often
//! too low for a moment. So it takes a shortage that lasts, that what demonstrably gets through does not contradict, and,
//! for the last picture that a viewer has, one that no reading of the link explains away.

use std::time::{Duration, Instant};

use super::{Budget, Demand, Downlink, with_headroom};

/// A picture is stopped when the link has lacked more than [`FAR_PERCENT`] of what is needed for so long: what a second
/// without any room leaves behind, a queue to drain and an estimate to find again, is over by then.
const STOP_AFTER: Duration = Duration::from_secs(3);
const FAR_PERCENT: u64 = 15;

/// A smaller shortage may be an estimate that creeps back to the truth, some 50 kbit/s each second.
const STOP_AFTER_LITTLE: Duration = Duration::from_secs(12);

/// The only picture comes back after this part of the wait: it is that or none.
const ONLY_SOONER: u32 = 4;

/// How a first layer that flows fits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Shortage {
    #[default]
    None,
    Little,
    Far,
}

/// Since when there has been no room, without a break.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ShortSince {
    any: Option<Instant>,
    far: Option<Instant>,
}

impl Demand {
    /// Takes the first step, or none.
    pub(super) fn appear(&mut self, budget: &mut Budget, now: Instant) {
        let Some(cost) = self.steps.bps(0) else { return };
        let flows = match (self.kept, budget.link) {
            (_, None) => true,
            (Some(_), Some(link)) => self.stays(cost, link, budget, now),
            (None, Some(link)) => self.comes(cost, link, budget, now),
        };
        if flows {
            self.given = Some(0);
            budget.used += cost;
            self.full = self.steps.bps(1).is_none();
        } else {
            self.full = true;
        }
    }

    /// Whether a picture that flows goes on. Those that are far from fitting take nothing from the others' room, for
    /// they will be gone.
    fn stays(&mut self, cost: u64, link: Downlink, budget: &mut Budget, now: Instant) -> bool {
        let needed = budget.used - budget.reserved_bps - budget.leaving_bps + cost;
        let is_last = budget.pictures == 0;
        let limit = if is_last { link.plausible_bps } else { link.carried_bps };
        // Resends are many where there is too little room, and end with the shortage. If they do not, it is lasting; but
        // those of a path that loses by its nature are no reason.
        let is_burdened = needed + budget.reserved_bps > link.plausible_bps;
        self.shortage = match needed {
            _ if needed * 100 > limit * (100 + FAR_PERCENT) => Shortage::Far,
            _ if needed > limit || is_burdened => Shortage::Little,
            _ => Shortage::None,
        };
        if needed > link.estimate_bps {
            // Whether there is room after all is worth a probe.
            budget.wish(needed);
        }
        let since = self.short_since(now);
        let lasted = |since: Option<Instant>, long| since.is_some_and(|at| now.saturating_duration_since(at) >= long);
        if lasted(since.far, STOP_AFTER) || lasted(since.any, STOP_AFTER_LITTLE) {
            return false;
        }
        match self.shortage {
            Shortage::Far => budget.leaving_bps += cost,
            Shortage::Little | Shortage::None => budget.pictures += 1,
        }
        true
    }

    /// Whether a picture that does not flow begins.
    fn comes(&mut self, cost: u64, link: Downlink, budget: &mut Budget, now: Instant) -> bool {
        let total = budget.used + cost;
        let is_fresh = self.grant.fresh;
        if is_fresh && !link.is_answered {
            budget.pictures += 1;
            return true;
        }
        let part = if budget.pictures == 0 { ONLY_SOONER } else { 1 };
        let (needed, limit) = match is_fresh {
            true => (total, link.beginning_bps),
            false => (with_headroom(total), link.estimate_bps),
        };
        if (is_fresh || budget.recent.has_waited(part, now)) && needed <= limit {
            budget.pictures += 1;
            return true;
        }
        budget.wish(needed);
        false
    }

    /// Carries on what the grant remembers by what is seen at the moment.
    pub(super) fn short_since(&self, now: Instant) -> ShortSince {
        let before = self.grant.short;
        match self.shortage {
            Shortage::None => ShortSince::default(),
            Shortage::Little => ShortSince { any: before.any.or(Some(now)), far: None },
            Shortage::Far => ShortSince { any: before.any.or(Some(now)), far: before.far.or(Some(now)) },
        }
    }
}
