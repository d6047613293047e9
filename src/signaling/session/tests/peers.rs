//! Rooms and who is in them.

use super::*;
use crate::shard::command::Direction;

#[test]
fn a_connection_is_welcomed_and_the_others_hear_of_it() {
    let mut stage = Stage::new();
    let ada = stage.connect("study", "ada");
    let (method, welcome) = stage.heard(ada).remove(0);
    assert_eq!(method, "welcome");
    assert_eq!(welcome["peerId"], "ada");
    assert_eq!(welcome["roomId"], "study");
    assert_eq!(welcome["resumed"], false);
    assert_eq!(welcome["peers"], json!([]));

    let bob = stage.connect("study", "bob");
    assert_eq!(stage.heard(ada), [("peer-joined", json!({"peerId": "bob", "displayName": null}))]);
    assert_eq!(stage.heard(bob)[0].1["peers"], json!([{"peerId": "ada", "displayName": null}]));
    let elsewhere = stage.connect("another room", "ada");
    assert_eq!(stage.methods_heard(elsewhere), ["welcome"]);
    assert_eq!(stage.methods_heard(ada), [] as [&str; 0]);
}

#[test]
fn a_peer_without_a_name_is_given_one() {
    let mut stage = Stage::new();
    let nameless = Hello { room: "study".to_owned(), ..Hello::default() };
    let (one, two) = (stage.try_connect(nameless.clone()).unwrap(), stage.try_connect(nameless).unwrap());
    let (one, two) = (text(&stage.heard(one)[0].1["peerId"]), text(&stage.heard(two)[0].1["peerId"]));
    assert_ne!(one, two);
    assert_eq!(one.len(), 16);
}

#[test]
fn a_newcomer_hears_of_every_producer_there_is() {
    let mut stage = Stage::new();
    let ada = stage.connect("study", "ada");
    let send = stage.transport(ada, "send");
    let (mic, camera) = (stage.produce(ada, &send, MIC), stage.produce(ada, &send, SIMULCAST));
    let bob = stage.connect("study", "bob");
    let heard = stage.heard(bob);
    let methods: Vec<_> = heard.iter().map(|(method, _)| *method).collect();
    assert_eq!(methods, ["welcome", "new-producer", "new-producer"]);
    let expected = json!({"producerId": mic, "peerId": "ada", "kind": "audio", "type": "simple", "paused": false,
        "appData": {"source": "mic"}});
    assert_eq!(heard[1].1, expected);
    assert_eq!(heard[2].1["producerId"], json!(camera));
    assert_eq!(heard[2].1["type"], "simulcast");
    let listed = stage.request(bob, "get-producers", Value::Null);
    assert_eq!(listed["producers"], json!([heard[1].1, heard[2].1]));
    assert_eq!(stage.request(ada, "get-producers", json!({}))["producers"], json!([]));
}

#[test]
fn join_brings_everything_in_one_answer() {
    let mut stage = Stage::new();
    let ada = stage.connect("study", "ada");
    let send = stage.transport(ada, "send");
    let mic = stage.produce(ada, &send, MIC);
    let bob = stage.connect("study", "bob");
    stage.heard(ada);
    let joined = stage.request(bob, "join", json!({"displayName": "Bob", "rtpCapabilities": parsed(CAPABILITIES)}));
    assert_eq!(stage.heard(ada), [("peer-joined", json!({"peerId": "bob", "displayName": "Bob"}))]);
    assert_eq!(joined["peerId"], "bob");
    assert!(joined["rtpCapabilities"]["codecs"].as_array().unwrap().len() >= 2);
    assert_eq!(joined["peers"][0]["peerId"], "ada");
    assert_eq!(joined["peers"][0]["producers"][0]["producerId"], json!(mic));
    assert_eq!(joined["producers"][0]["producerId"], json!(mic));
    for (name, direction) in [("sendTransport", Direction::Send), ("recvTransport", Direction::Recv)] {
        assert_eq!(joined[name]["iceParameters"]["iceLite"], true, "{name}");
        let id = text(&joined[name]["id"]).parse().unwrap();
        assert_eq!(stage.control.registry.transports[&id].direction, direction);
    }
    // The capabilities of `join` serve requests to consume without any.
    let consumed = stage.request(bob, "consume", json!({"producerId": mic}));
    assert_eq!(consumed["kind"], "audio");
}

