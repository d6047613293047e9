//! How much the load test itself can take: a thread on one core sends sealed media as fast as it can, in GSO messages as a
//! fast server does, to the clients of an ordinary swarm on another. Nothing of the clients' way is left out: kernel, GRO,
//! counting, opening a sample.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use dimpl::SrtpProfile;

use super::{Outcome, Swarm, Target};
use crate::cli::SelfTest;
use crate::client::sending::{Moment, PACKET_BYTES_MAX, Sending};
use crate::client::signaling::{OfferedSource, VP8};
use crate::client::srtp;
use crate::client::stream::Stream;
use crate::client::transport::Keys;
use crate::media::source::{Class, Draft, Source};
use crate::media::vp8;
use crate::peers;
use crate::proc::Watched;
use crate::random::Random;
use crate::report::terminal::grouped;
use crate::scenario::{Scenario, Video};
use crate::sys::{self, ClientSockets};

const PAYLOAD_BYTES: usize = 1130;
const PROFILE: SrtpProfile = SrtpProfile::AEAD_AES_256_GCM;
/// Packets of a message beyond which it would exceed a datagram's 64 KiB.
const MESSAGE_PACKETS_MAX: usize = 48;
const WARM_UP_S: f64 = 2.0;

pub fn command(command: &SelfTest) -> anyhow::Result<()> {
    let cores = sys::allowed_cores();
    for core in [command.server_core, command.core] {
        ensure!(cores.contains(&core), "core {core} is not one that this process may use");
    }
    ensure!(
        (1..=MESSAGE_PACKETS_MAX).contains(&command.packets_per_message) && command.receivers > 0,
        "messages have 1 to {MESSAGE_PACKETS_MAX} packets, and there must be a receiver"
    );
    let (outcome, sent) = measure(command)?;
    let totals = &outcome.totals;
    let rate = totals.received.packets as f64 / outcome.seconds;
    let cores = outcome.own.running_s / outcome.seconds;
    println!(
        "sent from one thread on core {}: {} packets/s to {} receivers, {} in each message",
        command.server_core,
        grouped(sent as u64),
        command.receivers,
        command.packets_per_message
    );
    println!(
        "opened and authenticated: 1 packet in {:.0}; {} forged; {:.1} packets per receive; {:.1} % did not find room in a socket",
        totals.received.packets as f64 / totals.opened.max(1) as f64,
        totals.forged,
        totals.datagrams.packets as f64 / totals.receive_calls.max(1) as f64,
        100.0 * outcome.streams.lost() as f64 / outcome.streams.expected.max(1) as f64
    );
    println!(
        "received on core {}: {} packets/s with {cores:.2} of it: {} packets/s on a whole core",
        command.core,
        grouped(rate as u64),
        grouped((rate / cores.max(1e-9)) as u64)
    );
    Ok(())
}

/// A run of the swarm, and the packets per second that were sent to it meanwhile.
fn measure(command: &SelfTest) -> anyhow::Result<(Outcome, f64)> {
    let scenario = Scenario::parse(&format!(
        "rooms = 1\nparticipants = 0\nwarmup_s = {WARM_UP_S}\nduration_s = {}\n",
        command.seconds
    ))?;
    let target = Target {
        server: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        protocol: peers::protoo(),
        watched: Watched::default(),
        sockets: ClientSockets { gro: !command.no_gro, receive_buffer_bytes: 0 },
        room_prefix: String::new(),
    };
    sys::raise_open_files()?;
    let mut swarm = Swarm::new(scenario, target)?;
    let mut feeds = Vec::new();
    for number in 0..command.receivers {
        let (feed, socket) = Feed::new(number as u32)?;
        let (keys, ssrc) = (feed.receiver_keys()?, feed.ssrc);
        swarm.seat(socket, keys, Stream::new(ssrc, VP8, true, 0))?;
        feeds.push(feed);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let sender = thread::spawn({
        let (stop, core, packets) = (stop.clone(), command.server_core, command.packets_per_message);
        move || blast(feeds, packets, core, &stop)
    });
    sys::run_on_cores(&[command.core])?;
    let outcome = swarm.run(&mut |_, _, _| {});
    stop.store(true, Ordering::Relaxed);
    let (packets, took) = sender.join().map_err(|_| anyhow::anyhow!("the sending thread panicked"))??;
    Ok((outcome?, packets as f64 / took.as_secs_f64()))
}

/// Sends to all in turn until told to stop; returns how many packets, and how long that took.
fn blast(mut feeds: Vec<Feed>, packets: usize, core: usize, stop: &AtomicBool) -> anyhow::Result<(u64, Duration)> {
    sys::run_on_cores(&[core])?;
    let begin = std::time::Instant::now();
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        for feed in &mut feeds {
            feed.send(packets);
            sent += packets as u64;
        }
    }
    Ok((sent, begin.elapsed()))
}

