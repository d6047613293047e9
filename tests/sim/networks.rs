//! What a viewer sees on networks that lose, delay, reorder and repeat, with the same trouble in both directions of
//! both the sender's and the viewer's path.

use std::time::Duration;

use crate::call::Call;
use crate::network::Link;
use crate::source::Source;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
const FRAMES_PER_S: f64 = 30.0;

/// What a user notices of a picture.
#[derive(Debug)]
struct Impression {
    /// From the wish to the first picture.
    first: Duration,
    /// Share of the sent frames that could be decoded.
    shown: f64,
    freeze: Duration,
    /// Numbers that never came.
    missing: u64,
    duplicates: u64,
    key_frames_asked: usize,
    nacked: u64,
    resent: u64,
}

/// One camera, one viewer, twenty seconds; the trouble begins when both are connected.
fn watch(seed: u64, trouble: Link) -> Impression {
    let mut call = Call::new(seed);
    call.default_link = Link { delay: trouble.delay, ..Link::default() };
    let (sender, viewer) = (call.join(), call.join());
    call.run(3 * SECOND);
    call.set_links(sender, trouble, trouble);
    call.set_links(viewer, trouble, trouble);
    // Two packets a frame, so that the hundred that the viewer's stack remembers are more than a second and a half.
    let mut source = Source::camera(5000, call.now);
    source.encodings[0].packets_per_frame = 2;
    let camera = call.publish(sender, source);
    // The source has been there for a while: the viewer needs a key frame of its own.
    call.run(2 * SECOND);
    let wished = call.now;
    let (consumer, ssrc) = call.watch(viewer, camera);
    let eyes = [(viewer, ssrc)];
    call.run_watched(2 * SECOND, &eyes);
    let from = call.now;
    call.run_watched(20 * SECOND, &eyes);
    let to = call.now;
    // What was lost last may still be repaired.
    call.stop_sources(sender);
    call.run(2 * SECOND);
    let stats = call.consumer_stats(consumer);
    let key_frames_asked = call.key_frame_requests(sender);
    let picture = call.viewer(viewer, ssrc);
    picture.assert_continuous();
    let first = picture.shown().first().map_or(Duration::MAX, |shown| shown.at - wished);
    Impression {
        first,
        shown: picture.shown_in(from, to) as f64 / (FRAMES_PER_S * (to - from).as_secs_f64()),
        freeze: picture.longest_freeze(from, to - SECOND / 2),
        missing: picture.missing(),
        duplicates: picture.duplicates,
        key_frames_asked,
        nacked: stats.nack_packet_count,
        resent: stats.packets_retransmitted,
    }
}

#[test]
fn loss_on_both_ways_is_repaired_before_a_viewer_minds() {
    // Of a packet's two ways each loses: at 20 % more than every third packet needs at least one repair. A key frame
    // whose very first packet is lost is asked for anew. Where all five requests of the stack are lost a frame is given up,
    // and where the request for a key frame is lost too, it is repeated after a second.
    for (loss, shown, freeze_ms, first_ms) in
        [(0.01, 0.99, 250, 1300), (0.05, 0.98, 300, 1300), (0.10, 0.97, 1000, 2300), (0.20, 0.92, 1500, 2300)]
    {
        for seed in 1..=3 {
            let seen = watch(seed, Link { loss, ..Link::default() });
            assert!(seen.shown >= shown, "at a loss of {loss}, seed {seed}: {seen:?}");
            assert!(seen.freeze < freeze_ms * MS, "at a loss of {loss}, seed {seed}: {seen:?}");
            assert!(seen.first < first_ms * MS, "at a loss of {loss}, seed {seed}: {seen:?}");
        }
    }
}

#[test]
fn loss_takes_neither_the_best_layer_nor_the_sound() {
    for (loss, shown, best, heard) in [(0.02, 0.98, 0.97, 0.93), (0.05, 0.97, 0.95, 0.86), (0.10, 0.5, 0.4, 0.75)] {
        for seed in 71..=72 {
            let mut call = Call::new(seed);
            let (sender, viewer) = (call.join(), call.join());
            call.run(SECOND);
            let camera = call.publish(sender, Source::simulcast(5000, call.now));
            let microphone = call.publish(sender, Source::microphone(7000, call.now));
            let (_, ssrc) = call.watch(viewer, camera);
            let voice = call.watch(viewer, microphone).1;
            let eyes = [(viewer, ssrc)];
            call.run_watched(4 * SECOND, &eyes);
            let trouble = Link { loss, ..call.default_link };
            call.set_links(sender, trouble, trouble);
            call.set_links(viewer, trouble, trouble);
            call.run_watched(2 * SECOND, &eyes);
            let from = call.now;
            call.run_watched(20 * SECOND, &eyes);
            let to = call.now;
            let picture = call.viewer(viewer, ssrc);
            let frames: Vec<_> = picture.shown().into_iter().filter(|shown| shown.at > from).collect();
            let sharp = frames.iter().filter(|shown| shown.layer == 5004).count();
            // At a tenth the estimate falls to 1.5 Mbit/s, and half of the frames are left out. A lower layer may come at
            // half the frame rate too, which is no loss.
            let what = format!("at a loss of {loss}, seed {seed}: {} frames, {sharp} of the best layer", frames.len());
            assert!(frames.len() as f64 >= shown * 600.0 - (600 - sharp.min(600)) as f64 / 2.0, "{what}");
            assert!(sharp as f64 >= best * 600.0, "{what}");
            let freeze = picture.longest_freeze(from, to - SECOND / 2);
            assert!(freeze < 1200 * MS, "{what}, {freeze:?}");
            picture.assert_continuous();
            // Sound is not resent: of its two ways each loses. The bounds are 4.5 standard deviations or more below what that leaves.
            let arrived = call.viewer(viewer, voice).arrivals(from, to);
            assert!(arrived as f64 >= heard * 1000.0, "{what}: {arrived} of 1000 packets of the voice");
        }
    }
}

