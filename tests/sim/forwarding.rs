//! Joining, watching, pausing and leaving, with and without loss.

use std::time::{Duration, Instant};

use ringside::discard::Discard;
use ringside::shard::command::{Command, Event};

use crate::call::Call;
use crate::network::Link;
use crate::source::Source;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn everybody_sees_and_hears_everybody_else() {
    let mut call = Call::new(1);
    let peers: Vec<_> = (0..3).map(|_| call.join()).collect();
    let mut watched = Vec::new();
    for peer in &peers {
        let (start, ssrc) = (call.now, 1000 * (*peer as u32 + 1));
        let camera = call.publish(*peer, Source::camera(ssrc, start));
        let microphone = call.publish(*peer, Source::microphone(ssrc + 500, start));
        for other in peers.iter().filter(|other| *other != peer) {
            watched.push((*other, call.watch(*other, camera).1, call.watch(*other, microphone).1));
        }
    }
    call.run(5 * SECOND);
    for (peer, camera, microphone) in watched {
        let shown = call.viewer(peer, camera).shown();
        assert!(shown.len() > 130, "{} frames in five seconds", shown.len());
        assert!(call.viewer(peer, microphone).packets() > 230, "{}", call.viewer(peer, microphone).packets());
        assert_eq!(call.viewer(peer, camera).missing(), 0);
        call.viewer(peer, camera).assert_continuous();
    }
}

#[test]
fn a_late_joiner_sees_a_key_frame_within_a_round_trip() {
    let mut call = Call::new(2);
    let (sender, viewer) = (call.join(), call.join());
    let camera = call.publish(sender, Source::camera(5000, call.now));
    call.run(3 * SECOND);
    let joined = call.now;
    let (_, ssrc) = call.watch(viewer, camera);
    call.run(SECOND);
    let shown = call.viewer(viewer, ssrc).shown();
    let first = shown.first().expect("a picture");
    assert!(first.is_key);
    // PLI up 10 ms, the next frame within 33 ms, 10 + 10 ms down, and the time that the frame takes.
    assert!(first.at - joined < Duration::from_millis(80), "first picture after {:?}", first.at - joined);
    assert_eq!(call.key_frame_requests(sender), 1);
}

#[test]
fn a_paused_consumer_gets_nothing_and_goes_on_without_a_gap() {
    let mut call = Call::new(3);
    let (sender, viewer) = (call.join(), call.join());
    let camera = call.publish(sender, Source::camera(5000, call.now));
    let (consumer, ssrc) = call.watch(viewer, camera);
    call.run(3 * SECOND);
    call.pause(consumer);
    call.run(SECOND / 10);
    let before = call.viewer(viewer, ssrc).packets();
    call.run(2 * SECOND);
    assert_eq!(call.viewer(viewer, ssrc).packets(), before);

    let resumed = call.now;
    call.resume(consumer);
    call.run(2 * SECOND);
    let viewer = call.viewer(viewer, ssrc);
    assert_eq!(viewer.missing(), 0, "the numbering has no gap");
    viewer.assert_continuous();
    let first = viewer.shown().into_iter().find(|shown| shown.at > resumed).expect("a picture again");
    assert!(first.is_key);
    assert!(first.at - resumed < Duration::from_millis(80));
}

#[test]
fn a_producer_that_is_paused_and_resumed_comes_back_with_a_key_frame() {
    let mut call = Call::new(4);
    let (sender, viewer) = (call.join(), call.join());
    let producer = call.publish(sender, Source::camera(5000, call.now));
    let (_, ssrc) = call.watch(viewer, producer);
    call.run(2 * SECOND);
    call.command(|token| Command::PauseProducer { token, producer }).unwrap();
    call.run(2 * SECOND);
    let last = call.viewer(viewer, ssrc).last_arrival().unwrap();
    assert!(call.now - last > Duration::from_millis(1900), "nothing is forwarded while it is paused");
    let resumed = call.now;
    call.command(|token| Command::ResumeProducer { token, producer }).unwrap();
    call.run(SECOND);
    let viewer = call.viewer(viewer, ssrc);
    let first = viewer.shown().into_iter().find(|shown| shown.at > resumed).expect("a picture again");
    assert!(first.is_key && first.at - resumed < Duration::from_millis(100));
    assert_eq!(viewer.missing(), 0);
}

