//! Layers within one stream: each receiver gets its size and its frame rate, and what it gets can be decoded.

use std::time::Duration;

use ringside::discard::Discard;
use ringside::shard::command::{Codec, Layers, Reason};

use crate::source::{Mode, SPATIAL, Source, Stamp, TEMPORAL};
use crate::viewer::{Picture, pictures};
use crate::world::{MS, World};

const FRAME: Duration = Duration::from_millis(33);
const STREAMS: [(Codec, Mode); 6] = [
    (Codec::Vp9, Mode::Full),
    (Codec::Vp9, Mode::Key),
    (Codec::Vp9, Mode::Alone),
    (Codec::Av1, Mode::Full),
    (Codec::Av1, Mode::Key),
    (Codec::Av1, Mode::Alone),
];

fn layers(spatial: u8, temporal: u8) -> Layers {
    Layers { spatial, temporal }
}

/// A world and its camera, whose encoder answers requests for key frames with the next picture.
struct Scene {
    world: World,
    source: Source,
    answered: usize,
}

impl Scene {
    fn new((codec, mode): (Codec, Mode)) -> Scene {
        Scene { world: World::new(codec, SPATIAL, TEMPORAL), source: Source::new(codec, mode), answered: 0 }
    }

    fn play(&mut self, pictures: usize) {
        for _ in 0..pictures {
            let is_key = self.world.key_frame_requests > self.answered || self.source.is_new();
            self.answered = self.world.key_frame_requests;
            for packet in self.source.picture(is_key) {
                self.world.send(&packet);
            }
            self.world.wait(FRAME);
        }
    }
}

/// What was shown behind the first so many pictures.
fn since(all: &[Picture], count: usize) -> Vec<Picture> {
    all[count..].to_vec()
}

#[test]
fn every_receiver_gets_the_size_and_the_frame_rate_that_it_asks_for() {
    for stream in STREAMS {
        let mut scene = Scene::new(stream);
        let wishes: Vec<Layers> = (0..9).map(|at| layers(at / 3, at % 3)).collect();
        let viewers: Vec<_> =
            wishes.iter().enumerate().map(|(at, wish)| scene.world.watch(at as u64, Some(*wish))).collect();
        scene.play(40);
        for (viewer, wish) in viewers.iter().zip(&wishes) {
            let shown = pictures(scene.world.received(*viewer));
            assert!(shown.iter().all(|picture| picture.spatial == wish.spatial), "{stream:?} {wish:?}: {shown:?}");
            assert!(shown.iter().all(|picture| picture.temporal <= wish.temporal));
            assert_eq!(shown.len(), [10, 20, 40][usize::from(wish.temporal)], "{stream:?} {wish:?}");
            let reason = if *wish == layers(2, 2) { Reason::Full } else { Reason::Preferred };
            assert_eq!(scene.world.told(*viewer), Some((Some(*wish), reason)), "{stream:?}");
        }
    }
}

#[test]
fn a_larger_picture_comes_with_a_key_frame_that_was_asked_for_and_the_smaller_one_goes_on_until_then() {
    for stream in STREAMS {
        let mut scene = Scene::new(stream);
        let viewer = scene.world.watch(1, Some(layers(0, 2)));
        scene.play(35);
        let (asked, before) = (scene.world.key_frame_requests, pictures(scene.world.received(viewer)).len());
        scene.world.prefer(viewer, 2, 2);
        assert_eq!(scene.world.key_frame_requests, asked + 1, "{stream:?}");
        scene.play(10);
        let shown = since(&pictures(scene.world.received(viewer)), before);
        // Where sizes are independent the key picture is shown in both.
        let in_both = usize::from(stream.1 == Mode::Alone);
        assert_eq!(shown.len(), 10 + in_both, "{stream:?}: no picture is left out");
        assert!(shown[in_both..].iter().all(|picture| picture.spatial == 2), "{stream:?}: {shown:?}");
        assert!(shown[0].is_key);
    }
}

