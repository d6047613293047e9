//! The estimate that follows loss: how much loss is the path's own, and how much is ours.
//!
//! Each quarter of a second is an observation: packets sent, packets lost, the rate. The model says that a
//! path of bandwidth `b` and inherent loss `q` loses `q + (1 - q) max(0, 1 - b/rate)` of what it gets.
//! Of a few candidates for `b`, the one that makes the last observations most likely wins; near ties go to
//! the highest, so that a radio link's constant 5 % does not strangle a call. The idea is that of
//! WebRTC's second loss-based estimator; the fit is by expectation maximisation.

/// An observation is at least this long and this many packets.
const OBSERVATION_US: u64 = 250_000;
const OBSERVATION_PACKETS: u32 = 20;
const OBSERVATIONS: usize = 16;
/// Weight of each older observation.
const AGEING: f64 = 0.9;

/// Candidates as factors of the present limit.
const FACTORS: [f64; 4] = [1.05, 1.0, 0.95, 0.85];

/// Inherent loss is believed up to this plus what a low rate adds: on a slow path a single packet is a large
/// share, and there is little to win by going lower.
const INHERENT_MAX: f64 = 0.06;
const INHERENT_BALANCE_BPS: f64 = 75_000.0;

/// How much likelihood (per packet) a doubling of the bandwidth is worth, unless loss is heavy.
const HIGHER_IS_BETTER: f64 = 0.006;
const HEAVY_LOSS: f64 = 0.15;

/// A fall must be likelier than staying by this (natural logarithm, so twenty times). What is sent in a quarter of a second
/// varies by a frame, and a packet that was lost leaves again in the same one: if it also held the most, a bottleneck that is
/// just wide enough for the others explains it, by up to 2 for one packet. Where more than [`TOLERATED_LOSS`] is lost it is
/// none, in proportion below: there, what is lost is no single packet, and waiting for proof fills a narrow link.
const EVIDENCE: f64 = 3.0;

/// Where less is lost, only an observation that lost something is looked at.
const LITTLE_LOSS: f64 = 0.01;

/// Mean loss beyond this bounds the rate whatever the model says.
const TOLERATED_LOSS: f64 = 0.05;

/// After the limit fell it rises no further than this times what is delivered.
const PROOF_FACTOR: f64 = 1.3;

/// Of what is delivered: never go lower than this in one observation, for that much demonstrably got through.
const DELIVERED_SHARE: f64 = 0.85;

#[derive(Clone, Copy, Debug, Default)]
struct Observation {
    packets: f64,
    lost: f64,
    bps: f64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct LossLimit {
    observations: [Observation; OBSERVATIONS],
    len: usize,
    next: usize,
    packets: u32,
    lost: i64,
    bytes: u64,
    began_us: Option<u64>,
    /// `None`: loss does not limit.
    limit_bps: Option<f64>,
    /// What a probe found since the limit last fell.
    probed_bps: f64,
}

impl LossLimit {
    pub(super) fn bps(&self) -> Option<u64> {
        self.limit_bps.map(|bps| bps as u64)
    }

    /// What one feedback told, in packets and bytes sent; a packet that turns up after all is negative loss.
    pub(super) fn add(&mut self, packets: u32, lost: i64, bytes: u64, now_us: u64) {
        self.began_us.get_or_insert(now_us);
        self.packets += packets;
        self.lost += lost;
        self.bytes += bytes;
    }

    /// A probe arrived at this rate. It lasts too short to be seen in what is delivered, and proves more.
    pub(super) fn probed(&mut self, bps: u64) {
        self.probed_bps = bps as f64;
    }

    /// Ends the observation if it is long enough, and fits. `delay_bps` is what delay alone would allow,
    /// `delivered_bps` what arrives.
    pub(super) fn update(&mut self, delay_bps: u64, delivered_bps: Option<u64>, now_us: u64) {
        let Some(began_us) = self.began_us else { return };
        let elapsed_us = now_us.saturating_sub(began_us);
        if elapsed_us < OBSERVATION_US || self.packets < OBSERVATION_PACKETS {
            return;
        }
        let packets = self.packets as f64;
        self.observations[self.next] = Observation {
            packets,
            lost: (self.lost.max(0) as f64).min(packets),
            bps: self.bytes as f64 * 8e6 / elapsed_us as f64,
        };
        self.next = (self.next + 1) % OBSERVATIONS;
        self.len = (self.len + 1).min(OBSERVATIONS);
        let has_lost = self.lost > 0;
        (self.packets, self.lost, self.bytes, self.began_us) = (0, 0, 0, Some(now_us));
        self.fit(has_lost, delay_bps as f64, delivered_bps.map(|bps| bps as f64));
    }

