//! Many microphones in a room that forwards the loudest three.

use std::time::{Duration, Instant};

use ringside::ids::{ConsumerId, PeerId, ProducerId};
use ringside::shard::command::{Command, Event, Reason, RoomSettings};

use crate::call::{Call, ROOM};
use crate::source::Source;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
const SPEECH: u8 = 25;
const LOUDER: u8 = 15;
const NOISE: u8 = 75;

struct Room {
    call: Call,
    /// By microphone: who has it, and the SSRC under which the listener hears it.
    voices: Vec<(usize, u32)>,
    consumers: Vec<ConsumerId>,
    producers: Vec<ProducerId>,
    listener: usize,
}

impl Room {
    fn new(seed: u64, microphones: usize, audio_top_n: u8) -> Room {
        let mut call = Call::with_settings(seed, RoomSettings { audio_top_n, ..RoomSettings::default() });
        let peers: Vec<_> = (0..microphones).map(|_| call.join()).collect();
        let listener = call.join_to_watch();
        call.run(2 * SECOND);
        let (mut voices, mut consumers, mut producers) = (Vec::new(), Vec::new(), Vec::new());
        for peer in peers {
            let mut source = Source::microphone(1000 * (peer as u32 + 1), call.now);
            source.level = NOISE;
            let producer = call.publish(peer, source);
            let (consumer, ssrc) = call.watch(listener, producer);
            voices.push((peer, ssrc));
            consumers.push(consumer);
            producers.push(producer);
        }
        call.run(2 * SECOND);
        Room { call, voices, consumers, producers, listener }
    }

    fn speak(&mut self, voice: usize, level: u8) {
        let peer = self.voices[voice].0;
        self.call.source(peer).level = level;
    }

    fn heard(&self, voice: usize, from: Instant, to: Instant) -> usize {
        self.call.viewer(self.listener, self.voices[voice].1).arrivals(from, to)
    }

    /// What the listener was last told of a voice, and what it reads when it asks.
    fn reasons(&mut self, voice: usize) -> (Option<Reason>, Reason) {
        let wanted = self.consumers[voice];
        let told = self.call.events.iter().rev().find_map(|(_, event)| match event {
            Event::ConsumerLayers { consumer, reason, layers } if *consumer == wanted => {
                assert_eq!(*layers, None, "a sound has no layers");
                Some(*reason)
            }
            _ => None,
        });
        (told, self.call.consumer_stats(wanted).reason)
    }

    fn dominant(&self) -> Option<PeerId> {
        self.call.events.iter().rev().find_map(|(_, event)| match event {
            Event::ActiveSpeaker { peer, .. } => Some(*peer),
            _ => None,
        })
    }

    fn peer(&self, voice: usize) -> PeerId {
        self.call.clients[self.voices[voice].0].peer
    }
}

#[test]
fn only_the_three_loudest_are_forwarded() {
    let mut room = Room::new(1, 12, 3);
    for voice in [2, 5, 9] {
        room.speak(voice, SPEECH);
    }
    room.call.run(2 * SECOND);
    let from = room.call.now;
    room.call.run(5 * SECOND);
    let heard: Vec<_> = (0..12).map(|voice| room.heard(voice, from, room.call.now)).collect();
    for (voice, packets) in heard.iter().enumerate() {
        let expected = if [2, 5, 9].contains(&voice) { 249..=251 } else { 0..=0 };
        assert!(expected.contains(packets), "voice {voice}: {heard:?}");
    }
}

#[test]
fn who_begins_to_speak_is_heard_at_once_and_told_as_dominant() {
    let mut room = Room::new(2, 12, 3);
    room.call.run(2 * SECOND);
    let begun = room.call.now;
    room.speak(7, SPEECH);
    room.call.run(3 * SECOND);
    let until = room.call.now;
    // 150 packets were spoken. What is missing at the front is the time that it took to notice.
    let heard = room.heard(7, begun, until);
    assert!(heard >= 147, "{heard} of 150: the first syllable is cut");
    assert_eq!(room.dominant(), Some(room.peer(7)));
}

