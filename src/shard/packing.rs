//! Which packets share a message, and in which order they leave.
//!
//! The kernel cuts a message into datagrams of one size, of which the last may be shorter. So a message is as many packets as
//! can be padded up to its largest (RFC 3550 section 5.1), and one smaller. Each stream is a queue that keeps its order, for
//! who sees a gap asks for what is missing at once; streams do not wait for each other.
//!
//! It knows sizes and streams; it never sees a byte.

use crate::limits::{PAD_BYTES, PAD_SCARCE_BYTES, PAD_SMALL_BYTES, SMALL_BYTES};
use crate::shard::egress::Outgoing;

/// Packets of one stream that a message is chosen by: the first, and those close behind it.
const AHEAD: usize = 8;

/// Buffers that are used again.
#[derive(Default)]
pub struct Packing {
    packed: Vec<Outgoing>,
    /// What is left of each stream, as indices.
    queues: Vec<(u32, u32)>,
}

impl Packing {
    /// Orders what leaves for one receiver so that few messages carry it, and pads each of a message to its largest. A stream's
    /// packets keep the order of their indices, also of two layers where it changes over. Where CPU `is_scarce`, more padding is worth a message.
    pub fn pack(&mut self, outgoing: &mut Vec<Outgoing>, is_scarce: bool) {
        // Most of what leaves is one frame of one stream.
        if outgoing.iter().all(|next| next.padded == outgoing[0].padded) {
            return;
        }
        outgoing.sort_unstable_by_key(|next| (next.consumer, next.packet));
        self.queues.clear();
        let mut at = 0;
        for stream in outgoing.chunk_by(|one, next| one.consumer == next.consumer) {
            self.queues.push((at, at + stream.len() as u32));
            at += stream.len() as u32;
        }
        self.packed.clear();
        while !self.queues.is_empty() {
            self.pack_one(outgoing, is_scarce);
        }
        std::mem::swap(outgoing, &mut self.packed);
    }

    /// One message: the largest that any stream goes on with, all that join it, and the largest of what is smaller.
    fn pack_one(&mut self, outgoing: &[Outgoing], is_scarce: bool) {
        let queue = |(from, to): &(u32, u32)| &outgoing[*from as usize..*to as usize];
        let segment = self.queues.iter().map(|left| reach(queue(left), is_scarce)).max().unwrap_or(0);
        let (packed, most) = (&mut self.packed, most_padding(segment, is_scarce));
        self.queues.retain_mut(|left| {
            let joins = |next: &&Outgoing| segment.checked_sub(next.padded).is_some_and(|gap| gap <= most);
            let before = packed.len();
            packed.extend(queue(left).iter().take_while(joins).map(|next| Outgoing { padded: segment, ..*next }));
            left.0 += (packed.len() - before) as u32;
            left.0 < left.1
        });
        let first = |left: &(u32, u32)| outgoing[left.0 as usize].padded;
        let smaller = self.queues.iter_mut().filter(|left| first(left) < segment);
        if let Some(last) = smaller.max_by_key(|left| first(left)) {
            packed.push(outgoing[last.0 as usize]);
            // A queue that this empties goes with the next message.
            last.0 += 1;
        }
    }
}

/// The size of the message that a stream goes on with: of the largest packet that follows soon, if the first and all between
/// can be padded up to it.
fn reach(queue: &[Outgoing], is_scarce: bool) -> u16 {
    let (mut reached, mut least) = (0, u16::MAX);
    for next in queue.iter().take(AHEAD) {
        let largest = next.padded.max(reached);
        least = least.min(next.padded);
        if largest - least > most_padding(largest, is_scarce) {
            break;
        }
        reached = largest;
    }
    reached
}

/// Pads what is almost as large as the `largest` packet of its run.
#[inline]
pub fn pad_run(run: &mut [Outgoing], largest: usize) {
    for outgoing in run {
        if largest - outgoing.size as usize <= PAD_BYTES {
            outgoing.padded = largest as u16;
        }
    }
}

