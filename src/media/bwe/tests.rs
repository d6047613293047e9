//! The estimator on simulated paths: how soon it finds out, how well it uses the path, what never happens.

use super::link::{Layered, MS, Path, Sender, Simulation, mean};
use std::collections::VecDeque;

use super::*;
use crate::ids::Ssrc;
use crate::media::allocation::{Allocator, Demand, Grant, Offer};
use crate::media::spec::SourceClass;
use crate::packet::rtcp::{RtcpPacket, TransportCcHead, packets, write_transport_cc};

const WIDE: u64 = 2_000_000;
const NARROW: u64 = 300_000;

fn cameras(count: usize, key_frame_ms: u64) -> Sender {
    let mut demands = vec![Demand::new(SourceClass::Microphone, 1, None, single(40_000), Grant::default())];
    demands.extend((0..count).map(|_| Demand::new(SourceClass::Camera, 1, None, simulcast(), Grant::default())));
    Sender::Layers(Box::new(Layered { allocator: Allocator::new(), demands, key_frame_ms, switches: Vec::new() }))
}

fn single(bps: u64) -> Offer {
    let mut offer = Offer::new(1, 1);
    offer.observe(0, 0, bps);
    offer
}

/// 150, 500 and 1,500 kbit/s, each in three temporal layers.
fn simulcast() -> Offer {
    let mut offer = Offer::new(3, 3);
    for (spatial, kbps) in [150u64, 500, 1500].into_iter().enumerate() {
        for (temporal, percent) in [50, 70, 100].into_iter().enumerate() {
            offer.observe(spatial as u8, temporal as u8, kbps * 10 * percent);
        }
    }
    offer
}

/// 2 Mbit/s that drop to 300 kbit/s from the 20th to the 40th second.
fn dropping() -> Path {
    let capacity = |ms| if (20_000..40_000).contains(&ms) { NARROW } else { WIDE };
    Path { capacity_bps: Box::new(capacity), ..Path::steady(0) }
}

fn run(path: Path, sender: Sender, seconds: u64) -> Simulation {
    let mut simulation = Simulation::new(path, sender);
    simulation.run(seconds * 1000);
    simulation
}

#[test]
fn a_path_is_found_within_seconds_and_used_whatever_its_round_trip() {
    for (rtt_ms, within_ms) in [(20, 1000), (50, 1000), (100, 1500), (200, 2000), (400, 3000)] {
        let s = run(Path { rtt_ms, ..Path::steady(WIDE) }, Sender::Elastic(5_000_000), 60);
        let found_ms = s.settled_ms(0, |bps| bps > 1_400_000);
        assert!(found_ms <= within_ms, "{rtt_ms} ms: after {found_ms}");
        assert!(s.used_percent(5, 60) >= 85, "{rtt_ms} ms: {} %", s.used_percent(5, 60));
        assert!(s.estimates[50..].iter().all(|bps| (1_500_000..2_400_000).contains(bps)), "{rtt_ms} ms");
        assert!(mean(&s.queue_ms) <= 40, "{rtt_ms} ms: the queue stays short: {}", mean(&s.queue_ms));
    }
}

#[test]
fn other_capacities_are_found_too() {
    for (capacity, within_ms) in [(150_000, 4000), (500_000, 2000), (5_000_000, 3000), (20_000_000, 6000)] {
        let s = run(Path::steady(capacity), Sender::Elastic(25_000_000), 60);
        let found_ms = s.settled_ms(0, |bps| (capacity / 2..capacity * 13 / 10).contains(&bps));
        assert!(found_ms <= within_ms, "{capacity}: after {found_ms}");
        assert!(s.used_percent(10, 60) >= 75, "{capacity}: {} %", s.used_percent(10, 60));
        assert!(mean(&s.queue_ms[50..]) <= 80, "{capacity}: {}", mean(&s.queue_ms[50..]));
    }
}

#[test]
fn a_path_that_shrinks_is_followed_within_a_second_and_its_return_within_ten() {
    for rtt_ms in [20, 50, 200] {
        let s = run(Path { rtt_ms, ..dropping() }, Sender::Elastic(5_000_000), 60);
        let followed_ms = s.settled_ms(20, |bps| bps < NARROW * 12 / 10);
        assert!(followed_ms <= 1000 + 3 * rtt_ms, "{rtt_ms} ms: after {followed_ms}");
        assert!(s.used_percent(25, 40) >= 70, "{rtt_ms} ms: {} %", s.used_percent(25, 40));
        assert!(s.estimates[220..400].iter().all(|bps| *bps > NARROW / 2), "{rtt_ms} ms: no collapse");
        let returned_ms = s.settled_ms(40, |bps| bps > 1_400_000);
        assert!(returned_ms <= 10_000, "{rtt_ms} ms: after {returned_ms}");
    }
}