#[test]
fn a_pause_for_breath_does_not_cut_a_sentence() {
    let mut room = Room::new(3, 12, 3);
    for voice in [0, 1, 2] {
        room.speak(voice, SPEECH);
    }
    room.call.run(2 * SECOND);
    let from = room.call.now;
    // The first speaks in words of 600 ms with pauses of 300 ms, while a fourth coughs now and then.
    for word in 0..10 {
        room.speak(0, NOISE);
        room.speak(6, if word % 3 == 0 { SPEECH } else { NOISE });
        room.call.run(300 * MS);
        room.speak(0, SPEECH);
        room.speak(6, NOISE);
        room.call.run(600 * MS);
    }
    let heard = room.heard(0, from, room.call.now);
    assert!(heard >= 449, "{heard} of 450");
    let picture = room.call.viewer(room.listener, room.voices[0].1);
    picture.assert_continuous();
    assert_eq!(picture.missing(), 0);
}

#[test]
fn a_fourth_voice_that_is_louder_takes_the_place_of_the_quietest() {
    let mut room = Room::new(4, 12, 3);
    for voice in [0, 1, 2] {
        room.speak(voice, SPEECH + 5 * voice as u8);
    }
    room.call.run(3 * SECOND);
    let begun = room.call.now;
    room.speak(8, LOUDER);
    room.call.run(2 * SECOND);
    let settled = room.call.now;
    room.call.run(2 * SECOND);
    let late = room.call.viewer(room.listener, room.voices[8].1).arrivals(begun, settled);
    let heard: Vec<_> = [0, 1, 2, 8].into_iter().map(|voice| room.heard(voice, settled, room.call.now)).collect();
    assert!(heard[0] >= 99 && heard[1] >= 99 && heard[3] >= 99, "{heard:?}");
    assert_eq!(heard[2], 0, "{heard:?}");
    assert!(late >= 60, "{late} of 100");
}

#[test]
fn what_still_waits_of_a_voice_that_is_withheld_is_not_the_start_of_it() {
    let mut room = Room::new(12, 2, 1);
    // Longer than a packet of sound, so that there is always one that waits.
    room.call.shard.set_gather(30 * MS);
    for (voice, other) in [(0, 1), (1, 0), (0, 1), (1, 0)] {
        room.speak(voice, LOUDER);
        room.speak(other, NOISE);
        room.call.run(3 * SECOND);
        let from = room.call.now;
        room.call.run(SECOND);
        assert!(room.heard(voice, from, room.call.now) >= 49);
        assert_eq!(room.heard(other, from, room.call.now), 0);
    }
    for voice in [0, 1] {
        let viewer = room.call.viewer(room.listener, room.voices[voice].1);
        assert_eq!(viewer.missing(), 0, "numbers go on where they stood");
    }
}

#[test]
fn a_room_may_be_given_another_number_of_voices_while_it_talks() {
    let mut room = Room::new(10, 4, 1);
    (0..4).for_each(|voice| room.speak(voice, SPEECH));
    room.call.run(2 * SECOND);
    let heard = |room: &mut Room| {
        let from = room.call.now;
        room.call.run(SECOND);
        (0..4).filter(|voice| room.heard(*voice, from, room.call.now) >= 48).count()
    };
    assert_eq!(heard(&mut room), 1);
    for (audio_top_n, voices) in [(3, 3), (0, 4), (2, 2)] {
        let settings = RoomSettings { audio_top_n, ..RoomSettings::default() };
        room.call.shard.handle_command(room.call.now, Command::OpenRoom { room: ROOM, settings });
        room.call.run(SECOND / 10);
        assert_eq!(heard(&mut room), voices, "{audio_top_n}");
    }
}

