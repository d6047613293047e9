//! The ladder that one consumer climbs: what its producer offers, in the order in which quality is raised.

use super::STEPS;
use crate::limits::{SPATIAL_LAYERS, TEMPORAL_LAYERS};
use crate::media::spec::{Layers, SourceClass};

/// What a producer offers at the moment: the bitrate of each layer that arrives. Lives with the producer,
/// which reports what it measures about once a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// What forwarding up to this spatial and temporal layer costs in all; 0: does not arrive.
    bps: [[u32; TEMPORAL_LAYERS]; SPATIAL_LAYERS],
    spatial_layers: u8,
    temporal_layers: u8,
}

impl Offer {
    /// As declared by the producer, at least 1 each. Nothing arrives yet.
    pub fn new(spatial_layers: u8, temporal_layers: u8) -> Offer {
        Offer {
            bps: [[0; TEMPORAL_LAYERS]; SPATIAL_LAYERS],
            spatial_layers: spatial_layers.clamp(1, SPATIAL_LAYERS as u8),
            temporal_layers: temporal_layers.clamp(1, TEMPORAL_LAYERS as u8),
        }
    }

    /// What forwarding up to this layer costs: of simulcast the encoding up to that temporal layer, of SVC
    /// with all spatial layers below. Smoothed over some calls, for a key frame doubles the second in which
    /// it falls. 0: nothing of it arrives (`spatial`: a temporal layer without packets costs what the
    /// one below costs, and is not a step of its own).
    pub fn observe(&mut self, spatial: u8, temporal: u8, bitrate_bps: u64) {
        let Some(bps) = self.bps.get_mut(spatial as usize).and_then(|row| row.get_mut(temporal as usize)) else {
            return;
        };
        let fresh = bitrate_bps.min(u32::MAX as u64) as u32;
        *bps = match (*bps, fresh) {
            (0, fresh) | (_, fresh @ 0) => fresh,
            (old, fresh) => (old as u64 * 3 / 4 + fresh as u64 / 4) as u32,
        };
    }

    /// Nothing of this spatial layer arrives any more.
    pub fn stop(&mut self, spatial: u8) {
        if let Some(row) = self.bps.get_mut(spatial as usize) {
            row.fill(0);
        }
    }

    /// The same source while it sends nothing.
    pub fn of_silence(&self) -> Offer {
        Offer { bps: Default::default(), ..*self }
    }

    pub fn bps(&self, layers: Layers) -> u64 {
        let row = self.bps.get(layers.spatial as usize);
        row.and_then(|row| row.get(layers.temporal as usize)).map_or(0, |bps| *bps as u64)
    }

    /// Whether anything of it has arrived.
    pub fn is_measured(&self) -> bool {
        self.bps.iter().flatten().any(|bps| *bps > 0)
    }

    /// The best that the producer said it would send.
    pub fn declared(&self) -> Layers {
        Layers { spatial: self.spatial_layers - 1, temporal: self.temporal_layers - 1 }
    }

    pub(super) fn best_bps(&self) -> u64 {
        self.bps.iter().flatten().max().map_or(0, |bps| *bps as u64)
    }

    fn arrives(&self, spatial: u8) -> bool {
        self.bps[spatial as usize].iter().any(|bps| *bps > 0)
    }
}

/// Steps from the least to the best that arrives and is wanted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Steps {
    rungs: [Rung; STEPS],
    len: u8,
}

#[derive(Clone, Copy, Debug, Default)]
struct Rung {
    spatial: u8,
    temporal: u8,
    bps: u32,
}

impl Steps {
    pub(super) fn of(offer: &Offer, class: SourceClass, preferred: Option<Layers>) -> Steps {
        let best = offer.declared();
        let cap = preferred.unwrap_or(best);
        let mut steps = Steps::default();
        let wanted = |spatial: &u8| *spatial <= cap.spatial && offer.arrives(*spatial);
        let mut spatials = [0u8; SPATIAL_LAYERS];
        let mut count = 0;
        for spatial in (0..=best.spatial).filter(wanted) {
            spatials[count] = spatial;
            count += 1;
        }
        // Of what is wanted nothing arrives: the least of what does is better than no picture.
        if count == 0 {
            let Some(least) = (0..=best.spatial).find(|spatial| offer.arrives(*spatial)) else { return steps };
            spatials[0] = least;
            count = 1;
        }
        let temporal_cap = cap.temporal.min(best.temporal);
        match class {
            SourceClass::ScreenShare => steps.sharpness_first(offer, &spatials[..count], temporal_cap),
            _ => steps.motion_first(offer, &spatials[..count], temporal_cap),
        }
        steps
    }

    /// Cameras: all frames of the small picture before a larger picture, and never a larger picture at a
    /// quarter of its frame rate, which looks worse than the smaller one at full rate.
    fn motion_first(&mut self, offer: &Offer, spatials: &[u8], temporal_cap: u8) {
        for (n, spatial) in spatials.iter().enumerate() {
            let moves = (1..=temporal_cap).any(|temporal| offer.bps(Layers { spatial: *spatial, temporal }) > 0);
            for temporal in u8::from(n > 0 && moves)..=temporal_cap {
                self.push(offer, *spatial, temporal);
            }
        }
    }

    /// Screens: text is read, so size before frame rate.
    fn sharpness_first(&mut self, offer: &Offer, spatials: &[u8], temporal_cap: u8) {
        spatials.iter().for_each(|spatial| self.push(offer, *spatial, 0));
        let last = spatials[spatials.len() - 1];
        (1..=temporal_cap).for_each(|temporal| self.push(offer, last, temporal));
    }

    fn push(&mut self, offer: &Offer, spatial: u8, temporal: u8) {
        let bps = offer.bps(Layers { spatial, temporal }) as u32;
        if bps > 0 {
            self.rungs[self.len as usize] = Rung { spatial, temporal, bps };
            self.len += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn rung(&self, step: u8) -> Option<&Rung> {
        self.rungs[..self.len as usize].get(step as usize)
    }

    pub(super) fn bps(&self, step: u8) -> Option<u64> {
        self.rung(step).map(|rung| rung.bps as u64)
    }

    pub(super) fn layers(&self, step: u8) -> Option<Layers> {
        self.rung(step).map(|rung| Layers { spatial: rung.spatial, temporal: rung.temporal })
    }

    pub(super) fn last_bps(&self) -> u64 {
        self.len.checked_sub(1).and_then(|last| self.bps(last)).unwrap_or(0)
    }

    /// The highest step that is not above these layers.
    pub(super) fn at_most(&self, layers: Layers) -> Option<u8> {
        let within = |rung: &Rung| rung.spatial <= layers.spatial && rung.temporal <= layers.temporal;
        let smaller = |rung: &Rung| rung.spatial < layers.spatial;
        (0..self.len).rev().find(|step| self.rung(*step).is_some_and(|rung| within(rung) || smaller(rung)))
    }
}
