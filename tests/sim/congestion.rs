//! Links that become too narrow: who gets which layer, how soon, how often it changes, and that nobody else notices.

use std::time::{Duration, Instant};

use ringside::discard::Discard;
use ringside::ids::ConsumerId;
use ringside::shard::command::{Command, Event, Reason, RoomSettings};

use crate::call::Call;
use crate::client::PROBATOR_SSRC;
use crate::network::Link;
use crate::source::Source;
use crate::viewer::{Shown, Viewer};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
const SSRC: u32 = 5000;

/// The spatial layer of each shown frame in a time, repetitions left out.
fn layers(viewer: &Viewer, from: Instant, to: Instant) -> Vec<(Instant, u32)> {
    let mut layers: Vec<(Instant, u32)> = Vec::new();
    for shown in viewer.shown().iter().filter(|shown| shown.at > from && shown.at <= to) {
        let layer = (shown.layer - SSRC) / 2;
        if layers.last().is_none_or(|(_, last)| *last != layer) {
            layers.push((shown.at, layer));
        }
    }
    layers
}

#[test]
fn a_link_that_shrinks_and_returns_is_followed_without_flapping() {
    for seed in 1..=3 {
        let mut call = Call::new(seed);
        call.default_link = Link { delay: 20 * MS, ..Link::default() };
        let (sender, viewer) = (call.join(), call.join());
        call.run(SECOND);
        let wide = Link { rate_bps: Some(2_000_000), ..call.default_link };
        let narrow = Link { rate_bps: Some(300_000), ..wide };
        call.set_links(viewer, call.default_link, wide);
        let camera = call.publish(sender, Source::simulcast(SSRC, call.now));
        let (_, ssrc) = call.watch(viewer, camera);
        let eyes = [(viewer, ssrc)];
        let wished = call.now;
        call.run_watched(20 * SECOND, &eyes);
        let shrunk = call.now;
        call.set_links(viewer, call.default_link, narrow);
        call.run_watched(20 * SECOND, &eyes);
        let returned = call.now;
        call.set_links(viewer, call.default_link, wide);
        call.run_watched(40 * SECOND, &eyes);

        let picture = call.viewer(viewer, ssrc);
        let offsets = |from: Instant, to: Instant| {
            layers(picture, from, to).into_iter().map(|(at, layer)| (layer, at - from)).collect::<Vec<_>>()
        };
        let (before, during, after) = (offsets(wished, shrunk), offsets(shrunk, returned), offsets(returned, call.now));
        let calm = shrunk + 5 * SECOND;
        let what = format!("seed {seed}: {before:?}, narrow {during:?}, wide again {after:?}");
        let soon = |changes: &[(u32, Duration)], layer: u32, within: Duration| {
            changes.last().is_some_and(|(last, at)| *last == layer && *at < within)
        };
        assert!(soon(&before, 2, 3 * SECOND / 2) && before.len() <= 3, "{what}");
        // At once the least, and once the queue is gone what fits.
        assert!(during.get(1).is_some_and(|(layer, at)| *layer == 0 && *at < 700 * MS), "{what}");
        assert!(during.len() == 2 || (during.len() == 3 && during[2].0 == 1), "{what}");
        // Probes that found nothing are six seconds apart.
        assert!(soon(&after, 2, 7 * SECOND) && after.len() <= 3, "{what}");
        // The queue in front of the link fills in a tenth of a second and then loses four packets of five; the key frame of a
        // lower layer has to wait for what is in it.
        assert!(picture.longest_freeze(shrunk, calm) < 300 * MS, "{what}");
        assert!(picture.longest_freeze(calm, returned) < 250 * MS, "{what}");
        assert!(picture.longest_freeze(wished + SECOND, shrunk) < 100 * MS, "{what}");
        // Every other frame of the middle layer, and the way.
        assert!(picture.longest_freeze(returned, call.now) < 120 * MS, "{what}");
        // At least half of the frames: what 300 kbit/s carries of the middle layer.
        assert!(picture.shown_in(calm, returned) > 210, "{what}");
        picture.assert_continuous();
    }
}

#[test]
fn a_picture_moves_on_though_much_of_it_was_lost_and_resent_when_its_link_shrank() {
    for seed in 1..=5 {
        let mut call = Call::new(seed);
        call.default_link = Link { delay: MS, ..Link::default() };
        let (sender, viewer) = (call.join(), call.join_to_watch());
        call.run(SECOND);
        let mut source = Source::simulcast(SSRC, call.now);
        source.encodings[1].payload_bytes = 600;
        for (encoding, packets) in source.encodings.iter_mut().zip([8, 20, 50]) {
            encoding.packets_per_key_frame = packets;
        }
        let camera = call.publish(sender, source);
        let (_, ssrc) = call.watch(viewer, camera);
        let eyes = [(viewer, ssrc)];
        call.run_watched(15 * SECOND, &eyes);
        let shrunk = call.now;
        call.set_links(viewer, call.default_link, Link { rate_bps: Some(250_000), ..call.default_link });
        call.run_watched(15 * SECOND, &eyes);
        let picture = call.viewer(viewer, ssrc);
        let (at_first, later) = (shrunk + 3 * SECOND, shrunk + 15 * SECOND);
        let (first, then) = (picture.longest_freeze(shrunk, at_first), picture.longest_freeze(at_first, later));
        // The key frame of its least layer takes 150 ms of the link, and the queue before it 300.
        assert!(first < 3 * SECOND / 4, "seed {seed}: {first:?} while the link shrinks");
        assert!(then < 3 * SECOND / 4, "seed {seed}: {then:?} later");
    }
}

