//! Which layer each of a peer's consumers gets, given what its downlink is estimated to carry.
//!
//! [`Allocator::allocate`] is a pure function of what is known of the [`Downlink`], the time and the [`Demand`]s that the
//! shard fills in; it decides targets and reasons and switches nothing. The rules, with why, are in
//! docs/allocation.md: audio first, screen shares before cameras, one layer each before more for any,
//! then by priority; down at once, up with headroom and patience. Whether a picture flows at all is
//! decided more slowly than how good it is ([`presence`]).

use std::time::{Duration, Instant};

use crate::limits::{SPATIAL_LAYERS, TEMPORAL_LAYERS};
use crate::media::spec::{Layers, Reason, SourceClass};

mod presence;
mod steps;
#[cfg(test)]
mod tests;

use presence::{ShortSince, Shortage};
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
    shortage: Shortage,
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
    /// Since when there is no room for its first layer.
    short: ShortSince,
    hold_s: u8,
    /// It begins, or begins again after a pause: the first layer is given without headroom and without a wait, however long
    /// there was no room for it.
    fresh: bool,
    /// Nothing is known of what it costs: it flows.
    open: bool,
}

/// What is known of a downlink, in bits per second of everything that leaves on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Downlink {
    /// What may be sent. Layers begin and rise by it.
    pub estimate_bps: u64,
    /// The estimate, or what demonstrably gets through if that is more. No picture is stopped within it.
    pub carried_bps: u64,
    /// What it carries by its most generous reading. The last picture is not stopped within it.
    pub plausible_bps: u64,
    /// The estimate, or more where only loss holds it down that may be the path's nature. A picture that is new begins within it.
    pub beginning_bps: u64,
    /// Its receiver tells how packets arrive (transport-cc), so that a probe finds out in a moment whether there is room.
    /// Where it does not, or has not yet, a picture that begins is what finds out.
    pub is_answered: bool,
    /// What of the estimate is to drain a queue in front of the path, where that became narrower. No first layer is refused for it.
    pub drain_bps: u64,
}

impl From<u64> for Downlink {
    /// An estimate that nothing else is known beside.
    fn from(estimate_bps: u64) -> Downlink {
        Downlink {
            estimate_bps,
            carried_bps: estimate_bps,
            plausible_bps: estimate_bps,
            beginning_bps: estimate_bps,
            is_answered: true,
            drain_bps: 0,
        }
    }
}

impl Default for Grant {
    fn default() -> Self {
        Grant {
            layers: None,
            reason: Reason::NoKeyFrame,
            raised_at: None,
            lowered_at: None,
            over_since: None,
            short: ShortSince::default(),
            hold_s: HOLD.as_secs() as u8,
            fresh: true,
            open: false,
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
            shortage: Shortage::None,
        }
    }
}

impl Allocator {
    pub fn new() -> Allocator {
        Allocator::default()
    }