#[test]
fn nothing_is_asked_for_again_of_what_a_paused_producer_sent_meanwhile() {
    for seconds in [1, 3, 40] {
        let mut call = Call::new(10);
        let (sender, viewer) = (call.join(), call.join());
        let producer = call.publish(sender, Source::camera(5000, call.now));
        let (_, ssrc) = call.watch(viewer, producer);
        call.run(2 * SECOND);
        call.command(|token| Command::PauseProducer { token, producer }).unwrap();
        call.run(seconds * SECOND);
        let resumed = call.now;
        call.command(|token| Command::ResumeProducer { token, producer }).unwrap();
        call.run(2 * SECOND);
        let stats = &call.producer_stats(producer)[0];
        assert_eq!((stats.nack_packet_count, stats.packets_lost), (0, 0), "after {seconds} s: {stats:?}");
        let picture = call.viewer(viewer, ssrc);
        let freeze = picture.longest_freeze(resumed, call.now - SECOND / 10);
        assert!(freeze < Duration::from_millis(100), "after {seconds} s: {freeze:?}");
        assert_eq!(picture.missing(), 0);
    }
}

#[test]
fn a_paused_producer_is_still_told_when_its_packets_arrive() {
    let mut call = Call::new(11);
    let sender = call.join();
    let producer = call.publish(sender, Source::camera(5000, call.now));
    call.run(2 * SECOND);
    call.command(|token| Command::PauseProducer { token, producer }).unwrap();
    let before = call.shard.counters().packets_sent;
    call.run(4 * SECOND);
    // Feedback ten times a second, without which a browser's estimate falls; reports and answers come once a second.
    let sent = call.shard.counters().packets_sent - before;
    assert!(sent > 35, "{sent} packets in four seconds");
}

#[test]
fn a_sender_that_starts_over_is_asked_for_a_key_frame_and_goes_on_in_its_viewers_time() {
    let mut call = Call::new(9);
    let (sender, viewer) = (call.join(), call.join());
    let camera = call.publish(sender, Source::camera(5000, call.now));
    let (_, ssrc) = call.watch(viewer, camera);
    call.run(2 * SECOND);
    call.source(sender).start_over();
    let (restarted, asked) = (call.now, call.key_frame_requests(sender));
    call.run(2 * SECOND);
    assert_eq!(call.key_frame_requests(sender), asked + 1);
    let viewer = call.viewer(viewer, ssrc);
    let shown = viewer.shown();
    let first = shown.iter().find(|shown| shown.at > restarted + SECOND / 20).expect("a picture again");
    assert!(first.is_key && first.at - restarted < Duration::from_millis(150), "{:?}", first.at - restarted);
    for pair in shown.windows(2) {
        let (step, time) = (pair[1].timestamp.wrapping_sub(pair[0].timestamp), pair[1].at - pair[0].at);
        let apart = Duration::from_secs_f64(f64::from(step) / 90_000.0).abs_diff(time);
        assert!(apart < SECOND / 10, "a step of {step} after {time:?}");
    }
    assert_eq!(viewer.missing(), 0);
    viewer.assert_continuous();
}

#[test]
fn who_leaves_is_not_forwarded_and_the_others_notice_nothing() {
    let mut call = Call::new(5);
    let peers: Vec<_> = (0..3).map(|_| call.join()).collect();
    let first = call.publish(peers[0], Source::camera(5000, call.now));
    let second = call.publish(peers[1], Source::camera(6000, call.now));
    let (_, of_first) = call.watch(peers[2], first);
    let (_, of_second) = call.watch(peers[2], second);
    call.run(2 * SECOND);
    call.leave(peers[0]);
    let left = call.now;
    call.run(2 * SECOND);
    assert!(call.viewer(peers[2], of_first).last_arrival().unwrap() < left + Duration::from_millis(50));
    let freeze = call.viewer(peers[2], of_second).longest_freeze(left - SECOND, call.now);
    assert!(freeze < Duration::from_millis(80), "{freeze:?}");
    let stats = call.shard.worker_stats();
    assert_eq!((stats.peers, stats.transports, stats.producers, stats.consumers), (2, 4, 1, 1));
}

