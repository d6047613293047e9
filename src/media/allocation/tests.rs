//! Rooms and links as users meet them; each test reads as what a viewer would notice.

use super::*;

const MS: Duration = Duration::from_millis(1);

/// Three spatial by three temporal layers: 150, 500 and 1,500 kbit/s at the full frame rate.
fn simulcast() -> Offer {
    let mut offer = Offer::new(3, 3);
    for (spatial, kbps) in [150u64, 500, 1500].into_iter().enumerate() {
        for (temporal, percent) in [50, 70, 100].into_iter().enumerate() {
            offer.observe(spatial as u8, temporal as u8, kbps * 10 * percent);
        }
    }
    offer
}

fn single(bps: u64) -> Offer {
    let mut offer = Offer::new(1, 1);
    offer.observe(0, 0, bps);
    offer
}

fn camera(priority: u8) -> Demand {
    Demand::new(SourceClass::Camera, priority, None, simulcast(), Grant::default())
}

fn screen() -> Demand {
    Demand::new(SourceClass::ScreenShare, 1, None, single(1_000_000), Grant::default())
}

fn microphone() -> Demand {
    Demand::new(SourceClass::Microphone, 1, None, single(40_000), Grant::default())
}

fn layers(spatial: u8, temporal: u8) -> Option<Layers> {
    Some(Layers { spatial, temporal })
}

struct Link {
    now: Instant,
    allocator: Allocator,
    demands: Vec<Demand>,
    changes: usize,
}

impl Link {
    fn new(demands: Vec<Demand>) -> Link {
        Link { now: Instant::now(), allocator: Allocator::new(), demands, changes: 0 }
    }

    fn at(&mut self, kbps: u64) -> Allocated {
        self.on(Downlink::from(kbps * 1000))
    }

    fn on(&mut self, link: Downlink) -> Allocated {
        let before = self.granted();
        let allocated = self.allocator.allocate(Some(link), 0, self.now, &mut self.demands);
        self.changes += self.granted().iter().zip(before).filter(|(a, b)| *a != b).count();
        if let Some(next) = allocated.next_raise_bps {
            assert!(next <= allocated.wanted_bps * 115 / 100 + 1);
        }
        let sum: u64 = self.demands.iter().map(cost).sum();
        assert_eq!(sum, allocated.granted_bps, "the sum is what was granted");
        allocated
    }

    /// Decides each 200 ms for some time.
    fn hold(&mut self, kbps: u64, for_ms: u32) {
        for _ in 0..for_ms / 200 {
            self.now += 200 * MS;
            self.at(kbps);
        }
    }

    fn granted(&self) -> Vec<Option<Layers>> {
        self.demands.iter().map(|demand| demand.grant.layers).collect()
    }

    fn reasons(&self) -> Vec<Reason> {
        self.demands.iter().map(|demand| demand.grant.reason).collect()
    }
}

fn cost(demand: &Demand) -> u64 {
    match demand.class {
        SourceClass::Microphone if !demand.paused => demand.offer.best_bps(),
        _ => demand.grant.layers.map_or(0, |layers| demand.offer.bps(layers)),
    }
}

#[test]
fn a_wide_link_gives_everybody_the_best() {
    let mut link = Link::new(vec![camera(1), camera(1), screen(), microphone()]);
    let allocated = link.at(10_000);
    assert_eq!(link.granted(), [layers(2, 2), layers(2, 2), layers(0, 0), None]);
    assert_eq!(link.reasons(), [Reason::Full; 4]);
    assert_eq!((allocated.granted_bps, allocated.next_raise_bps), (4_040_000, None));
    assert_eq!(allocated.wanted_bps, 4_040_000);
}

#[test]
fn without_an_estimate_there_is_no_limit() {
    let mut link = Link::new(vec![camera(1); 20]);
    link.allocator.allocate(None, 0, link.now, &mut link.demands);
    assert!(link.granted().iter().all(|granted| *granted == layers(2, 2)));
}

