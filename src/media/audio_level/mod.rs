//! Who speaks in a room: whose audio is forwarded, who dominates, how loud everybody is.
//!
//! One [`RoomAudio`] per room, fed with the level that each audio packet carries in its header extension
//! (RFC 6464; never by decoding). [`RoomAudio::forwarded`] answers per packet; [`RoomAudio::poll`] says a few
//! times a second what changed. The extension's voice flag is not used: Chromium sets it on every packet
//! outside DTX, and some clients never do.

use std::time::{Duration, Instant};

mod dominance;

use dominance::{Activity, Dominance};

/// How often dominance is decided (Volfin & Cohen section 3: some hundred ms), and silence looked for.
const DECISION: Duration = Duration::from_millis(300);

/// How often levels are told.
const LEVELS: Duration = Duration::from_millis(800);

/// Without packets for so long a source is silent: with DTX Opus sends one packet each 400 ms at least, and
/// those carry the level of the comfort noise.
const SILENCE_MS: u32 = 400;

/// A gap that is longer than jitter and a lost packet: the sender had nothing to say meanwhile.
const DTX_GAP_MS: u32 = 200;

/// How much of speech a packet stands for on the scales of dominance; longer ones count less, which
/// only makes them slower to win.
const PACKET_MS: u32 = 20;

/// A slot belongs to its speaker for so long after the last loud packet: longer than the pauses between
/// the sentences of one speaker, shorter than the wait for an answer.
const HOLD_MS: u32 = 1500;

/// When everybody in a slot speaks: who wants in must speak all this time, without gaps longer than
/// those between words, and louder than the quietest of them by this margin. Nobody is cut within a
/// sentence by a cough, a keyboard, or somebody of the same loudness.
const CHALLENGE_MS: u32 = 500;
const CHALLENGE_GAP_MS: u32 = 150;
const CHALLENGE_MARGIN: i32 = db(6);

/// Loudness is 127 less the -dBov of the extension, in 64ths of a dB.
const fn db(value: i32) -> i32 {
    value * 64
}

/// From here on a packet is speech whatever was before it: -50 dBov.
const SPEECH: i32 = db(77);

/// Quieter speech counts if it stands out from the source's own noise by this much, down to -80 dBov.
const OVER_NOISE: i32 = db(12);
const QUIETEST: i32 = db(47);

/// A room's audio sources by index.
#[derive(Clone, Debug)]
pub struct RoomAudio {
    top_n: usize,
    epoch: Instant,
    sources: Vec<Option<Source>>,
    forwarded: usize,
    dominance: Dominance,
    dominant: Option<usize>,
    next_decision: Option<Instant>,
    next_levels: Option<Instant>,
    last_packet: Option<Instant>,
    /// Whether the last list of levels that was told had anybody in it.
    told_levels: bool,
}

#[derive(Clone, Copy, Debug)]
struct Source {
    forwarded: bool,
    /// Levels were seen: a source without the extension cannot be compared and is always forwarded.
    measured: bool,
    /// Smoothed: up within three packets (a single click does not reach it), down within half a second.
    loudness: i32,
    /// The loudness of its speech alone, so that a pause does not look like a quiet voice.
    voice: i32,
    /// Follows the quietest at once and rises by 0.8 dB/s, so that the pauses of speech keep it down.
    noise: i32,
    last_packet_ms: u32,
    last_loud_ms: Option<u32>,
    /// Since when this source speaks louder than the quietest of a full set.
    challenge_since_ms: Option<u32>,
    activity: Activity,
}

/// What [`RoomAudio::poll`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AudioChange {
    /// The index of a dominant speaker who was not dominant before.
    pub dominant: Option<usize>,
    /// It is time to tell [`RoomAudio::levels`].
    pub levels: bool,
}

impl RoomAudio {
    /// `top_n`: how many of the loudest are forwarded; 0 forwards all.
    pub fn new(top_n: u8, now: Instant) -> RoomAudio {
        RoomAudio {
            top_n: top_n as usize,
            epoch: now,
            sources: Vec::new(),
            forwarded: 0,
            dominance: Dominance::default(),
            dominant: None,
            next_decision: None,
            next_levels: None,
            last_packet: None,
            told_levels: false,
        }
    }

    /// Another number from here on: who has a place among them is decided anew, with the packets that come.
    pub fn set_top_n(&mut self, top_n: u8) {
        if self.top_n == top_n as usize {
            return;
        }
        self.top_n = top_n as usize;
        self.forwarded = 0;
        for source in self.sources.iter_mut().flatten() {
            source.forwarded = false;
        }
    }

