//! Which consumer follows which layer, and who asks for key frames.
//!
//! A layer keeps the list of consumers that get it or wait for its next key frame; egress walks that list and
//! nothing else. The lists change here only: on a wish, on bandwidth, when a layer comes or goes.

use std::time::Instant;

use crate::shard::Shard;
use crate::shard::command::{Event, Kind, Reason};
use crate::shard::consumer::Consumer;
use crate::shard::producer::Producer;
use crate::shard::table::Key;

impl Shard {
    /// Chooses anew for every consumer of a producer. `asks` is false where the key frame that a change of layer needs
    /// is about to be forwarded.
    pub(super) fn choose_layers(&mut self, now: Instant, key: Key<Producer>, asks: bool) {
        let Some(producer) = self.producers.at(key) else { return };
        for consumer in producer.consumers.clone() {
            if self.choose(consumer) && asks {
                self.ask_key_frame(now, consumer);
            }
        }
    }

    /// Chooses the layer that a consumer should get, and asks for the key frame that it begins with.
    pub(super) fn choose_layer(&mut self, now: Instant, key: Key<Consumer>) {
        if self.choose(key) {
            self.ask_key_frame(now, key);
        }
    }

    /// Puts a consumer into the lists of the layers that it should follow. Returns whether it takes a key frame to get
    /// there.
    fn choose(&mut self, key: Key<Consumer>) -> bool {
        let Some(consumer) = self.consumers.at_mut(key) else { return false };
        if consumer.paused {
            return false;
        }
        let Some(producer) = self.producers.at_mut(consumer.producer) else { return false };
        let (count, alive) = (producer.spatial_layers(), producer.alive());
        let changed = consumer.selector.choose(count, alive);
        follow(producer, consumer, key);
        if changed {
            self.changed.push(key);
        }
        let (target, current) = (consumer.selector.target(), consumer.selector.current());
        changed && target != current && !(target < current && producer.is_nested())
    }

    /// A consumer needs a key frame of the layer that it waits for, or of the one that it gets.
    pub(super) fn ask_key_frame(&mut self, now: Instant, key: Key<Consumer>) {
        let Some(consumer) = self.consumers.at(key).filter(|consumer| !consumer.paused) else { return };
        let producer_key = consumer.producer;
        let Some(producer) = self.producers.at_mut(producer_key) else { return };
        if !producer.needs_key_frame() || producer.paused {
            return;
        }
        let Some(layer) = consumer.selector.wanted().and_then(|layer| producer.layers.get_mut(layer as usize)) else {
            return;
        };
        layer.key_frames.ask();
        self.request_key_frames(now, producer_key);
    }

    /// Every layer that somebody follows gets a key frame (the producer was resumed).
    pub(super) fn ask_key_frames_for_all(&mut self, now: Instant, key: Key<Producer>) {
        let Some(producer) = self.producers.at_mut(key).filter(|producer| producer.needs_key_frame()) else { return };
        for layer in &mut producer.layers {
            if !layer.consumers.is_empty() {
                layer.key_frames.ask();
            }
        }
        self.request_key_frames(now, key);
    }

    /// Tells clients whose layer or reason changed in this tick.
    pub(super) fn tell_changes(&mut self, now: Instant) {
        if self.changed.is_empty() {
            return;
        }
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        for key in changed.drain(..) {
            self.tell_layers(now, key);
        }
        self.changed = changed;
    }

    fn tell_layers(&mut self, now: Instant, key: Key<Consumer>) {
        let Some(consumer) = self.consumers.at_mut(key) else { return };
        let Some(producer) = self.producers.at_mut(consumer.producer) else { return };
        follow(producer, consumer, key);
        let reason = reason(consumer, producer, now);
        let layers = consumer.layers();
        if consumer.rest.told != Some((layers, reason)) {
            consumer.rest.told = Some((layers, reason));
            let consumer = consumer.rest.id;
            self.tell(Event::ConsumerLayers { consumer, layers, reason });
        }
    }
}

/// Why a consumer gets what it gets.
pub fn reason(consumer: &Consumer, producer: &Producer, now: Instant) -> Reason {
    if consumer.paused || producer.paused {
        return Reason::Paused;
    }
    if producer.kind == Kind::Audio {
        // There are no layers to choose from and nothing to wait for: it is forwarded, or there is nothing to forward.
        return if producer.is_withheld || !producer.sounds(now) { Reason::LayerInactive } else { Reason::Full };
    }
    consumer.selector.reason(producer.spatial_layers(), producer.alive())
}

/// A consumer is in the lists of the layers that it gets or waits for, and in no other.
fn follow(producer: &mut Producer, consumer: &Consumer, key: Key<Consumer>) {
    for (at, layer) in producer.layers.iter_mut().enumerate() {
        if !consumer.paused && consumer.selector.follows(at as u8) {
            layer.follow(key);
        } else {
            layer.unfollow(key);
        }
    }
}