#[test]
fn of_fifty_viewers_one_with_a_bad_link_suffers_alone() {
    let mut call = Call::new(7);
    let sender = call.join();
    let viewers: Vec<_> = (0..50).map(|_| call.join_to_watch()).collect();
    call.run(2 * SECOND);
    let bad = viewers[17];
    let narrow = Link { rate_bps: Some(300_000), loss: 0.05, ..call.default_link };
    call.set_links(bad, Link { loss: 0.05, ..call.default_link }, narrow);
    let camera = call.publish(sender, Source::simulcast(SSRC, call.now));
    let mut consumer_of_bad = None;
    let mut watched = Vec::new();
    for viewer in &viewers {
        let (consumer, ssrc) = call.watch(*viewer, camera);
        consumer_of_bad = consumer_of_bad.or((*viewer == bad).then_some(consumer));
        watched.push((*viewer, ssrc));
    }
    let of_bad = *watched.iter().find(|(viewer, _)| *viewer == bad).unwrap();
    call.run_watched(3 * SECOND, &[of_bad]);
    let (from, asked) = (call.now, call.key_frame_requests(sender));
    call.run_watched(10 * SECOND, &[of_bad]);
    let to = call.now;
    for (viewer, ssrc) in watched.iter().filter(|(viewer, _)| *viewer != bad) {
        let picture = call.viewer(*viewer, *ssrc);
        picture.assert_continuous();
        assert_eq!(picture.missing(), 0, "viewer {viewer}");
        let freeze = picture.longest_freeze(from, to - SECOND / 10);
        assert!(freeze < 60 * MS, "viewer {viewer} sees {freeze:?}");
        assert_eq!(picture.shown_in(from, to) as u32, 300, "viewer {viewer}");
        assert!(layers(picture, from, to).iter().all(|(_, layer)| *layer == 2), "viewer {viewer}");
    }
    let requests = call.key_frame_requests(sender) - asked;
    assert!(requests <= 4, "{requests} key frames asked of the sender for one bad link");
    let picture = call.viewer(of_bad.0, of_bad.1);
    picture.assert_continuous();
    assert!(picture.shown_in(from, to) > 120, "{} frames in ten seconds", picture.shown_in(from, to));
    let freeze = picture.longest_freeze(from, to);
    assert!(freeze < 500 * MS, "{freeze:?}");
    let told: Vec<_> = call.events.iter().filter(|(at, _)| *at > from).collect();
    let changed = told.iter().filter_map(|(_, event)| match event {
        Event::ConsumerLayers { consumer, .. } => Some(*consumer),
        _ => None,
    });
    let changed: Vec<_> = changed.collect();
    assert!(changed.iter().all(|consumer| Some(*consumer) == consumer_of_bad), "nobody else's layer changes");
    // A change is told twice: when it is decided, and at its key frame.
    assert!(changed.len() <= 4, "{told:?}");
}

#[test]
fn on_a_narrow_link_voices_are_heard_in_full_and_the_picture_makes_do_with_the_rest() {
    for seed in 1..=2 {
        let mut call = Call::with_settings(seed, RoomSettings { audio_top_n: 0, ..RoomSettings::default() });
        let peers: Vec<_> = (0..7).map(|_| call.join()).collect();
        let viewer = call.join_to_watch();
        call.run(SECOND);
        let narrow = Link { rate_bps: Some(690_000), delay: 20 * MS, ..call.default_link };
        call.set_links(viewer, call.default_link, narrow);
        let mut voices = Vec::new();
        for peer in &peers[1..] {
            let mut voice = Source::microphone(20_000 + 1000 * *peer as u32, call.now);
            // 64 kbit/s of Opus are 90 kbit/s on the wire; six of them leave 150.
            voice.encodings[0].payload_bytes = 160;
            let voice = call.publish(*peer, voice);
            voices.push(call.watch(viewer, voice).1);
        }
        call.run(2 * SECOND);
        let camera = call.publish(peers[0], Source::simulcast(SSRC, call.now));
        let (_, ssrc) = call.watch(viewer, camera);
        call.run_watched(8 * SECOND, &[(viewer, ssrc)]);
        let from = call.now;
        call.run_watched(20 * SECOND, &[(viewer, ssrc)]);
        for voice in voices {
            let heard = call.viewer(viewer, voice).arrivals(from, call.now);
            assert!(heard > 990, "seed {seed}: {heard} of 1000 packets of a voice");
        }
        let picture = call.viewer(viewer, ssrc);
        let changes = layers(picture, from, call.now);
        // A larger picture may be tried, once.
        let lasting = changes.first().zip(changes.last()).map(|((_, first), (_, last))| (*first, *last));
        assert!(lasting == Some((0, 0)) && changes.len() <= 3, "seed {seed}: {changes:?}");
        assert!(picture.shown_in(from, call.now) > 250, "seed {seed}: {}", picture.shown_in(from, call.now));
    }
}

