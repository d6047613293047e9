//! Which of a producer's layers one consumer gets, and where it may change over.
//!
//! A producer's spatial layers are streams of their own (simulcast), or all in one stream (SVC). Wish, choice and reason are
//! the same for both; only what a packet is to its receiver is not.
//!
//! Choosing a layer (wish, bandwidth, what arrives) happens on events; `accept` runs for each packet and only
//! compares. Spatial layers change at the first packet of a key frame, temporal layers of VP8 at a frame that
//! refers to none above its own (the Y bit, RFC 7741 section 4.2), and both only at the start of a frame, so
//! that a receiver never gets part of one. Within one stream every frame says who can go on from it
//! ([`LayerSet`](crate::packet::codec::layers::LayerSet)). It knows nothing of sequence numbers; the rewriter does.

use crate::discard::Discard;
use crate::media::history::Packet;
use crate::media::spec::{Layers, Reason};

#[derive(Clone, Debug)]
pub struct Selector {
    /// What flows; `None` before the first packet and after a pause.
    current: Option<u8>,
    /// What shall flow; differs from `current` until a key frame of it comes.
    target: Option<u8>,
    temporal: u8,
    temporal_target: u8,
    /// The client's wish; `None` is the best.
    preferred: Option<Layers>,
    /// What the bandwidth allows; `None` is everything, `Some(None)` nothing.
    allowed: Option<Option<Layers>>,
    /// Video starts at key frames; audio anywhere.
    needs_key_frame: bool,
    /// The highest temporal layer that the source declares.
    temporal_top: u8,
    /// All layers are in one stream.
    layered: bool,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    Forward,
    /// Forwarded, and the first of its layer: numbering starts anew here.
    SwitchAndForward,
    /// Forwarded, and from here on another spatial layer of the same stream is the highest.
    TurnAndForward,
    /// Left out, and the packets behind it move up.
    LeaveOut,
    Refuse(Discard),
}

/// Every temporal layer that there can be.
const ALL_TEMPORAL: u8 = u8::MAX;

impl Selector {
    /// For a source that declares temporal layers up to `temporal_top`; `layered` if all its layers are in one stream.
    pub fn new(needs_key_frame: bool, preferred: Option<Layers>, temporal_top: u8, layered: bool) -> Self {
        Selector {
            current: None,
            target: None,
            temporal: ALL_TEMPORAL,
            temporal_target: ALL_TEMPORAL,
            preferred,
            allowed: None,
            needs_key_frame,
            temporal_top,
            layered,
        }
    }

    pub fn current(&self) -> Option<u8> {
        self.current
    }

    pub fn target(&self) -> Option<u8> {
        self.target
    }

    /// Which of the producer's streams flows.
    pub fn flowing(&self) -> Option<u8> {
        if self.layered { self.current.map(|_| 0) } else { self.current }
    }

    /// Which of the producer's streams shall flow.
    pub fn wanted(&self) -> Option<u8> {
        if self.layered { self.target.map(|_| 0) } else { self.target }
    }

    pub fn is_layered(&self) -> bool {
        self.layered
    }

    pub fn preferred(&self) -> Option<Layers> {
        self.preferred
    }

    pub fn temporal(&self) -> u8 {
        self.temporal
    }

    pub fn prefer(&mut self, layers: Layers) {
        self.preferred = Some(layers);
    }

    pub fn allowed(&self) -> Option<Option<Layers>> {
        self.allowed
    }

    pub fn allow(&mut self, allowed: Option<Option<Layers>>) {
        self.allowed = allowed;
    }