#[test]
fn a_path_that_carries_far_less_than_is_sent_is_jammed_within_half_a_second_until_its_queue_has_drained() {
    let mut s = Simulation::new(dropping(), Sender::Elastic(1_500_000));
    for _ in 0..20_000 {
        assert!(!s.run(1).estimator.is_jammed(), "after {} ms", s.ms);
    }
    let jammed_ms = (0..2_000).find(|_| s.run(1).estimator.is_jammed());
    assert!(jammed_ms.is_some_and(|ms| ms < 500), "after {jammed_ms:?} ms");
    assert!(s.estimator.is_jammed() && s.estimator.estimate_bps() < NARROW, "{}", s.estimator.estimate_bps());
    s.run(3_000);
    assert!(!s.estimator.is_jammed());
    assert!(*s.queue_ms.last().unwrap() < 100, "{:?}", s.queue_ms);
}

#[test]
fn a_path_that_carries_more_than_half_of_what_is_sent_is_not_jammed() {
    let capacity = |ms| if ms > 20_000 { 1_100_000 } else { WIDE };
    let mut s =
        Simulation::new(Path { capacity_bps: Box::new(capacity), ..Path::steady(0) }, Sender::Elastic(1_400_000));
    for _ in 0..25_000 {
        assert!(!s.run(1).estimator.is_jammed(), "after {} ms", s.ms);
    }
    assert!(s.estimator.estimate_bps() < 1_150_000);
}

#[test]
fn what_arrives_after_a_dip_without_a_queue_is_allowed_again_at_once() {
    // Pictures of a single size are sent on through it.
    let capacity = |ms| if (10_000..11_000).contains(&ms) { 200_000 } else { 5_000_000 };
    let path = Path { capacity_bps: Box::new(capacity), ..Path::steady(0) };
    let mut s = Simulation::new(path, Sender::Constant(2_000_000));
    assert!(s.run(10_900).estimator.estimate_bps() < 400_000, "{}", s.estimator.estimate_bps());
    assert!(s.run(1_600).estimator.estimate_bps() > 1_000_000, "{}", s.estimator.estimate_bps());
}

#[test]
fn loss_without_congestion_does_not_strangle() {
    for (percent, least) in [(1, 1_600_000), (2, 1_600_000), (5, 1_500_000), (10, 900_000)] {
        let s = run(Path { loss: percent as f64 / 100.0, ..Path::steady(WIDE) }, Sender::Elastic(5_000_000), 120);
        let estimate = mean(&s.estimates[50..]);
        assert!(estimate >= least, "{percent} %: {estimate}");
        assert!(s.estimates[20..].iter().all(|bps| *bps >= least / 2), "{percent} %: no collapse");
    }
    let s = run(Path { loss: 0.2, ..Path::steady(WIDE) }, Sender::Elastic(5_000_000), 60);
    assert!(mean(&s.estimates[50..]) >= 300_000, "20 %: {}", mean(&s.estimates[50..]));
}

#[test]
fn jitter_and_lost_feedback_cost_little() {
    let s = run(Path { jitter_ms: 15, ..Path::steady(WIDE) }, Sender::Elastic(5_000_000), 60);
    assert!(s.used_percent(5, 60) >= 80, "{} %", s.used_percent(5, 60));
    let s = run(Path { feedback_loss: 0.2, ..Path::steady(WIDE) }, Sender::Elastic(5_000_000), 60);
    assert!(s.used_percent(5, 60) >= 80, "{} %", s.used_percent(5, 60));
}

#[test]
fn a_shallow_queue_that_drops_instead_of_delaying_is_noticed_by_its_loss() {
    let s = run(Path { queue_ms: 15, ..Path::steady(1_000_000) }, Sender::Elastic(5_000_000), 60);
    let estimate = mean(&s.estimates[100..]);
    assert!((400_000..1_300_000).contains(&estimate), "{estimate}");
}

