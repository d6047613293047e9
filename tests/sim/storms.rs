//! Viewers that ask for too much, and those that leave without a word to the signaling.

use std::time::Duration;

use ringside::shard::command::{Command, Event};

use crate::call::Call;
use crate::source::Source;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

#[test]
fn a_storm_of_key_frame_requests_costs_one_key_frame_per_second() {
    let mut call = Call::new(1);
    let sender = call.join();
    let viewers: Vec<_> = (0..10).map(|_| call.join_to_watch()).collect();
    call.run(2 * SECOND);
    let camera = call.publish(sender, Source::camera(5000, call.now));
    let watched: Vec<_> = viewers.iter().map(|viewer| (*viewer, call.watch(*viewer, camera))).collect();
    call.run(2 * SECOND);
    let (from, before) = (call.now, call.key_frame_requests(sender));
    for _ in 0..500 {
        let now = call.now;
        for (viewer, (consumer, ssrc)) in &watched {
            let connection = call.clients[*viewer].recv;
            call.connections[connection].request_key_frame(now, *ssrc);
            let consumer = *consumer;
            call.command(|token| Command::RequestKeyFrame { token, consumer }).unwrap();
        }
        call.run(20 * MS);
    }
    let asked = call.key_frame_requests(sender) - before;
    assert!((9..=11).contains(&asked), "{asked} key frames asked for in ten seconds");
    let stats = &call.producer_stats(camera)[0];
    assert!(stats.key_frames_asked > 5_000, "{stats:?}");
    assert!(stats.key_frames_coalesced > stats.key_frames_asked * 9 / 10, "{stats:?}");
    // The worker says the same of everything that it carries, and forgets nothing when it closes.
    let (asked, coalesced) = (stats.key_frames_asked, stats.key_frames_coalesced);
    let repairs = call.shard.worker_stats().repairs;
    assert_eq!((repairs.key_frames_asked, repairs.key_frames_coalesced), (asked, coalesced));
    // One may be on its way.
    let heard = call.key_frame_requests(sender) as u64;
    assert!((heard..=heard + 1).contains(&repairs.key_frame_requests_sent), "{heard} of {repairs:?}");
    assert!(repairs.key_frames_received + 1 >= repairs.key_frame_requests_sent, "{repairs:?}");
    assert_eq!(repairs.invented_feedback, 0, "honest receivers");
    for (viewer, (_, ssrc)) in &watched {
        let picture = call.viewer(*viewer, *ssrc);
        assert!(picture.longest_freeze(from, call.now - SECOND / 10) < 60 * MS);
        assert_eq!(picture.missing(), 0);
    }
    call.leave(sender);
    assert_eq!(call.shard.worker_stats().repairs, repairs);
}

#[test]
fn forty_nine_that_join_at_once_cost_one_key_frame() {
    let mut call = Call::new(2);
    let sender = call.join();
    let viewers: Vec<_> = (0..49).map(|_| call.join_to_watch()).collect();
    let camera = call.publish(sender, Source::camera(5000, call.now));
    call.run(3 * SECOND);
    let (wished, before) = (call.now, call.key_frame_requests(sender));
    let watched: Vec<_> = viewers.iter().map(|viewer| (*viewer, call.watch(*viewer, camera).1)).collect();
    call.run(2 * SECOND);
    assert_eq!(call.key_frame_requests(sender) - before, 1);
    for (viewer, ssrc) in watched {
        let first = call.viewer(viewer, ssrc).shown()[0];
        assert!(first.is_key && first.at - wished < 100 * MS, "{:?}", first.at - wished);
    }
}

#[test]
fn a_page_that_closes_its_connections_is_gone_at_once() {
    let mut call = Call::new(3);
    let peers: Vec<_> = (0..3).map(|_| call.join()).collect();
    let cameras: Vec<_> =
        [0, 1].map(|at| call.publish(peers[at], Source::camera(5000 + 1000 * at as u32, call.now))).into();
    let (_, of_first) = call.watch(peers[2], cameras[0]);
    let (_, of_second) = call.watch(peers[2], cameras[1]);
    call.run(3 * SECOND);
    let closed = call.now;
    let own = [call.clients[peers[0]].send, call.clients[peers[0]].recv];
    for connection in own {
        call.connections[connection].close(closed);
        call.connections[connection].sources.clear();
    }
    call.run(SECOND);
    for connection in own {
        let id = call.connections[connection].transport;
        let told = call.events.iter().find_map(|(at, event)| match event {
            Event::TransportClosed { transport } if *transport == id => Some(*at - closed),
            _ => None,
        });
        assert!(told.is_some_and(|after| after < 100 * MS), "{told:?}");
    }
    assert!(call.viewer(peers[2], of_first).last_arrival().unwrap() < closed + 100 * MS);
    let freeze = call.viewer(peers[2], of_second).longest_freeze(closed, call.now - SECOND / 10);
    assert!(freeze < 60 * MS, "{freeze:?}");
}
