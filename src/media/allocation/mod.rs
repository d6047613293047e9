//! Which layer each of a peer's consumers gets, given what its downlink is estimated to carry.
//!
//! [`Allocator::allocate`] is a pure function of the estimate, the time and the [`Demand`]s that the shard
//! fills in; it decides targets and reasons and switches nothing. The rules, with why, are in
//! docs/allocation.md: audio first, screen shares before cameras, one layer each before more for any,
//! then by priority; down at once, up with headroom and patience.

use std::time::{Duration, Instant};

use crate::limits::{SPATIAL_LAYERS, TEMPORAL_LAYERS};
use crate::media::spec::{Layers, Reason, SourceClass};

mod steps;
#[cfg(test)]
mod tests;

pub use steps::Offer;
use steps::Steps;

/// More is granted only if the estimate exceeds what would then be sent by this much (in percent): a key
/// frame's burst and the encoder's swings must fit, or the raise undoes itself.
const HEADROOM_PERCENT: u64 = 15;

/// What is sent may exceed the estimate by this much for so long: an estimate backs off to 85 % of what the path
/// delivers, often for no more than a key frame's queue, and a switch down costs a key frame more.
const GRACE_PERCENT: u64 = 15;
const GRACE: Duration = Duration::from_secs(4);

/// After bandwidth took a layer away, how long until it may come back. Doubles each time a raise did not
/// last [`TRIAL`], up to [`HOLD_MAX`]: a link between two layers does not make the picture pump.
const HOLD: Duration = Duration::from_secs(4);
const HOLD_MAX: Duration = Duration::from_secs(64);
const TRIAL: Duration = Duration::from_secs(15);

/// The first layer comes back after this part of the wait: it is that or no picture.
const FIRST_SOONER: u32 = 4;

/// What is reserved for resends is at most this share of the estimate (in percent). A path that loses more is not helped by
/// them; and where a queue overflows they are what overflows it, and end with the lower layer that they must leave room for.
pub const RESENT_PERCENT: u64 = 50;

/// One consumer, as the allocation sees it.
#[derive(Clone, Debug)]
pub struct Demand {
    pub class: SourceClass,
    /// 1 (least) to 255 (most).
    pub priority: u8,
    /// The consumer or its producer is paused, or its audio is not among the loudest: costs nothing.
    pub paused: bool,
    /// The most that the client wants; `None` wants the best.
    pub preferred: Option<Layers>,
    pub offer: Offer,
    /// What the last allocation said of this consumer; updated in place. Keep it with the consumer.
    pub grant: Grant,
    steps: Steps,
    /// The step that `grant` held, if it still stands for something that arrives.
    kept: Option<u8>,
    given: Option<u8>,
    full: bool,
    credit: u16,
    /// Something of what it is given exceeds the estimate.
    over: bool,
}

/// What a consumer is to get, and the memory that keeps it from flapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// `None`: nothing can be sent.
    pub layers: Option<Layers>,
    pub reason: Reason,
    raised_at: Option<Instant>,
    lowered_at: Option<Instant>,
    /// Since when it lives on grace.
    over_since: Option<Instant>,
    hold_s: u8,
    /// It begins, or begins again after a pause: the first layer is given without headroom.
    fresh: bool,
}

impl Default for Grant {
    fn default() -> Self {
        Grant {
            layers: None,
            reason: Reason::NoKeyFrame,
            raised_at: None,
            lowered_at: None,
            over_since: None,
            hold_s: HOLD.as_secs() as u8,
            fresh: true,
        }
    }
}

/// The sums of one allocation, for the estimator and its probes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocated {
    /// What the granted layers cost, with audio and what was reserved.
    pub granted_bps: u64,
    /// What everybody's best would cost, by what the clients prefer: there is no use in knowing of more.
    pub wanted_bps: u64,
    /// The estimate at which somebody would be raised; `None` when nobody can be.
    pub next_raise_bps: Option<u64>,
}

/// Decides; holds nothing but a buffer that is used again. One per shard.
#[derive(Debug, Default)]
pub struct Allocator {
    order: Vec<u16>,
}

impl Demand {
    pub fn new(class: SourceClass, priority: u8, preferred: Option<Layers>, offer: Offer, grant: Grant) -> Demand {
        Demand {
            class,
            priority,
            paused: false,
            preferred,
            offer,
            grant,
            steps: Steps::default(),
            kept: None,
            given: None,
            full: false,
            credit: 0,
            over: false,
        }
    }
}

