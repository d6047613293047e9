//! H.264: a decoder starts with the parameter sets, so a receiver does.

use ringside::shard::command::Codec;

use crate::world::{MS, Packet, World};

const DELTA: &[u8] = &[0x41, 0x9a, 1, 2, 3];
/// STAP-A of a sequence and a picture parameter set.
const PARAMETER_SETS: &[u8] = &[0x78, 0, 2, 0x67, 0x42, 0, 2, 0x68, 0xce];
const IDR_BEGINS: &[u8] = &[0x7c, 0x85, 1, 2, 3];
const IDR_ENDS: &[u8] = &[0x7c, 0x45, 1, 2, 3];
const DELIMITER: &[u8] = &[0x09, 0x10];

fn packet(sequence: u16, timestamp: u32, marker: bool, payload: &[u8]) -> Packet {
    Packet { sequence, timestamp, marker, payload: payload.to_vec(), ..Packet::default() }
}

#[test]
fn a_receiver_starts_with_the_parameter_sets_of_the_picture() {
    let mut world = World::new(Codec::H264, 1, 1);
    let viewer = world.watch(1, None);
    world.send(&packet(1, 0, true, DELTA));
    for (sequence, payload) in [DELIMITER, PARAMETER_SETS, IDR_BEGINS, IDR_ENDS].iter().enumerate() {
        world.send(&packet(2 + sequence as u16, 3000, sequence == 3, payload));
    }
    world.send(&packet(6, 6000, true, DELTA));
    world.wait(5 * MS);
    let payloads: Vec<_> = world.received(viewer).iter().map(|packet| packet.payload.as_slice()).collect();
    assert_eq!(payloads, [PARAMETER_SETS, IDR_BEGINS, IDR_ENDS, DELTA]);
    let stats = world.producer_stats();
    assert_eq!((stats.frames_received, stats.key_frames_received), (3, 1), "a picture is one, however it is cut");
}

#[test]
fn while_the_parameter_sets_are_missing_they_are_asked_for_and_nobody_starts_without_them() {
    let mut world = World::new(Codec::H264, 1, 1);
    let viewer = world.watch(1, None);
    world.send(&packet(1, 0, true, DELTA));
    world.send(&packet(3, 3000, false, IDR_BEGINS));
    world.send(&packet(4, 3000, true, IDR_ENDS));
    world.wait(15 * MS);
    assert!(world.received(viewer).is_empty(), "nothing can be decoded yet");
    assert_eq!(world.producer_stats().nack_packet_count, 1, "the picture does not end the search for its beginning");
    world.send(&packet(2, 3000, false, PARAMETER_SETS));
    world.send(&packet(5, 6000, true, DELTA));
    world.wait(5 * MS);
    assert_eq!(world.received(viewer)[0].payload, PARAMETER_SETS);
}

#[test]
fn what_was_lost_before_a_picture_to_start_with_is_asked_for_no_more() {
    let mut world = World::new(Codec::H264, 1, 1);
    world.watch(1, None);
    world.send(&packet(1, 0, true, DELTA));
    // Of the picture before, and the delimiter of this one, which is part of it.
    world.send(&packet(4, 6000, false, DELIMITER));
    world.send(&packet(6, 6000, false, PARAMETER_SETS));
    world.send(&packet(7, 6000, true, IDR_ENDS));
    world.wait(15 * MS);
    assert_eq!(world.producer_stats().nack_packet_count, 1, "packet 5 belongs to the picture, 2 and 3 do not");
}