#[test]
fn join_makes_only_the_transports_that_are_wanted() {
    let mut stage = Stage::new();
    let ada = stage.connect("study", "ada");
    let joined = stage.request(ada, "join", json!({"produce": false}));
    assert!(joined.get("sendTransport").is_none() && joined.get("recvTransport").is_some());
    let joined = stage.request(ada, "join", json!({"produce": false, "consume": false}));
    assert!(joined.get("sendTransport").is_none() && joined.get("recvTransport").is_none());
    assert_eq!(stage.total("transports"), 1);
}

#[test]
fn a_join_that_a_worker_refuses_leaves_nothing_behind() {
    let mut stage = Stage::new();
    let ada = stage.connect("study", "ada");
    stage.workers_answer = false;
    let serial = stage.send(ada, "join", json!({}));
    let commands: Vec<Command> = stage.commands.iter().map(|(_, command)| command.clone()).collect();
    let made: Vec<&Command> = commands.iter().filter(|command| command.token().is_some()).collect();
    stage.control.handle_event(fake_worker::answer(made[0]).unwrap());
    stage.control.handle_event(fake_worker::refusal(made[1], crate::shard::command::Refusal::TooMany).unwrap());
    stage.settle();
    assert_eq!(stage.answers[&(ada, Some(serial))].as_ref().unwrap_err().code, ErrorCode::TooMany);
    assert_eq!(stage.total("transports"), 0);
    assert!(matches!(stage.last_command(), Command::CloseTransport { .. }), "{:?}", stage.last_command());
}

#[test]
fn whoever_leaves_takes_everything_along_and_the_room_closes_with_the_last() {
    let mut stage = Stage::new();
    let (ada, bob) = (stage.connect("study", "ada"), stage.connect("study", "bob"));
    let (send, _) = (stage.transport(ada, "send"), stage.transport(bob, "recv"));
    let mic = stage.produce(ada, &send, MIC);
    let consumer = text(&stage.consume(bob, &mic)["id"]);
    stage.heard(bob);
    assert_eq!(stage.request(ada, "leave", json!({})), json!({}));
    assert_eq!(stage.closed[&ada], CloseReason::Left);
    let expected = [
        ("consumer-closed", json!({"consumerId": consumer, "producerId": mic})),
        ("producer-closed", json!({"producerId": mic, "peerId": "ada"})),
        ("peer-left", json!({"peerId": "ada"})),
    ];
    assert_eq!(stage.heard(bob), expected);
    assert!(matches!(stage.last_command(), Command::ClosePeer { .. }));
    stage.disconnect(bob);
    assert!(matches!(stage.last_command(), Command::CloseRoom { .. }));
    for (what, count) in stage.control.totals() {
        assert_eq!(count, 0, "{what}");
    }
    let loads = stage.control.registry.placement.loads();
    assert!(loads.iter().all(|load| load.load == 0 && load.rooms == 0), "{loads:?}");
}

#[test]
fn rooms_are_spread_and_stay_whole() {
    let mut stage = Stage::new();
    let (ada, bob) = (stage.connect("one", "ada"), stage.connect("two", "bob"));
    stage.transport(ada, "send");
    stage.transport(bob, "send");
    let carol = stage.connect("one", "carol");
    stage.transport(carol, "recv");
    let workers: Vec<usize> = stage
        .commands
        .iter()
        .filter(|(_, command)| matches!(command, Command::CreateTransport { .. }))
        .map(|(worker, _)| *worker)
        .collect();
    assert_eq!(workers, [0, 1, 0]);
    // Two transports against one: the next room goes to the second worker.
    stage.connect("three", "dora");
    assert!(matches!(stage.commands.last(), Some((1, Command::OpenRoom { .. }))));
}

#[test]
fn a_full_room_takes_nobody_and_a_place_that_is_freed_is_given_again() {
    let mut stage = Stage::with(|config| config.peers_per_room = 2);
    let ada = stage.connect("study", "ada");
    stage.connect("study", "bob");
    assert_eq!(stage.try_connect(hello("study", "carol")).unwrap_err().code, ErrorCode::RoomFull);
    stage.disconnect(ada);
    stage.connect("study", "carol");
    assert_eq!(stage.total("peers"), 2);
}