impl Allocator {
    pub fn new() -> Allocator {
        Allocator::default()
    }

    /// Decides for all consumers of one transport. `estimate_bps` of `None` is no limit (a peer without any
    /// congestion feedback); `reserved_bps` of it goes to what is sent besides: resends. Call it when the estimate changed noteworthily, when a demand changed, and about once
    /// a second while somebody could be raised, for patience ends by itself. The order of `demands` decides between equals, so keep it from call to call.
    pub fn allocate(
        &mut self,
        estimate_bps: Option<u64>,
        reserved_bps: u64,
        now: Instant,
        demands: &mut [Demand],
    ) -> Allocated {
        let reserved_bps = estimate_bps.map_or(reserved_bps, |bps| reserved_bps.min(bps * RESENT_PERCENT / 100));
        let mut budget = Budget { limit_bps: estimate_bps, used: reserved_bps, next_raise_bps: None };
        for demand in demands.iter_mut() {
            demand.prepare();
            if demand.class == SourceClass::Microphone && !demand.paused {
                budget.used += demand.offer.best_bps();
            }
        }
        let first_bps = budget.used;
        self.order.clear();
        self.order.extend((0..demands.len() as u16).filter(|i| !demands[*i as usize].steps.is_empty()));
        // Stable, so that equals keep their order.
        self.order.sort_by_key(|i| {
            let demand = &demands[*i as usize];
            (demand.class != SourceClass::ScreenShare, std::cmp::Reverse(demand.priority))
        });
        for i in &self.order {
            demands[*i as usize].climb(&mut budget, now);
        }
        let shares = self.order.partition_point(|i| demands[*i as usize].class == SourceClass::ScreenShare);
        let (shares, cameras) = self.order.split_at(shares);
        raise(shares, demands, &mut budget, now);
        raise(cameras, demands, &mut budget, now);

        let mut allocated =
            Allocated { granted_bps: budget.used, wanted_bps: first_bps, next_raise_bps: budget.next_raise_bps };
        for demand in demands.iter_mut() {
            allocated.wanted_bps += demand.steps.last_bps();
            demand.settle(now);
        }
        allocated
    }
}

/// Rounds of one step each, by shares of priority: twice the priority climbs twice as fast. Each round
/// somebody of the highest priority that still climbs takes a step, so there are at most as many rounds as steps.
fn raise(order: &[u16], demands: &mut [Demand], budget: &mut Budget, now: Instant) {
    let climbing =
        |demands: &[Demand]| order.iter().map(|i| &demands[*i as usize]).filter(|d| !d.full).map(|d| d.share()).max();
    while let Some(highest) = climbing(demands) {
        let mut rest = order;
        while let Some(first) = rest.first() {
            let priority = demands[*first as usize].priority;
            let equals = rest.partition_point(|i| demands[*i as usize].priority == priority);
            let (group, others) = rest.split_at(equals);
            round(group, demands, highest, budget, now);
            rest = others;
        }
    }
}

/// One round among equals: whoever holds the step already comes before whoever wants it anew.
fn round(group: &[u16], demands: &mut [Demand], highest: u16, budget: &mut Budget, now: Instant) {
    for i in group {
        let demand = &mut demands[*i as usize];
        demand.credit += demand.share();
    }
    for held in [true, false] {
        for i in group {
            let demand = &mut demands[*i as usize];
            while !demand.full && demand.credit >= highest && demand.next_is_kept() == held {
                demand.credit -= highest;
                demand.climb(budget, now);
            }
        }
    }
}

struct Budget {
    limit_bps: Option<u64>,
    used: u64,
    next_raise_bps: Option<u64>,
}

impl Budget {
    fn fits(&self, total_bps: u64) -> bool {
        self.limit_bps.is_none_or(|limit| total_bps <= limit)
    }
}

impl Demand {
    fn prepare(&mut self) {
        let video = self.class != SourceClass::Microphone && !self.paused;
        self.steps = if video { Steps::of(&self.offer, self.class, self.preferred) } else { Steps::default() };
        self.kept = self.grant.layers.and_then(|layers| self.steps.at_most(layers));
        (self.given, self.credit, self.full, self.over) = (None, 0, self.steps.is_empty(), false);
    }

