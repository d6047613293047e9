//! Where a stream ends and begins anew (a pause, a sender that starts over): receivers start with a key frame, and the
//! numbers that they see go on.

use ringside::ids::{ConsumerId, ProducerId, Token};
use ringside::shard::command::{Codec, Command};

use crate::source::{Mode, SPATIAL, Source, TEMPORAL};
use crate::viewer::pictures;
use crate::world::{MS, Packet, World};

const DELTA: &[u8] = &[0x41, 0x9a, 1, 2, 3];
/// STAP-A of a sequence and a picture parameter set.
const PARAMETER_SETS: &[u8] = &[0x78, 0, 2, 0x67, 0x42, 0, 2, 0x68, 0xce];
const IDR: &[u8] = &[0x65, 0x88, 1, 2, 3];

fn packet(sequence: u16, timestamp: u32, marker: bool, payload: &[u8]) -> Packet {
    Packet { sequence, timestamp, marker, payload: payload.to_vec(), ..Packet::default() }
}

/// A key frame, and the frame behind it.
fn begin(world: &mut World, sequence: u16, timestamp: u32) {
    world.send(&packet(sequence, timestamp, false, PARAMETER_SETS));
    world.send(&packet(sequence + 1, timestamp, true, IDR));
    world.send(&packet(sequence + 2, timestamp + 3000, true, DELTA));
}

fn pause(world: &mut World) {
    world.shard.handle_command(world.now, Command::PauseProducer { token: Token(5), producer: ProducerId(1) });
    world.wait(20 * MS);
}

fn resume(world: &mut World) {
    world.shard.handle_command(world.now, Command::ResumeProducer { token: Token(5), producer: ProducerId(1) });
}

/// Every payload, once its numbers are seen to have no gap.
fn payloads(world: &World, viewer: ConsumerId) -> Vec<&[u8]> {
    let received = world.received(viewer);
    assert!(received.windows(2).all(|pair| pair[1].sequence == pair[0].sequence.wrapping_add(1)), "{received:?}");
    received.iter().map(|packet| packet.payload.as_slice()).collect()
}

#[test]
fn what_still_waits_when_its_producer_is_paused_starts_nobody() {
    let mut world = World::new(Codec::H264, 1, 1);
    let viewer = world.watch(1, None);
    begin(&mut world, 1, 3000);
    // Without its end it waits for the rest of its picture.
    world.send(&packet(4, 9000, false, PARAMETER_SETS));
    pause(&mut world);
    for sequence in 5..90 {
        world.send(&packet(sequence, 9000 + 3000 * u32::from(sequence), true, DELTA));
    }
    resume(&mut world);
    world.send(&packet(90, 300_000, true, DELTA));
    begin(&mut world, 91, 303_000);
    world.wait(5 * MS);
    let played = [PARAMETER_SETS, IDR, DELTA];
    assert_eq!(payloads(&world, viewer), [played, played].concat());
}

#[test]
fn what_still_waits_when_its_sender_starts_over_starts_nobody() {
    for started in [true, false] {
        let mut world = World::new(Codec::H264, 1, 1);
        let viewer = world.watch(1, None);
        if started {
            begin(&mut world, 1, 3000);
        }
        world.send(&packet(4, 9000, false, PARAMETER_SETS));
        world.wait(MS / 2);
        let asked = world.key_frame_requests;
        for sequence in 20_000..20_003 {
            world.send(&packet(sequence, 700_000 + 3000 * u32::from(sequence), true, DELTA));
        }
        world.wait(1000 * MS);
        assert!(world.key_frame_requests > asked, "started {started}: the key frame that was dropped is missing");
        begin(&mut world, 20_003, 900_000);
        world.wait(5 * MS);
        let played = [PARAMETER_SETS, IDR, DELTA];
        assert_eq!(payloads(&world, viewer), played.repeat(1 + usize::from(started)), "started {started}");
    }
}

#[test]
fn a_stream_of_layers_that_starts_over_goes_on_with_its_next_key_picture() {
    for (codec, mode) in [(Codec::Vp9, Mode::Full), (Codec::Av1, Mode::Full), (Codec::Vp9, Mode::Alone)] {
        let mut world = World::new(codec, SPATIAL, TEMPORAL);
        let viewer = world.watch(1, None);
        let mut source = Source::new(codec, mode);
        let play = |world: &mut World, source: &mut Source, is_key: bool| {
            source.picture(is_key).iter().for_each(|packet| world.send(packet));
            world.wait(33 * MS);
        };
        for at in 0..10 {
            play(&mut world, &mut source, at == 0);
        }
        let (before, asked) = (pictures(world.received(viewer)).len(), world.key_frame_requests);
        source.start_over_at(30_000);
        for _ in 0..40 {
            play(&mut world, &mut source, false);
        }
        assert!(world.key_frame_requests > asked, "{codec:?} {mode:?}: nothing can be shown until a key picture comes");
        assert_eq!(pictures(world.received(viewer)).len(), before);
        for at in 0..20 {
            // What could not be read meanwhile told of no larger pictures: those come with the key picture behind.
            play(&mut world, &mut source, at % 10 == 0);
        }
        let shown = pictures(world.received(viewer));
        assert!(before == 10 && shown.len() >= 30, "{codec:?} {mode:?}: {} pictures", shown.len());
        assert!(shown[10].is_key && shown[shown.len() - 1].spatial == 2, "{codec:?} {mode:?}: {shown:?}");
    }
}