#[test]
fn what_resends_take_is_not_given_to_layers() {
    for (resent_kbps, expected) in [(0, layers(1, 2)), (250, layers(1, 1)), (350, layers(0, 2))] {
        let mut link = Link::new(vec![camera(1)]);
        let allocated = link.allocator.allocate(Some(750_000.into()), resent_kbps * 1000, link.now, &mut link.demands);
        assert_eq!(link.granted(), [expected], "{resent_kbps} kbit/s resent");
        assert_eq!(allocated.wanted_bps, 1_500_000 + resent_kbps * 1000);
    }
}

#[test]
fn resends_that_overflow_a_link_take_no_picture_away() {
    let mut link = Link::new(vec![camera(1)]);
    link.at(400);
    assert_eq!(link.granted(), [layers(0, 2)]);
    link.allocator.allocate(Some(230_000.into()), 420_000, link.now, &mut link.demands);
    assert_eq!(link.granted(), [layers(0, 1)], "with room for half of them");
}

#[test]
fn while_a_queue_drains_the_rest_is_shared_out_without_grace_and_a_first_layer_is_not_refused() {
    for (kbps, drain_kbps, expected) in
        [(260, 0, layers(0, 2)), (140, 0, layers(0, 2)), (140, 60, layers(0, 0)), (80, 40, layers(0, 0))]
    {
        let mut link = Link::new(vec![camera(1)]);
        link.at(2_000);
        link.on(Downlink { drain_bps: drain_kbps * 1000, ..Downlink::from(kbps * 1000) });
        assert_eq!(link.granted()[0], expected, "{kbps} kbit/s, of which {drain_kbps} drain");
    }
}

#[test]
fn a_picture_that_bandwidth_took_away_is_back_a_second_after_there_is_room() {
    let mut link = Link::new(vec![camera(1)]);
    link.at(400);
    link.hold(50, 5_000);
    assert_eq!(link.granted(), [None]);
    link.hold(300, 200);
    assert!(link.granted()[0].is_some());
    // As often as it does not last, it takes longer.
    for wait_ms in [2_000, 4_000, 8_000, 16_000, 16_000] {
        while link.granted()[0].is_some() {
            link.hold(50, 200);
        }
        link.hold(300, wait_ms - 200);
        assert_eq!(link.granted(), [None], "{wait_ms} ms");
        link.hold(300, 400);
        assert!(link.granted()[0].is_some(), "{wait_ms} ms");
    }
}

#[test]
fn audio_goes_first_and_is_never_cut() {
    let mut link = Link::new(vec![camera(255), screen(), microphone(), microphone()]);
    let allocated = link.at(100);
    assert_eq!(link.granted(), [None; 4]);
    assert_eq!(link.reasons(), [Reason::Bandwidth, Reason::Bandwidth, Reason::Full, Reason::Full]);
    assert_eq!(allocated.granted_bps, 80_000);
    assert_eq!(allocated.next_raise_bps, Some(80_000 + 75_000));
}

#[test]
fn audio_alone_above_the_estimate_is_still_sent() {
    let mut link = Link::new(vec![microphone(), microphone(), camera(1)]);
    assert_eq!(link.at(50).granted_bps, 80_000);
}

#[test]
fn one_layer_for_each_comes_before_more_for_any() {
    let mut link = Link::new(vec![camera(255), camera(1), camera(1), camera(1)]);
    link.at(4 * 75 + 20);
    assert_eq!(link.granted(), [layers(0, 0); 4]);
    assert_eq!(link.reasons(), [Reason::Bandwidth; 4]);
}

#[test]
fn a_screen_share_comes_before_cameras() {
    let mut link = Link::new(vec![camera(255), camera(255), screen()]);
    link.at(1050);
    assert_eq!(link.granted(), [None, None, layers(0, 0)], "50 kbit/s are no camera");
    link.demands.iter_mut().for_each(|demand| demand.grant = Grant::default());
    link.at(1200);
    assert_eq!(link.granted(), [layers(0, 0), layers(0, 0), layers(0, 0)]);
}

#[test]
fn equals_share_and_priority_climbs_faster() {
    let mut link = Link::new(vec![camera(9), camera(9), camera(9)]);
    link.at(3 * 500 * 115 / 100 + 30);
    assert_eq!(link.granted(), [layers(1, 2); 3]);
    let mut link = Link::new(vec![camera(1), camera(255), camera(1)]);
    link.at(1900);
    assert_eq!(link.granted(), [layers(0, 0), layers(2, 2), layers(0, 0)]);
    let mut link = Link::new(vec![camera(1), camera(2)]);
    link.at(1000);
    let (low, high) = (cost(&link.demands[0]), cost(&link.demands[1]));
    assert!(high > low, "{high} {low}");
    assert!(low > 75_000, "the lesser one climbs too");
}