#[test]
fn a_lossy_link_that_shrinks_and_returns_freezes_for_little_longer_than_a_clean_one() {
    for (seed, loss) in [(21, 0.02), (22, 0.05)] {
        let mut call = Call::new(seed);
        call.default_link = Link { delay: 20 * MS, ..Link::default() };
        let (sender, viewer) = (call.join(), call.join());
        call.run(SECOND);
        let wide = Link { rate_bps: Some(2_000_000), loss, ..call.default_link };
        let back = Link { loss, ..call.default_link };
        call.set_links(viewer, back, wide);
        let camera = call.publish(sender, Source::simulcast(SSRC, call.now));
        let (_, ssrc) = call.watch(viewer, camera);
        let eyes = [(viewer, ssrc)];
        call.run_watched(10 * SECOND, &eyes);
        let shrunk = call.now;
        call.set_links(viewer, back, Link { rate_bps: Some(300_000), ..wide });
        call.run_watched(20 * SECOND, &eyes);
        let returned = call.now;
        call.set_links(viewer, back, wide);
        call.run_watched(30 * SECOND, &eyes);
        let picture = call.viewer(viewer, ssrc);
        let calm = shrunk + 5 * SECOND;
        let of = |from: Instant, to: Instant| {
            let changes: Vec<_> = layers(picture, from, to).into_iter().map(|(at, layer)| (layer, at - from)).collect();
            (picture.longest_freeze(from, to), picture.shown_in(from, to), changes)
        };
        let (before, falling, narrow, after) = (
            of(shrunk - 5 * SECOND, shrunk),
            of(shrunk, calm),
            of(calm, returned),
            of(returned + 10 * SECOND, call.now - SECOND / 2),
        );
        let what = format!("loss {loss}: {before:?}, falling {falling:?}, narrow {narrow:?}, wide again {after:?}");
        assert!(before.0 < 400 * MS && before.1 > 140, "{what}");
        assert!(falling.0 < 400 * MS, "{what}");
        // The smallest picture in full, or at times the next one at half its frame rate, which has room as well.
        let ends = narrow.2.iter().skip(1).map(|(_, at)| *at).chain([returned - calm]);
        let due = narrow.2.iter().zip(ends).map(|((layer, at), end)| {
            let per_second = if *layer == 0 { 30.0 } else { 15.0 };
            per_second * (end - *at).as_secs_f64()
        });
        let due: f64 = due.sum();
        assert!(narrow.0 < 400 * MS && narrow.1 as f64 > 0.85 * due, "{what}: {due} due");
        assert!(after.0 < 500 * MS && after.1 > 280, "{what}");
        assert!(after.2.last().is_some_and(|(layer, _)| *layer >= 1) && after.2.len() <= 5, "{what}");
        picture.assert_continuous();
    }
}

#[test]
fn without_a_retransmission_stream_padding_leaves_on_the_clients_probator() {
    for without_rtx in [true, false] {
        let mut call = Call::new(31);
        call.without_rtx = without_rtx;
        call.default_link = Link { delay: 20 * MS, ..Link::default() };
        let (sender, viewer) = (call.join(), call.join());
        call.run(SECOND);
        let camera = call.publish(sender, Source::simulcast(SSRC, call.now));
        let (_, ssrc) = call.watch(viewer, camera);
        let wished = call.now;
        call.run_watched(5 * SECOND, &[(viewer, ssrc)]);
        let picture = call.viewer(viewer, ssrc);
        let changes = layers(picture, wished, call.now);
        assert!(changes.last().is_some_and(|(at, layer)| *layer == 2 && *at - wished < 2 * SECOND), "{changes:?}");
        let padding = call.viewer(viewer, PROBATOR_SSRC).packets();
        assert_eq!(padding >= 5, without_rtx, "{padding} packets of the probator");
        if without_rtx {
            assert_eq!(picture.padding, 0, "and none on a media stream");
            let before = call.shard.discards().of(Discard::ProbatorAsked);
            let now = call.now;
            let connection = call.clients[viewer].recv;
            call.connections[connection].request_key_frame(now, PROBATOR_SSRC);
            let asked = call.key_frame_requests(sender);
            call.run(SECOND);
            assert_eq!(call.shard.discards().of(Discard::ProbatorAsked), before + 1);
            assert_eq!(call.key_frame_requests(sender), asked);
        }
    }
}