#[test]
fn others_on_the_path_are_made_room_for_and_their_leaving_is_found() {
    let others = |ms| if ms / 10_000 % 2 == 1 { 1_000_000 } else { 0 };
    let s = run(Path { cross_bps: Box::new(others), ..Path::steady(WIDE) }, Sender::Elastic(5_000_000), 80);
    for busy in [10, 30, 50, 70] {
        let after = mean(&s.estimates[busy * 10 + 30..busy * 10 + 100]);
        assert!((600_000..1_150_000).contains(&after), "from {busy} s: {after}");
        let queue_ms = mean(&s.queue_ms[busy * 10 + 60..busy * 10 + 100]);
        assert!(queue_ms < 200, "the queue drains, it does not stand: {queue_ms}");
    }
    for free in [20, 40, 60] {
        let found_ms = s.settled_ms(free, |bps| bps > 1_400_000);
        assert!(found_ms <= 8000, "from {free} s: after {found_ms}");
    }
}

#[test]
fn a_sender_of_little_keeps_an_estimate_that_is_neither_lost_nor_invented() {
    let s = run(Path::steady(5_000_000), Sender::Constant(100_000), 300);
    assert!(s.estimates.iter().all(|bps| (500_000..1_000_000).contains(bps)));
    assert_eq!(s.padding_bytes, 0, "nobody wants more: nothing is probed");
    // Others fill the path to nine tenths, or overfill it, half of the time.
    for (others_bps, least) in [(4_500_000, 500_000), (6_000_000, 50_000)] {
        let others = move |ms| if ms / 5_000 % 2 == 1 { others_bps } else { 0 };
        let path = Path { cross_bps: Box::new(others), ..Path::steady(5_000_000) };
        let s = run(path, Sender::Constant(100_000), 120);
        let lowest = s.estimates.iter().min().unwrap();
        assert!(*lowest >= least, "{others_bps}: {lowest}");
    }
}

#[test]
fn silence_of_the_receiver_lowers_the_estimate_and_its_return_restores_it() {
    let mut s = Simulation::new(Path::steady(WIDE), Sender::Elastic(1_500_000));
    s.run(10_000);
    s.path.feedback_loss = 1.0;
    s.run(6_000);
    let silent = s.estimator.estimate_bps();
    assert!((200_000..900_000).contains(&silent), "{silent}");
    s.path.feedback_loss = 0.0;
    s.run(10_000);
    assert!(s.estimator.estimate_bps() > 1_300_000, "{}", s.estimator.estimate_bps());
}

#[test]
fn one_camera_keeps_its_layer_through_key_frames() {
    for capacity in [1_000_000, WIDE, 10_000_000] {
        let s = run(Path::steady(capacity), cameras(1, 5000), 90);
        assert_eq!(s.switches(2, 90), 0, "{capacity}");
        let expected = if capacity < WIDE { (1, 2) } else { (2, 2) };
        assert_eq!(s.layers(), [Some(expected)], "{capacity}");
    }
}

#[test]
fn the_right_layer_comes_soon_and_leaves_at_once() {
    let s = run(dropping(), cameras(1, 5000), 90);
    assert_eq!(s.switches(0, 1), 2, "a small picture first, the best within the first second");
    assert_eq!(s.switches(20, 22), 2, "down within two seconds, and to fewer frames while the queue drains");
    assert!(s.queue_ms[223..240].iter().all(|ms| *ms < 50), "it has drained soon after");
    assert_eq!(s.switches(22, 27), 1, "all frames when it has");
    assert_eq!(s.switches(27, 40), 0, "and stays there");
    assert!(s.switches(41, 50) >= 1, "back within ten seconds");
    assert_eq!(s.switches(55, 90), 0);
    assert_eq!(s.layers(), [Some((2, 2))]);
}

#[test]
fn a_gallery_does_not_flap() {
    for (path, count, most) in [
        (Path::steady(WIDE), 4, 12),
        (Path { loss: 0.05, ..Path::steady(WIDE) }, 4, 12),
        (Path::steady(10_000_000), 9, 15),
    ] {
        let s = run(path, cameras(count, 5000), 120);
        let switches = s.switches(5, 120);
        assert!(switches <= most, "{count} cameras: {switches} in two minutes");
        assert!(s.used_percent(5, 120) >= 60, "{count} cameras: {} %", s.used_percent(5, 120));
        assert!(s.layers().iter().all(|layers| layers.is_some()), "everybody has a picture");
        assert!(s.padding_bytes * 30 < s.media_bytes, "probes cost less than a thirtieth");
    }
}

#[test]
fn everybody_keeps_a_picture_on_a_narrow_path() {
    let s = run(Path::steady(400_000), cameras(4, 0), 60);
    assert!(s.layers().iter().all(|layers| layers.is_some()), "{:?}", s.layers());
    assert!(mean(&s.queue_ms[50..]) < 100);
}