#[test]
fn five_percent_of_loss_is_repaired_both_ways() {
    let mut call = Call::new(6);
    call.default_link = Link { loss: 0.05, ..Link::default() };
    let (sender, viewer) = (call.join(), call.join());
    let camera = call.publish(sender, Source::camera(5000, call.now));
    let (_, ssrc) = call.watch(viewer, camera);
    call.run(3 * SECOND);
    let from = call.now;
    call.run(10 * SECOND);
    let viewer = call.viewer(viewer, ssrc);
    let shown = viewer.shown().iter().filter(|shown| shown.at > from).count();
    assert!(shown > 285, "{shown} of 300 frames could be shown");
    let freeze = viewer.longest_freeze(from, call.now - SECOND / 4);
    assert!(freeze < Duration::from_millis(300), "longest freeze {freeze:?}");
    viewer.assert_continuous();
}

#[test]
fn what_came_in_times_the_consumers_is_what_went_out_and_what_was_discarded() {
    for loss in [0.0, 0.05] {
        let mut call = Call::new(7);
        let peers: Vec<_> = (0..4).map(|_| call.join()).collect();
        call.run(SECOND);
        for link in call.up.iter_mut().chain(&mut call.down) {
            link.loss = loss;
        }
        let camera = call.publish(peers[0], Source::camera(5000, call.now));
        let microphone = call.publish(peers[0], Source::microphone(7000, call.now));
        let mut consumers = Vec::new();
        for peer in &peers[1..] {
            consumers.push(call.watch(*peer, camera).0);
            consumers.push(call.watch(*peer, microphone).0);
        }
        call.outbox.refuse_every = Some(97);
        call.run(2 * SECOND);
        call.pause(consumers[0]);
        call.run(2 * SECOND);
        call.resume(consumers[0]);
        call.run(2 * SECOND);
        call.stop_sources(peers[0]);
        call.run(SECOND);

        let received: u64 = [camera, microphone]
            .into_iter()
            .flat_map(|producer| call.producer_stats(producer))
            .map(|layer| (layer.packets_received + layer.packets_repaired) * 3)
            .sum();
        let sent: u64 = consumers.iter().map(|consumer| call.consumer_stats(*consumer).packets_sent).sum();
        let discarded: u64 = PER_CONSUMER.iter().map(|discard| call.shard.discards().of(*discard)).sum();
        assert!(sent > 2_500 && discarded > 100, "{sent} sent, {discarded} discarded");
        assert_eq!(received, sent + discarded, "at a loss of {loss}");
    }
}

#[test]
fn steady_forwarding_allocates_nothing() {
    let mut call = Call::new(8);
    let peers: Vec<_> = (0..4).map(|_| call.join()).collect();
    for peer in &peers {
        let ssrc = 1000 * (*peer as u32 + 1);
        let camera = call.publish(*peer, Source::simulcast(ssrc, call.now));
        let microphone = call.publish(*peer, Source::microphone(ssrc + 500, call.now));
        for other in peers.iter().filter(|other| *other != peer) {
            call.watch(*other, camera);
            call.watch(*other, microphone);
        }
    }
    call.run(6 * SECOND);
    let (from, before) = (call.now, call.shard.counters().packets_sent);
    call.allocations = Some(0);
    call.run(6 * SECOND);
    let sent = call.shard.counters().packets_sent - before;
    assert!(sent > 10_000, "{sent}");
    // Telling who speaks takes a list each time.
    let told = |(at, event): &&(Instant, Event)| *at > from && matches!(event, Event::AudioLevels { .. });
    let lists = call.events.iter().filter(told).count() as u64;
    assert!(lists < 10);
    assert_eq!(call.allocations, Some(lists), "for {sent} packets sent");
}

/// The refusals that are counted once for each consumer.
const PER_CONSUMER: [Discard; 8] = [
    Discard::ConsumerPaused,
    Discard::NotConnected,
    Discard::OtherLayer,
    Discard::TemporalLayer,
    Discard::AwaitingKeyFrame,
    Discard::BeforeSwitch,
    Discard::NoSlot,
    Discard::Overwritten,
];