#[test]
fn a_large_key_frame_does_not_lose_its_own_tail_in_a_narrow_links_buffer_and_sound_overtakes_it() {
    let mut call = Call::new(41);
    call.default_link = Link { delay: 20 * MS, ..Link::default() };
    let (sender, viewer) = (call.join(), call.join());
    let speaker = call.join();
    call.run(SECOND);
    let narrow = Link { rate_bps: Some(2_000_000), queue_bytes: Some(64 * 1024), ..call.default_link };
    call.set_links(viewer, call.default_link, narrow);
    let camera = call.publish(sender, Source::camera(SSRC, call.now));
    let voice = call.publish(speaker, Source::microphone(9000, call.now));
    let (consumer, ssrc) = call.watch(viewer, camera);
    let heard = call.watch(viewer, voice).1;
    call.run_watched(5 * SECOND, &[(viewer, ssrc)]);
    call.source(sender).encodings[0].packets_per_key_frame = 70;
    let from = call.now;
    for _ in 0..5 {
        call.command(|token| Command::RequestKeyFrame { token, consumer }).unwrap();
        call.run_watched(3 * SECOND, &[(viewer, ssrc)]);
    }
    assert_eq!(call.overflowed(viewer), 0, "datagrams lost in the queue");
    let picture = call.viewer(viewer, ssrc);
    let keys = picture.shown().iter().filter(|shown| shown.at > from && shown.is_key).count();
    assert_eq!(keys, 5);
    // 80 kB are a third of a second on this link, paced or not.
    assert!(picture.longest_freeze(from, call.now - SECOND / 10) < 450 * MS);
    picture.assert_continuous();
    let silence = call.viewer(viewer, heard).longest_silence(from);
    assert!(silence < 320 * MS, "{silence:?}");
}

#[test]
fn a_queue_that_builds_up_draws_no_storm_of_resends() {
    let mut call = Call::new(51);
    call.default_link = Link { delay: 20 * MS, ..Link::default() };
    let (senders, viewer) = ([call.join(), call.join()], call.join_to_watch());
    call.run(SECOND);
    let narrow = Link { rate_bps: Some(2_000_000), ..call.default_link };
    call.set_links(viewer, call.default_link, narrow);
    let mut consumers = Vec::new();
    for (at, sender) in senders.into_iter().enumerate() {
        let mut camera = Source::camera(SSRC + 1_000 * at as u32, call.now);
        (camera.encodings[0].packets_per_frame, camera.encodings[0].packets_per_key_frame) = (2, 70);
        let camera = call.publish(sender, camera);
        consumers.push(call.watch(viewer, camera).0);
    }
    // At first nothing is known of the path, and both key frames leave at once: most of their packets find the queue full. Then
    // it is known what the path carries, and they leave so slowly that its queue holds them.
    for at_once in [true, false, false] {
        let (from, lost) = (resent(&mut call, &consumers), call.overflowed(viewer));
        call.run(5 * SECOND);
        let (resent, lost) = (resent(&mut call, &consumers) - from, call.overflowed(viewer) - lost);
        match at_once {
            true => assert!(lost > 20 && (20..=100).contains(&resent), "{resent} resent, {lost} lost"),
            false => assert_eq!((resent, lost), (0, 0)),
        }
        for consumer in consumers.clone() {
            call.command(|token| Command::RequestKeyFrame { token, consumer }).unwrap();
        }
    }
}

fn resent(call: &mut Call, consumers: &[ConsumerId]) -> u64 {
    consumers.iter().map(|consumer| call.consumer_stats(*consumer).packets_retransmitted).sum()
}

#[test]
fn of_a_receiver_without_a_retransmission_stream_nothing_is_refused_but_what_it_asks_for() {
    let mut call = Call::new(52);
    call.without_rtx = true;
    call.default_link = Link { delay: 20 * MS, ..Link::default() };
    let (sender, viewer) = (call.join(), call.join());
    call.run(SECOND);
    let camera = call.publish(sender, Source::camera(SSRC, call.now));
    call.set_links(viewer, call.default_link, Link { loss: 0.3, ..call.default_link });
    let (consumer, _) = call.watch(viewer, camera);
    for _ in 0..5 {
        call.pause(consumer);
        call.run(SECOND);
        call.resume(consumer);
        call.run(2 * SECOND);
    }
    let asked = call.consumer_stats(consumer).nack_packet_count;
    assert!(asked > 0);
    assert!(call.shard.discards().of(Discard::ResendRefused) <= asked, "{asked} were asked for");
}