    /// Chooses the target among `count` layers of which those in the bit set `alive` arrive: the highest that
    /// is wanted, allowed and alive; where none is, the lowest alive that is allowed at least as first layer.
    /// Returns whether the target changed.
    pub fn choose(&mut self, count: u8, alive: u8) -> bool {
        let before = (self.target, self.temporal_target);
        let top = count.saturating_sub(1);
        let wish = self.preferred.map_or(top, |layers| layers.spatial.min(top));
        let cap = match self.allowed {
            None => wish,
            Some(Some(layers)) => layers.spatial.min(wish),
            Some(None) => {
                self.stop();
                self.target = None;
                return before.0.is_some();
            }
        };
        let is_alive = |layer: &u8| alive & (1 << layer) != 0;
        // Until anything arrives the wish stands, so that a key frame is asked for where it is wanted.
        self.target = (0..=cap).rev().find(is_alive).or_else(|| (cap..count).find(is_alive)).or(Some(cap));
        let temporal_wish = self.preferred.map_or(ALL_TEMPORAL, |layers| layers.temporal);
        self.temporal_target = match self.allowed {
            Some(Some(layers)) if self.target == Some(layers.spatial) => layers.temporal.min(temporal_wish),
            _ => temporal_wish,
        };
        if self.layered {
            self.temporal_target = self.temporal_target.min(self.temporal_top);
        }
        if self.current.is_none() {
            self.temporal = self.temporal_target;
        }
        before != (self.target, self.temporal_target)
    }

    /// Nothing flows until the next start (a pause, a lost source).
    pub fn stop(&mut self) {
        self.current = None;
    }

    /// Whether packets of this stream of the producer are of any use.
    pub fn follows(&self, stream: u8) -> bool {
        self.flowing() == Some(stream) || self.wanted() == Some(stream)
    }

    #[inline]
    pub fn accept(&mut self, layer: u8, packet: &Packet) -> Choice {
        if self.current == Some(layer) {
            if packet.start_of_frame {
                self.step_temporal(layer, packet);
            }
            return if packet.temporal <= self.temporal { Choice::Forward } else { Choice::LeaveOut };
        }
        if self.target != Some(layer) {
            return Choice::Refuse(Discard::OtherLayer);
        }
        if self.needs_key_frame && !(packet.key_frame && packet.start_of_frame) {
            return Choice::Refuse(Discard::AwaitingKeyFrame);
        }
        self.current = Some(layer);
        self.temporal = self.temporal_target;
        Choice::SwitchAndForward
    }

    /// The same where all layers are in one stream. `is_behind`: later packets have gone before this one, so that only a new
    /// start can begin with it. Kept apart, so that the way of all other packets stays short.
    #[inline(never)]
    pub fn accept_layered(&mut self, packet: &Packet, is_behind: bool) -> Choice {
        let Some(current) = self.current else {
            if self.target.is_none() {
                return Choice::Refuse(Discard::OtherLayer);
            }
            return if self.may_start(packet) { self.start() } else { Choice::Refuse(Discard::AwaitingKeyFrame) };
        };
        let mut choice = Choice::Forward;
        if packet.start_of_frame && (self.target != Some(current) || self.temporal_target != self.temporal) {
            choice = self.turn(current, packet, is_behind);
        }
        let flows = self.current.is_some_and(|spatial| packet.targets.contains(spatial, self.temporal));
        if flows { choice } else { Choice::LeaveOut }
    }

    /// Changes over where the frame says that who has it can go on with the other layers from it: a frame that this
    /// receiver gets anyway, or one that refers to none.
    fn turn(&mut self, current: u8, packet: &Packet, is_behind: bool) -> Choice {
        let Some(target) = self.target else { return Choice::Forward };
        if is_behind {
            return if target != current && self.may_start(packet) { self.start() } else { Choice::Forward };
        }
        if !packet.switches.contains(target, self.temporal_target) {
            return Choice::Forward;
        }
        if !packet.targets.contains(current, self.temporal) {
            // Its own picture may have ended with the layer below already.
            return if self.may_start(packet) { self.start() } else { Choice::Forward };
        }
        (self.current, self.temporal) = (Some(target), self.temporal_target);
        if target == current { Choice::Forward } else { Choice::TurnAndForward }
    }

    fn may_start(&self, packet: &Packet) -> bool {
        let is_for_target = self.target.is_some_and(|target| packet.switches.contains(target, self.temporal_target));
        packet.key_frame && packet.start_of_frame && is_for_target
    }

    fn start(&mut self) -> Choice {
        (self.current, self.temporal) = (self.target, self.temporal_target);
        Choice::SwitchAndForward
    }

