//! A small load against a real Ringside on loopback: what the load test says of it must hold.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::Command;

use ringside_loadtest::peers::start::{Kind, Place};
use ringside_loadtest::scenario::Scenario;
use ringside_loadtest::{run, sys};

/// Builds the server if that was not done and returns its path.
fn program() -> PathBuf {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let built =
        Command::new(env!("CARGO")).args(["build", "-q", "-p", "ringside"]).current_dir(&root).status().unwrap();
    assert!(built.success(), "ringside does not build");
    let own = std::env::current_exe().unwrap();
    own.parent().and_then(|deps| deps.parent()).unwrap().join("ringside")
}

fn free_place() -> Place {
    let tcp = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap().local_addr().unwrap().port();
    let udp = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap().local_addr().unwrap().port();
    Place { core: sys::allowed_cores()[0], tcp_port: tcp, udp_first: udp, udp_last: udp, socket_buffer_kib: 0 }
}

#[test]
fn an_idle_server_is_watched_without_a_client() {
    let running = Kind::Ringside { program: program() }.start(free_place()).unwrap();
    let scenario = Scenario::parse("rooms = 1\nparticipants = 0\nwarmup_s = 0.5\nduration_s = 1\n").unwrap();
    let (report, _) = run::run(&scenario, &running.service, sys::ClientSockets::default()).unwrap();

    assert_eq!(report.errors, Vec::<String>::new());
    assert_eq!((report.join_ms.joined, report.received.packets), (0, 0));
    let cost = report.cost.expect("a server on this machine has a cost");
    assert!(cost.cores < 0.5 && cost.threads > 0 && cost.resident_bytes > 1 << 20, "{cost:?}");
}

#[test]
fn a_small_meeting_loses_nothing_and_everybody_sees_a_key_frame() {
    let running = Kind::Ringside { program: program() }.start(free_place()).unwrap();
    let scenario = Scenario::parse(
        "name = 'small'\nrooms = 2\nparticipants = 3\njoins_per_second = 6\nwarmup_s = 2\nduration_s = 3\nnack = true\n\
         feedback = 'transport-cc'\n[microphone]\nspeakers = 1\nsilence = 'send'\n[camera]\nlayers = 3\n[screen_share]\n",
    )
    .unwrap();
    let (report, outcome) = run::run(&scenario, &running.service, sys::ClientSockets::default()).unwrap();

    assert_eq!(report.errors, Vec::<String>::new());
    assert_eq!((report.join_ms.joined, report.join_ms.failed), (6, 0));
    assert_eq!(report.join_ms.first_key_frame.count, 6, "everybody saw a key frame");
    assert_eq!(report.quality.forged, 0, "every packet authenticates");
    assert_eq!(report.quality.silent_streams, 0, "every picture came");
    assert_eq!(report.quality.stalled_streams, 0, "every picture moved to the end");
    assert!(report.received_audio.packets > 0 && report.received_audio.packets < report.received.packets);
    assert_eq!(report.quality.lost_packets, 0);
    assert_eq!(report.quality.duplicates, 0);
    assert!(report.quality.frames > 6 * 2 * 3 * 20, "{} frames", report.quality.frames);
    assert!(report.forward_ms.count > 1000, "latency of {} packets", report.forward_ms.count);
    let cost = report.cost.expect("a server on this machine has a cost");
    assert!(cost.cpu_us_per_packet > 0.0 && cost.peak_bytes > 1 << 20);

    let base = std::env::temp_dir().join(format!("ringside-loadtest-{}", std::process::id())).join("small");
    let paths = report.write(&base, &outcome).unwrap();
    assert!(paths.iter().all(|path| path.metadata().is_ok_and(|file| file.len() > 1000)));
    std::fs::remove_dir_all(base.parent().unwrap()).unwrap();
}