/// Sends a steady 500 kbit/s and answers with whatever `lie` makes of the numbers sent so far.
/// A voice and one picture of a single size.
fn one_picture(bps: u64) -> Sender {
    let of = |class, bps| Demand::new(class, 1, None, single(bps), Grant::default());
    let demands = vec![of(SourceClass::Microphone, 40_000), of(SourceClass::Camera, bps)];
    Sender::Layers(Box::new(Layered { allocator: Allocator::new(), demands, key_frame_ms: 0, switches: Vec::new() }))
}

#[test]
fn where_the_only_picture_is_stopped_probes_find_the_room_that_returns() {
    let mut s = Simulation::new(dropping(), one_picture(1_000_000));
    s.run(20_000);
    assert_eq!(s.layers(), [Some((0, 0))]);
    s.run(19_000);
    assert_eq!(s.layers(), [None], "a million bits of three hundred thousand");
    s.run(11_000);
    assert_eq!(s.layers(), [Some((0, 0))], "within ten seconds");
    assert_eq!(s.switches(1, 50), 2, "once each way");
}

#[test]
fn a_voice_without_any_picture_leaves_the_estimate_alone() {
    let mut s = Simulation::new(Path::steady(WIDE), one_picture(1_000_000));
    s.run(10_000);
    let before = s.estimator.estimate_bps();
    let Sender::Layers(layered) = &mut s.sender else { unreachable!() };
    layered.demands[1].paused = true;
    s.run(60_000);
    let after = s.estimator.estimate_bps();
    assert!(after.abs_diff(before) < before / 50, "{before}, then {after}");
}

fn lied_to(mut lie: impl FnMut(u64, u16) -> Option<(u16, Vec<Option<u64>>)>) -> Estimator {
    let start = Instant::now();
    let mut estimator = Estimator::new(start);
    estimator.want(Some(50_000_000), 90_000_000);
    let mut number = 0u16;
    let mut out = [0u8; 1400];
    for ms in 1..60_000u64 {
        let now = start + MS * ms as u32;
        if ms % 20 == 0 {
            estimator.sent(SeqNo(number), 1250, now);
            number = number.wrapping_add(1);
        }
        if let Some(bytes) = estimator.padding(now) {
            estimator.sent(SeqNo(number), bytes.clamp(60, 1200), now);
            number = number.wrapping_add(1);
        }
        estimator.poll(now);
        if ms % 100 == 0
            && let Some((base, statuses)) = lie(ms, number)
        {
            let head = TransportCcHead { sender: Ssrc(1), media: Ssrc(2), base: SeqNo(base), feedback_count: 0 };
            let Some(written) = write_transport_cc(&mut out, &head, statuses.into_iter()) else { continue };
            let Some(Ok(RtcpPacket::TransportCc(feedback))) = packets(&out[..written.len]).next() else { continue };
            estimator.feedback(&feedback, now);
        }
    }
    estimator
}

#[test]
fn numbers_that_were_never_sent_prove_nothing() {
    let estimator = lied_to(|ms, number| Some((number.wrapping_add(100), vec![Some(ms * 1000); 300])));
    assert_eq!(estimator.estimate_bps(), START_BPS);
    assert_eq!(estimator.probes(), 0, "no probe for a receiver that says nothing true");
}

#[test]
fn a_receiver_that_compresses_time_proves_no_more_than_was_sent() {
    // Everything arrived in the same instant, 1 ms after the last feedback's.
    let estimator = lied_to(|ms, number| Some((number.wrapping_sub(8), vec![Some(ms * 10); 8])));
    assert!(estimator.estimate_bps() <= 3_000_000, "{}", estimator.estimate_bps());
}

#[test]
fn random_lies_stay_within_bounds() {
    let mut seed = 5u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 33
    };
    let estimator = lied_to(|_, number| {
        let statuses = (0..random() % 400).map(|_| (random() % 3 > 0).then(|| random() % (1 << 40))).collect();
        Some((number.wrapping_sub((random() % 600) as u16), statuses))
    });
    assert!((ESTIMATE_MIN_BPS..=ESTIMATE_MAX_BPS).contains(&estimator.estimate_bps()));
    assert!(estimator.estimate_bps() <= 5_000_000, "{}", estimator.estimate_bps());
}

#[test]
fn a_reference_time_that_leaps_for_ever_is_no_panic() {
    let mut hours = 0;
    let estimator = lied_to(|_, number| {
        hours += 134 * 3600 * 1_000_000;
        Some((number.wrapping_sub(8), vec![Some(hours); 8]))
    });
    assert!(estimator.estimate_bps() <= 3_000_000, "{}", estimator.estimate_bps());
}