    #[inline]
    fn step_temporal(&mut self, layer: u8, packet: &Packet) {
        // Until the key frame of a lower layer comes, the least of this one has to do: its path takes no more.
        // Where none arrives there is nothing to wait for.
        let is_narrow = matches!(self.allowed, Some(Some(allowed)) if allowed.spatial < layer);
        let falls = is_narrow && self.target.is_some_and(|target| target < layer);
        if falls {
            self.temporal = 0;
        } else if self.temporal_target <= self.temporal {
            self.temporal = self.temporal_target;
        } else if packet.layer_sync && packet.temporal == self.temporal + 1 {
            // One at a time: a frame that can begin says nothing of the layers between, which may go on from what was left out.
            self.temporal = packet.temporal;
        } else if packet.key_frame {
            self.temporal = self.temporal_target;
        }
    }

    /// Why this consumer gets what it gets; `alive` as in [`choose`](Self::choose).
    pub fn reason(&self, count: u8, alive: u8) -> Reason {
        let top = count.saturating_sub(1);
        let wish = self.preferred.map_or(top, |layers| layers.spatial.min(top));
        match (self.current, self.target) {
            (_, None) => Reason::Bandwidth,
            (None, Some(target)) if alive & (1 << target) == 0 => Reason::LayerInactive,
            (None, Some(_)) => Reason::NoKeyFrame,
            (Some(current), Some(target)) => {
                let held_by_bandwidth = match self.allowed {
                    Some(Some(layers)) => layers.spatial < wish || self.lower_temporal(layers.temporal),
                    Some(None) => true,
                    None => false,
                };
                if current != target && current < wish {
                    if alive & (1 << target) == 0 { Reason::LayerInactive } else { Reason::NoKeyFrame }
                } else if held_by_bandwidth {
                    Reason::Bandwidth
                } else if current < wish {
                    Reason::ProducerUplink
                } else if wish < top || self.preferred.is_some_and(|layers| self.lower_temporal(layers.temporal)) {
                    Reason::Preferred
                } else {
                    Reason::Full
                }
            }
        }
    }

