//! Pictures that are added to a call: how soon they are seen, and that none is seen for a moment and taken away again.

use std::time::{Duration, Instant};

use ringside::ids::ConsumerId;
use ringside::shard::command::{Command, Event, Layers, Reason};

use crate::call::Call;
use crate::network::Link;
use crate::source::Source;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
const SSRC: u32 = 5000;

/// What the client of a consumer was told since a moment.
fn told(call: &Call, wanted: ConsumerId, from: Instant) -> Vec<(Duration, Option<Layers>, Reason)> {
    let told = call.events.iter().filter_map(|(at, event)| match event {
        Event::ConsumerLayers { consumer, layers, reason } if *consumer == wanted => {
            Some((*at - from, *layers, *reason))
        }
        _ => None,
    });
    told.collect()
}

#[test]
fn a_picture_of_one_size_that_is_added_is_soon_seen_and_stays() {
    // Of 1 Mbit/s each: more than the estimate of a new path. The wait tells how much was known of it.
    for (seed, wait) in [0, 30, 120, 150, 180, 250, 500, 1_000, 5_000].into_iter().enumerate() {
        let mut call = Call::new(seed as u64 + 1);
        call.default_link = Link { delay: 20 * MS, ..Link::default() };
        let senders: Vec<_> = (0..3).map(|_| call.join()).collect();
        let viewer = call.join_to_watch();
        call.run(SECOND);
        let cameras = [0, 1, 2].map(|at| call.publish(senders[at], Source::camera(SSRC + 500 * at as u32, call.now)));
        // They are sent already: what they cost is known.
        call.run(3 * SECOND);
        for (at, camera) in cameras.into_iter().enumerate() {
            let added = call.now;
            let (consumer, ssrc) = call.watch(viewer, camera);
            call.run(if at == 2 { 10 * SECOND } else { wait as u32 * MS });
            let told = told(&call, consumer, added);
            let ever = told.iter().position(|(_, layers, _)| layers.is_some()).unwrap_or(told.len());
            let what = format!("picture {at}, wait of {wait} ms: {told:?}");
            assert!(told[ever..].iter().all(|(_, layers, _)| layers.is_some()), "{what}");
            if at == 2 {
                let shown = call.viewer(viewer, ssrc).shown();
                let first = shown.first().map(|first| first.at - added);
                assert!(first.is_some_and(|first| first < SECOND), "{what}, seen after {first:?}");
            }
        }
    }
}

#[test]
fn who_comes_while_a_source_is_paused_has_its_picture_as_soon_as_it_goes_on() {
    let mut call = Call::new(1);
    let senders = [call.join(), call.join()];
    let viewer = call.join_to_watch();
    call.run(SECOND);
    let [seen, paused] = [0, 1].map(|at| call.publish(senders[at], Source::camera(SSRC + 500 * at as u32, call.now)));
    call.watch(viewer, seen);
    call.run(SECOND);
    call.command(|token| Command::PauseProducer { token, producer: paused }).unwrap();
    call.run(2 * SECOND);
    let (_, ssrc) = call.watch(viewer, paused);
    call.run(MS);
    let resumed = call.now;
    call.command(|token| Command::ResumeProducer { token, producer: paused }).unwrap();
    call.run(SECOND);
    let first = call.viewer(viewer, ssrc).shown().first().map(|first| first.at - resumed);
    assert!(first.is_some_and(|first| first < 150 * MS), "{first:?}");
}