    fn fit(&mut self, has_lost: bool, delay_bps: f64, delivered_bps: Option<f64>) {
        let mean_loss = self.mean_loss();
        // A fit takes hundreds of logarithms, and where little is lost what lost nothing is no reason for a fall.
        if self.limit_bps.is_none() && !has_lost && mean_loss < LITTLE_LOSS {
            return;
        }
        let current = self.limit_bps.unwrap_or(delay_bps).min(delay_bps.max(1.0));
        let mut candidates = [0.0; FACTORS.len() + 2];
        for (candidate, factor) in candidates.iter_mut().zip(FACTORS) {
            *candidate = current * factor;
        }
        candidates[FACTORS.len()] = delivered_bps.map_or(current, |bps| bps.min(current));
        candidates[FACTORS.len() + 1] = delay_bps;
        let evidence = EVIDENCE * (1.0 - mean_loss / TOLERATED_LOSS).max(0.0);
        let scored = candidates.map(|bps| {
            let stays = if bps >= current { evidence } else { 0.0 };
            (self.likelihood(bps, mean_loss) + stays, bps)
        });
        let best = scored.into_iter().max_by(|a, b| a.0.total_cmp(&b.0)).map_or(current, |(_, bps)| bps);
        let mut limit = best;
        if limit > current {
            // Grow no faster than the path proves, and not out of a single lucky quarter of a second.
            let proven = delivered_bps.map_or(f64::INFINITY, |bps| (bps * PROOF_FACTOR).max(self.probed_bps));
            limit = limit.min(proven.max(current)).min(current * 1.3);
        } else if let Some(delivered) = delivered_bps {
            if limit < current {
                self.probed_bps = 0.0;
            }
            limit = limit.max(DELIVERED_SHARE * delivered.min(current));
        }
        if mean_loss > TOLERATED_LOSS {
            let floor = DELIVERED_SHARE * delivered_bps.unwrap_or(0.0);
            limit = limit.min((INHERENT_BALANCE_BPS / (mean_loss - TOLERATED_LOSS)).max(floor));
        }
        self.limit_bps = (limit < delay_bps).then_some(limit);
    }

    fn weighted(&self) -> impl Iterator<Item = (f64, &Observation)> {
        let mut weight = 1.0 / AGEING;
        (1..=self.len).map(move |back| {
            weight *= AGEING;
            (weight, &self.observations[(self.next + OBSERVATIONS - back) % OBSERVATIONS])
        })
    }

    fn mean_loss(&self) -> f64 {
        let (packets, lost) = self.weighted().fold((0.0, 0.0), |(n, l), (w, o)| (n + w * o.packets, l + w * o.lost));
        if packets > 0.0 { lost / packets } else { 0.0 }
    }

    /// Of the observations under a path of this bandwidth, with the inherent loss that suits it best.
    fn likelihood(&self, bps: f64, mean_loss: f64) -> f64 {
        let most = (INHERENT_MAX + INHERENT_BALANCE_BPS / bps.max(1.0)).min(1.0);
        let inherent = self.inherent(bps, mean_loss.clamp(1e-4, most)).clamp(1e-4, most);
        let (mut sum, mut packets) = (0.0, 0.0);
        for (weight, o) in self.weighted() {
            let p = total_loss(inherent, bps, o.bps).clamp(1e-4, 1.0 - 1e-4);
            sum += weight * (o.lost * p.ln() + (o.packets - o.lost) * (1.0 - p).ln());
            packets += weight * o.packets;
        }
        let bias = if mean_loss < HEAVY_LOSS { HIGHER_IS_BETTER * packets * bps.max(1.0).log2() } else { 0.0 };
        sum + bias
    }