    /// Whether a cap on temporal layers takes any away; a client that wants "the best" names 2 or more.
    fn lower_temporal(&self, cap: u8) -> bool {
        cap < self.temporal_top.min(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::codec::layers::LayerSet;

    fn key(start: bool) -> Packet {
        Packet { key_frame: true, start_of_frame: start, ..Packet::new(1, 0, 10) }
    }

    fn frame(temporal: u8, sync: bool) -> Packet {
        Packet { temporal, layer_sync: sync, start_of_frame: true, ..Packet::new(1, 0, 10) }
    }

    fn layers(spatial: u8, temporal: u8) -> Layers {
        Layers { spatial, temporal }
    }

    fn flowing(layer: u8) -> Selector {
        let mut selector = Selector::new(true, None, 2, false);
        selector.choose(3, 1 << layer);
        assert_eq!(selector.accept(layer, &key(true)), Choice::SwitchAndForward);
        selector
    }

    #[test]
    fn the_best_layer_that_arrives_is_chosen() {
        for (alive, expected) in [(0b111, 2), (0b011, 1), (0b001, 0), (0b100, 2), (0b000, 2)] {
            let mut selector = Selector::new(true, None, 2, false);
            selector.choose(3, alive);
            assert_eq!(selector.target(), Some(expected), "alive {alive:#05b}");
        }
    }

    #[test]
    fn a_wish_is_a_cap_and_falls_back_to_what_arrives() {
        for (alive, expected) in [(0b111, 1), (0b101, 0), (0b100, 2)] {
            let mut selector = Selector::new(true, Some(layers(1, 2)), 2, false);
            selector.choose(3, alive);
            assert_eq!(selector.target(), Some(expected), "alive {alive:#05b}");
        }
    }

    #[test]
    fn video_starts_with_the_first_packet_of_a_key_frame() {
        let mut selector = Selector::new(true, None, 2, false);
        selector.choose(1, 1);
        assert_eq!(selector.accept(0, &frame(0, false)), Choice::Refuse(Discard::AwaitingKeyFrame));
        assert_eq!(selector.accept(0, &key(false)), Choice::Refuse(Discard::AwaitingKeyFrame));
        assert_eq!(selector.accept(0, &key(true)), Choice::SwitchAndForward);
        assert_eq!(selector.accept(0, &frame(0, false)), Choice::Forward);
    }

    #[test]
    fn audio_starts_anywhere() {
        let mut selector = Selector::new(false, None, 2, false);
        selector.choose(1, 1);
        assert_eq!(selector.accept(0, &Packet::new(1, 0, 10)), Choice::SwitchAndForward);
    }

    #[test]
    fn the_old_layer_flows_until_the_key_frame_of_the_other() {
        let mut selector = flowing(0);
        selector.choose(3, 0b111);
        assert_eq!(selector.accept(0, &frame(0, false)), Choice::Forward);
        assert_eq!(selector.accept(2, &frame(0, false)), Choice::Refuse(Discard::AwaitingKeyFrame));
        assert_eq!(selector.accept(2, &key(true)), Choice::SwitchAndForward);
        assert_eq!(selector.accept(0, &frame(0, false)), Choice::Refuse(Discard::OtherLayer));
    }

    #[test]
    fn temporal_layers_fall_at_once_and_rise_at_a_sync_frame() {
        let mut selector = flowing(0);
        selector.prefer(layers(0, 0));
        selector.choose(1, 1);
        assert_eq!(selector.accept(0, &frame(2, false)), Choice::LeaveOut);
        assert_eq!(selector.accept(0, &frame(0, false)), Choice::Forward);
        selector.prefer(layers(0, 2));
        selector.choose(1, 1);
        assert_eq!(selector.accept(0, &frame(1, false)), Choice::LeaveOut);
        assert_eq!(selector.accept(0, &frame(1, true)), Choice::Forward);
        assert_eq!(selector.accept(0, &frame(2, false)), Choice::LeaveOut);
        assert_eq!(selector.accept(0, &frame(2, true)), Choice::Forward);
    }

    #[test]
    fn more_frames_come_one_temporal_layer_at_a_time() {
        let mut selector = flowing(0);
        selector.prefer(layers(0, 0));
        selector.choose(1, 1);
        assert_eq!(selector.accept(0, &frame(0, false)), Choice::Forward);
        selector.prefer(layers(0, 2));
        selector.choose(1, 1);
        assert_eq!(selector.accept(0, &frame(2, true)), Choice::LeaveOut, "the layer between is not there yet");
        assert_eq!(selector.accept(0, &frame(1, false)), Choice::LeaveOut, "it may refer to what was left out");
        assert_eq!(selector.accept(0, &frame(1, true)), Choice::Forward);
        assert_eq!(selector.accept(0, &frame(2, false)), Choice::LeaveOut);
        assert_eq!(selector.accept(0, &frame(2, true)), Choice::Forward);
    }

    #[test]
    fn where_no_lower_layer_arrives_all_of_the_one_that_does_is_sent() {
        let mut selector = flowing(2);
        selector.allow(Some(Some(layers(0, 2))));
        selector.choose(3, 0b100);
        assert_eq!(selector.accept(2, &frame(2, false)), Choice::Forward);
    }

    #[test]
    fn while_it_waits_for_a_lower_layer_a_narrow_path_gets_the_least_of_the_one_that_flows() {
        let mut selector = flowing(2);
        selector.allow(Some(Some(layers(0, 2))));
        selector.choose(3, 0b111);
        assert_eq!(selector.accept(2, &frame(2, false)), Choice::LeaveOut);
        assert_eq!(selector.accept(2, &frame(0, false)), Choice::Forward);
        assert_eq!(selector.accept(0, &key(true)), Choice::SwitchAndForward);
        assert_eq!(selector.accept(0, &frame(2, false)), Choice::Forward, "of the lower one all that is allowed");
        // A wish for a smaller picture is no hurry.
        let mut selector = flowing(2);
        selector.prefer(layers(0, 2));
        selector.choose(3, 0b111);
        assert_eq!(selector.accept(2, &frame(2, false)), Choice::Forward);
    }

    #[test]
    fn a_frame_that_began_is_finished_when_its_layer_falls() {
        let mut selector = flowing(0);
        assert_eq!(selector.accept(0, &frame(2, false)), Choice::Forward);
        selector.prefer(layers(0, 0));
        selector.choose(1, 1);
        let rest = Packet { start_of_frame: false, ..frame(2, false) };
        assert_eq!(selector.accept(0, &rest), Choice::Forward);
        assert_eq!(selector.accept(0, &frame(2, false)), Choice::LeaveOut);
    }

    #[test]
    fn the_reason_says_what_holds_a_picture_back() {
        let mut selector = Selector::new(true, None, 2, false);
        selector.choose(3, 0b111);
        assert_eq!(selector.reason(3, 0b111), Reason::NoKeyFrame);
        assert_eq!(selector.reason(3, 0), Reason::LayerInactive);
        selector.accept(2, &key(true));
        assert_eq!(selector.reason(3, 0b111), Reason::Full);

        selector.allow(Some(Some(layers(0, 2))));
        selector.choose(3, 0b111);
        selector.accept(0, &key(true));
        assert_eq!(selector.reason(3, 0b111), Reason::Bandwidth);

        selector.allow(None);
        selector.prefer(layers(0, 2));
        selector.choose(3, 0b111);
        assert_eq!(selector.reason(3, 0b111), Reason::Preferred);

        let mut selector = flowing(1);
        selector.choose(3, 0b011);
        assert_eq!(selector.reason(3, 0b011), Reason::ProducerUplink);
    }

    #[test]
    fn a_cap_that_takes_nothing_away_is_no_reason() {
        for (top, cap, bandwidth, preferred) in [
            (0, 0, Reason::Full, Reason::Full),
            (1, 1, Reason::Full, Reason::Full),
            (1, 0, Reason::Bandwidth, Reason::Preferred),
            (2, 1, Reason::Bandwidth, Reason::Preferred),
            (3, 2, Reason::Full, Reason::Full),
        ] {
            let mut selector = Selector::new(true, None, top, false);
            selector.allow(Some(Some(layers(0, cap))));
            selector.choose(1, 1);
            selector.accept(0, &key(true));
            assert_eq!(selector.reason(1, 1), bandwidth, "allowed {cap} of {top}");
            selector.allow(None);
            selector.prefer(layers(0, cap));
            assert_eq!(selector.reason(1, 1), preferred, "preferred {cap} of {top}");
        }
    }

    #[test]
    fn no_bandwidth_at_all_ends_the_flow() {
        let mut selector = flowing(1);
        selector.allow(Some(None));
        assert!(selector.choose(3, 0b111));
        assert_eq!(selector.target(), None);
        assert!(!selector.follows(1));
        assert_eq!(selector.accept(1, &frame(0, false)), Choice::Refuse(Discard::OtherLayer));
        assert_eq!(selector.reason(3, 0b111), Reason::Bandwidth);
        selector.allow(Some(Some(layers(1, 2))));
        assert!(selector.choose(3, 0b111));
        assert_eq!(selector.accept(1, &frame(0, false)), Choice::Refuse(Discard::AwaitingKeyFrame));
        assert_eq!(selector.accept(1, &key(true)), Choice::SwitchAndForward);
    }

    /// A packet of a frame of these layers in a stream of three by three, of which upper spatial layers refer to lower ones in
    /// every picture (`nested`), or in key pictures only.
    fn within(spatial: u8, temporal: u8, is_key: bool, nested: bool) -> Packet {
        let is_for = |s: u8, t: u8| t >= temporal && (s == spatial || (s > spatial && (nested || is_key)));
        Packet {
            key_frame: is_key && spatial == 0,
            start_of_frame: true,
            spatial,
            temporal,
            targets: LayerSet::of(is_for),
            switches: LayerSet::of(|s, t| is_for(s, t) && (is_key || (s == spatial && temporal == 0))),
            ..Packet::new(1, 0, 10)
        }
    }

    /// Which spatial layers of a picture are forwarded.
    fn picture(selector: &mut Selector, temporal: u8, is_key: bool, nested: bool) -> Vec<u8> {
        let forwards = |spatial: &u8| {
            !matches!(
                selector.accept_layered(&within(*spatial, temporal, is_key, nested), false),
                Choice::LeaveOut | Choice::Refuse(_)
            )
        };
        (0..3).filter(forwards).collect()
    }

    fn layered(wish: Layers) -> Selector {
        let mut selector = Selector::new(true, Some(wish), 2, true);
        selector.choose(3, 0);
        selector
    }

    #[test]
    fn of_one_stream_a_receiver_gets_its_layer_and_what_that_refers_to() {
        for (nested, delta) in [(true, vec![0, 1]), (false, vec![1])] {
            let mut selector = layered(layers(1, 1));
            assert!(picture(&mut selector, 0, false, nested).is_empty(), "a decoder cannot start here");
            assert_eq!(picture(&mut selector, 0, true, nested), [0, 1]);
            assert!(picture(&mut selector, 2, false, nested).is_empty());
            assert_eq!(picture(&mut selector, 1, false, nested), delta);
            assert_eq!(selector.current(), Some(1));
        }
    }

    #[test]
    fn a_larger_picture_of_one_stream_begins_at_a_key_picture() {
        for nested in [true, false] {
            let mut selector = layered(layers(0, 2));
            picture(&mut selector, 0, true, nested);
            selector.prefer(layers(2, 2));
            assert!(selector.choose(3, 0b111));
            assert_eq!(picture(&mut selector, 0, false, nested), [0]);
            assert_eq!(picture(&mut selector, 0, true, nested), [0, 1, 2]);
        }
    }

    #[test]
    fn a_smaller_picture_of_one_stream_begins_at_a_base_frame_if_it_was_there_all_along() {
        for (nested, next) in [(true, vec![0]), (false, vec![2])] {
            let mut selector = layered(layers(2, 2));
            picture(&mut selector, 0, true, nested);
            selector.prefer(layers(0, 2));
            selector.choose(3, 0b111);
            assert_eq!(picture(&mut selector, 1, false, nested).last(), Some(&2));
            assert_eq!(picture(&mut selector, 0, false, nested), next);
            assert_eq!(picture(&mut selector, 0, true, nested), [0]);
        }
    }

    #[test]
    fn fewer_and_more_frames_of_one_stream_begin_at_a_base_frame() {
        let mut selector = layered(layers(2, 2));
        picture(&mut selector, 0, true, false);
        for (wish, before, after) in [(0, vec![2], vec![]), (2, vec![], vec![2])] {
            selector.prefer(layers(2, wish));
            selector.choose(3, 0b111);
            assert_eq!(picture(&mut selector, 2, false, false), before);
            assert_eq!(picture(&mut selector, 0, false, false), [2]);
            assert_eq!(picture(&mut selector, 2, false, false), after);
        }
    }

    #[test]
    fn where_the_start_of_a_key_picture_comes_late_the_stream_begins_anew_with_it() {
        let mut selector = layered(layers(0, 2));
        picture(&mut selector, 0, true, false);
        selector.prefer(layers(2, 2));
        selector.choose(3, 0b111);
        assert_eq!(selector.accept_layered(&within(0, 0, false, false), true), Choice::Forward);
        assert_eq!(selector.accept_layered(&within(0, 0, true, false), true), Choice::SwitchAndForward);
        assert_eq!(selector.current(), Some(2));
    }

    #[test]
    fn of_independent_pictures_in_one_stream_each_begins_at_its_own_key_frame() {
        let alone = |spatial: u8, is_key: bool| Packet {
            key_frame: is_key,
            targets: LayerSet::of(|s, _| s == spatial),
            switches: LayerSet::of(|s, _| s == spatial && is_key),
            ..within(spatial, 0, is_key, false)
        };
        let mut selector = layered(layers(1, 2));
        assert_eq!(selector.accept_layered(&alone(0, true), false), Choice::Refuse(Discard::AwaitingKeyFrame));
        assert_eq!(selector.accept_layered(&alone(1, true), false), Choice::SwitchAndForward);
        assert_eq!(selector.accept_layered(&alone(0, false), false), Choice::LeaveOut);
        selector.prefer(layers(0, 2));
        selector.choose(3, 0b111);
        assert_eq!(selector.accept_layered(&alone(0, false), false), Choice::LeaveOut);
        assert_eq!(selector.accept_layered(&alone(0, true), false), Choice::SwitchAndForward);
    }
}