#[test]
fn what_waits_for_a_narrow_link_does_not_leave_once_its_receiver_is_paused() {
    for is_closed in [true, false] {
        let mut call = Call::new(53);
        call.default_link = Link { delay: 20 * MS, ..Link::default() };
        let (sender, viewer) = (call.join(), call.join());
        call.run(SECOND);
        let narrow = Link { rate_bps: Some(2_000_000), queue_bytes: Some(64 * 1024), ..call.default_link };
        call.set_links(viewer, call.default_link, narrow);
        let camera = call.publish(sender, Source::camera(SSRC, call.now));
        let (consumer, ssrc) = call.watch(viewer, camera);
        call.run(5 * SECOND);
        call.source(sender).encodings[0].packets_per_key_frame = 70;
        call.command(|token| Command::RequestKeyFrame { token, consumer }).unwrap();
        let (from, paused) = (call.now, call.shard.discards().of(Discard::ConsumerPaused));
        while call.viewer(viewer, ssrc).arrivals(from, call.now) < 10 {
            call.run(5 * MS);
        }
        if is_closed {
            call.shard.handle_command(call.now, Command::CloseConsumer { consumer });
        } else {
            call.pause(consumer);
        }
        // 64 kB are a quarter of a second on this link.
        call.stop_sources(sender);
        call.run(SECOND);
        let arrived = call.viewer(viewer, ssrc).arrivals(from, call.now);
        assert!(arrived < 60, "{arrived} packets");
        assert_eq!(call.shard.discards().of(Discard::Overwritten), 0);
        assert_eq!(call.shard.discards().of(Discard::ConsumerPaused) > paused, !is_closed);
    }
}

/// A share of 1 Mbit/s, two cameras of as much and a voice, each of its own sender, and one who watches them all.
struct Conference {
    call: Call,
    viewer: usize,
    senders: Vec<usize>,
    /// The share, the more important camera, the less important one.
    pictures: Vec<(ConsumerId, u32)>,
    voice: u32,
}

const SHARE: usize = 0;
const IMPORTANT: usize = 1;
const LEAST: usize = 2;
/// Frames per second of each.
const FRAMES: [usize; 3] = [5, 30, 30];

impl Conference {
    fn new(seed: u64, without_rtx: bool) -> Conference {
        let mut call = Call::new(seed);
        call.without_rtx = without_rtx;
        call.default_link = Link { delay: 20 * MS, ..Link::default() };
        let senders: Vec<_> = (0..3).map(|_| call.join()).collect();
        let viewer = call.join_to_watch();
        call.run(SECOND);
        let mut share = Source::screen(3000, call.now);
        share.encodings[0].packets_per_frame = 25;
        let sources = [share, Source::camera(SSRC, call.now), Source::camera(SSRC + 500, call.now)];
        let mut pictures = Vec::new();
        for (at, source) in sources.into_iter().enumerate() {
            let producer = call.publish(senders[at], source);
            let (consumer, ssrc) = call.watch(viewer, producer);
            let priority = [1, 9, 3][at];
            call.command(|token| Command::SetConsumerPriority { token, consumer, priority }).unwrap();
            pictures.push((consumer, ssrc));
        }
        let microphone = call.publish(senders[LEAST], Source::microphone(7000, call.now));
        let voice = call.watch(viewer, microphone).1;
        Conference { call, viewer, senders, pictures, voice }
    }

    fn narrow(&mut self, rate_bps: Option<u64>) {
        let link = self.call.default_link;
        self.call.set_links(self.viewer, link, Link { rate_bps, ..link });
    }

    fn run(&mut self, duration: Duration) {
        let eyes: Vec<_> = self.pictures.iter().map(|(_, ssrc)| (self.viewer, *ssrc)).collect();
        self.call.run_watched(duration, &eyes);
    }

    /// Lets it go on for whole seconds; the share of its frames that each picture shows, and of the sound that is heard.
    fn watch(&mut self, seconds: u32) -> ([f64; 3], f64) {
        let from = self.call.now;
        self.run(seconds * SECOND);
        let to = self.call.now;
        let seconds = f64::from(seconds);
        let shown = [SHARE, IMPORTANT, LEAST].map(|at| {
            let picture = self.call.viewer(self.viewer, self.pictures[at].1);
            picture.shown_in(from, to) as f64 / (FRAMES[at] as f64 * seconds)
        });
        let heard = self.call.viewer(self.viewer, self.voice).arrivals(from, to) as f64 / (50.0 * seconds);
        (shown, heard)
    }

    /// How often viewers were told since a moment that a picture stopped.
    fn stops(&self, from: Instant) -> usize {
        let told = self.call.events.iter().filter(|(at, _)| *at > from);
        told.filter(|(_, event)| matches!(event, Event::ConsumerLayers { layers: None, reason: Reason::Bandwidth, .. }))
            .count()
    }

    fn first_since(&self, picture: usize, from: Instant) -> Option<Shown> {
        let shown = self.call.viewer(self.viewer, self.pictures[picture].1).shown();
        shown.into_iter().find(|shown| shown.at > from)
    }

    fn assert_continuous(&self) {
        for (_, ssrc) in &self.pictures {
            self.call.viewer(self.viewer, *ssrc).assert_continuous();
        }
    }