    /// Each lost packet was lost by the path itself with probability inherent/total: two rounds of that.
    fn inherent(&self, bps: f64, start: f64) -> f64 {
        let mut inherent = start;
        for _ in 0..2 {
            let (lost, packets) = self.weighted().fold((0.0, 0.0), |(lost, packets), (w, o)| {
                let share = inherent / total_loss(inherent, bps, o.bps).max(1e-6);
                (lost + w * o.lost * share, packets + w * o.packets)
            });
            inherent = lost / packets.max(1.0);
        }
        inherent
    }
}

fn total_loss(inherent: f64, bps: f64, rate_bps: f64) -> f64 {
    let overflow = (1.0 - bps / rate_bps.max(1.0)).max(0.0);
    inherent + (1.0 - inherent) * overflow
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds observations of a path with this capacity and inherent loss; the sender follows the limit.
    fn path(capacity_bps: f64, inherent: f64, rate_bps: f64, observations: u64) -> (LossLimit, f64) {
        let (mut limit, mut seed) = (LossLimit::default(), 99u64);
        let mut random = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as f64 / (1u64 << 31) as f64
        };
        limit.add(0, 0, 0, 0);
        let mut rate = rate_bps;
        for n in 1..=observations {
            let packets = (rate / 4.0 / 9600.0).ceil() as u32;
            let p = total_loss(inherent, capacity_bps, rate);
            let lost = (0..packets).filter(|_| random() < p).count() as i64;
            let now_us = n * 250_000;
            limit.add(packets, lost, packets as u64 * 1200, now_us);
            let delivered = rate * (1.0 - p);
            limit.update(rate_bps as u64, Some(delivered as u64), now_us);
            rate = limit.bps().map_or(rate_bps, |bps| bps as f64);
        }
        (limit, rate)
    }

    #[test]
    fn a_path_without_loss_is_not_limited() {
        assert_eq!(path(f64::INFINITY, 0.0, 2e6, 100).0.bps(), None);
    }

    #[test]
    fn loss_that_is_the_paths_own_does_not_strangle() {
        for (inherent, least) in [(0.01, 1.8e6), (0.03, 1.7e6), (0.05, 1.5e6)] {
            let (_, rate) = path(f64::INFINITY, inherent, 2e6, 200);
            assert!(rate >= least, "{inherent}: {rate}");
        }
        let (_, rate) = path(f64::INFINITY, 0.10, 2e6, 200);
        assert!(rate >= 0.7e6, "at 10 %: {rate}");
    }

    #[test]
    fn loss_that_is_ours_ends_within_seconds() {
        for capacity in [300e3, 700e3, 1.5e6] {
            let (_, rate) = path(capacity, 0.0, 3e6, 24);
            assert!(rate <= capacity * 1.25, "{capacity}: {rate}");
            assert!(rate >= capacity * 0.5, "{capacity}: {rate}");
        }
    }

    /// 20 and 22 packets in turn, for a third of a second is not a whole number of frames; what is lost leaves again at once.
    fn now_and_then_a_packet_is_lost(limit: &mut LossLimit, observations: std::ops::Range<u64>) {
        for n in observations {
            let lost = u64::from(n % 18 == 9);
            let packets = 20 + 2 * (n % 2) + lost;
            limit.add(packets as u32, lost as i64, packets * 900, n * 333_000);
            limit.update(740_000, Some(478_000), n * 333_000);
        }
    }

    #[test]
    fn a_packet_lost_now_and_then_where_most_is_sent_is_no_bottleneck() {
        let mut limit = LossLimit::default();
        limit.add(0, 0, 0, 0);
        for n in 1..500 {
            now_and_then_a_packet_is_lost(&mut limit, n..n + 1);
            assert_eq!(limit.bps(), None, "observation {n}");
        }
    }

    #[test]
    fn a_probe_proves_what_the_little_that_flows_does_not() {
        let (mut limit, _) = path(300e3, 0.0, 740e3, 24);
        now_and_then_a_packet_is_lost(&mut limit, 24..200);
        assert!(limit.bps().is_some_and(|bps| bps < 640_000), "{:?}", limit.bps());
        limit.probed(1_000_000);
        now_and_then_a_packet_is_lost(&mut limit, 200..204);
        assert_eq!(limit.bps(), None, "within a second and a half");
    }

    #[test]
    fn more_lost_than_sent_is_a_lie_and_no_panic() {
        let mut limit = LossLimit::default();
        for n in 0..50u64 {
            limit.add(20, if n % 2 == 0 { 1000 } else { -1000 }, 20_000, n * 250_000);
            limit.update(1_000_000, Some(0), n * 250_000);
        }
        assert!(limit.bps().is_none_or(|bps| bps <= 1_000_000));
    }
}