#[test]
fn bursts_of_loss_are_repaired_too() {
    for (loss, burst_ms, shown, freeze_ms) in [(0.02, 20, 0.98, 500), (0.05, 50, 0.97, 900), (0.10, 100, 0.90, 1500)] {
        for seed in 11..=13 {
            let seen = watch(seed, Link { loss, burst: burst_ms * MS, ..Link::default() });
            assert!(seen.shown >= shown, "bursts of {burst_ms} ms, seed {seed}: {seen:?}");
            assert!(seen.freeze < freeze_ms * MS, "bursts of {burst_ms} ms, seed {seed}: {seen:?}");
        }
    }
}

#[test]
fn reordering_alone_costs_no_frame_and_no_key_frame() {
    for jitter_ms in [5, 20, 50] {
        let seen = watch(21, Link { jitter: jitter_ms * MS, ..Link::default() });
        assert!(seen.shown > 0.99, "at {jitter_ms} ms: {seen:?}");
        assert!(seen.freeze < (80 + 2 * jitter_ms) * MS, "at {jitter_ms} ms: {seen:?}");
        assert_eq!(seen.missing, 0, "at {jitter_ms} ms: {seen:?}");
        assert!(seen.key_frames_asked <= 2, "one for the source, one for its viewer: {seen:?}");
    }
}

#[test]
fn a_network_that_repeats_everything_changes_nothing() {
    for share in [0.1, 1.0] {
        let seen = watch(31, Link { duplication: share, jitter: 3 * MS, ..Link::default() });
        assert!(seen.shown > 0.99 && seen.freeze < 80 * MS, "{share}: {seen:?}");
        assert_eq!((seen.missing, seen.duplicates), (0, 0), "{share}: {seen:?}");
    }
}

#[test]
fn far_away_is_later_but_no_worse() {
    for (rtt_ms, shown, freeze_ms) in [(20u32, 0.99, 200), (100, 0.99, 400), (200, 0.98, 700), (400, 0.95, 1700)] {
        let rtt = rtt_ms * MS;
        let seen = watch(41, Link { delay: rtt / 2, loss: 0.02, ..Link::default() });
        // The request to the sender, its next frame, and the way back; a lost first packet costs one more key frame.
        assert!(seen.first < SECOND + 3 * rtt + 150 * MS, "rtt {rtt_ms} ms: {seen:?}");
        assert!(seen.shown > shown, "rtt {rtt_ms} ms: {seen:?}");
        assert!(seen.freeze < freeze_ms * MS, "rtt {rtt_ms} ms: {seen:?}");
    }
}

#[test]
fn nothing_that_arrives_is_asked_for_more_often_than_it_is_lost() {
    let seen = watch(51, Link { loss: 0.05, ..Link::default() });
    // 2,640 packets, of which every twentieth is lost on each of two ways; repairs are lost too.
    assert!(seen.nacked < 400 && seen.resent <= seen.nacked, "{seen:?}");
}

#[test]
fn a_sender_that_was_cut_off_for_long_is_asked_for_a_key_frame_as_soon_as_it_is_back() {
    let mut call = Call::new(61);
    let (sender, viewer) = (call.join(), call.join());
    let camera = call.publish(sender, Source::camera(5000, call.now));
    let (_, ssrc) = call.watch(viewer, camera);
    call.run(3 * SECOND);
    let whole = call.default_link;
    call.set_links(sender, Link { loss: 1.0, ..whole }, whole);
    // 720 packets: more than are worth asking for one by one.
    call.run(6 * SECOND);
    call.set_links(sender, whole, whole);
    let back = call.now;
    call.run(SECOND);
    let picture = call.viewer(viewer, ssrc);
    let first = picture.shown().into_iter().find(|shown| shown.at > back).expect("a picture again");
    assert!(first.is_key && first.at - back < 150 * MS, "{:?}", first.at - back);
    assert!(picture.longest_freeze(first.at, call.now) < 80 * MS);
    picture.assert_continuous();
}

#[test]
fn the_round_trip_to_a_sender_is_known_though_nothing_is_sent_to_it() {
    let mut call = Call::new(91);
    call.default_link = Link { delay: 35 * MS, ..Link::default() };
    let sender = call.join();
    call.run(SECOND);
    let camera = call.publish(sender, Source::camera(5000, call.now));
    call.run(5 * SECOND);
    let rtt_ms = call.producer_stats(camera)[0].rtt_ms.expect("the sender has answered");
    assert!((70.0..75.0).contains(&rtt_ms), "{rtt_ms} ms");
}