    fn reasons(&mut self) -> Vec<Reason> {
        let pictures = self.pictures.clone();
        pictures.into_iter().map(|(consumer, _)| self.call.consumer_stats(consumer).reason).collect()
    }
}

#[test]
fn where_not_every_picture_fits_the_least_important_one_stops_and_says_why_until_there_is_room() {
    for seed in 1..=2 {
        let mut room = Conference::new(seed, false);
        room.run(10 * SECOND);
        let (start, least) = (room.call.start, room.pictures[LEAST].0);
        assert_eq!(room.stops(start), 0, "seed {seed}: a wide link");

        room.narrow(Some(2_400_000));
        let (_, heard) = room.watch(6);
        assert!(heard > 0.7, "seed {seed}: {heard} of the voice while nothing is certain");
        assert_eq!(room.call.told(least), Some((None, Reason::Bandwidth)), "seed {seed}");
        assert_eq!(room.reasons(), [Reason::Full, Reason::Full, Reason::Bandwidth], "seed {seed}");
        // The queue drains, and resends end.
        room.run(8 * SECOND);
        let consumers: Vec<_> = room.pictures.iter().map(|(consumer, _)| *consumer).collect();
        let before = resent(&mut room.call, &consumers);
        let (shown, heard) = room.watch(10);
        let again = resent(&mut room.call, &consumers) - before;
        assert!(again < 50, "seed {seed}: {again} resent");
        let what = format!("seed {seed}: {shown:?} of the frames and {heard} of the voice");
        assert!(shown[SHARE] > 0.95 && shown[IMPORTANT] > 0.98 && shown[LEAST] == 0.0 && heard > 0.99, "{what}");

        let asked = room.call.key_frame_requests(room.senders[LEAST]);
        room.narrow(None);
        let returned = room.call.now;
        room.run(8 * SECOND);
        let first = room.first_since(LEAST, returned).expect("a picture again");
        assert!(first.is_key && first.at - returned < 8 * SECOND, "seed {seed}: {:?}", first.at - returned);
        // One brings it back. A viewer that asks until it has come may ask once too often.
        let asked = room.call.key_frame_requests(room.senders[LEAST]) - asked;
        assert!((1..=2).contains(&asked), "seed {seed}: {asked} key frames");
        let (shown, heard) = room.watch(10);
        assert!(shown.iter().all(|shown| *shown > 0.98) && heard > 0.99, "seed {seed}: {shown:?}, {heard}");
        assert_eq!(room.reasons(), [Reason::Full; 3], "seed {seed}");
        assert_eq!(room.stops(start), 1, "seed {seed}: one picture, once");
        room.assert_continuous();
    }
}

#[test]
fn a_queue_that_only_grows_slowly_stops_a_picture_as_well_and_goes() {
    let mut room = Conference::new(3, false);
    let start = room.call.now;
    room.run(10 * SECOND);
    // Three pictures and the voice are 3.2 Mbit/s on the wire: in 2 s of buffer there is room for half a minute of what is too much.
    let link = Link { rate_bps: Some(3_100_000), queue_bytes: Some(775_000), ..room.call.default_link };
    room.call.set_links(room.viewer, room.call.default_link, link);
    room.run(30 * SECOND);
    let from = room.call.now;
    let (shown, heard) = room.watch(10);
    let late = room.call.viewer(room.viewer, room.voice).latest(start, from, 20 * MS);
    assert!(heard > 0.99 && late < 200 * MS, "{heard} of the voice, {late:?} late at most");
    assert!(shown[SHARE] > 0.98 && shown[IMPORTANT] > 0.98 && shown[LEAST] == 0.0, "{shown:?} of the frames");
}

#[test]
fn of_a_picture_that_is_stopped_nothing_that_waits_leaves_and_nothing_is_missed() {
    let mut call = Call::new(8);
    call.default_link = Link { delay: 20 * MS, ..Link::default() };
    let (one, two, viewer) = (call.join(), call.join(), call.join_to_watch());
    call.run(SECOND);
    let wide = Link { rate_bps: Some(4_000_000), ..call.default_link };
    call.set_links(viewer, call.default_link, wide);
    let (mut first, mut second) = (Source::camera(SSRC, call.now), Source::camera(SSRC + 500, call.now));
    (first.encodings[0].packets_per_frame, second.encodings[0].packets_per_frame) = (2, 8);
    let (first, second) = (call.publish(one, first), call.publish(two, second));
    let (important, doomed) = (call.watch(viewer, first), call.watch(viewer, second));
    for (consumer, priority) in [(important.0, 9), (doomed.0, 3)] {
        call.command(|token| Command::SetConsumerPriority { token, consumer, priority }).unwrap();
    }
    let eyes = [(viewer, important.1), (viewer, doomed.1)];
    call.run_watched(10 * SECOND, &eyes);
    call.set_links(viewer, call.default_link, Link { rate_bps: Some(800_000), ..wide });
    while call.told(doomed.0) != Some((None, Reason::Bandwidth)) {
        call.run_watched(20 * MS, &eyes);
    }
    // What the buffer of the link holds comes yet.
    let stopped = call.now + 350 * MS;
    call.run_watched(10 * SECOND, &eyes);
    assert_eq!(call.viewer(viewer, doomed.1).arrivals(stopped, call.now), 0, "of the picture that was stopped");
    let calm = call.viewer(viewer, important.1).shown_in(stopped + 3 * SECOND, call.now);
    assert!(calm > 190, "{calm} frames of the other");

    call.set_links(viewer, call.default_link, wide);
    call.run_watched(20 * SECOND, &eyes);
    for (_, ssrc) in eyes {
        let picture = call.viewer(viewer, ssrc);
        picture.assert_continuous();
        assert!(picture.shown_in(call.now - SECOND, call.now) >= 29, "both are back");
    }
}

