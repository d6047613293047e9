//! Who speaks in a room: which microphones are forwarded, who dominates, how loud everybody is.
//!
//! Levels are taken from header extensions as packets arrive; whoever is not among the loudest is not forwarded to
//! anybody, which is decided once per packet and not once per receiver. When somebody begins to be heard, the
//! numbering of each receiver goes on where it stood.

use std::time::Instant;

use crate::discard::Discard;
use crate::media::audio_level::AudioChange;
use crate::shard::Shard;
use crate::shard::command::{Event, Kind};
use crate::shard::producer::Producer;
use crate::shard::room::Room;
use crate::shard::table::Key;
use crate::shard::transport::Transport;

impl Shard {
    /// Takes the level of an audio packet; returns whether it is forwarded.
    pub(super) fn hear(&mut self, now: Instant, key: Key<Producer>, level: Option<u8>) -> bool {
        let Some(producer) = self.producers.at_mut(key) else { return false };
        let Some(source) = producer.audio_source else { return true };
        let room_key = producer.room;
        let Some(room) = self.rooms.at_mut(room_key) else { return false };
        if let Some(level) = level {
            room.audio.receive(source, level, now);
        }
        let withheld = !room.audio.forwarded(source);
        if withheld != producer.is_withheld {
            producer.is_withheld = withheld;
            self.changed.extend(&producer.consumers);
            // What follows is not the continuation of what was heard last.
            if withheld {
                self.stop_consumers_of(key, Discard::NotLoudest);
            }
        }
        self.keep_speakers(now, room_key);
        !withheld
    }

    /// A microphone of this transport that stopped without a pause, or began: its listeners are told.
    pub(super) fn check_sounds(&mut self, now: Instant, key: Key<Transport>) {
        let Some(transport) = self.transports.at(key) else { return };
        for producer in &transport.producers {
            let Some(producer) = self.producers.at_mut(*producer).filter(|producer| producer.kind == Kind::Audio)
            else {
                continue;
            };
            let sounds = u8::from(producer.sounds(now));
            if std::mem::replace(&mut producer.alive, sounds) != sounds {
                self.changed.extend(&producer.consumers);
            }
        }
    }

    /// Tells who dominates and how loud everybody is, when it is time: with a packet, or by the clock, for the last one
    /// who spoke may send none any more.
    pub(super) fn keep_speakers(&mut self, now: Instant, key: Key<Room>) {
        let Some(room) = self.rooms.at_mut(key) else { return };
        let is_due = room.audio.next_deadline().is_some_and(|at| at <= now);
        let change = if is_due { room.audio.poll(now) } else { AudioChange::default() };
        self.speaker_timers.arm(key, &mut room.armed, room.audio.next_deadline());
        if change == AudioChange::default() {
            return;
        }
        let mut levels = std::mem::take(&mut self.levels);
        if change.levels {
            room.audio.levels(now, &mut levels);
        }
        let id = room.id;
        if let Some(peer) = change.dominant.and_then(|source| self.speaker(key, source)) {
            self.tell(Event::ActiveSpeaker { room: id, peer });
        }
        if change.levels {
            let levels = levels.drain(..).filter_map(|(source, level)| Some((self.speaker(key, source)?, level)));
            let levels = levels.collect();
            self.tell(Event::AudioLevels { room: id, levels });
        }
        self.levels = levels;
    }

    fn speaker(&self, room: Key<Room>, source: usize) -> Option<crate::ids::PeerId> {
        let producers = &self.rooms.at(room)?.producers;
        let producers = producers.iter().filter_map(|key| self.producers.at(*key));
        producers.filter(|producer| producer.audio_source == Some(source)).map(|producer| producer.peer).next()
    }
}
