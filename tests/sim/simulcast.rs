//! Layers: which one a receiver gets, and how it changes over.

use std::time::Duration;

use ringside::shard::command::{Event, Layers, Reason};

use crate::call::Call;
use crate::network::Link;
use crate::source::Source;

const SECOND: Duration = Duration::from_secs(1);
const SSRC: u32 = 5000;

fn layer_of(ssrc: u32) -> u32 {
    (ssrc - SSRC) / 2
}

#[test]
fn of_a_simulcast_producer_the_best_layer_that_arrives_is_shown() {
    let mut call = Call::new(21);
    let (sender, viewer) = (call.join(), call.join());
    let camera = call.publish(sender, Source::simulcast(SSRC, call.now));
    let (_, ssrc) = call.watch(viewer, camera);
    call.run(5 * SECOND);
    let shown = call.viewer(viewer, ssrc).shown();
    assert_eq!(shown.last().map(|shown| layer_of(shown.layer)), Some(2));
    call.viewer(viewer, ssrc).assert_continuous();
}

#[test]
fn a_layer_that_stops_arriving_is_left_within_half_a_second() {
    let mut call = Call::new(22);
    let (sender, viewer) = (call.join(), call.join());
    let camera = call.publish(sender, Source::simulcast(SSRC, call.now));
    let (_, ssrc) = call.watch(viewer, camera);
    call.run(3 * SECOND);
    call.source(sender).encodings[2].active = false;
    let stopped = call.now;
    call.run(2 * SECOND);
    let viewer_ = call.viewer(viewer, ssrc);
    assert_eq!(viewer_.shown().last().map(|shown| layer_of(shown.layer)), Some(1));
    let freeze = viewer_.longest_freeze(stopped, call.now);
    assert!(freeze < Duration::from_millis(600), "{freeze:?}");

    call.source(sender).encodings[2].active = true;
    call.run(2 * SECOND);
    let viewer_ = call.viewer(viewer, ssrc);
    assert_eq!(viewer_.shown().last().map(|shown| layer_of(shown.layer)), Some(2), "and taken again when it is back");
    viewer_.assert_continuous();
    assert_eq!(viewer_.missing(), 0);
}

#[test]
fn a_screen_that_sends_a_frame_now_and_then_keeps_its_layer_and_is_asked_for_no_key_frame() {
    for interval_ms in [333, 500, 1000, 2500] {
        let mut call = Call::new(26);
        let (sender, viewer) = (call.join(), call.join());
        let screen = call.publish(sender, Source::simulcast(SSRC, call.now));
        let (_, ssrc) = call.watch(viewer, screen);
        call.run(3 * SECOND);
        call.source(sender).interval = Duration::from_millis(interval_ms);
        call.run(3 * SECOND);
        let (from, asked) = (call.now, call.key_frame_requests(sender));
        let told = call.events.len();
        call.run(30 * SECOND);
        assert_eq!(call.key_frame_requests(sender), asked, "a frame each {interval_ms} ms");
        let shown = call.viewer(viewer, ssrc).shown();
        let shown: Vec<_> = shown.iter().filter(|shown| shown.at > from).collect();
        assert!(shown.len() as u64 >= 30_000 / interval_ms - 1, "{} frames each {interval_ms} ms", shown.len());
        assert!(shown.iter().all(|shown| layer_of(shown.layer) == 2 && !shown.is_key), "{shown:?}");
        let changes = call.events[told..].iter().filter(|(_, event)| matches!(event, Event::ConsumerLayers { .. }));
        assert_eq!(changes.count(), 0, "a frame each {interval_ms} ms");
    }
}

#[test]
fn a_wish_for_another_layer_is_fulfilled_without_a_seam() {
    let mut call = Call::new(23);
    let (sender, viewer) = (call.join(), call.join());
    let camera = call.publish(sender, Source::simulcast(SSRC, call.now));
    let (consumer, ssrc) = call.watch(viewer, camera);
    call.run(3 * SECOND);
    for wish in [0, 2, 1, 2, 0] {
        call.prefer(consumer, wish, None);
        let wished = call.now;
        call.run(2 * SECOND);
        let shown = call.viewer(viewer, ssrc).shown();
        let first = shown.iter().find(|shown| shown.at > wished && layer_of(shown.layer) == u32::from(wish));
        let first = first.expect("the layer that was asked for");
        assert!(first.at - wished < Duration::from_millis(1200), "{:?}", first.at - wished);
        assert_eq!(shown.last().map(|shown| layer_of(shown.layer)), Some(u32::from(wish)));
    }
    let viewer = call.viewer(viewer, ssrc);
    viewer.assert_continuous();
    assert_eq!(viewer.missing(), 0);
    assert!(viewer.longest_freeze(call.start + SECOND, call.now) < Duration::from_millis(100));
}

