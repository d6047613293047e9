//! The dominant speaker, after I. Volfin and I. Cohen, "Dominant speaker identification for multipoint
//! videoconferencing", Computer Speech and Language 27 (2013).
//!
//! Speech is told from noise on three scales: this moment, the last 100 ms, the last second. On each, the
//! number of active parts is held against two hypotheses (speech: every part active with probability 1/2;
//! noise: exponentially fewer), and a speaker takes over only by beating the dominant one on all three.
//! A cough wins the moment and loses the second; a pause loses the moment and keeps the second.

/// Parts of each scale: steps of loudness, moments, stretches of five moments.
const MOMENT_PARTS: usize = 13;
const MEDIUM_PARTS: usize = 5;
const LONG_PARTS: usize = 10;
const HISTORY: u64 = (1 << (MEDIUM_PARTS * LONG_PARTS)) - 1;

/// Rates of the noise hypothesis on each scale (the paper's section 4).
const MOMENT_NOISE: f32 = 0.78;
const MEDIUM_NOISE: f32 = 24.0;
const LONG_NOISE: f32 = 47.0;

/// Moments with more active parts than this count on the medium scale, and so on upwards.
const MOMENT_ACTIVE: u32 = 7;
const MEDIUM_ACTIVE: u32 = 3;

/// By how much (ratio of scores, natural logarithm) the dominant speaker must be beaten on each scale.
const MOMENT_LEAD: f32 = 3.0;
const MEDIUM_LEAD: f32 = 2.0;
const LONG_LEAD: f32 = 0.0;

/// The quietest loudness (dB) that is the first of thirteen steps, and their height: -87 to -35 dBov.
const QUIETEST_DB: i32 = 40;
const STEP_DB: i32 = 4;

/// Scores are compared as ratios; what the model finds impossible is this instead of negative.
const FLOOR: f32 = 1e-10;

/// One source's last second: eight bytes of history and this moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Activity {
    /// One bit per packet, the newest lowest: was the moment active?
    moments: u64,
    moment: u32,
}

impl Activity {
    /// One packet's smoothed loudness in dB (127 loudest).
    pub fn push(&mut self, loudness_db: i32) {
        self.moment = ((loudness_db - QUIETEST_DB) / STEP_DB).clamp(0, MOMENT_PARTS as i32) as u32;
        self.moments = (self.moments << 1 | u64::from(self.moment > MOMENT_ACTIVE)) & HISTORY;
    }

    /// Moments without a packet.
    pub fn skip(&mut self, moments: u32) {
        self.moments = self.moments.checked_shl(moments).unwrap_or(0) & HISTORY;
    }

    fn medium(&self) -> u32 {
        (self.moments & ((1 << MEDIUM_PARTS) - 1)).count_ones()
    }

    fn long(&self) -> u32 {
        (0..LONG_PARTS)
            .map(|n| (self.moments >> (n * MEDIUM_PARTS) & ((1 << MEDIUM_PARTS) - 1)).count_ones())
            .filter(|active| *active > MEDIUM_ACTIVE)
            .count() as u32
    }
}

/// The scores of every count on each scale, worked out once.
#[derive(Clone, Debug)]
pub struct Dominance {
    moment: [f32; MOMENT_PARTS + 1],
    medium: [f32; MEDIUM_PARTS + 1],
    long: [f32; LONG_PARTS + 1],
}

impl Default for Dominance {
    fn default() -> Self {
        Dominance { moment: scores(MOMENT_NOISE), medium: scores(MEDIUM_NOISE), long: scores(LONG_NOISE) }
    }
}

/// Log-likelihood ratio of speech (binomial, p = 1/2) to noise (exponential) for each number of active parts.
/// The binomial makes twelve active parts of thirteen less likely speech than nine, true of frequency bands
/// and not of loudness: beyond its peak a score stays there.
fn scores<const N: usize>(noise: f32) -> [f32; N] {
    let parts = (N - 1) as f32;
    let (mut ways, mut peak) = (0.0f32, FLOOR);
    std::array::from_fn(|active| {
        if active > 0 {
            ways += (parts - active as f32 + 1.0).ln() - (active as f32).ln();
        }
        peak = peak.max(ways - parts * 2.0f32.ln() - noise.ln() + noise * active as f32);
        peak
    })
}

impl Dominance {
    /// Who dominates, given who did. Silence changes nothing.
    pub fn choose<'a>(
        &self,
        dominant: Option<usize>,
        sources: impl Iterator<Item = (usize, &'a Activity)> + Clone,
    ) -> Option<usize> {
        let held = dominant.and_then(|index| sources.clone().find(|(i, _)| *i == index));
        let Some((index, held)) = held.map(|(index, activity)| (index, self.score(activity))) else {
            return self.first(sources);
        };
        sources
            .filter(|(i, _)| *i != index)
            .filter_map(|(i, activity)| {
                let score = self.score(activity);
                let lead = |scale: usize| (score[scale] / held[scale]).ln();
                let wins = lead(0) > MOMENT_LEAD && lead(1) > MEDIUM_LEAD && lead(2) > LONG_LEAD;
                wins.then(|| (i, lead(1), score[2]))
            })
            .max_by(|a, b| a.1.total_cmp(&b.1).then(a.2.total_cmp(&b.2)))
            .map_or(Some(index), |(winner, ..)| Some(winner))
    }

    /// Nobody dominates yet: whoever has spoken most of the last second, but spoken.
    fn first<'a>(&self, sources: impl Iterator<Item = (usize, &'a Activity)>) -> Option<usize> {
        sources
            .filter(|(_, activity)| activity.long() > 0)
            .max_by_key(|(index, activity)| (activity.long(), activity.medium(), std::cmp::Reverse(*index)))
            .map(|(index, _)| index)
    }

    fn score(&self, activity: &Activity) -> [f32; 3] {
        [
            self.moment[activity.moment as usize],
            self.medium[activity.medium() as usize],
            self.long[activity.long() as usize],
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_rise_with_activity_and_never_reach_zero() {
        let dominance = Dominance::default();
        for scale in [&dominance.moment[..], &dominance.medium[..], &dominance.long[..]] {
            assert!(scale.windows(2).all(|pair| pair[0] <= pair[1]), "{scale:?}");
            assert!(scale[0] > 0.0);
            assert!(scale.last().unwrap() > &1.0);
        }
    }

    /// The paper's formula, written out for one count.
    #[test]
    fn a_score_is_the_likelihood_ratio_of_the_paper() {
        let expected = (1287.0f64 * 0.5f64.powi(13)).ln() - (0.78f64 * (-0.78f64 * 8.0).exp()).ln();
        let score = Dominance::default().moment[8] as f64;
        assert!((score - expected).abs() < 1e-3, "{score} against {expected}");
    }

    #[test]
    fn a_second_of_speech_fills_all_scales() {
        let mut activity = Activity::default();
        (0..50).for_each(|_| activity.push(95));
        assert_eq!((activity.moment, activity.medium(), activity.long()), (13, 5, 10));
        (0..50).for_each(|_| activity.push(20));
        assert_eq!((activity.moment, activity.medium(), activity.long()), (0, 0, 0));
    }
}