#[test]
fn where_no_picture_fits_sound_is_heard_in_full_and_probes_find_the_room_that_returns() {
    for without_rtx in [false, true] {
        let mut room = Conference::new(4, without_rtx);
        room.run(10 * SECOND);
        room.narrow(Some(500_000));
        room.run(6 * SECOND);
        let (shown, heard) = room.watch(30);
        assert!(shown == [0.0; 3] && heard > 0.99, "{shown:?} and {heard} of the voice");
        assert_eq!(room.reasons(), [Reason::Bandwidth; 3]);
        room.narrow(None);
        let returned = room.call.now;
        room.run(8 * SECOND);
        for picture in [SHARE, IMPORTANT, LEAST] {
            let first = room.first_since(picture, returned).expect("a picture again");
            assert!(first.is_key && first.at - returned < 8 * SECOND, "{:?}", first.at - returned);
        }
        let (shown, heard) = room.watch(10);
        assert!(shown.iter().all(|shown| *shown > 0.98) && heard > 0.99, "{shown:?} and {heard} of the voice");
        room.assert_continuous();
    }
}

#[test]
fn a_dip_of_a_second_stops_no_picture() {
    for (seed, kbps) in [(1, 200), (2, 200), (1, 1_000), (2, 2_000)] {
        let mut room = Conference::new(seed, false);
        room.run(10 * SECOND);
        room.narrow(Some(kbps * 1000));
        room.run(SECOND);
        room.narrow(Some(5_000_000));
        let (shown, heard) = room.watch(10);
        let what = format!("{kbps} kbit/s, seed {seed}: {shown:?} of the frames and {heard} of the voice");
        assert!(shown.iter().all(|shown| *shown > 0.9) && heard > 0.98, "{what}");
        assert_eq!(room.stops(room.call.start), 0, "{what}");
    }
}

#[test]
fn at_a_link_right_at_the_edge_no_picture_comes_and_goes() {
    // Two pictures and the voice are 2.2 Mbit/s on the wire, all three 3.2.
    for kbps in [2_150, 2_600, 3_100, 3_300] {
        let mut room = Conference::new(5, false);
        room.run(10 * SECOND);
        room.narrow(Some(kbps * 1000));
        // Where a little is missing it takes a while to be sure.
        room.run(30 * SECOND);
        let from = room.call.now;
        let (shown, heard) = room.watch(60);
        let what = format!("{kbps} kbit/s: {shown:?} of the frames and {heard} of the voice");
        assert!(room.stops(from) == 0 && heard > 0.98 && shown[SHARE] > 0.9, "{what}, {} stops", room.stops(from));
        assert!(shown.iter().all(|shown| *shown < 0.01 || *shown > 0.9), "{what}");
    }
}

#[test]
fn a_path_that_loses_a_fifth_by_its_nature_keeps_its_only_picture() {
    for seed in 1..=2 {
        let mut call = Call::new(seed);
        call.default_link = Link { delay: 20 * MS, ..Link::default() };
        let (sender, viewer) = (call.join(), call.join());
        call.run(SECOND);
        let camera = call.publish(sender, Source::camera(SSRC, call.now));
        let (consumer, ssrc) = call.watch(viewer, camera);
        call.run_watched(5 * SECOND, &[(viewer, ssrc)]);
        call.set_links(viewer, call.default_link, Link { loss: 0.2, ..call.default_link });
        let from = call.now;
        call.run_watched(30 * SECOND, &[(viewer, ssrc)]);
        let shown = call.viewer(viewer, ssrc).shown_in(from, call.now);
        let told = call.events.iter().filter(|(at, event)| {
            matches!(event, Event::ConsumerLayers { consumer: of, layers: None, .. } if *of == consumer && *at > from)
        });
        assert_eq!((told.count(), shown > 810), (0, true), "seed {seed}: {shown} of 900 frames");
    }
}

