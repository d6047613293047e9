//! Feedback that costs its sender little and could cost a shard much: what one receiver asks for is bounded, and counted.

#[path = "../benches/support/call.rs"]
#[allow(dead_code, reason = "shared with the benches")]
mod call;

use std::time::{Duration, Instant};

use call::{Call, Medium, Nowhere, ask};
use ringside::discard::Discard;
use ringside::ids::{ConsumerId, Token};
use ringside::limits;
use ringside::media::spec::PROBATOR_SSRC;
use ringside::shard::Datagram;
use ringside::shard::command::{Command, Reply};
use ringside::shard::stats::{ConsumerStats, Stats};
use ringside::transport::srtp::Outbound;

const MS: Duration = Duration::from_millis(1);
const CONSUMER: u64 = 100_000_001;
const SSRC: u32 = 2 * CONSUMER as u32;
/// The consumer of the second receiver.
const MODEST: u64 = 100_001_001;
/// An entry names one packet and the sixteen behind it (RFC 4585 section 6.2.1).
const PACKETS_PER_ENTRY: usize = 17;
const ENTRIES: usize = 340;

fn stats(call: &mut Call) -> ConsumerStats {
    stats_of(call, CONSUMER)
}

fn stats_of(call: &mut Call, consumer: u64) -> ConsumerStats {
    let consumer = ConsumerId(consumer);
    match ask(&mut call.shard, Command::ConsumerStats { token: Token(1), consumer }) {
        Reply::Stats(rows) => match rows.into_iter().next() {
            Some(Stats::Consumer(stats)) => stats,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn nacks_for_millions_of_packets_cost_no_more_than_a_round_trip_allows() {
    let (sender, receiver) = ("10.0.0.2:5000".parse().unwrap(), "10.0.0.3:5000".parse().unwrap());
    // The second one only watches.
    let mut call = Call::new(&[(sender, Medium::Vp8)], &[receiver, "10.0.0.4:5000".parse().unwrap()]);
    let mut far = Outbound::new(&call.receivers[0]);
    let mut outbox = Nowhere::default();
    let mut now = Instant::now();
    for _ in 0..100 {
        now += 33 * MS;
        for mut datagram in call.senders[0].frame(5, 1_000, false) {
            let bytes = &mut datagram[..];
            call.shard.handle_datagram(now, Datagram { source: sender, local: 0, bytes, received_at: None });
        }
        call.shard.flush(now, &mut outbox);
    }
    let (before, sent) = (stats(&mut call), outbox.datagrams);
    assert!(before.packets_sent > 500, "{before:?}");

    // As fast as a link of 100 Mbit/s carries it: a second of nothing but NACKs, all of them authentic.
    let (mut asked, mut next, mut worst) = (0usize, 0u16, 0);
    while asked < 3_000_000 {
        now += MS / 8;
        let mut nack = sealed_nack(&mut far, SSRC, next, ENTRIES);
        // Of so many only the first ones are looked at.
        next = next.wrapping_add(limits::RESENDS_WAITING as u16);
        asked += ENTRIES * PACKETS_PER_ENTRY;
        let (bytes, left) = (&mut nack[..], outbox.datagrams);
        call.shard.handle_datagram(now, Datagram { source: receiver, local: 0, bytes, received_at: None });
        call.shard.flush(now, &mut outbox);
        worst = worst.max(outbox.datagrams - left);
    }
    let after = stats(&mut call);
    let resent = after.packets_retransmitted - before.packets_retransmitted;
    assert_eq!(after.nack_packet_count - before.nack_packet_count, asked as u64);
    // A tenth of a second is the round trip that is assumed until the receiver reports.
    let round_trips = 1 + (asked / (ENTRIES * PACKETS_PER_ENTRY) / 800) as u64;
    assert!(resent <= (round_trips + 1) * limits::RESENDS_REMEMBERED as u64, "{resent} resent");
    assert!(resent > 0, "what can be had is given");
    assert!(worst <= limits::RESENDS_REMEMBERED as u64 + 8, "{worst} datagrams for one NACK");
    let refused = call.shard.discards().of(Discard::ResendRefused);
    assert_eq!(refused + resent, asked as u64, "everything else is refused and counted");
    assert!(outbox.datagrams - sent < 2_000, "{} datagrams", outbox.datagrams - sent);
}

/// A NACK for every number from `first` on, in so many entries.
fn sealed_nack(far: &mut Outbound, ssrc: u32, first: u16, entries: usize) -> Vec<u8> {
    let mut nack = vec![0x81, 205];
    nack.extend((2 + entries as u16).to_be_bytes());
    nack.extend(1u32.to_be_bytes());
    nack.extend(ssrc.to_be_bytes());
    for entry in 0..entries {
        nack.extend(first.wrapping_add((entry * PACKETS_PER_ENTRY) as u16).to_be_bytes());
        nack.extend([0xff, 0xff]);
    }
    let len = nack.len();
    nack.resize(len + 64, 0);
    let len = far.seal_rtcp(&mut nack, len).expect("room for the trailer");
    nack.truncate(len);
    nack
}

#[test]
fn who_asks_for_everything_takes_nothing_from_who_asks_for_little() {
    let [sender, greedy, modest] = ["10.0.0.2:5000", "10.0.0.3:5000", "10.0.0.4:5000"].map(|a| a.parse().unwrap());
    let mut call = Call::new(&[(sender, Medium::Vp8)], &[greedy, modest]);
    let mut far = [Outbound::new(&call.receivers[0]), Outbound::new(&call.receivers[1])];
    let (mut outbox, mut now) = (Nowhere::default(), Instant::now());
    for _ in 0..60 {
        now += 33 * MS;
        for mut datagram in call.senders[0].frame(5, 1_000, false) {
            let bytes = &mut datagram[..];
            call.shard.handle_datagram(now, Datagram { source: sender, local: 0, bytes, received_at: None });
        }
        call.shard.flush(now, &mut outbox);
    }
    // The second one asks for each of its packets once, a few in each tick, always just after the first.
    const FEW: usize = 7;
    for next in (0..=u16::MAX).step_by(FEW * PACKETS_PER_ENTRY) {
        now += 110 * MS;
        let nacks = [
            (greedy, sealed_nack(&mut far[0], SSRC, next, ENTRIES)),
            (modest, sealed_nack(&mut far[1], 2 * MODEST as u32, next, FEW)),
        ];
        for (source, mut nack) in nacks {
            let bytes = &mut nack[..];
            call.shard.handle_datagram(now, Datagram { source, local: 0, bytes, received_at: None });
        }
        call.shard.flush(now, &mut outbox);
    }
    let modest = stats_of(&mut call, MODEST);
    assert!(modest.packets_sent > 300, "{modest:?}");
    assert_eq!(modest.packets_retransmitted, modest.packets_sent);
}

#[test]
fn the_last_two_seconds_of_a_fast_stream_can_be_asked_for_and_little_more() {
    let [sender, receiver] = ["10.0.0.2:5000", "10.0.0.3:5000"].map(|a| a.parse().unwrap());
    let mut call = Call::new(&[(sender, Medium::Vp8)], &[receiver]);
    let mut far = Outbound::new(&call.receivers[0]);
    let (mut outbox, mut now) = (Nowhere::default(), Instant::now());
    const PACKETS_PER_S: u64 = 20 * 30;
    for _ in 0..10 * 30 {
        now += 1_000 * MS / 30;
        for mut datagram in call.senders[0].frame(20, 1_000, false) {
            let bytes = &mut datagram[..];
            call.shard.handle_datagram(now, Datagram { source: sender, local: 0, bytes, received_at: None });
        }
        call.shard.flush(now, &mut outbox);
    }
    const FEW: usize = 7;
    for next in (0..=u16::MAX).step_by(FEW * PACKETS_PER_ENTRY) {
        now += 110 * MS;
        let bytes = &mut sealed_nack(&mut far, SSRC, next, FEW)[..];
        call.shard.handle_datagram(now, Datagram { source: receiver, local: 0, bytes, received_at: None });
        call.shard.flush(now, &mut outbox);
    }
    let ConsumerStats { packets_sent, packets_retransmitted, .. } = stats(&mut call);
    assert!(packets_sent > 9 * PACKETS_PER_S, "{packets_sent}");
    let seconds = packets_retransmitted as f64 / PACKETS_PER_S as f64;
    assert!((2.0..2.6).contains(&seconds), "{seconds}");
}

/// Transport-wide feedback that calls `count` packets from `base` on lost, without a word of when others came.
fn feedback(base: u16, count: u16) -> Vec<u8> {
    let mut bytes = vec![0x8f, 205];
    bytes.extend(5u16.to_be_bytes());
    bytes.extend(1u32.to_be_bytes());
    bytes.extend(SSRC.to_be_bytes());
    bytes.extend(base.to_be_bytes());
    bytes.extend(count.to_be_bytes());
    bytes.extend([0, 0, 1, 0]);
    // One run of "not received", and padding to a whole word.
    bytes.extend(count.to_be_bytes());
    bytes.extend([0, 0]);
    bytes
}

#[test]
fn feedback_about_packets_that_were_never_sent_is_counted() {
    let (sender, receiver) = ("10.0.0.2:5000".parse().unwrap(), "10.0.0.3:5000".parse().unwrap());
    let mut call = Call::new(&[(sender, Medium::Vp8)], &[receiver]);
    let mut far = Outbound::new(&call.receivers[0]);
    let now = Instant::now();
    let mut tell = |base: u16, count: u16| {
        let mut bytes = feedback(base, count);
        let len = bytes.len();
        bytes.resize(len + 64, 0);
        let len = far.seal_rtcp(&mut bytes, len).expect("room for the trailer");
        let datagram = Datagram { source: receiver, local: 0, bytes: &mut bytes[..len], received_at: None };
        call.shard.handle_datagram(now, datagram);
        call.shard.worker_stats().repairs.invented_feedback
    };
    // Three packets went out when the call began: 0, 1 and 2.
    assert_eq!(tell(0, 3), 0);
    assert_eq!(tell(65_000, 500), 0, "numbers long gone are no lie");
    assert_eq!(tell(0, 4), 1);
    assert_eq!(tell(3_000, 100), 2);
    assert_eq!(tell(0, 3), 2, "twice the same is none either");
}

#[test]
fn a_key_frame_of_the_probator_is_asked_for_in_vain_and_counted() {
    let (sender, receiver) = ("10.0.0.2:5000".parse().unwrap(), "10.0.0.3:5000".parse().unwrap());
    let mut call = Call::new(&[(sender, Medium::Vp8)], &[receiver]);
    let mut far = Outbound::new(&call.receivers[0]);
    // FIR (RFC 5104 section 4.3.1): the source stands in its entry.
    let mut bytes = vec![0x84, 206, 0, 4];
    for word in [1, 0, PROBATOR_SSRC.0, 7 << 24] {
        bytes.extend(word.to_be_bytes());
    }
    let len = bytes.len();
    bytes.resize(len + 64, 0);
    let len = far.seal_rtcp(&mut bytes, len).expect("room for the trailer");
    let datagram = Datagram { source: receiver, local: 0, bytes: &mut bytes[..len], received_at: None };
    call.shard.handle_datagram(Instant::now(), datagram);
    assert_eq!(call.shard.discards().of(Discard::ProbatorAsked), 1);
}