#[test]
fn cameras_get_motion_before_sharpness_and_screens_the_other_way() {
    let ladder = |class| {
        let steps = Steps::of(&simulcast(), class, None);
        (0..STEPS as u8).filter_map(|n| steps.layers(n)).map(|l| (l.spatial, l.temporal)).collect::<Vec<_>>()
    };
    assert_eq!(ladder(SourceClass::Camera), [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2)]);
    assert_eq!(ladder(SourceClass::ScreenShare), [(0, 0), (1, 0), (2, 0), (2, 1), (2, 2)]);
}

#[test]
fn a_preference_is_a_cap_and_says_so() {
    let mut link = Link::new(vec![camera(1)]);
    link.demands[0].preferred = layers(1, 0);
    link.at(10_000);
    assert_eq!(link.granted(), [layers(1, 0)]);
    assert_eq!(link.reasons(), [Reason::Preferred]);
    link.demands[0].preferred = layers(7, 7);
    link.at(10_000);
    assert_eq!((link.granted(), link.reasons()), (vec![layers(2, 2)], vec![Reason::Full]));
}

#[test]
fn a_layer_that_stops_arriving_is_left_and_explained() {
    let mut link = Link::new(vec![camera(1)]);
    link.at(10_000);
    link.demands[0].offer.stop(2);
    link.at(10_000);
    assert_eq!((link.granted(), link.reasons()), (vec![layers(1, 2)], vec![Reason::ProducerUplink]));
    link.demands[0].offer.stop(1);
    link.demands[0].offer.stop(0);
    link.at(10_000);
    assert_eq!((link.granted(), link.reasons()), (vec![None], vec![Reason::LayerInactive]));
    link.demands[0].offer = simulcast();
    link.at(10_000);
    assert_eq!(link.granted(), [layers(2, 2)], "its return is not held up: bandwidth was not the cause");
}

#[test]
fn if_only_a_larger_layer_arrives_than_is_wanted_that_one_is_sent() {
    let mut link = Link::new(vec![camera(1)]);
    link.demands[0].preferred = layers(0, 2);
    link.demands[0].offer.stop(0);
    link.at(10_000);
    assert_eq!(link.granted(), [layers(1, 2)]);
}

#[test]
fn a_stream_without_temporal_layers_climbs_all_the_same() {
    let mut offer = Offer::new(3, 3);
    (0..3).for_each(|spatial| offer.observe(spatial, 0, 200_000 * (spatial as u64 + 1)));
    let mut link = Link::new(vec![Demand::new(SourceClass::Camera, 1, None, offer, Grant::default())]);
    link.at(5000);
    assert_eq!(link.granted(), [layers(2, 0)]);
}

#[test]
fn a_link_that_shrinks_lowers_at_once_and_one_that_grows_raises_with_patience() {
    let mut link = Link::new(vec![camera(1), microphone()]);
    link.hold(2000, 1000);
    assert_eq!(link.granted()[0], layers(2, 2));
    link.hold(600, 200);
    assert_eq!(link.granted()[0], layers(1, 2), "at the first decision");
    link.hold(2000, 3800);
    assert_eq!(link.granted()[0], layers(1, 2), "not so soon");
    link.hold(2000, 400);
    assert_eq!(link.granted()[0], layers(2, 2));
}

#[test]
fn nobody_is_raised_without_headroom() {
    let mut link = Link::new(vec![camera(1)]);
    link.hold(600, 20_000);
    assert_eq!(link.granted(), [layers(1, 2)]);
    link.hold(1049 + 150, 20_000);
    assert_eq!(link.granted(), [layers(1, 2)], "1,050 kbit/s at 15 frames need 1,207");
    link.hold(1210, 20_000);
    assert_eq!(link.granted(), [layers(2, 1)]);
}