    /// A new audio source; the index is its name until [`close`](RoomAudio::close) frees it.
    pub fn open(&mut self) -> usize {
        let source = Some(Source {
            forwarded: false,
            measured: false,
            loudness: 0,
            voice: 0,
            noise: 0,
            last_packet_ms: 0,
            last_loud_ms: None,
            challenge_since_ms: None,
            activity: Activity::default(),
        });
        match self.sources.iter().position(Option::is_none) {
            Some(free) => {
                self.sources[free] = source;
                free
            }
            None => {
                self.sources.push(source);
                self.sources.len() - 1
            }
        }
    }

    /// The source is gone; its slot goes to the next who speaks.
    pub fn close(&mut self, index: usize) {
        self.silence(index);
        if let Some(source) = self.sources.get_mut(index) {
            *source = None;
        }
    }

    /// The source was paused: it holds no slot and speaks no more.
    pub fn silence(&mut self, index: usize) {
        let Some(Some(source)) = self.sources.get_mut(index) else { return };
        if std::mem::take(&mut source.forwarded) {
            self.forwarded -= 1;
        }
        source.loudness = 0;
        source.last_loud_ms = None;
        source.challenge_since_ms = None;
        source.activity = Activity::default();
        if self.dominant == Some(index) {
            self.dominant = None;
        }
    }

    /// A packet's level, 0 (loudest) to 127 -dBov. Ask [`forwarded`](RoomAudio::forwarded) after it: the
    /// packet that makes somebody a speaker is itself forwarded.
    #[inline]
    pub fn receive(&mut self, index: usize, level: u8, now: Instant) {
        let now_ms = now.saturating_duration_since(self.epoch).as_millis() as u32;
        let Some(Some(source)) = self.sources.get_mut(index) else { return };
        let loud = source.measure(level, now_ms);
        let (forwarded, wants_in) = (source.forwarded, loud || self.forwarded < self.top_n);
        self.last_packet = Some(now);
        if self.next_decision.is_none() {
            self.next_decision = Some(now + DECISION);
            self.next_levels.get_or_insert(now + LEVELS);
        }
        if self.top_n > 0 && !forwarded && wants_in {
            self.admit(index, now_ms);
        }
    }

    /// Gives the source a slot if one is free, if its holder fell silent, or if a full set was out-spoken.
    fn admit(&mut self, index: usize, now_ms: u32) {
        if self.forwarded < self.top_n {
            self.forwarded += 1;
        } else {
            let Some(loser) = self.loser(index, now_ms) else { return };
            if let Some(Some(source)) = self.sources.get_mut(loser) {
                source.forwarded = false;
            }
        }
        if let Some(Some(source)) = self.sources.get_mut(index) {
            source.forwarded = true;
            source.challenge_since_ms = None;
        }
    }

    fn loser(&mut self, challenger: usize, now_ms: u32) -> Option<usize> {
        let holders = || self.sources.iter().enumerate().filter_map(|(i, s)| s.as_ref().map(|s| (i, s)));
        let holders = || holders().filter(|(_, s)| s.forwarded);
        let (idle, source) = holders().min_by_key(|(_, s)| s.last_loud_ms)?;
        if source.last_loud_ms.is_none_or(|at| now_ms.saturating_sub(at) >= HOLD_MS) {
            return Some(idle);
        }
        let (quietest, voice) = holders().map(|(i, s)| (i, s.voice)).min_by_key(|(_, voice)| *voice)?;
        let source = self.sources[challenger].as_mut()?;
        if source.voice < voice + CHALLENGE_MARGIN {
            source.challenge_since_ms = None;
            return None;
        }
        let since = *source.challenge_since_ms.get_or_insert(now_ms);
        (now_ms.saturating_sub(since) >= CHALLENGE_MS).then_some(quietest)
    }

    /// Whether this source's packets go to the others.
    #[inline]
    pub fn forwarded(&self, index: usize) -> bool {
        match self.sources.get(index) {
            Some(Some(source)) => self.top_n == 0 || source.forwarded || !source.measured,
            _ => false,
        }
    }

    pub fn dominant(&self) -> Option<usize> {
        self.dominant
    }