#[test]
fn who_is_not_heard_is_told_why() {
    let mut room = Room::new(8, 6, 3);
    let both = |reason| (Some(reason), reason);
    for voice in [0, 1, 2] {
        room.speak(voice, SPEECH);
    }
    room.call.run(3 * SECOND);
    let heard: Vec<_> = (0..6).map(|voice| room.reasons(voice)).collect();
    assert_eq!(heard[..3], [both(Reason::Full); 3]);
    assert_eq!(heard[3..], [both(Reason::LayerInactive); 3], "not among the loudest");

    let consumer = room.consumers[0];
    room.call.pause(consumer);
    room.call.run(SECOND);
    assert_eq!(room.reasons(0), both(Reason::Paused));
    room.call.resume(consumer);
    room.call.run(SECOND);
    assert_eq!(room.reasons(0), both(Reason::Full));

    let producer = room.producers[1];
    room.call.command(|token| Command::PauseProducer { token, producer }).unwrap();
    room.call.run(SECOND);
    assert_eq!(room.reasons(1), both(Reason::Paused));

    // A microphone that dies without a word to the signaling.
    let peer = room.voices[2].0;
    room.call.stop_sources(peer);
    room.call.run(4 * SECOND);
    assert_eq!(room.reasons(2), both(Reason::LayerInactive));

    room.speak(4, SPEECH);
    room.call.run(SECOND);
    assert_eq!(room.reasons(4), both(Reason::Full));
}

#[test]
fn a_voice_that_nobody_has_sent_yet_waits_for_no_key_frame() {
    let mut call = Call::new(9);
    let (speaker, listener) = (call.join(), call.join_to_watch());
    call.run(2 * SECOND);
    let microphone = call.publish(speaker, Source::microphone(1000, call.now));
    call.stop_sources(speaker);
    let (consumer, _) = call.watch(listener, microphone);
    call.run(SECOND);
    assert_eq!(call.consumer_stats(consumer).reason, Reason::LayerInactive);
}

/// Two voices that speak, and what the room was last told of how loud they are.
fn two_who_speak(seed: u64) -> (Call, [usize; 2], [ProducerId; 2]) {
    let mut call = Call::with_settings(seed, RoomSettings { audio_top_n: 3, ..RoomSettings::default() });
    let peers = [call.join(), call.join()];
    call.run(2 * SECOND);
    let microphones = peers.map(|peer| {
        let mut source = Source::microphone(1000 * (peer as u32 + 1), call.now);
        source.level = SPEECH;
        call.publish(peer, source)
    });
    call.run(3 * SECOND);
    assert_eq!(last_levels(&call).map(|levels| levels.len()), Some(2));
    (call, peers, microphones)
}

fn last_levels(call: &Call) -> Option<&Vec<(PeerId, u8)>> {
    call.events.iter().rev().find_map(|(_, event)| match event {
        Event::AudioLevels { levels, .. } => Some(levels),
        _ => None,
    })
}

#[test]
fn when_the_last_microphone_pauses_the_room_is_told_that_nobody_speaks() {
    let (mut call, _, microphones) = two_who_speak(5);
    for producer in microphones {
        call.command(|token| Command::PauseProducer { token, producer }).unwrap();
    }
    call.run(2 * SECOND);
    assert_eq!(last_levels(&call), Some(&vec![]));
}

#[test]
fn when_everybody_who_spoke_has_left_the_room_is_told_that_nobody_speaks() {
    let (mut call, peers, _) = two_who_speak(6);
    for peer in peers {
        call.leave(peer);
    }
    call.run(2 * SECOND);
    assert_eq!(last_levels(&call), Some(&vec![]));
}

#[test]
fn microphones_that_fall_silent_are_told_once_and_then_wake_nobody() {
    let (mut call, peers, _) = two_who_speak(7);
    for peer in peers {
        call.stop_sources(peer);
    }
    let silent = call.now;
    call.run(10 * SECOND);
    let told = |(at, event): &(Instant, Event)| match event {
        Event::AudioLevels { levels, .. } if *at > silent + SECOND => Some(levels.len()),
        _ => None,
    };
    let told: Vec<usize> = call.events.iter().filter_map(told).collect();
    assert_eq!(told.last(), Some(&0), "{told:?}");
    assert_eq!(told.iter().filter(|speakers| **speakers == 0).count(), 1, "{told:?}");
}