#[test]
fn a_little_too_much_is_tolerated_for_a_moment_and_no_longer() {
    let mut link = Link::new(vec![camera(1)]);
    link.hold(2000, 1000);
    link.hold(1350, 3000);
    assert_eq!(link.granted(), [layers(2, 2)], "1,500 of 1,350 kbit/s, as after a key frame");
    link.hold(1600, 200);
    link.hold(1350, 3800);
    assert_eq!(link.granted(), [layers(2, 2)], "each moment by itself");
    link.hold(1350, 600);
    assert_eq!(link.granted(), [layers(2, 1)]);
}

#[test]
fn an_estimate_that_swings_by_ten_percent_switches_nothing() {
    let mut link = Link::new(vec![camera(1); 4]);
    link.hold(2300, 2000);
    link.hold(2530, 400);
    link.hold(2300, 5000);
    link.changes = 0;
    for n in 0..300u64 {
        link.hold(2300 + 230 * (n % 2), 200);
    }
    assert_eq!(link.changes, 0);
}

/// A link between two layers, whose estimate falls as soon as the upper one is sent and recovers after: the
/// worst case of pumping.
#[test]
fn raises_that_fail_become_rarer() {
    let mut link = Link::new(vec![camera(1)]);
    let mut raises = Vec::new();
    let mut kbps = 800;
    for step in 0..5 * 300 {
        link.hold(kbps, 200);
        let high = link.granted()[0].is_some_and(|granted| granted.spatial == 2);
        if high && kbps > 1000 {
            raises.push(step / 5);
            kbps = 700;
        } else {
            kbps = (kbps + 50).min(1300);
        }
    }
    assert!((3..=9).contains(&raises.len()), "in five minutes: {raises:?}");
    let gaps: Vec<_> = raises.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.windows(2).all(|pair| pair[1] >= pair[0]), "{gaps:?}");
    assert!(*gaps.last().unwrap() >= 60);
}

#[test]
fn a_newcomer_takes_from_the_upper_layers_of_others_not_from_their_picture() {
    let mut link = Link::new(vec![camera(1), camera(1), camera(1)]);
    link.hold(1200, 5000);
    let before = link.granted();
    assert!(before.iter().all(|granted| granted.is_some()));
    link.demands.push(screen());
    link.hold(1230, 5000);
    assert_eq!(link.granted(), [layers(0, 0), layers(0, 0), layers(0, 0), layers(0, 0)]);
}

#[test]
fn among_equals_the_holder_of_a_step_keeps_it() {
    let mut link = Link::new(vec![camera(1), camera(1)]);
    link.demands[0].preferred = layers(0, 2);
    link.hold(750, 1000);
    assert_eq!(link.granted(), [layers(0, 2), layers(1, 2)]);
    link.demands[0].preferred = None;
    link.changes = 0;
    link.hold(740, 30_000);
    assert_eq!(link.changes, 0, "{:?}", link.granted());
}

#[test]
fn a_pause_costs_nothing_and_ends_at_once() {
    let mut link = Link::new(vec![camera(1), camera(1)]);
    link.hold(1000, 1000);
    link.demands[0].paused = true;
    let allocated = link.at(1000);
    assert_eq!((link.granted()[0], link.reasons()[0]), (None, Reason::Paused));
    assert!(allocated.wanted_bps <= 1_500_000);
    link.hold(1000, 10_000);
    link.demands[0].paused = false;
    link.at(1000);
    assert!(link.granted()[0].is_some(), "no headroom and no patience for the first picture after a pause");
}

#[test]
fn fifty_consumers_of_fifty_priorities_stay_within_the_estimate() {
    let mut link = Link::new((0..50).map(|n| camera(1 + n * 5)).collect());
    for kbps in [100, 1000, 3750, 5000, 10_000, 30_000, 87_000] {
        let allocated = link.at(kbps);
        assert!(allocated.granted_bps <= kbps * 1000, "{kbps}: {allocated:?}");
        assert!(kbps < 4000 || link.granted().iter().all(|granted| granted.is_some()));
        link.now += 100_000 * MS;
    }
    assert!(link.granted().iter().all(|granted| *granted == layers(2, 2)));
}