    fn share(&self) -> u16 {
        self.priority.max(1) as u16
    }

    fn next(&self) -> u8 {
        self.given.map_or(0, |given| given + 1)
    }

    fn next_is_kept(&self) -> bool {
        self.kept.is_some_and(|kept| self.next() <= kept)
    }

    /// Takes the next step if the budget has it; otherwise this demand is as full as it gets.
    fn climb(&mut self, budget: &mut Budget, now: Instant) {
        let next = self.next();
        let Some(cost) = self.steps.bps(next) else {
            self.full = true;
            return;
        };
        let total = budget.used - self.given.and_then(|given| self.steps.bps(given)).unwrap_or(0) + cost;
        let kept = self.next_is_kept();
        let first = self.grant.fresh && next == 0;
        let needed = if kept || first { total } else { total + total * HEADROOM_PERCENT / 100 };
        let patient = kept || first || budget.limit_bps.is_none() || self.may_rise(now);
        let over = !budget.fits(needed);
        let excused = kept && over && self.has_grace(now) && budget.fits(needed * 100 / (100 + GRACE_PERCENT));
        if patient && (!over || excused) {
            self.over |= over;
            (self.given, budget.used) = (Some(next), total);
            self.full = self.steps.bps(next + 1).is_none();
            return;
        }
        self.full = true;
        if !kept {
            budget.next_raise_bps = Some(budget.next_raise_bps.map_or(needed, |bps| bps.min(needed)));
        }
    }

    fn has_grace(&self, now: Instant) -> bool {
        self.grant.over_since.is_none_or(|since| now.saturating_duration_since(since) < GRACE)
    }

    fn may_rise(&self, now: Instant) -> bool {
        let hold = Duration::from_secs(self.grant.hold_s as u64);
        let hold = if self.given.is_none() { hold / FIRST_SOONER } else { hold };
        self.grant.lowered_at.is_none_or(|at| now.saturating_duration_since(at) >= hold)
    }

    /// Writes the decision into the grant.
    fn settle(&mut self, now: Instant) {
        if self.class == SourceClass::Microphone || self.paused {
            self.grant.reason = if self.paused { Reason::Paused } else { Reason::Full };
            self.grant.layers = None;
            self.grant.fresh = true;
            return;
        }
        let layers = self.given.and_then(|given| self.steps.layers(given));
        if self.given < self.kept {
            self.lower(now);
        } else if self.given > self.kept && !self.grant.fresh {
            self.grant.raised_at = Some(now);
        }
        self.grant.over_since = if self.over { self.grant.over_since.or(Some(now)) } else { None };
        self.grant.fresh = self.steps.is_empty();
        self.grant.reason = self.reason(layers);
        self.grant.layers = layers;
    }

    /// Bandwidth took something away: remember when, and whether the last raise was a mistake.
    fn lower(&mut self, now: Instant) {
        let grant = &mut self.grant;
        let in_trial = grant.raised_at.is_some_and(|at| now.saturating_duration_since(at) < TRIAL);
        let again = grant.lowered_at.is_some_and(|at| now.saturating_duration_since(at) < TRIAL);
        grant.hold_s = match (in_trial, again) {
            (true, _) => (grant.hold_s * 2).min(HOLD_MAX.as_secs() as u8),
            // Falling further is the same event, not another one.
            (false, true) => grant.hold_s,
            (false, false) => HOLD.as_secs() as u8,
        };
        grant.lowered_at = Some(now);
        grant.raised_at = None;
    }

    fn reason(&self, layers: Option<Layers>) -> Reason {
        let Some(layers) = layers else {
            return if self.steps.is_empty() { Reason::LayerInactive } else { Reason::Bandwidth };
        };
        if self.given.is_some_and(|given| self.steps.bps(given + 1).is_some()) {
            return Reason::Bandwidth;
        }
        let best = self.offer.declared();
        let wanted = self.preferred.map_or(best, |preferred| Layers {
            spatial: preferred.spatial.min(best.spatial),
            temporal: preferred.temporal.min(best.temporal),
        });
        if layers.spatial < wanted.spatial || layers.temporal < wanted.temporal {
            return Reason::ProducerUplink;
        }
        if wanted == best { Reason::Full } else { Reason::Preferred }
    }
}

/// The longest ladder: negotiation refuses more layers than these.
const STEPS: usize = SPATIAL_LAYERS * TEMPORAL_LAYERS;