    /// Decides for all consumers of one transport. A `link` of `None` is no limit (a peer without any
    /// congestion feedback); `reserved_bps` of it goes to what is sent besides: resends. Call it when the estimate changed noteworthily, when a demand changed, and about once
    /// a second while somebody could be raised, for patience ends by itself. The order of `demands` decides between equals, so keep it from call to call.
    pub fn allocate(
        &mut self,
        link: Option<Downlink>,
        reserved_bps: u64,
        now: Instant,
        demands: &mut [Demand],
    ) -> Allocated {
        let most = |link: Downlink| link.estimate_bps * RESENT_PERCENT / 100;
        let used = link.map_or(reserved_bps, |link| reserved_bps.min(most(link)));
        let recent = Recent::of(demands);
        let mut budget =
            Budget { link, used, reserved_bps: used, leaving_bps: 0, pictures: 0, recent, next_raise_bps: None };
        for demand in demands.iter_mut() {
            demand.prepare();
            if demand.class == SourceClass::Microphone && !demand.paused {
                budget.used += demand.offer.best_bps();
            }
        }
        let first_bps = budget.used;
        self.order.clear();
        self.order.extend((0..demands.len() as u16).filter(|i| !demands[*i as usize].steps.is_empty()));
        // Among equals whoever has a picture comes first; stable, so that they keep their order otherwise.
        self.order.sort_by_key(|i| {
            let demand = &demands[*i as usize];
            (demand.class != SourceClass::ScreenShare, std::cmp::Reverse(demand.priority), demand.kept.is_none())
        });
        for i in &self.order {
            demands[*i as usize].appear(&mut budget, now);
        }
        let shares = self.order.partition_point(|i| demands[*i as usize].class == SourceClass::ScreenShare);
        let (shares, cameras) = self.order.split_at(shares);
        raise(shares, demands, &mut budget, now);
        raise(cameras, demands, &mut budget, now);

        let mut allocated =
            Allocated { granted_bps: budget.used, wanted_bps: first_bps, next_raise_bps: budget.next_raise_bps };
        for demand in demands.iter_mut() {
            allocated.wanted_bps += demand.steps.last_bps();
            demand.settle(&recent, now);
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

/// What happened last to anybody here. The link is what is too narrow, not the consumer: where it was found to be, nobody
/// tries again too soon.
#[derive(Clone, Copy)]
struct Recent {
    raised_at: Option<Instant>,
    lowered_at: Option<Instant>,
    /// How long to wait since then.
    hold_s: u8,
}

impl Recent {
    fn of(demands: &[Demand]) -> Recent {
        let grants = || demands.iter().map(|demand| &demand.grant);
        let lowered_at = grants().filter_map(|grant| grant.lowered_at).max();
        let last = grants().filter(|grant| grant.lowered_at == lowered_at);
        Recent {
            raised_at: grants().filter_map(|grant| grant.raised_at).max(),
            lowered_at,
            hold_s: last.map(|grant| grant.hold_s).max().unwrap_or(HOLD.as_secs() as u8),
        }
    }

    /// Whether this part of the wait is over.
    fn has_waited(&self, part: u32, now: Instant) -> bool {
        let hold = Duration::from_secs(u64::from(self.hold_s)) / part;
        self.lowered_at.is_none_or(|at| now.saturating_duration_since(at) >= hold)
    }
}

struct Budget {
    link: Option<Downlink>,
    used: u64,
    /// Of that, for resends.
    reserved_bps: u64,
    /// Of that, pictures that will be stopped if the shortage lasts.
    leaving_bps: u64,
    /// How many flow, and will.
    pictures: u32,
    recent: Recent,
    next_raise_bps: Option<u64>,
}

impl Budget {
    fn fits(&self, total_bps: u64) -> bool {
        self.link.is_none_or(|link| total_bps <= link.estimate_bps)
    }

    /// Somebody would have more at this estimate.
    fn wish(&mut self, bps: u64) {
        self.next_raise_bps = Some(self.next_raise_bps.map_or(bps, |least| least.min(bps)));
    }
}

impl Demand {
    fn prepare(&mut self) {
        let video = self.class != SourceClass::Microphone && !self.paused;
        self.steps = if video { Steps::of(&self.offer, self.class, self.preferred) } else { Steps::default() };
        let held = self.grant.layers.and_then(|layers| self.steps.at_most(layers));
        let flows = !self.steps.is_empty() && (self.grant.open || self.grant.layers.is_some());
        self.kept = held.or(flows.then_some(0));
        (self.given, self.credit, self.full, self.over) = (None, 0, self.steps.is_empty(), false);
        self.shortage = Shortage::None;
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
        let drain_bps = budget.link.filter(|_| next > 0).map_or(0, |link| link.drain_bps);
        let needed = drain_bps + if kept { total } else { with_headroom(total) };
        let patient = kept || budget.link.is_none() || budget.recent.has_waited(1, now);
        let over = !budget.fits(needed);
        // In a jam there is no time for grace.
        let may_excuse = kept && over && drain_bps == 0 && self.has_grace(now);
        let excused = may_excuse && budget.fits(needed * 100 / (100 + GRACE_PERCENT));
        if patient && (!over || excused) {
            self.over |= over;
            (self.given, budget.used) = (Some(next), total);
            self.full = self.steps.bps(next + 1).is_none();
            return;
        }
        self.full = true;
        if !kept {
            budget.wish(needed);
        }
    }

    fn has_grace(&self, now: Instant) -> bool {
        self.grant.over_since.is_none_or(|since| now.saturating_duration_since(since) < GRACE)
    }

    /// Writes the decision into the grant.
    fn settle(&mut self, recent: &Recent, now: Instant) {
        if self.class == SourceClass::Microphone || self.paused {
            self.grant.reason = if self.paused { Reason::Paused } else { Reason::Full };
            self.grant.layers = None;
            (self.grant.fresh, self.grant.open, self.grant.short) = (true, false, ShortSince::default());
            return;
        }
        let layers = self.given.and_then(|given| self.steps.layers(given));
        if self.given < self.kept {
            self.lower(recent, now);
        } else if self.given > self.kept && !self.grant.fresh {
            self.grant.raised_at = Some(now);
        }
        self.grant.short = self.short_since(now);
        self.grant.over_since = if self.over { self.grant.over_since.or(Some(now)) } else { None };
        // Nothing was taken from what was never given.
        self.grant.fresh = self.steps.is_empty() || (self.grant.fresh && self.given.is_none());
        self.grant.open = self.steps.is_empty();
        self.grant.reason = self.reason(layers);
        self.grant.layers = layers;
    }

    /// Bandwidth took something away: remember when, and whether the last raise was a mistake.
    fn lower(&mut self, recent: &Recent, now: Instant) {
        let is_recent = |at: Option<Instant>| at.is_some_and(|at| now.saturating_duration_since(at) < TRIAL);
        let in_trial = recent.raised_at > recent.lowered_at && is_recent(recent.raised_at);
        self.grant.hold_s = match (in_trial, is_recent(recent.lowered_at)) {
            (true, _) => (recent.hold_s * 2).min(HOLD_MAX.as_secs() as u8),
            // Falling further is the same event, not another one.
            (false, true) => recent.hold_s,
            (false, false) => HOLD.as_secs() as u8,
        };
        (self.grant.lowered_at, self.grant.raised_at) = (Some(now), None);
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

fn with_headroom(bps: u64) -> u64 {
    bps + bps * HEADROOM_PERCENT / 100
}

/// The longest ladder: negotiation refuses more layers than these.
const STEPS: usize = SPATIAL_LAYERS * TEMPORAL_LAYERS;