#[test]
fn the_same_question_gets_the_same_answer() {
    let run = || {
        let mut link = Link::new((0..30).map(|n| camera(1 + n % 11)).collect());
        let start = link.now;
        let mut all = Vec::new();
        for n in 0..50u64 {
            link.now = start + MS * n as u32 * 500;
            link.at(500 + n * n * 7 % 9000);
            all.push(link.granted());
        }
        all
    };
    assert_eq!(run(), run());
}

// ---- whether a picture flows at all

fn picture(priority: u8, kbps: u64) -> Demand {
    Demand::new(SourceClass::Camera, priority, None, single(kbps * 1000), Grant::default())
}

/// A share of 1,000 kbit/s, two cameras of 600 and a voice, of which a link of 3 Mbit/s carries all.
fn call_of_single_sizes() -> Link {
    let mut link = Link::new(vec![picture(1, 600), picture(5, 600), screen(), microphone()]);
    link.hold(3000, 2000);
    assert!(link.granted()[..3].iter().all(Option::is_some));
    link
}

fn flowing(link: &Link) -> Vec<bool> {
    link.granted()[..3].iter().map(Option::is_some).collect()
}

#[test]
fn if_a_shortage_lasts_the_least_important_picture_stops_and_says_why() {
    let mut link = call_of_single_sizes();
    link.hold(1700, 2800);
    assert_eq!(flowing(&link), [true, true, true], "not for less than three seconds");
    link.hold(1700, 600);
    assert_eq!(flowing(&link), [false, true, true]);
    assert_eq!(link.reasons(), [Reason::Bandwidth, Reason::Full, Reason::Full, Reason::Full]);
    link.hold(1100, 4000);
    assert_eq!(flowing(&link), [false, false, true], "a share comes before cameras");
    link.hold(1700, 10_000);
    assert_eq!(flowing(&link), [false, false, true], "1,640 kbit/s without headroom");
    link.hold(1900, 200);
    assert_eq!(flowing(&link), [false, true, true], "the more important comes back first");
    link.hold(3000, 200);
    assert_eq!(flowing(&link), [true, true, true]);
}

#[test]
fn a_dip_of_a_second_stops_nothing_however_often_and_deep() {
    let mut link = call_of_single_sizes();
    link.changes = 0;
    for _ in 0..20 {
        link.hold(30, 2000);
        link.hold(3000, 400);
    }
    assert_eq!(link.changes, 0);
}

#[test]
fn what_demonstrably_gets_through_is_no_shortage_whatever_the_estimate() {
    let mut link = call_of_single_sizes();
    link.changes = 0;
    for _ in 0..300 {
        link.now += 200 * MS;
        link.on(Downlink { carried_bps: 2_300_000, plausible_bps: 2_300_000, ..Downlink::from(1_200_000) });
    }
    assert_eq!(link.changes, 0);
}

#[test]
fn a_small_shortage_is_given_time_to_pass() {
    let mut link = call_of_single_sizes();
    link.hold(2000, 11_800);
    assert_eq!(flowing(&link), [true, true, true], "2,240 of 2,000 kbit/s");
    link.hold(2000, 600);
    assert_eq!(flowing(&link), [false, true, true]);
}

#[test]
fn the_last_picture_stays_as_long_as_any_reading_of_the_link_allows_it() {
    let mut link = call_of_single_sizes();
    let harsh = Downlink { plausible_bps: 1_050_000, ..Downlink::from(740_000) };
    let hold = |link: &mut Link, downlink: Downlink| {
        for _ in 0..300 {
            link.now += 200 * MS;
            link.on(downlink);
        }
    };
    hold(&mut link, harsh);
    assert_eq!(flowing(&link), [false, false, true], "for a minute");
    // A cheaper one does fit, where the share does not by any reading.
    hold(&mut link, Downlink { plausible_bps: 800_000, ..harsh });
    assert_eq!(flowing(&link), [false, true, false]);
    hold(&mut link, Downlink::from(300_000));
    assert_eq!(flowing(&link), [false, false, false]);
    assert_eq!(link.reasons()[3], Reason::Full, "sound is never stopped");
}

#[test]
fn a_cheap_picture_flows_on_where_a_dear_one_is_stopped() {
    let mut link = Link::new(vec![picture(9, 300), picture(5, 600), picture(1, 400)]);
    link.hold(3000, 2000);
    link.hold(750, 4000);
    assert_eq!(flowing(&link), [true, false, true], "without the last there would be no room for the second either");
}

