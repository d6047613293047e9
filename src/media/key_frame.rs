//! When a producer's layer is asked for a key frame.
//!
//! A key frame costs its sender several times an ordinary frame and lowers the quality for everybody, so
//! nobody asks a producer directly: consumers that resume, switch, join or lost too much tell the layer's
//! one [`KeyFramePolicy`], and the shard sends a PLI (or FIR) when that says so. It looks at no clock.

use std::time::{Duration, Instant};

use crate::media::spec::SourceClass;

/// Between two requests to a camera: a key frame of a 720p camera is worth 10 to 20 ordinary frames.
const CAMERA_INTERVAL: Duration = Duration::from_secs(1);

/// Between two requests to a shared screen that answers them: its key frames are several times larger
/// (a 1080p page of text is 100 to 400 kB), and little moves in between.
const SCREEN_INTERVAL: Duration = Duration::from_secs(3);

/// A request that no key frame answers was probably lost: it is repeated after this, but never sooner than the interval of
/// its class, for its answer may be on the way, and a second large key frame behind it would delay both.
const RETRY: Duration = Duration::from_secs(1);

/// After so many unanswered ones the sender does not listen (muted, broken, gone): ask less often.
const RETRIES_BEFORE_RESIGNATION: u32 = 5;
const RESIGNED_RETRY: Duration = Duration::from_secs(5);

/// One layer's requests, coalesced.
#[derive(Clone, Debug)]
pub struct KeyFramePolicy {
    interval: Duration,
    wanted: bool,
    last_sent: Option<Instant>,
    /// Sent since the last key frame came.
    unanswered: u32,
    asked: u64,
    coalesced: u64,
    sent: u64,
}

impl KeyFramePolicy {
    pub fn new(class: SourceClass) -> KeyFramePolicy {
        KeyFramePolicy {
            interval: match class {
                SourceClass::ScreenShare => SCREEN_INTERVAL,
                SourceClass::Camera | SourceClass::Microphone => CAMERA_INTERVAL,
            },
            wanted: false,
            last_sent: None,
            unanswered: 0,
            asked: 0,
            coalesced: 0,
            sent: 0,
        }
    }

    /// Somebody cannot go on without a key frame that begins from here on. Follow with
    /// [`poll`](KeyFramePolicy::poll).
    pub fn ask(&mut self) {
        self.asked += 1;
        if self.wanted {
            self.coalesced += 1;
        }
        self.wanted = true;
    }

    /// The first packet of a key frame came: everybody who asked is served by it.
    pub fn key_frame_arrived(&mut self) {
        self.wanted = false;
        self.unanswered = 0;
    }

    /// Nobody waits any more (the last consumer that asked left, or the layer was paused).
    pub fn withdraw(&mut self) {
        self.wanted = false;
    }

    /// Whether to send one PLI at `now`; `true` counts it as sent.
    pub fn poll(&mut self, now: Instant) -> bool {
        if self.next_deadline(now).is_none_or(|at| at > now) {
            return false;
        }
        self.last_sent = Some(now);
        self.unanswered += 1;
        self.sent += 1;
        true
    }

    /// When [`poll`](KeyFramePolicy::poll) will say yes; `now` means at once, `None` that nobody waits.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        if !self.wanted {
            return None;
        }
        let Some(last) = self.last_sent else { return Some(now) };
        let wait = match self.unanswered {
            0 => self.interval,
            1..RETRIES_BEFORE_RESIGNATION => RETRY.max(self.interval),
            _ => RESIGNED_RETRY,
        };
        Some((last + wait).max(now))
    }

    /// Whether somebody waits for a key frame.
    pub fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Requests of consumers.
    pub fn asked(&self) -> u64 {
        self.asked
    }

    /// Of these, the ones that found another one waiting.
    pub fn coalesced(&self) -> u64 {
        self.coalesced
    }

    /// Requests that went to the producer.
    pub fn sent(&self) -> u64 {
        self.sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Plays `asks` against a producer that answers each PLI after `answer_ms` (or never). Returns when
    /// PLIs were sent.
    fn play(
        class: SourceClass,
        until_ms: u32,
        answer_ms: Option<u32>,
        asks: impl Fn(u32) -> u32,
    ) -> (Vec<u32>, KeyFramePolicy) {
        let start = Instant::now();
        let (mut policy, mut sent, mut answer) = (KeyFramePolicy::new(class), Vec::new(), None);
        for ms in 0..until_ms {
            let now = start + MS * ms;
            if answer == Some(ms) {
                policy.key_frame_arrived();
                answer = None;
            }
            (0..asks(ms)).for_each(|_| policy.ask());
            let promised = policy.next_deadline(now) == Some(now);
            assert_eq!(policy.poll(now), promised, "poll and next_deadline agree at {ms} ms");
            if promised {
                sent.push(ms);
                answer = answer.or(answer_ms.map(|after| ms + after));
            }
        }
        (sent, policy)
    }

    #[test]
    fn the_first_request_goes_out_at_once() {
        for class in [SourceClass::Camera, SourceClass::ScreenShare] {
            let (sent, _) = play(class, 100, Some(40), |ms| (ms == 7) as u32);
            assert_eq!(sent, [7]);
        }
    }

    #[test]
    fn a_room_that_joins_at_once_costs_one_key_frame() {
        let (sent, policy) = play(SourceClass::Camera, 900, Some(60), |ms| (ms < 49) as u32);
        assert_eq!(sent, [0]);
        assert_eq!((policy.asked(), policy.coalesced(), policy.sent()), (49, 48, 1));
    }

    #[test]
    fn a_flood_of_requests_costs_one_key_frame_per_interval() {
        let (sent, _) = play(SourceClass::Camera, 10_000, Some(30), |_| 20);
        assert_eq!(sent, (0..10).map(|n| n * 1000).collect::<Vec<_>>());
        let (sent, _) = play(SourceClass::ScreenShare, 10_000, Some(80), |_| 20);
        assert_eq!(sent, [0, 3000, 6000, 9000]);
    }

    #[test]
    fn a_request_in_the_interval_is_served_at_its_end() {
        let (sent, _) = play(SourceClass::Camera, 5000, Some(50), |ms| matches!(ms, 0 | 300) as u32);
        assert_eq!(sent, [0, 1000]);
    }

    #[test]
    fn an_unanswered_request_is_repeated_and_then_less_often() {
        let (sent, policy) = play(SourceClass::Camera, 16_000, None, |ms| (ms == 0) as u32);
        assert_eq!(sent, [0, 1000, 2000, 3000, 4000, 9000, 14_000]);
        assert_eq!(policy.asked(), 1);
        let (sent, _) = play(SourceClass::ScreenShare, 7000, None, |ms| (ms == 0) as u32);
        assert_eq!(sent, [0, 3000, 6000]);
    }

    #[test]
    fn an_answer_ends_the_repetition() {
        let (sent, policy) = play(SourceClass::Camera, 20_000, Some(2500), |ms| (ms == 0) as u32);
        assert_eq!(sent, [0, 1000, 2000]);
        assert!(!policy.is_wanted());
    }

    #[test]
    fn a_request_withdrawn_is_not_sent() {
        let now = Instant::now();
        let mut policy = KeyFramePolicy::new(SourceClass::Camera);
        policy.ask();
        policy.withdraw();
        assert_eq!(policy.next_deadline(now), None);
        assert!(!policy.poll(now));
    }
}