    /// When to [`poll`](RoomAudio::poll); `None` while nobody sends audio.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.next_decision
    }

    pub fn poll(&mut self, now: Instant) -> AudioChange {
        let mut change = AudioChange::default();
        if self.next_decision.is_none_or(|at| at > now) {
            return change;
        }
        self.fade(now);
        if self.next_levels.is_some_and(|at| at <= now) {
            self.next_levels = Some(now + LEVELS);
            let speaking = self.sources.iter().flatten().any(|s| s.speaks(self.millis(now)));
            change.levels = speaking || self.told_levels;
            self.told_levels = speaking;
        }
        let chosen = self.dominance.choose(self.dominant, self.activities());
        if chosen != self.dominant {
            self.dominant = chosen;
            change.dominant = chosen;
        }
        let asleep = !self.told_levels && self.last_packet.is_none_or(|at| now.saturating_duration_since(at) > LEVELS);
        self.next_decision = (!asleep).then(|| now + DECISION);
        if asleep {
            self.next_levels = None;
        }
        change
    }

    fn activities(&self) -> impl Iterator<Item = (usize, &Activity)> + Clone {
        self.sources.iter().enumerate().filter_map(|(i, s)| s.as_ref().map(|s| (i, &s.activity)))
    }

    /// Sources whose packets stopped (DTX, mute, a dead link) are silent.
    fn fade(&mut self, now: Instant) {
        let now_ms = self.millis(now);
        for source in self.sources.iter_mut().flatten() {
            if now_ms.saturating_sub(source.last_packet_ms) >= SILENCE_MS {
                source.loudness = 0;
                source.challenge_since_ms = None;
                source.activity = Activity::default();
            }
        }
    }

    /// Fills `out` with those who spoke since the last list, and their -dBov, loudest first.
    pub fn levels(&self, now: Instant, out: &mut Vec<(usize, u8)>) {
        let now_ms = self.millis(now);
        out.clear();
        out.extend(self.sources.iter().enumerate().filter_map(|(index, source)| {
            let source = source.as_ref().filter(|s| s.speaks(now_ms))?;
            Some((index, (127 - source.loudness / 64) as u8))
        }));
        out.sort_by_key(|&(index, level)| (level, index));
    }

    fn millis(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.epoch).as_millis() as u32
    }
}

impl Source {
    /// Takes in one level; whether this source speaks at the moment.
    fn measure(&mut self, level: u8, now_ms: u32) -> bool {
        let fresh = 127 * 64 - level.min(127) as i32 * 64;
        if !self.measured {
            self.measured = true;
            self.noise = fresh;
        }
        let gap_ms = now_ms.saturating_sub(self.last_packet_ms);
        if gap_ms >= DTX_GAP_MS {
            self.activity.skip(gap_ms / PACKET_MS);
            self.loudness = 0;
        }
        self.last_packet_ms = now_ms;
        let toward = fresh - self.loudness;
        self.loudness += if toward > 0 { toward / 2 } else { toward / 32 };
        self.noise = fresh.min(self.noise + 1);
        self.activity.push(self.loudness / 64);
        let loud = fresh >= QUIETEST
            && (self.loudness >= SPEECH || fresh >= self.noise + OVER_NOISE && self.loudness >= QUIETEST);
        if loud {
            let pause_ms = self.last_loud_ms.map_or(u32::MAX, |at| now_ms.saturating_sub(at));
            if pause_ms > CHALLENGE_GAP_MS {
                self.challenge_since_ms = None;
            }
            self.voice += if pause_ms > HOLD_MS { fresh - self.voice } else { (fresh - self.voice) / 8 };
            self.last_loud_ms = Some(now_ms);
        }
        loud
    }