#[test]
fn a_smaller_picture_of_which_everything_was_there_needs_no_key_frame() {
    for codec in [Codec::Vp9, Codec::Av1] {
        let mut scene = Scene::new((codec, Mode::Full));
        let viewer = scene.world.watch(1, Some(layers(2, 2)));
        scene.play(40);
        let asked = scene.world.key_frame_requests;
        for wish in [1, 0] {
            let before = pictures(scene.world.received(viewer)).len();
            scene.world.prefer(viewer, wish, 2);
            scene.play(12);
            let shown = since(&pictures(scene.world.received(viewer)), before);
            assert_eq!(shown.len(), 12);
            let (first, rest) = shown.split_at(4);
            assert!(first.iter().any(|picture| picture.spatial == wish), "{first:?}");
            assert!(rest.iter().all(|picture| picture.spatial == wish), "{rest:?}");
        }
        assert_eq!(scene.world.key_frame_requests, asked);
    }
}

#[test]
fn a_smaller_picture_of_which_nothing_was_there_waits_for_its_key_frame() {
    for stream in STREAMS.into_iter().filter(|(_, mode)| *mode != Mode::Full) {
        let mut scene = Scene::new(stream);
        let viewer = scene.world.watch(1, Some(layers(2, 2)));
        scene.play(40);
        let (asked, before) = (scene.world.key_frame_requests, pictures(scene.world.received(viewer)).len());
        scene.world.prefer(viewer, 0, 2);
        assert_eq!(scene.world.key_frame_requests, asked + 1);
        scene.play(8);
        let shown = since(&pictures(scene.world.received(viewer)), before);
        assert_eq!(shown.len(), 8);
        assert!(shown[0].is_key && shown.iter().all(|picture| picture.spatial == 0), "{stream:?}: {shown:?}");
    }
}

#[test]
fn frame_rates_fall_and_rise_without_a_key_frame() {
    for stream in STREAMS {
        let mut scene = Scene::new(stream);
        let viewer = scene.world.watch(1, Some(layers(2, 2)));
        scene.play(40);
        let asked = scene.world.key_frame_requests;
        for (wish, count) in [(0, 4), (1, 8), (2, 16)] {
            scene.world.prefer(viewer, 2, wish);
            scene.play(4);
            let before = pictures(scene.world.received(viewer)).len();
            scene.play(16);
            assert_eq!(pictures(scene.world.received(viewer)).len() - before, count, "{stream:?}");
        }
        assert_eq!(scene.world.key_frame_requests, asked, "{stream:?}");
    }
}

#[test]
fn a_layer_that_the_encoder_gives_up_is_left_within_half_a_second_and_taken_again_when_it_is_back() {
    for stream in STREAMS {
        let mut scene = Scene::new(stream);
        let viewer = scene.world.watch(1, None);
        scene.play(40);
        scene.source.active = 2;
        scene.play(16);
        let before = pictures(scene.world.received(viewer)).len();
        scene.play(24);
        let shown = since(&pictures(scene.world.received(viewer)), before);
        assert_eq!(shown.len(), 24, "{stream:?}");
        assert!(shown.iter().all(|picture| picture.spatial == 1), "{stream:?}: {shown:?}");
        assert_eq!(scene.world.told(viewer), Some((Some(layers(1, 2)), Reason::ProducerUplink)));
        scene.source.active = 3;
        // The encoder begins a layer with a key picture.
        scene.answered = 0;
        scene.play(40);
        let shown = pictures(scene.world.received(viewer));
        assert_eq!(shown.last().map(|picture| picture.spatial), Some(2), "{stream:?}");
        assert_eq!(scene.world.told(viewer), Some((Some(layers(2, 2)), Reason::Full)));
    }
}

#[test]
fn a_sender_that_announces_other_layers_with_every_frame_keeps_nobody_busy() {
    let mut world = World::new(Codec::Vp9, SPATIAL, TEMPORAL);
    let mut source = Source::new(Codec::Vp9, Mode::Full);
    let viewers: Vec<_> = (1..=5).map(|id| world.watch(id, None)).collect();
    for at in 0..1000 {
        source.active = if at % 2 == 0 { 1 } else { 3 };
        source.picture(true).iter().for_each(|packet| world.send(packet));
        world.wait(MS);
    }
    for viewer in viewers {
        let times = world.times_told(viewer);
        assert!((1..=20).contains(&times), "told {times} times within a second");
    }
}