#[test]
fn without_transport_cc_the_receivers_maximum_is_the_estimate_and_loss_lowers_it() {
    let mut estimator = Estimator::new(Instant::now());
    assert_eq!(estimator.estimate_bps(), START_BPS);
    estimator.remb(2_500_000);
    assert_eq!(estimator.estimate_bps(), 2_500_000);
    estimator.receiver_report(0.2, Some(50 * MS));
    assert_eq!(estimator.estimate_bps(), 2_250_000);
    for _ in 0..30 {
        estimator.receiver_report(0.0, Some(50 * MS));
    }
    assert_eq!(estimator.estimate_bps(), 2_500_000);
    estimator.remb(1);
    assert_eq!(estimator.estimate_bps(), ESTIMATE_MIN_BPS);
    estimator.remb(u64::MAX);
    assert_eq!(estimator.estimate_bps(), ESTIMATE_MAX_BPS);
}

#[test]
fn beside_transport_cc_the_receivers_maximum_is_a_cap() {
    let mut s = Simulation::new(Path::steady(WIDE), Sender::Elastic(5_000_000));
    s.run(5_000);
    s.estimator.remb(700_000);
    assert_eq!(s.estimator.estimate_bps(), 700_000);
    s.run(5_000);
    assert_eq!(s.estimator.estimate_bps(), 700_000);
}

#[test]
fn where_an_answer_cannot_raise_the_estimate_probes_are_seconds_apart() {
    let mut s = Simulation::new(Path::steady(WIDE), Sender::Constant(500_000));
    s.estimator.want(Some(1_800_000), 1_800_000);
    s.run(5_000);
    s.estimator.remb(700_000);
    let before = s.estimator.probes();
    s.run(60_000);
    let probes = s.estimator.probes() - before;
    assert!((5..=15).contains(&probes), "{probes} in a minute");
    assert!(s.padding_bytes * 50 < s.media_bytes, "{} bytes beside {}", s.padding_bytes, s.media_bytes);
}

#[test]
fn small_changes_are_not_told() {
    let mut estimator = Estimator::new(Instant::now());
    estimator.remb(1_000_000);
    assert_eq!(estimator.take_change(), Some(1_000_000));
    estimator.remb(960_000);
    assert_eq!(estimator.take_change(), None);
    estimator.remb(940_000);
    assert_eq!(estimator.take_change(), Some(940_000));
    assert_eq!(estimator.take_change(), None);
}

#[test]
fn an_estimator_that_sends_nothing_wakes_nobody() {
    let start = Instant::now();
    let mut estimator = Estimator::new(start);
    assert_eq!(estimator.next_deadline(), None);
    estimator.sent(SeqNo(0), 100, start);
    assert!(estimator.next_deadline().is_some());
    estimator.poll(start + 500 * MS);
    assert_eq!(estimator.next_deadline(), None);
    assert!(size_of::<Estimator>() <= 2048, "{}", size_of::<Estimator>());
}

/// A receiver without transport-cc: its REMB is at most one and a half times what arrives, and grows by 8 % a second.
#[test]
fn a_receiver_that_answers_with_remb_alone_is_asked_by_padding_that_lasts() {
    let start = Instant::now();
    let mut estimator = Estimator::new(start);
    let (mut arrived, mut remb_bps, mut padded) = (VecDeque::new(), 180_000f64, 0);
    let mut reached = None;
    for ms in 0..30_000u32 {
        let now = start + Duration::from_millis(1) * ms;
        if ms % 10 == 0 {
            estimator.sent_unnumbered(150, now);
            arrived.push_back((ms, 150));
        }
        if let Some(bytes) = estimator.padding(now) {
            let bytes = bytes.clamp(300, 4800);
            estimator.padded(bytes, now);
            arrived.push_back((ms, bytes));
            padded += bytes;
        }
        while arrived.front().is_some_and(|(at, _)| at + 1000 < ms) {
            arrived.pop_front();
        }
        if ms % 1000 == 999 {
            let bps = arrived.iter().map(|(_, bytes)| *bytes as f64 * 8.0).sum::<f64>();
            remb_bps = (remb_bps * 1.08).min(bps * 1.5 + 10_000.0);
            estimator.remb(remb_bps as u64);
            estimator.want(Some(265_000), 1_500_000);
        }
        estimator.poll(now);
        if estimator.estimate_bps() >= 265_000 && ms > 1000 {
            reached = reached.or(Some(ms));
        }
    }
    assert!(reached.is_some_and(|ms| ms < 20_000), "{reached:?}");
    // Not all of the time: media of 120 kbit/s is 450 kB.
    assert!(padded < 450_000, "{padded} bytes of padding");
}
