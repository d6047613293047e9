//! Which layers of one stream a frame is of use to.

use crate::limits::{SPATIAL_LAYERS, TEMPORAL_LAYERS};

/// A set of pairs of spatial and temporal layer, each standing for the receivers that get up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerSet(u16);

const _: () = assert!(SPATIAL_LAYERS * TEMPORAL_LAYERS <= u16::BITS as usize);

impl Default for LayerSet {
    /// Of a stream without layers every packet is for everybody.
    fn default() -> Self {
        LayerSet::ALL
    }
}

impl LayerSet {
    pub const ALL: LayerSet = LayerSet(u16::MAX);
    pub const NONE: LayerSet = LayerSet(0);

    /// The pairs for which `has(spatial, temporal)` says so.
    #[inline]
    pub fn of(has: impl Fn(u8, u8) -> bool) -> LayerSet {
        let mut set = 0;
        for at in 0..SPATIAL_LAYERS * TEMPORAL_LAYERS {
            set |= u16::from(has((at / TEMPORAL_LAYERS) as u8, (at % TEMPORAL_LAYERS) as u8)) << at;
        }
        LayerSet(set)
    }

    /// The layers from these upwards.
    pub fn from(spatial: u8, temporal: u8) -> LayerSet {
        LayerSet::of(|s, t| s >= spatial && t >= temporal)
    }

    /// Layers beyond those that can be told apart are in no set.
    #[inline]
    pub const fn contains(self, spatial: u8, temporal: u8) -> bool {
        if spatial as usize >= SPATIAL_LAYERS || temporal as usize >= TEMPORAL_LAYERS {
            return false;
        }
        self.0 >> (spatial as usize * TEMPORAL_LAYERS + temporal as usize) & 1 == 1
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_the_pairs_that_it_was_made_of() {
        let set = LayerSet::of(|spatial, temporal| spatial == 2 && temporal > 0);
        assert!(set.contains(2, 1) && set.contains(2, 3));
        assert!(!set.contains(2, 0) && !set.contains(1, 1));
        assert!(LayerSet::ALL.contains(3, 3) && LayerSet::NONE.is_empty());
        assert!(!LayerSet::ALL.contains(4, 0) && !LayerSet::ALL.contains(0, 255));
    }
}