#[test]
fn the_key_frame_of_one_size_does_not_end_the_search_for_what_is_missing_of_an_independent_one() {
    for (mode, asked) in [(Mode::Alone, 1), (Mode::Full, 0)] {
        let mut scene = Scene::new((Codec::Vp9, mode));
        scene.world.watch(1, None);
        scene.play(10);
        assert_eq!(scene.world.producer_stats().nack_packet_count, 0);
        // The end of the largest picture is lost, and then comes a key frame of the smallest.
        let mut lossy = scene.source.picture(false);
        lossy.pop();
        let key = scene.source.picture(true);
        lossy.iter().chain(&key[..1]).for_each(|packet| scene.world.send(packet));
        scene.world.wait(15 * MS);
        assert_eq!(scene.world.producer_stats().nack_packet_count, asked, "{mode:?}");
    }
}

#[test]
fn a_packet_that_is_sent_again_is_what_it_was() {
    for stream in STREAMS {
        let mut scene = Scene::new(stream);
        let viewer = scene.world.watch(1, Some(layers(1, 2)));
        scene.play(6);
        let sent = scene.world.received(viewer).to_vec();
        assert!(sent.iter().any(|packet| packet.marker));
        for packet in &sent {
            scene.world.ask_again(viewer, packet.sequence);
        }
        let resent = &scene.world.received(viewer)[sent.len()..];
        assert_eq!(resent.len(), sent.len());
        for (one, other) in sent.iter().zip(resent) {
            assert!(other.is_resent);
            let what = |packet: &crate::world::Received| {
                (packet.sequence, packet.timestamp, packet.marker, packet.descriptor.clone(), packet.payload.clone())
            };
            assert_eq!(what(one), what(other), "{stream:?}");
        }
    }
}

#[test]
fn descriptors_reach_receivers_as_they_came_however_long() {
    let mut scene = Scene::new((Codec::Av1, Mode::Full));
    let viewer = scene.world.watch(1, None);
    let key = scene.source.picture(true);
    let delta = scene.source.picture(false);
    let sent: Vec<_> = key.iter().chain(&delta).cloned().collect();
    sent.iter().for_each(|packet| scene.world.send(packet));
    scene.world.wait(5 * MS);
    let came: Vec<_> = scene.world.received(viewer).iter().map(|packet| packet.descriptor.clone()).collect();
    let expected: Vec<_> = sent.iter().map(|packet| packet.descriptor.clone()).collect();
    assert!(expected[0].len() > 50 && expected[1].len() == 3, "{expected:?}");
    assert_eq!(came, expected);
}

#[test]
fn a_receiver_goes_on_though_the_start_of_the_key_picture_came_last() {
    for stream in STREAMS.into_iter().filter(|(_, mode)| *mode != Mode::Alone) {
        let mut scene = Scene::new(stream);
        let viewer = scene.world.watch(1, Some(layers(0, 2)));
        scene.play(35);
        scene.world.prefer(viewer, 2, 2);
        let mut key = scene.source.picture(true);
        scene.answered = scene.world.key_frame_requests;
        let first = key.remove(0);
        key.iter().for_each(|packet| scene.world.send(packet));
        scene.world.wait(10 * MS);
        scene.world.send(&first);
        scene.play(4);
        // What went by before the start is asked for, as a browser does.
        let numbers: Vec<u16> = scene.world.received(viewer).iter().map(|packet| packet.sequence).collect();
        let (low, high) = (*numbers.iter().min().unwrap(), *numbers.iter().max().unwrap());
        for number in (low..=high).filter(|number| !numbers.contains(number)) {
            scene.world.ask_again(viewer, number);
        }
        let shown = pictures(scene.world.received(viewer));
        assert_eq!(shown.last().map(|picture| picture.spatial), Some(2), "{stream:?}");
    }
}

const AV1: [(Codec, Mode); 3] = [(Codec::Av1, Mode::Full), (Codec::Av1, Mode::Key), (Codec::Av1, Mode::Alone)];