/// The sending end of one receiver's stream.
struct Feed {
    socket: UdpSocket,
    keys: srtp::Context,
    exported: Vec<u8>,
    sending: Sending,
    ssrc: u32,
    frames: u32,
    buffer: Vec<u8>,
}

impl Feed {
    /// With the socket that it sends to.
    fn new(number: u32) -> anyhow::Result<(Feed, UdpSocket)> {
        let bind = || UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let (socket, receiver) = (bind()?, bind()?);
        socket.connect(receiver.local_addr()?)?;
        receiver.connect(socket.local_addr()?)?;
        let mut random = Random::new(u64::from(number), 0x7365_6c66);
        let exported: Vec<u8> = (0..88).map(|_| random.draw() as u8).collect();
        let (keys, _) = srtp::contexts(PROFILE, &exported, false).context("keys")?;
        let ssrc = random.draw() as u32;
        let (mid, rids) = ("0".to_owned(), Vec::new());
        let offered = OfferedSource { class: Class::Camera, mid, ssrcs: vec![ssrc], rtx_ssrcs: Vec::new(), rids };
        let source = Source::video(Class::Camera, &Video { layers: 1, ..Video::default() }, &mut random);
        let sending = Sending::new(source, number, offered, false);
        let buffer = vec![0; PACKET_BYTES_MAX * (MESSAGE_PACKETS_MAX + 1)];
        Ok((Feed { socket, keys, exported, sending, ssrc, frames: 0, buffer }, receiver))
    }

    fn receiver_keys(&self) -> anyhow::Result<Keys> {
        let (send, receive) = srtp::contexts(PROFILE, &self.exported, true).context("keys")?;
        Ok(Keys { profile: srtp::profile_name(PROFILE), send, receive })
    }

    /// One frame, as one message; what finds no room is lost, as on any network.
    fn send(&mut self, packets: usize) {
        self.frames = self.frames.wrapping_add(1);
        let frame = vp8::Frame {
            key: self.frames == 1,
            picture_id: self.frames as u16 & 0x7fff,
            tl0_index: self.frames as u8,
            temporal: 0,
            sync: false,
            width: 640,
            height: 360,
        };
        let (mut end, mut segment) = (0, 0);
        for place in 0..packets {
            let draft = Draft {
                layer: 0,
                due: 0,
                timestamp: self.frames.wrapping_mul(3000),
                marker: place + 1 == packets,
                payload_bytes: PAYLOAD_BYTES,
                first: place == 0,
                frame: Some(frame),
                audio_level: None,
            };
            // Late enough that the names which a stream begins with are not repeated: all packets are of one size.
            let moment = Moment { now: u64::from(self.frames) << 32, transport_cc: None, keys: &self.keys };
            segment = self.sending.write(&draft, moment, &mut self.buffer[end..end + PACKET_BYTES_MAX]);
            end += segment;
        }
        drop(sys::send_run(&self.socket, &self.buffer[..end], segment as u16));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_to_it_arrives_authentic_and_is_counted() {
        let core = sys::allowed_cores()[0];
        let command =
            SelfTest { receivers: 2, packets_per_message: 6, seconds: 0.2, core, server_core: core, no_gro: false };
        let (outcome, sent) = thread::spawn(move || measure(&command)).join().unwrap().unwrap();
        assert!(sent > 0.0 && outcome.totals.received.packets > 0);
        assert!(outcome.totals.opened > 0, "a sample is opened");
        assert_eq!((outcome.totals.forged, outcome.totals.unknown.packets), (0, 0));
    }
}