#[test]
fn a_path_that_loses_a_tenth_by_its_nature_keeps_every_picture_and_takes_one_that_was_paused() {
    for seed in 9..=12 {
        let mut room = Conference::new(seed, false);
        let link = room.call.default_link;
        room.call.set_links(room.viewer, link, Link { loss: 0.1, ..link });
        let (shown, _) = room.watch(20);
        assert!(shown.iter().all(|shown| *shown > 0.95), "seed {seed}: {shown:?}");
        assert_eq!(room.stops(room.call.start), 0, "seed {seed}");
        let least = room.pictures[LEAST].0;
        room.call.pause(least);
        room.run(10 * SECOND);
        room.call.resume(least);
        room.run(5 * SECOND);
        let (shown, _) = room.watch(10);
        assert!(shown.iter().all(|shown| *shown > 0.95), "seed {seed}: {shown:?}");
        assert_eq!(room.reasons(), [Reason::Full; 3], "seed {seed}");
    }
}

#[test]
fn sound_alone_neither_lowers_the_estimate_nor_hides_the_room_there_is() {
    let mut call = Call::new(6);
    let (sender, viewer) = (call.join(), call.join());
    call.run(SECOND);
    let camera = call.publish(sender, Source::simulcast(SSRC, call.now));
    let microphone = call.publish(sender, Source::microphone(7000, call.now));
    let (consumer, ssrc) = call.watch(viewer, camera);
    call.watch(viewer, microphone);
    call.run(5 * SECOND);
    call.pause(consumer);
    call.run(60 * SECOND);
    call.resume(consumer);
    let resumed = call.now;
    call.run(2 * SECOND);
    let changes = layers(call.viewer(viewer, ssrc), resumed, call.now);
    let best = changes.iter().find(|(_, layer)| *layer == 2).map(|(at, _)| *at - resumed);
    assert!(best.is_some_and(|after| after < 500 * MS), "{changes:?}");
}

#[test]
fn of_fifty_viewers_of_a_single_size_the_one_whose_link_is_too_narrow_loses_it_alone() {
    let mut call = Call::new(9);
    let sender = call.join();
    let viewers: Vec<_> = (0..50).map(|_| call.join_to_watch()).collect();
    call.run(2 * SECOND);
    let bad = viewers[17];
    let camera = call.publish(sender, Source::camera(SSRC, call.now));
    let watched: Vec<_> = viewers.iter().map(|viewer| (*viewer, call.watch(*viewer, camera))).collect();
    call.run(5 * SECOND);
    let (from, asked) = (call.now, call.key_frame_requests(sender));
    call.set_links(bad, call.default_link, Link { rate_bps: Some(300_000), ..call.default_link });
    call.run(15 * SECOND);
    let to = call.now;
    assert_eq!(call.key_frame_requests(sender), asked, "its sender is asked for nothing");
    for (viewer, (consumer, ssrc)) in watched {
        if viewer == bad {
            assert_eq!(call.told(consumer), Some((None, Reason::Bandwidth)));
            continue;
        }
        let picture = call.viewer(viewer, ssrc);
        assert_eq!((picture.shown_in(from, to), picture.missing()), (450, 0), "viewer {viewer}");
    }
}

#[test]
fn on_a_wide_path_that_loses_one_packet_in_two_hundred_a_tile_is_enlarged_at_once_and_padding_is_nothing() {
    for seed in 1..=2 {
        let mut call = Call::new(seed);
        call.default_link = Link { delay: 20 * MS, ..Link::default() };
        let sender = call.join();
        let viewers: Vec<_> = (0..5).map(|_| call.join_to_watch()).collect();
        call.run(2 * SECOND);
        for viewer in &viewers {
            call.set_links(*viewer, call.default_link, Link { loss: 0.005, ..call.default_link });
        }
        let camera = call.publish(sender, Source::simulcast(SSRC, call.now));
        let (consumers, ssrcs): (Vec<_>, Vec<_>) = viewers.iter().map(|viewer| call.watch(*viewer, camera)).unzip();
        let eyes: Vec<_> = viewers.into_iter().zip(ssrcs).collect();
        consumers.iter().for_each(|consumer| call.prefer(*consumer, 1, None));
        call.run_watched(30 * SECOND, &eyes);
        let enlarged = call.now;
        consumers.iter().for_each(|consumer| call.prefer(*consumer, 2, None));
        call.run_watched(15 * SECOND, &eyes);
        for (viewer, ssrc) in &eyes {
            let seen = layers(call.viewer(*viewer, *ssrc), enlarged, call.now);
            let seen: Vec<_> = seen.into_iter().map(|(at, layer)| (layer, at - enlarged)).collect();
            let is_at_once = seen.last().is_some_and(|(layer, at)| *layer == 2 && *at < 500 * MS);
            assert!(is_at_once && seen.len() == 2, "seed {seed}: {seen:?}");
        }
        let sent = call.shard.worker_stats();
        let (padding, all) = (sent.padding_bytes_sent, sent.bytes_sent);
        // Two probes of each receiver or three; and none where nothing probes would pass as well.
        assert!(padding > 0 && padding < all / 200, "seed {seed}: {padding} bytes of {all} are padding");
    }
}
