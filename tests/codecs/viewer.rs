//! What a receiver of a stream with layers could show.

use std::collections::{BTreeMap, HashSet};

use crate::source::Stamp;
use crate::world::Received;

/// A picture that was shown: the highest spatial layer that was in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picture {
    pub timestamp: u32,
    pub spatial: u8,
    pub temporal: u8,
    pub is_key: bool,
}

/// The pictures of what was received, which is asserted to be what a decoder wants: numbers without a gap, each frame whole
/// and behind all that it refers to, the marker on the last packet of each picture and on no other.
pub fn pictures(received: &[Received]) -> Vec<Picture> {
    let mut packets: BTreeMap<u16, &Received> = BTreeMap::new();
    received.iter().for_each(|packet| {
        packets.entry(packet.sequence).or_insert(packet);
    });
    let numbers: Vec<u16> = packets.keys().copied().collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "the numbering has a gap: {numbers:?}");
    let packets: Vec<&Received> = packets.into_values().filter(|packet| !packet.payload.is_empty()).collect();
    let mut decoded: HashSet<u32> = HashSet::new();
    let mut pictures = Vec::new();
    for picture in packets.chunk_by(|one, next| one.timestamp == next.timestamp) {
        let stamps: Vec<Stamp> = picture.iter().map(|packet| Stamp::read(&packet.payload)).collect();
        for frame in stamps.chunk_by(|one, next| one.frame == next.frame) {
            let count = usize::from(frame[0].count);
            assert!(frame.len() == count && frame.iter().enumerate().all(|(at, stamp)| usize::from(stamp.index) == at));
            let missing: Vec<_> = frame[0].refers_to.iter().filter(|frame| !decoded.contains(frame)).collect();
            assert!(missing.is_empty(), "{:?} refers to {missing:?}, which did not come", frame[0]);
            decoded.insert(frame[0].frame);
        }
        let markers: Vec<bool> = picture.iter().map(|packet| packet.marker).collect();
        let (last, others) = markers.split_last().expect("a packet");
        assert!(*last && others.iter().all(|marker| !marker), "markers {markers:?} of {stamps:?}");
        let last = stamps.last().expect("a packet");
        pictures.push(Picture {
            timestamp: picture[0].timestamp,
            spatial: last.spatial,
            temporal: last.temporal,
            is_key: last.is_key,
        });
    }
    pictures
}