#[test]
fn a_name_that_is_taken_is_refused_without_the_token() {
    let mut stage = Stage::new();
    let ada = stage.connect("study", "ada");
    for resume in [None, Some("".to_owned()), Some("0".repeat(32))] {
        let imposter = Hello { resume, ..hello("study", "ada") };
        assert_eq!(stage.try_connect(imposter).unwrap_err().code, ErrorCode::PeerIdTaken);
    }
    assert!(!stage.closed.contains_key(&ada), "the real one is not disturbed");
}

#[test]
fn with_the_token_another_connection_takes_the_peer_over() {
    let mut stage = Stage::new();
    let (ada, bob) = (stage.connect("study", "ada"), stage.connect("study", "bob"));
    let token = text(&stage.heard(ada)[0].1["resumeToken"]);
    let send = stage.transport(ada, "send");
    let mic = stage.produce(ada, &send, MIC);
    stage.heard(bob);
    let again = stage.try_connect(Hello { resume: Some(token), ..hello("study", "ada") }).unwrap();
    assert_eq!(stage.closed[&ada], CloseReason::Replaced);
    let welcome = &stage.heard(again)[0].1;
    assert_eq!(welcome["resumed"], true);
    assert_eq!(welcome["transports"], json!([send]));
    assert_eq!(welcome["producers"], json!([mic]));
    assert_eq!(stage.methods_heard(bob), [] as [&str; 0], "nobody else notices");
    stage.request(again, "pause-producer", json!({"producerId": mic}));
    assert_eq!(stage.methods_heard(bob), ["producer-paused"]);
}

#[test]
fn without_grace_a_lost_connection_is_a_leave() {
    let mut stage = Stage::new();
    let (ada, bob) = (stage.connect("study", "ada"), stage.connect("study", "bob"));
    stage.heard(bob);
    stage.disconnect(ada);
    assert_eq!(stage.heard(bob), [("peer-left", json!({"peerId": "ada"}))]);
}

#[test]
fn grace_keeps_a_peer_until_it_returns_or_the_grace_ends() {
    let mut stage = Stage::with(|config| config.reconnect_grace = Duration::from_secs(10));
    let (ada, bob) = (stage.connect("study", "ada"), stage.connect("study", "bob"));
    let token = text(&stage.heard(ada)[0].1["resumeToken"]);
    let send = stage.transport(ada, "send");
    stage.heard(bob);
    stage.disconnect(ada);
    assert_eq!(stage.try_connect(hello("study", "ada")).unwrap_err().code, ErrorCode::PeerIdTaken);
    assert_eq!(stage.control.next_deadline(), Some(stage.now + Duration::from_secs(10)));
    stage.pass(Duration::from_secs(9));
    let again = stage.try_connect(Hello { resume: Some(token), ..hello("study", "ada") }).unwrap();
    stage.pass(Duration::from_secs(60));
    assert_eq!(stage.methods_heard(bob), [] as [&str; 0]);
    stage.request(again, "close-transport", json!({"transportId": send}));

    stage.disconnect(again);
    stage.pass(Duration::from_secs(10));
    assert_eq!(stage.methods_heard(bob), ["peer-left"]);
    assert_eq!(stage.total("peers"), 1);
}

#[test]
fn a_late_token_makes_a_new_peer() {
    let mut stage = Stage::new();
    let again = stage.try_connect(Hello { resume: Some("long gone".to_owned()), ..hello("study", "ada") }).unwrap();
    assert_eq!(stage.heard(again)[0].1["resumed"], false);
}

#[test]
fn names_are_checked() {
    let mut stage = Stage::new();
    for bad in ["", "line\nbreak", &"x".repeat(limits::NAME_BYTES + 1)] {
        assert_eq!(stage.try_connect(hello(bad, "ada")).unwrap_err().code, ErrorCode::BadRequest, "{bad:?}");
        assert_eq!(stage.try_connect(hello("study", bad)).unwrap_err().code, ErrorCode::BadRequest, "{bad:?}");
    }
    let ada = stage.connect("Lesezimmer für Übungen 📚", "ada");
    let long = "x".repeat(limits::DISPLAY_NAME_CHARS + 1);
    assert_eq!(stage.refused(ada, "join", json!({"displayName": long})), ErrorCode::BadRequest);
    assert_eq!(stage.total("rooms"), 1);
}

