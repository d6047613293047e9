//! How many messages the kernel is handed for what leaves: that is where forwarding spends its time.

use std::time::Duration;

use crate::call::Call;
use crate::source::Source;

const SECOND: Duration = Duration::from_secs(1);

/// Messages and packets that left since the counts were these.
fn sent_since(call: &Call, before: (u64, u64)) -> (u64, u64) {
    (call.outbox.messages - before.0, call.shard.counters().packets_sent - before.1)
}

fn counts(call: &Call) -> (u64, u64) {
    sent_since(call, (0, 0))
}

#[test]
fn a_frame_leaves_as_one_message_per_consumer() {
    let mut call = Call::new(61);
    let peers: Vec<_> = (0..4).map(|_| call.join()).collect();
    let camera = call.publish(peers[0], Source::camera(1000, call.now));
    let watched: Vec<_> = peers[1..].iter().map(|peer| (*peer, call.watch(*peer, camera).1)).collect();
    call.run(2 * SECOND);
    let before = counts(&call);
    let shown_before: usize = watched.iter().map(|(peer, ssrc)| call.viewer(*peer, *ssrc).shown().len()).sum();
    call.run(4 * SECOND);
    let shown: usize = watched.iter().map(|(peer, ssrc)| call.viewer(*peer, *ssrc).shown().len()).sum();
    let frames = (shown - shown_before) as u64;
    let (messages, packets) = sent_since(&call, before);
    assert!(packets > 2 * frames, "{packets} packets of {frames} frames");
    // Reports and answers to checks leave alone, a few in a second for each transport.
    assert!(messages < frames + 4 * 8 * 12, "{messages} messages for {frames} frames in {packets} packets");
}

#[test]
fn voices_that_arrive_together_share_messages() {
    let mut call = Call::new(62);
    let peers: Vec<_> = (0..5).map(|_| call.join()).collect();
    let listener = peers[4];
    let mut heard = Vec::new();
    for peer in &peers[..4] {
        let mut voice = Source::microphone(1000 * (*peer as u32 + 1), call.now);
        // Sizes as Opus with a variable rate makes them.
        voice.encodings[0].payload_bytes = 70 + 11 * peer;
        let voice = call.publish(*peer, voice);
        heard.push(call.watch(listener, voice).1);
    }
    call.run(2 * SECOND);
    let before = counts(&call);
    let heard_before: usize = heard.iter().map(|ssrc| call.viewer(listener, *ssrc).packets()).sum();
    call.run(4 * SECOND);
    let packets = heard.iter().map(|ssrc| call.viewer(listener, *ssrc).packets()).sum::<usize>() - heard_before;
    let (messages, _) = sent_since(&call, before);
    assert!(packets > 700, "{packets}");
    // Four voices in one message each 20 ms, and what leaves alone.
    assert!(messages < packets as u64 / 4 + 300, "{messages} messages for {packets} packets");
}

/// Microphones whose packets arrive 2.5 ms apart, all for one listener. Messages and packets in four seconds, and the
/// longest time between two packets of one voice.
fn staggered_voices(gather: Duration) -> (u64, usize, Duration) {
    let mut call = Call::new(63);
    let peers: Vec<_> = (0..9).map(|_| call.join()).collect();
    let listener = peers[8];
    call.run(SECOND);
    call.shard.set_gather(gather);
    let mut heard = Vec::new();
    for peer in &peers[..8] {
        let voice = call.publish(*peer, Source::microphone(1000 * (*peer as u32 + 1), call.now));
        heard.push(call.watch(listener, voice).1);
        call.run(Duration::from_micros(2_500));
    }
    call.run(2 * SECOND);
    let (before, from) = (counts(&call), call.now);
    let heard_before: usize = heard.iter().map(|ssrc| call.viewer(listener, *ssrc).packets()).sum();
    call.run(4 * SECOND);
    let packets = heard.iter().map(|ssrc| call.viewer(listener, *ssrc).packets()).sum::<usize>() - heard_before;
    let longest = heard.iter().map(|ssrc| call.viewer(listener, *ssrc).longest_silence(from)).max();
    (sent_since(&call, before).0, packets, longest.expect("somebody is heard"))
}

#[test]
fn a_busy_shard_gathers_voices_into_fewer_messages_and_holds_none_longer_than_it_may() {
    let gather = Duration::from_millis(5);
    let (alone, packets_alone, gap_alone) = staggered_voices(Duration::ZERO);
    let (gathered, packets, gap) = staggered_voices(gather);
    assert!(packets_alone.abs_diff(packets) < 20, "{packets_alone} and {packets} packets");
    assert!(packets > 1_500, "{packets}");
    assert!(gathered * 5 < alone * 3, "{gathered} messages, {alone} without gathering, for {packets} packets");
    assert!(gap <= gap_alone + gather, "{gap:?} between two packets, {gap_alone:?} without gathering");
}

#[test]
fn a_shard_that_gathers_goes_to_sleep_between_packets() {
    let mut call = Call::new(64);
    let (speaker, listener) = (call.join(), call.join());
    call.shard.set_gather(Duration::from_millis(5));
    let voice = call.publish(speaker, Source::microphone(1000, call.now));
    let camera = call.publish(speaker, Source::camera(3000, call.now));
    let ssrc = call.watch(listener, camera).1;
    call.watch(listener, voice);
    call.run(2 * SECOND);
    for _ in 0..400 {
        call.run(Duration::from_millis(1));
        // What was due has left: a deadline in the past would have the worker turn without end.
        assert!(call.shard.next_deadline().is_none_or(|deadline| deadline > call.now));
    }
    call.viewer(listener, ssrc).assert_continuous();
}