#[test]
fn what_overtakes_the_start_of_a_key_picture_that_explains_it_waits_and_reaches_only_whom_it_is_for() {
    for stream in AV1 {
        let mut scene = Scene::new(stream);
        let viewers =
            [0, 2].map(|spatial| (spatial, scene.world.watch(1 + u64::from(spatial), Some(layers(spatial, 2)))));
        scene.play(8);
        scene.source.renumber_templates();
        let mut late = scene.source.picture(true);
        let first = late.remove(0);
        late.extend(scene.source.picture(false));
        late.iter().for_each(|packet| scene.world.send(packet));
        scene.world.wait(FRAME);
        for (spatial, viewer) in viewers {
            assert_eq!(
                pictures(scene.world.received(viewer)).len(),
                8,
                "{stream:?}: layer {spatial} has nothing to decode yet"
            );
        }
        scene.world.send(&first);
        scene.play(4);
        for (spatial, viewer) in viewers {
            let shown = pictures(scene.world.received(viewer));
            assert_eq!(shown.len(), 8 + 2 + 4, "{stream:?}: layer {spatial}");
            assert!(shown.iter().all(|picture| picture.spatial == spatial), "{stream:?}: {shown:?}");
        }
    }
}

#[test]
fn where_the_start_of_a_key_picture_never_comes_nothing_of_it_is_sent_and_another_is_asked_for() {
    for stream in AV1 {
        let mut scene = Scene::new(stream);
        let small = scene.world.watch(1, Some(layers(0, 2)));
        scene.play(8);
        scene.source.renumber_templates();
        let (asked, before) = (scene.world.key_frame_requests, scene.world.received(small).len());
        scene.source.picture(true)[1..].iter().for_each(|packet| scene.world.send(packet));
        for picture in 0.. {
            assert!(picture < 60, "{stream:?}: no key frame was asked for");
            if scene.world.key_frame_requests > asked {
                break;
            }
            scene.source.picture(false).iter().for_each(|packet| scene.world.send(packet));
            scene.world.wait(FRAME);
        }
        assert_eq!(scene.world.received(small).len(), before, "{stream:?}");
        scene.play(4);
        let shown = &scene.world.received(small)[before..];
        assert!(shown.iter().all(|packet| Stamp::read(&packet.payload).spatial == 0), "{stream:?}");
        assert!(Stamp::read(&shown[0].payload).is_key);
        assert!(scene.world.shard.discards().of(Discard::Unreadable) > 0);
    }
}

#[test]
fn a_narrow_link_gets_smaller_pictures_then_none_and_the_largest_again_when_it_recovers() {
    for stream in STREAMS {
        let mut scene = Scene::new(stream);
        scene.source.filler = 1000;
        let far = scene.world.watch_within(1);
        // Half a minute and no more: these clients answer no checks of their consent.
        let second = |scene: &mut Scene, far_bps: u64| {
            let from = scene.world.received(far).len();
            scene.world.has_room_for(far, far_bps);
            scene.play(30);
            let received = &scene.world.received(far)[from..];
            received.iter().map(|packet| 8 * packet.payload.len() as u64).sum::<u64>()
        };
        let seconds = |scene: &mut Scene, count, far_bps| {
            (0..count).map(|_| second(scene, far_bps)).last().expect("bits of the last of them")
        };
        let told = |scene: &Scene| scene.world.told(far).expect("the client is told");

        let all_bps = seconds(&mut scene, 5, 20_000_000);
        assert_eq!(told(&scene), (Some(layers(2, 2)), Reason::Full), "{stream:?}");
        let half_bps = seconds(&mut scene, 5, all_bps / 2);
        let (smaller, reason) = told(&scene);
        assert!(smaller.is_some_and(|got| got.spatial < 2) && reason == Reason::Bandwidth, "{stream:?}: {smaller:?}");
        assert!(half_bps > all_bps / 8 && half_bps <= all_bps / 2, "{stream:?}: {half_bps} of {all_bps}");
        // Less than the smallest at its lowest frame rate.
        assert_eq!(seconds(&mut scene, 6, all_bps / 50), 0, "{stream:?}");
        assert_eq!(told(&scene), (None, Reason::Bandwidth), "{stream:?}");
        let back_bps = seconds(&mut scene, 8, all_bps * 2);
        assert_eq!((told(&scene), back_bps), ((Some(layers(2, 2)), Reason::Full), all_bps), "{stream:?}");

        let shown = pictures(scene.world.received(far));
        assert!(shown.iter().any(|picture| picture.spatial < 2) && shown.last().is_some_and(|last| last.spatial == 2));
    }
}