#[test]
fn frames_are_left_out_at_once_where_the_codec_has_layers_of_them() {
    let mut offer = Offer::new(1, 3);
    [300, 420, 600].into_iter().enumerate().for_each(|(t, kbps)| offer.observe(0, t as u8, kbps * 1000));
    let mut link = Link::new(vec![Demand::new(SourceClass::Camera, 1, None, offer, Grant::default())]);
    link.hold(2000, 1000);
    link.hold(320, 200);
    assert_eq!(link.granted(), [layers(0, 0)]);
    link.hold(320, 30_000);
    assert_eq!(link.granted(), [layers(0, 0)]);
}

#[test]
fn the_lowest_layer_of_a_source_with_sizes_stops_no_sooner_than_a_single_size() {
    let mut link = Link::new(vec![camera(9), camera(1)]);
    link.hold(2000, 1000);
    link.hold(100, 200);
    assert_eq!(link.granted(), [layers(0, 0), layers(0, 0)], "75 kbit/s each");
    link.hold(100, 2600);
    assert_eq!(link.granted(), [layers(0, 0), layers(0, 0)]);
    link.hold(100, 400);
    assert_eq!(link.granted(), [layers(0, 0), None]);
}

#[test]
fn a_picture_whose_return_does_not_last_is_tried_ever_more_rarely() {
    let mut link = Link::new(vec![picture(9, 600), picture(1, 600)]);
    link.hold(2000, 1000);
    let mut returns = Vec::new();
    let mut kbps = 900;
    // The estimate says that there is room as soon as there is one picture, and not when there are two.
    for step in 0..5 * 300 {
        let before = link.granted()[1];
        link.hold(kbps, 200);
        if before.is_none() && link.granted()[1].is_some() {
            returns.push(step / 5);
        }
        kbps = if link.granted()[1].is_some() { 900 } else { 1400 };
    }
    let gaps: Vec<_> = returns.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!((4..=8).contains(&returns.len()), "in five minutes: {returns:?}");
    assert!(gaps.windows(2).all(|pair| pair[1] + 1 >= pair[0]) && gaps.last() >= Some(&60), "{returns:?}");
    assert!(link.granted()[0].is_some());
}

#[test]
fn a_source_that_falls_silent_costs_nothing_and_is_given_time_when_it_goes_on() {
    let mut link = call_of_single_sizes();
    link.hold(700, 10_000);
    assert_eq!(flowing(&link), [false, true, false]);
    let (moving, still) = (link.demands[2].offer, Offer::new(1, 1));
    for _ in 0..3 {
        link.demands[2].offer = still;
        link.hold(700, 2000);
        assert_eq!(link.reasons()[2], Reason::LayerInactive, "nothing stands in its way");
        link.demands[2].offer = moving;
        link.hold(700, 2000);
        assert!(link.granted()[2].is_some(), "what flows is not new");
        link.hold(700, 2000);
        assert!(link.granted()[2].is_none());
    }
}

#[test]
fn before_anything_is_known_of_a_link_everything_begins() {
    let mut link = call_of_single_sizes();
    let unknown = Downlink { carried_bps: 100_000_000, plausible_bps: 100_000_000, ..Downlink::from(600_000) };
    let unknown = Downlink { is_answered: false, ..unknown };
    link.demands.iter_mut().for_each(|demand| demand.grant = Grant::default());
    for _ in 0..100 {
        link.now += 200 * MS;
        link.on(unknown);
        assert_eq!(flowing(&link), [true, true, true]);
    }
    // Where it is known, who comes new waits for room, and takes it from nobody of the same rank.
    link.hold(1700, 10_000);
    link.demands.push(picture(5, 600));
    link.hold(1700, 10_000);
    assert_eq!((flowing(&link), link.granted()[4]), (vec![false, true, true], None));
    let allocated = link.at(1700);
    assert_eq!(allocated.next_raise_bps, Some(2_240_000), "which probes look for");
    // Nothing was taken from it that could pump: it comes with the room.
    link.at(2250);
    assert!(link.granted()[4].is_some());
}