    fn speaks(&self, now_ms: u32) -> bool {
        self.last_loud_ms.is_some_and(|at| now_ms.saturating_sub(at) <= LEVELS.as_millis() as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// What a participant's microphone gives at a moment; `None` sends no packet (DTX).
    type Voice = Box<dyn Fn(u32) -> Option<u8>>;

    fn silent() -> Voice {
        Box::new(|_| Some(127))
    }

    /// Speech between two moments: syllables of 160 ms at `level`, short gaps, a pause of 700 ms each 4 s.
    fn speech(level: u8, from_ms: u32, until_ms: u32) -> Voice {
        Box::new(move |ms| {
            let speaking = (from_ms..until_ms).contains(&ms);
            let t = ms.saturating_sub(from_ms);
            let pause = t % 4000 >= 3300 || t % 200 >= 160;
            Some(if speaking && !pause { level + (t / 20 % 5) as u8 } else { 90 })
        })
    }

    struct Room {
        start: Instant,
        audio: RoomAudio,
        voices: Vec<Voice>,
        /// Moments at which each source was not forwarded though it spoke.
        cut_ms: Vec<Vec<u32>>,
        forwarded_most: usize,
        dominants: Vec<(u32, usize)>,
        lists: Vec<(u32, Vec<(usize, u8)>)>,
    }

    impl Room {
        fn new(top_n: u8, voices: Vec<Voice>) -> Room {
            let start = Instant::now();
            let mut audio = RoomAudio::new(top_n, start);
            voices.iter().enumerate().for_each(|(i, _)| assert_eq!(audio.open(), i));
            let cut_ms = voices.iter().map(|_| Vec::new()).collect();
            Room { start, audio, voices, cut_ms, forwarded_most: 0, dominants: vec![], lists: vec![] }
        }

        fn run(mut self, from_ms: u32, until_ms: u32) -> Room {
            for ms in (from_ms..until_ms).step_by(20) {
                let now = self.start + MS * ms;
                for (i, voice) in self.voices.iter().enumerate() {
                    let Some(level) = voice(ms) else { continue };
                    self.audio.receive(i, level, now);
                    if level < 80 && !self.audio.forwarded(i) {
                        self.cut_ms[i].push(ms);
                    }
                }
                let forwarded = (0..self.voices.len()).filter(|i| self.audio.forwarded(*i)).count();
                self.forwarded_most = self.forwarded_most.max(forwarded);
                let change = self.audio.poll(now);
                self.dominants.extend(change.dominant.map(|index| (ms, index)));
                if change.levels {
                    let mut list = Vec::new();
                    self.audio.levels(now, &mut list);
                    self.lists.push((ms, list));
                }
            }
            self
        }
    }

    #[test]
    fn of_fifty_open_microphones_three_are_forwarded() {
        let voices = (0..50).map(|i| speech(30 + i as u8 % 7, i * 900, i * 900 + 6000)).collect();
        let room = Room::new(3, voices).run(0, 50_000);
        assert_eq!(room.forwarded_most, 3);
    }

    #[test]
    fn zero_forwards_everybody() {
        let room = Room::new(0, vec![silent(), silent(), silent(), silent()]).run(0, 1000);
        assert!((0..4).all(|i| room.audio.forwarded(i)));
        assert!(!room.audio.forwarded(4), "a source that does not exist");
    }

    #[test]
    fn who_begins_to_speak_is_heard_within_three_packets_and_to_the_end() {
        let mut voices: Vec<Voice> = (0..9).map(|_| silent()).collect();
        voices.push(speech(35, 5000, 25_000));
        let room = Room::new(3, voices).run(0, 30_000);
        assert!(room.cut_ms[9].len() <= 3, "{:?}", room.cut_ms[9]);
        assert!(room.cut_ms[9].iter().all(|ms| *ms < 5060));
    }

    #[test]
    fn three_speakers_keep_their_slots_through_their_pauses_and_the_room_noise() {
        let mut voices: Vec<Voice> = vec![speech(30, 0, 60_000), speech(38, 500, 60_000), speech(34, 900, 60_000)];
        // Keyboards: a loud packet every 700 ms, and a fan at -60 dBov.
        voices.extend(
            (0..10).map(|i| Box::new(move |ms: u32| Some(if (ms + i * 140) % 700 < 20 { 25u8 } else { 60 })) as Voice),
        );
        let room = Room::new(3, voices).run(0, 60_000);
        for i in 0..3 {
            assert!(room.cut_ms[i].iter().all(|ms| *ms < 2000), "{i}: {:?}", room.cut_ms[i]);
        }
    }

    #[test]
    fn a_fourth_voice_of_the_same_loudness_does_not_cut_a_sentence() {
        let steady = |from: u32| Box::new(move |ms: u32| Some(if ms >= from { 35u8 } else { 127 })) as Voice;
        let room = Room::new(3, vec![steady(0), steady(0), steady(0), steady(2000)]).run(0, 6000);
        assert!((0..3).all(|i| room.cut_ms[i].is_empty()));
    }

    #[test]
    fn a_fourth_voice_that_stays_clearly_louder_replaces_the_quietest() {
        let steady =
            |level: u8, from: u32| Box::new(move |ms: u32| Some(if ms >= from { level } else { 127 })) as Voice;
        let room = Room::new(3, vec![steady(35, 0), steady(45, 0), steady(33, 0), steady(25, 2000)]).run(0, 6000);
        assert!(room.cut_ms[0].is_empty() && room.cut_ms[2].is_empty());
        assert!((2480..2700).contains(room.cut_ms[1].first().unwrap()), "{:?}", room.cut_ms[1].first());
        assert!(room.cut_ms[3].iter().all(|ms| *ms < 2700));
    }

    #[test]
    fn a_quiet_speaker_is_heard_when_nobody_else_speaks() {
        let quiet = speech(66, 3000, 20_000);
        let room = Room::new(2, vec![silent(), silent(), quiet]).run(0, 20_000);
        assert!(room.cut_ms[2].iter().all(|ms| *ms < 3100), "{:?}", room.cut_ms[2]);
    }

    #[test]
    fn a_source_without_levels_is_always_forwarded() {
        let mut room = Room::new(1, vec![silent(), silent()]);
        let unmeasured = room.audio.open();
        room = room.run(0, 1000);
        assert!(room.audio.forwarded(unmeasured));
        assert!(room.audio.forwarded(0) && !room.audio.forwarded(1));
    }

    #[test]
    fn a_slot_of_somebody_who_left_or_muted_goes_to_the_next_speaker() {
        let mut room = Room::new(1, vec![speech(30, 0, 9000), speech(40, 0, 9000)]).run(0, 1000);
        assert!(!room.audio.forwarded(1));
        room.audio.silence(0);
        room = room.run(1000, 1100);
        assert!(room.audio.forwarded(0) ^ room.audio.forwarded(1));
        room.audio.close(0);
        room.audio.close(1);
        let (a, b) = (room.audio.open(), room.audio.open());
        assert_eq!((a, b), (0, 1), "indexes are used again");
        room.audio.receive(b, 30, room.start + 1200 * MS);
        assert!(room.audio.forwarded(b));
    }

    #[test]
    fn dominance_follows_the_talk_and_is_told_once() {
        let voices = vec![speech(35, 0, 10_000), speech(35, 10_200, 20_000), silent(), speech(40, 20_500, 30_000)];
        let room = Room::new(3, voices).run(0, 32_000);
        let order: Vec<usize> = room.dominants.iter().map(|(_, index)| *index).collect();
        assert_eq!(order, [0, 1, 3], "{:?}", room.dominants);
        for ((ms, _), began) in room.dominants.iter().zip([0, 10_200, 20_500]) {
            assert!((began..began + 2500).contains(ms), "{:?}", room.dominants);
        }
    }

    #[test]
    fn clicks_and_short_interjections_do_not_take_dominance() {
        let clicks = Box::new(|ms: u32| Some(if ms % 600 < 40 { 15u8 } else { 127 })) as Voice;
        let aha = Box::new(|ms: u32| Some(if ms % 5000 < 300 { 30u8 } else { 127 })) as Voice;
        let room = Room::new(3, vec![speech(35, 0, 30_000), clicks, aha]).run(0, 30_000);
        assert!(room.dominants.iter().all(|(_, index)| *index == 0), "{:?}", room.dominants);
    }

    #[test]
    fn dtx_counts_as_silence() {
        let talks_then_dtx = Box::new(|ms: u32| match ms {
            0..3000 => Some(30u8),
            _ => ms.is_multiple_of(400).then_some(127),
        }) as Voice;
        let room = Room::new(3, vec![talks_then_dtx, speech(40, 3500, 9000)]).run(0, 8000);
        assert_eq!(room.dominants.iter().map(|(_, index)| *index).collect::<Vec<_>>(), [0, 1]);
        let (_, last) = room.lists.last().unwrap();
        assert_eq!(last.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn levels_are_told_loudest_first_and_one_empty_list_ends_them() {
        let voices = vec![speech(50, 0, 4000), speech(30, 0, 4000), silent()];
        let mut room = Room::new(3, voices).run(0, 10_000);
        let (first_ms, first) = &room.lists[0];
        assert_eq!(first.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 0]);
        assert!((30..45).contains(&first[0].1) && (50..65).contains(&first[1].1), "{first:?}");
        assert!(*first_ms >= 500);
        assert!(room.lists.windows(2).all(|pair| pair[1].0 - pair[0].0 >= 500), "not more often than that");
        assert_eq!(room.lists.iter().filter(|(_, list)| list.is_empty()).count(), 1);
        let end = room.start + 20_000 * MS;
        room.audio.poll(end);
        room.audio.poll(end + DECISION);
        assert_eq!(room.audio.next_deadline(), None, "a room where nobody sends audio wakes nobody");
    }
}