/// How much may be added to a packet so that it joins a message of datagrams of `segment` bytes.
#[inline]
fn most_padding(segment: u16, is_scarce: bool) -> u16 {
    let most = match (is_scarce, usize::from(segment) <= SMALL_BYTES) {
        (true, _) => PAD_SCARCE_BYTES,
        (false, true) => PAD_SMALL_BYTES,
        (false, false) => PAD_BYTES,
    };
    most as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::rewriter::Rewrite;
    use crate::shard::table::Key;

    /// What streams of these sizes would leave; each stream's packets are numbered from its own hundred on.
    fn leaving(streams: &[&[u16]]) -> Vec<Outgoing> {
        let rewrite = Rewrite { sequence: 0, timestamp: 0, picture: 0, tl0: 0, end: false };
        let mut outgoing = Vec::new();
        for (hundred, sizes) in (0..).step_by(100).zip(streams) {
            let (consumer, start) = (Key::dangling_at(hundred), outgoing.len());
            outgoing.extend((hundred..).zip(*sizes).map(|(packet, size)| {
                let (size, padded) = (*size, *size);
                Outgoing { consumer, packet, rewrite, size, padded, is_filler: false, is_awaited: false }
            }));
            pad_run(&mut outgoing[start..], sizes.iter().copied().max().unwrap_or(0).into());
        }
        outgoing
    }

    /// Sizes that leave, message by message.
    fn messages(outgoing: &[Outgoing]) -> Vec<Vec<u16>> {
        let mut messages: Vec<Vec<u16>> = Vec::new();
        for next in outgoing {
            match messages.last_mut() {
                Some(message) if message.iter().all(|size| *size == message[0]) && next.padded <= message[0] => {
                    message.push(next.padded)
                }
                _ => messages.push(vec![next.padded]),
            }
        }
        messages
    }

    /// The same once packed: everything leaves, each stream in its order, and no packet is padded by more than it may be.
    fn packed(streams: &[&[u16]], is_scarce: bool) -> Vec<Vec<u16>> {
        let mut outgoing = leaving(streams);
        Packing::default().pack(&mut outgoing, is_scarce);
        for (hundred, sizes) in (0..).step_by(100).zip(streams) {
            let stream = outgoing.iter().filter(|next| next.packet / 100 * 100 == hundred);
            assert!(stream.clone().map(|next| next.packet).eq((hundred..).take(sizes.len())), "{hundred}");
            assert!(stream.map(|next| next.size).eq(sizes.iter().copied()));
        }
        let most = PAD_BYTES as u16 + most_padding(if is_scarce { u16::MAX } else { 0 }, is_scarce);
        for next in &outgoing {
            assert!((0..=most).contains(&(next.padded - next.size)), "{} as {}", next.size, next.padded);
        }
        messages(&outgoing)
    }

    #[test]
    fn frames_of_two_producers_join_at_equal_sizes() {
        let messages = packed(&[&[1190, 1200, 400, 1200, 300], &[1195, 1195, 350]], false);
        assert_eq!(messages, [vec![1200, 1200, 1200, 1200, 400], vec![1200, 350], vec![300]]);
    }

    #[test]
    fn small_packets_are_padded_further_than_large_ones() {
        assert_eq!(packed(&[&[150], &[110]], false), [[150, 150]]);
        assert_eq!(packed(&[&[1200], &[1160]], false), [[1200, 1160]]);
        assert_eq!(packed(&[&[1200], &[1160]], true), [[1200, 1200]]);
    }

    #[test]
    fn a_stream_whose_packets_grow_keeps_its_order_and_does_not_hold_up_the_others() {
        let growing: &[u16] = &[324, 371, 537, 558];
        let messages = packed(&[growing, &[396, 396, 304, 304], &[79; 6]], true);
        assert_eq!(messages, [vec![396, 396, 396, 396, 396, 396, 79], vec![558, 558, 79], vec![79; 4]]);
    }

    #[test]
    fn a_packet_is_padded_up_to_the_larger_one_behind_it_where_that_saves_a_message() {
        assert_eq!(packed(&[&[410, 561]], true), [[561, 561]]);
        assert_eq!(packed(&[&[410, 561]], false), [[410], [561]]);
        assert_eq!(packed(&[&[310, 561]], true), [[310], [561]]);
    }

    #[test]
    fn whatever_the_sizes_everything_leaves_in_order() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..500 {
            let streams: Vec<Vec<u16>> = (0..random.usize(1..12))
                .map(|_| (0..random.usize(1..20)).map(|_| random.u16(60..1200)).collect())
                .collect();
            let streams: Vec<&[u16]> = streams.iter().map(Vec::as_slice).collect();
            let (packets, is_scarce) = (streams.iter().map(|stream| stream.len()).sum::<usize>(), random.bool());
            let messages = packed(&streams, is_scarce);
            assert_eq!(messages.iter().flatten().count(), packets);
            assert!(messages.len() <= packets);
        }
    }
}