#[test]
fn a_draining_server_tells_everybody_and_takes_nobody_new() {
    let mut stage = Stage::with(|config| config.reconnect_grace = Duration::from_secs(10));
    let ada = stage.connect("study", "ada");
    stage.heard(ada);
    stage.control.drain(5_000);
    stage.settle();
    assert_eq!(stage.heard(ada), [("server-draining", json!({"deadlineMs": 5000}))]);
    assert_eq!(stage.try_connect(hello("study", "bob")).unwrap_err().code, ErrorCode::Draining);
    let created = stage.control.create_room(stage.now, &room("new"));
    assert_eq!(created.unwrap_err().code, ErrorCode::Draining);
    stage.transport(ada, "send");
    stage.disconnect(ada);
    assert_eq!(stage.total("peers"), 0, "nobody is waited for");
}

#[test]
fn an_overloaded_worker_takes_no_room_and_nobody_more() {
    let mut stage = Stage::new();
    let busy = WorkerStats { busy: 0.97, ..Default::default() };
    let late = WorkerStats { recent_late_us: 80_000, ..Default::default() };
    stage.connect("study", "ada");
    stage.measured(0, 1..=1, &busy);
    assert!(stage.control.is_measuring() && !stage.control.is_overloaded());
    stage.connect("study", "eve");
    stage.measured(0, 2..=2, &busy);
    assert_eq!(stage.try_connect(hello("study", "bob")).unwrap_err().code, ErrorCode::Overloaded);
    stage.connect("another", "bob");
    assert!(matches!(stage.commands.last(), Some((1, Command::OpenRoom { .. }))));
    assert!(!stage.control.is_overloaded());
    stage.measured(1, 1..=2, &late);
    assert!(stage.control.is_overloaded());
    assert_eq!(stage.try_connect(hello("third", "carol")).unwrap_err().code, ErrorCode::Overloaded);
    stage.measured(0, 3..=4, &Default::default());
    assert_eq!(stage.try_connect(hello("study", "bob")).unwrap_err().code, ErrorCode::Overloaded);
    stage.measured(0, 5..=5, &Default::default());
    stage.connect("study", "bob");
}

#[test]
fn a_few_late_packets_of_an_idle_worker_refuse_nobody() {
    let mut stage = Stage::new();
    let late = WorkerStats { recent_p99_us: 80_000, recent_samples: 99, recent_late_us: 1_200, ..Default::default() };
    stage.connect("study", "ada");
    stage.measured(0, 1..=10, &late);
    stage.connect("study", "bob");
}

#[test]
fn a_worker_that_recovers_is_looked_at_also_when_everybody_has_left() {
    let mut stage = Stage::new();
    let ada = stage.connect("study", "ada");
    stage.measured(0, 1..=2, &WorkerStats { busy: 0.97, ..Default::default() });
    stage.disconnect(ada);
    assert!(stage.control.is_measuring());
    stage.measured(0, 3..=5, &Default::default());
    assert!(!stage.control.is_measuring());
}

#[test]
fn the_operator_opens_looks_at_and_closes_rooms() {
    let mut stage = Stage::new();
    let made = stage.control.create_room(stage.now, &NewRoom { max_peers: Some(3), ..room("seminar") }).unwrap();
    assert_eq!((&made["id"], &made["maxPeers"], &made["peers"]), (&json!("seminar"), &json!(3), &json!(0)));
    assert_eq!(stage.control.create_room(stage.now, &room("seminar")).unwrap_err().code, ErrorCode::TooMany);
    for refused in
        [NewRoom { max_peers: Some(0), ..room("x") }, NewRoom { uplink_limit_bps: Some(29_999), ..room("x") }]
    {
        assert_eq!(stage.control.create_room(stage.now, &refused).unwrap_err().code, ErrorCode::BadRequest);
    }
    let ada = stage.connect("seminar", "ada");
    stage.transport(ada, "send");
    let seen = stage.control.room(stage.now, "seminar").unwrap();
    assert_eq!(seen["peerList"][0]["peerId"], "ada");
    assert_eq!(seen["peerList"][0]["transports"], 1);
    stage.disconnect(ada);
    assert_eq!(stage.control.rooms(stage.now).len(), 1, "a room of the operator outlives its peers");
    let bob = stage.connect("seminar", "bob");
    assert_eq!(stage.control.rooms(stage.now)[0]["maxPeers"], 3);
    stage.control.delete_room("seminar").unwrap();
    stage.settle();
    assert_eq!(stage.closed[&bob], CloseReason::RoomClosed);
    assert_eq!(stage.total("rooms"), 0);
    assert_eq!(stage.control.delete_room("seminar").unwrap_err().code, ErrorCode::NotFound);
    stage.control.create_room(stage.now, &NewRoom::default()).unwrap();
    let name = text(&stage.control.rooms(stage.now)[0]["id"]);
    stage.control.delete_room(&name).unwrap();
    stage.settle();
    assert!(matches!(stage.last_command(), Command::CloseRoom { .. }));
}