#[test]
fn temporal_layers_fall_and_rise_without_a_key_frame() {
    let mut call = Call::new(24);
    let (sender, viewer) = (call.join(), call.join());
    let camera = call.publish(sender, Source::simulcast(SSRC, call.now));
    let (consumer, ssrc) = call.watch(viewer, camera);
    call.run(8 * SECOND);
    let asked = call.key_frame_requests(sender);
    let mut rates = Vec::new();
    for temporal in [0, 1, 2] {
        call.prefer(consumer, 2, Some(temporal));
        call.run(SECOND / 2);
        let from = call.now;
        call.run(2 * SECOND);
        rates.push(call.viewer(viewer, ssrc).shown().iter().filter(|shown| shown.at > from).count());
    }
    assert!((14..=16).contains(&rates[0]), "{rates:?}");
    assert!((29..=31).contains(&rates[1]), "{rates:?}");
    assert!((59..=61).contains(&rates[2]), "{rates:?}");
    assert_eq!(call.key_frame_requests(sender), asked);
    let viewer = call.viewer(viewer, ssrc);
    assert_eq!(viewer.missing(), 0);
    viewer.assert_continuous();
    viewer.assert_pictures_consecutive();
}

#[test]
fn where_both_sizes_leave_at_once_a_change_of_size_overtakes_nothing() {
    for seed in 30..34 {
        let mut call = Call::new(seed);
        let viewer = call.join();
        let senders: Vec<_> = (0..3).map(|_| call.join()).collect();
        // The sizes of one frame arrive one after the other, and those of three senders between each other.
        let uplink = Link { rate_bps: Some(20_000_000), ..call.default_link };
        senders.iter().for_each(|sender| call.set_links(*sender, uplink, call.default_link));
        call.run(SECOND);
        // What is complete waits, so that the frame of one size and the key frame of the other leave together.
        call.shard.set_gather(Duration::from_millis(5));
        let watched: Vec<_> = (1..)
            .zip(&senders)
            .map(|(n, sender)| {
                let camera = call.publish(*sender, Source::simulcast(SSRC * n, call.now));
                call.watch(viewer, camera)
            })
            .collect();
        for n in 0..20 {
            watched.iter().for_each(|(consumer, _)| call.prefer(*consumer, n % 3, None));
            call.run(SECOND / 2);
        }
        for (_, ssrc) in watched {
            let viewer = call.viewer(viewer, ssrc);
            assert!(viewer.packets() > 500);
            viewer.assert_continuous();
            assert_eq!(viewer.overtaken, 0);
        }
    }
}

#[test]
fn who_waits_for_a_source_gets_the_key_frame_that_its_layer_begins_with() {
    let mut call = Call::new(25);
    let sender = call.join();
    let viewers: Vec<_> = (0..2).map(|_| call.join()).collect();
    call.run(SECOND);
    let camera = call.publish(sender, Source::simulcast(SSRC, call.now));
    let begun = call.now;
    let mut watched = Vec::new();
    for (wish, viewer) in viewers.iter().enumerate() {
        let (consumer, ssrc) = call.watch(*viewer, camera);
        call.prefer(consumer, wish as u8, None);
        watched.push((wish as u32, *viewer, ssrc));
    }
    call.run(SECOND / 2);
    assert_eq!(call.key_frame_requests(sender), 0);
    for (wish, viewer, ssrc) in watched {
        let shown = call.viewer(viewer, ssrc).shown();
        let first = shown.iter().find(|shown| layer_of(shown.layer) == wish).expect("the layer that was asked for");
        assert!(first.is_key && first.at - begun < Duration::from_millis(100), "{:?}", first.at - begun);
        call.viewer(viewer, ssrc).assert_continuous();
    }
}

#[test]
fn a_screen_that_is_sent_in_one_size_and_rate_is_all_there_is() {
    let mut call = Call::new(26);
    let (sender, viewer) = (call.join(), call.join());
    let screen = call.publish(sender, Source::screen(SSRC, call.now));
    let (consumer, _) = call.watch(viewer, screen);
    call.run(10 * SECOND);
    assert_eq!(call.told(consumer), Some((Some(Layers { spatial: 0, temporal: 0 }), Reason::Full)));
    assert_eq!(call.consumer_stats(consumer).reason, Reason::Full);
}

#[test]
fn what_was_left_out_is_not_sent_because_its_place_was_lost() {
    let mut call = Call::new(27);
    let (sender, viewer) = (call.join(), call.join());
    let camera = call.publish(sender, Source::simulcast(SSRC, call.now));
    let (consumer, ssrc) = call.watch(viewer, camera);
    call.run(3 * SECOND);
    call.prefer(consumer, 2, Some(0));
    call.run(SECOND);
    // Frames overtake each other, so many packets of the upper layers come when later ones have left; what fills
    // their places is lost, and asked for again.
    let (up, down) = (Link { jitter: SECOND / 16, ..call.default_link }, Link { loss: 0.2, ..call.default_link });
    call.set_links(sender, up, call.default_link);
    call.set_links(viewer, call.default_link, down);
    let from = call.now;
    call.run_watched(10 * SECOND, &[(viewer, ssrc)]);
    assert!(call.consumer_stats(consumer).packets_retransmitted > 100);
    let viewer = call.viewer(viewer, ssrc);
    assert!(viewer.padding > 50, "{}", viewer.padding);
    let layers: Vec<_> = viewer.temporal_layers(from, call.now).into_iter().collect();
    assert_eq!(layers, [0]);
    assert!(viewer.shown_in(from, call.now) > 50, "{}", viewer.shown_in(from, call.now));
}