fn room(name: &str) -> NewRoom {
    NewRoom { id: Some(name.to_owned()), ..NewRoom::default() }
}

#[test]
fn a_room_has_limits_of_its_own_wherever_it_is_placed() {
    let mut stage = Stage::with(|config| config.room.uplink_bitrate_bps = Some(3_000_000));
    let told = |stage: &Stage| {
        let settings = stage.commands.iter().rev().find_map(|(worker, command)| match command {
            Command::OpenRoom { settings, .. } => Some((*worker, settings.audio_top_n, settings.uplink_bitrate_bps)),
            _ => None,
        });
        settings.unwrap()
    };
    let ada = stage.connect("study", "ada");
    assert_eq!(told(&stage), (0, 3, Some(3_000_000)), "what every room has");

    let own = NewRoom { audio_top_n: Some(0), uplink_limit_bps: Some(500_000), ..room("seminar") };
    let made = stage.control.create_room(stage.now, &own).unwrap();
    stage.settle();
    assert_eq!((&made["audioTopN"], &made["uplinkLimitBps"]), (&json!(0), &json!(500_000)));
    assert_eq!(told(&stage), (1, 0, Some(500_000)));
    stage.connect("seminar", "bob");
    assert_eq!(told(&stage), (1, 0, Some(500_000)), "placed anew with the first who comes");
    assert_eq!(stage.control.room(stage.now, "seminar").unwrap()["uplinkLimitBps"], 500_000);

    // A room that its peers opened is taken over while they talk.
    let taken = NewRoom { audio_top_n: Some(1), ..room("study") };
    stage.control.create_room(stage.now, &taken).unwrap();
    stage.settle();
    assert_eq!(told(&stage), (0, 1, Some(3_000_000)));
    assert!(!stage.closed.contains_key(&ada));
}

#[test]
fn rooms_may_be_left_to_the_operator_alone() {
    let mut stage = Stage::with(|config| config.rooms_by_api_only = true);
    assert_eq!(stage.try_connect(hello("study", "ada")).unwrap_err().code, ErrorCode::NotFound);
    stage.control.create_room(stage.now, &room("study")).unwrap();
    stage.connect("study", "ada");
}

#[test]
fn there_are_only_so_many_rooms() {
    let mut stage = Stage::with(|config| config.rooms = 1);
    stage.connect("one", "ada");
    assert_eq!(stage.try_connect(hello("two", "bob")).unwrap_err().code, ErrorCode::TooMany);
}

#[test]
fn what_is_said_about_speakers_reaches_the_room_under_the_peers_names() {
    let mut stage = Stage::new();
    let (ada, bob) = (stage.connect("study", "ada"), stage.connect("study", "bob"));
    let room = stage.control.registry.room_named("study").unwrap();
    let speaker = stage.control.registry.peer_of(ada).unwrap();
    stage.heard(bob);
    stage.control.handle_event(Event::ActiveSpeaker { room, peer: speaker });
    stage.control.handle_event(Event::AudioLevels { room, levels: vec![(speaker, 25), (PeerId(1), 3)] });
    stage.settle();
    let expected = [
        ("active-speaker", json!({"peerId": "ada"})),
        ("audio-levels", json!({"levels": [{"peerId": "ada", "level": 25}]})),
    ];
    assert_eq!(stage.heard(bob), expected);
}
