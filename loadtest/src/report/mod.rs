//! What a run found, as data: written as JSON, shown in the terminal, drawn as a page. Written once from an `Outcome`;
//! `plan` and `compare` read it.

pub mod hlog;
pub mod html;
pub mod terminal;

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::Context;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::measure::{Flow, Second};
use crate::proc::Machine;
use crate::run::Service;
use crate::scenario::Scenario;
use crate::swarm::Outcome;
use crate::sys::ClientSockets;

pub const FORMAT: u32 = 1;

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Report {
    pub format: u32,
    /// Name of the server, as "ringside" or "janus, event_loops = 1".
    pub server: String,
    /// As the server calls itself; empty where that is not known.
    pub version: String,
    pub address: String,
    /// Which cores the server and the load ran on.
    pub placement: String,
    pub scenario: Scenario,
    pub machine: Machine,
    pub started_unix_s: u64,
    pub srtp_profile: String,
    pub sockets: ClientSockets,
    /// What a reader should know of how it was measured.
    pub notes: Vec<String>,
    /// Length of the measurement.
    pub seconds: f64,
    pub participants: usize,
    pub sent: Rate,
    /// The media that all receivers got: the forwarded packets. What follows is not part of it.
    pub received: Rate,
    /// Of `received`, sound.
    pub received_audio: Rate,
    /// Came again on request.
    pub repairs: Rate,
    /// Padding alone: probes of the server's bandwidth estimate, and fillers.
    pub probes: Rate,
    /// Of streams that nobody announced, as mediasoup's probes.
    pub unknown: Rate,
    /// Everything that came to the clients, RTCP and ICE included.
    pub datagrams: Rate,
    pub quality: Quality,
    pub forward_ms: Distribution,
    pub join_ms: JoinTimes,
    pub cost: Option<Cost>,
    pub generator: Generator,
    pub timeline: Vec<Second>,
    pub errors: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Rate {
    pub packets: u64,
    pub bytes: u64,
    pub packets_per_second: f64,
    pub bits_per_second: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Quality {
    pub streams: u64,
    /// Pictures that were wanted and never came.
    pub silent_streams: u64,
    /// Pictures that stood still when the measurement ended.
    pub stalled_streams: u64,
    pub expected_packets: u64,
    pub lost_packets: u64,
    /// Share of packets that never came.
    pub loss: f64,
    /// Share of packets that did not come when they were sent first; repair brought some of them.
    pub loss_before_repair: f64,
    pub duplicates: u64,
    pub reordered: u64,
    pub repaired: u64,
    pub frames: u64,
    /// Gaps of more than 200 ms beyond a video's cadence.
    pub freezes: u64,
    pub frozen_s: f64,
    pub forged: u64,
    pub key_frames_asked: u64,
    /// Of any kind, while it was measured.
    pub failures: u64,
}

/// Milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Distribution {
    pub count: u64,
    pub mean: f64,
    pub min: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
    /// Percentile and value, for plots.
    pub curve: Vec<(f64, f64)>,
}

/// From the moment at which a participant was due to join. Numbers are of the whole run: most join before it is measured.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct JoinTimes {
    pub joined: u64,
    pub failed: u64,
    pub signaling: Distribution,
    pub ice: Distribution,
    pub dtls: Distribution,
    pub first_media: Distribution,
    pub first_key_frame: Distribution,
}

/// What a local server used while it was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Cost {
    pub cpu_s: f64,
    pub user_s: f64,
    pub system_s: f64,
    /// Mean number of cores in use.
    pub cores: f64,
    /// CPU time, user and system, per media packet that a receiver got; 0 when there was none.
    pub cpu_us_per_packet: f64,
    /// When the measurement began, and when it ended.
    pub resident_start_bytes: u64,
    pub resident_bytes: u64,
    pub peak_bytes: u64,
    pub threads: u64,
}

/// How the load test itself did: a late generator makes every latency a guess.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Generator {
    pub cores: f64,
    pub lag_ms: Distribution,
    pub opened_packets: u64,
    /// Packets per receive call.
    pub packets_per_call: f64,
    pub send_failures: u64,
}

impl Report {
    pub fn new(service: &Service, scenario: &Scenario, sockets: ClientSockets, outcome: &Outcome) -> Report {
        let (totals, streams, seconds) = (&outcome.totals, &outcome.streams, outcome.seconds);
        let rate = |flow: Flow| Rate {
            packets: flow.packets,
            bytes: flow.bytes,
            packets_per_second: flow.packets as f64 / seconds,
            bits_per_second: flow.bytes as f64 * 8.0 / seconds,
        };
        let joins = &outcome.measures.join;
        let started = outcome.clock.real_start().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Report {
            format: FORMAT,
            server: service.name.clone(),
            version: service.version.clone(),
            address: service.address.to_string(),
            placement: service.placement.clone(),
            scenario: scenario.clone(),
            machine: Machine::this(),
            started_unix_s: started,
            srtp_profile: outcome.profile.to_owned(),
            sockets,
            notes: notes(service, sockets),
            seconds,
            participants: outcome.participants,
            sent: rate(Flow { packets: totals.sent_packets, bytes: totals.sent_bytes }),
            received: rate(totals.received),
            received_audio: rate(totals.received_audio),
            repairs: rate(totals.repairs),
            probes: rate(totals.probes),
            unknown: rate(totals.unknown),
            datagrams: rate(totals.datagrams),
            quality: Quality {
                streams: streams.streams,
                silent_streams: streams.silent,
                stalled_streams: outcome.stalled,
                expected_packets: streams.expected,
                lost_packets: streams.lost(),
                loss: share(streams.lost(), streams.expected),
                loss_before_repair: share(streams.lost_at_first(), streams.expected),
                duplicates: streams.counts.duplicates,
                reordered: streams.counts.reordered,
                repaired: streams.counts.repaired,
                frames: streams.counts.frames,
                freezes: streams.counts.freezes,
                frozen_s: streams.counts.frozen_ns as f64 / 1e9,
                forged: totals.forged,
                key_frames_asked: totals.key_frames_asked,
                failures: totals.failed,
            },
            forward_ms: Distribution::of(&outcome.measures.forward),
            join_ms: JoinTimes {
                joined: outcome.joined,
                failed: outcome.join_failures,
                signaling: Distribution::of(&joins.signaling),
                ice: Distribution::of(&joins.ice),
                dtls: Distribution::of(&joins.dtls),
                first_media: Distribution::of(&joins.first_media),
                first_key_frame: Distribution::of(&joins.first_key_frame),
            },
            cost: outcome.server.map(|usage| Cost {
                cpu_s: usage.running_s,
                user_s: usage.user_s,
                system_s: usage.system_s,
                cores: usage.running_s / seconds,
                cpu_us_per_packet: match totals.received.packets {
                    0 => 0.0,
                    packets => usage.running_s * 1e6 / packets as f64,
                },
                resident_start_bytes: outcome.server_resident_at_start,
                resident_bytes: usage.resident_bytes,
                peak_bytes: usage.peak_bytes,
                threads: usage.threads,
            }),
            generator: Generator {
                cores: outcome.own.running_s / seconds,
                lag_ms: Distribution::of(&outcome.measures.lag),
                opened_packets: totals.opened,
                packets_per_call: share(totals.datagrams.packets, totals.receive_calls),
                send_failures: totals.send_failures,
            },
            timeline: outcome.measures.seconds.clone(),
            errors: outcome.measures.errors.clone(),
        }
    }

    pub fn load(path: &Path) -> anyhow::Result<Report> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is not a report of this load test", path.display()))
    }

    /// Writes `<base>.json`, `<base>.html` and, with the histograms at hand, `<base>.hlog`; returns their paths.
    pub fn write(&self, base: &Path, outcome: &Outcome) -> anyhow::Result<Vec<PathBuf>> {
        if let Some(folder) = base.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let put = |extension: &str, bytes: &[u8]| {
            let path = PathBuf::from(format!("{}.{extension}", base.display()));
            std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
            anyhow::Ok(path)
        };
        Ok(vec![
            put("json", serde_json::to_string_pretty(self)?.as_bytes())?,
            put("html", html::page(std::slice::from_ref(self)).as_bytes())?,
            put("hlog", &hlog::log(outcome)?)?,
        ])
    }

    /// Why a run should not be believed, if there is a reason.
    pub fn doubts(&self) -> Vec<String> {
        let mut doubts = self.errors.clone();
        if self.generator.is_late() {
            doubts.push(format!(
                "the load test was late itself (p99 {:.1} ms): give it a core of its own or less load",
                self.generator.lag_ms.p99
            ));
        }
        if self.quality.silent_streams > 0 {
            doubts.push(format!("{} pictures never came", self.quality.silent_streams));
        }
        if self.quality.stalled_streams > 0 {
            doubts.push(format!("{} pictures stood still when the measurement ended", self.quality.stalled_streams));
        }
        if self.quality.forged > 0 {
            doubts.push(format!("{} packets did not authenticate", self.quality.forged));
        }
        doubts
    }
}

const WITH_GRO: &str = "clients receive with UDP GRO: loopback hands a server's GSO message over whole, so cutting it \
    into packets costs the server nothing, as where a network device cuts it (--no-gro has the kernel cut it)";
const WITHOUT_GRO: &str = "clients receive without UDP GRO: the kernel cuts a server's GSO messages into packets on the \
    server's CPU time, as where the network device cannot cut them";

fn notes(service: &Service, sockets: ClientSockets) -> Vec<String> {
    let on_loopback = service.address.ip().is_loopback();
    let gro = if sockets.gro { WITH_GRO } else { WITHOUT_GRO };
    on_loopback.then(|| gro.to_owned()).into_iter().collect()
}

impl Generator {
    /// Whether latencies tell more of the load test than of the server.
    pub fn is_late(&self) -> bool {
        const LATE_MS: f64 = 2.0;
        self.lag_ms.p99 > LATE_MS
    }
}

impl Distribution {
    /// Of a histogram in nanoseconds.
    pub fn of(histogram: &Histogram<u64>) -> Distribution {
        if histogram.is_empty() {
            return Distribution::default();
        }
        let ms = |nanos: u64| nanos as f64 / 1e6;
        let at = |quantile: f64| ms(histogram.value_at_quantile(quantile));
        let curve =
            histogram.iter_quantiles(2).map(|step| (step.quantile_iterated_to() * 100.0, ms(step.value_iterated_to())));
        Distribution {
            count: histogram.len(),
            mean: histogram.mean() / 1e6,
            min: ms(histogram.min()),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: ms(histogram.max()),
            curve: curve.collect(),
        }
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub fn sample() -> Report {
        let scenario = Scenario::parse("name = 'sample <1>'\nrooms = 2\nparticipants = 3\n[camera]\n").unwrap();
        let mut histogram = crate::measure::histogram();
        (1..=1000u64).for_each(|n| crate::measure::record(&mut histogram, n * 10_000));
        let second = Second { at_s: 1.0, measured: true, received_packets: 900, p99_ms: 2.5, ..Second::default() };
        Report {
            format: FORMAT,
            server: "ringside".into(),
            version: "ringside 0.1.0".into(),
            address: "127.0.0.1:8100".into(),
            placement: "server on core 0, load on core 1".into(),
            scenario,
            machine: Machine { cpu: "a processor".into(), cores: 2, ..Machine::default() },
            started_unix_s: 1_700_000_000,
            srtp_profile: "AEAD_AES_256_GCM".into(),
            sockets: ClientSockets::default(),
            notes: vec![WITH_GRO.into()],
            seconds: 10.0,
            participants: 6,
            sent: Rate { packets: 1000, bytes: 100_000, packets_per_second: 100.0, bits_per_second: 80_000.0 },
            received: Rate { packets: 2000, bytes: 200_000, packets_per_second: 200.0, bits_per_second: 160_000.0 },
            received_audio: Rate::default(),
            repairs: Rate { packets: 7, ..Rate::default() },
            probes: Rate::default(),
            unknown: Rate::default(),
            datagrams: Rate { packets: 2100, bytes: 205_000, packets_per_second: 210.0, bits_per_second: 164_000.0 },
            quality: Quality {
                streams: 6,
                expected_packets: 2001,
                lost_packets: 1,
                loss: 1.0 / 2001.0,
                ..Quality::default()
            },
            forward_ms: Distribution::of(&histogram),
            join_ms: JoinTimes { joined: 6, ..JoinTimes::default() },
            cost: Some(Cost { cpu_s: 0.01, cores: 0.001, cpu_us_per_packet: 5.0, ..Cost::default() }),
            generator: Generator::default(),
            timeline: vec![second, Second { at_s: 2.0, ..second }],
            errors: vec![],
        }
    }

    #[test]
    fn a_report_is_the_same_after_writing_and_reading() {
        let report = sample();
        let text = serde_json::to_string(&report).unwrap();
        let back: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_value(&back).unwrap(), serde_json::to_value(&report).unwrap());
        assert_eq!(back.forward_ms, report.forward_ms);
    }

    #[test]
    fn percentiles_of_a_known_distribution_are_right_to_three_digits() {
        let distribution = sample().forward_ms;
        assert_eq!(distribution.count, 1000);
        for (value, expected) in [(distribution.p50, 5.0), (distribution.p99, 9.9), (distribution.max, 10.0)] {
            assert!((value - expected).abs() <= expected * 0.002, "{value} is not {expected}");
        }
        assert!(distribution.curve.windows(2).all(|pair| pair[0].1 <= pair[1].1));
    }

    #[test]
    fn a_late_generator_is_a_reason_to_doubt() {
        let mut report = sample();
        assert!(report.doubts().is_empty());
        report.generator.lag_ms.p99 = 30.0;
        assert_eq!(report.doubts().len(), 1);
    }

    #[test]
    fn a_picture_that_stopped_is_a_reason_to_doubt() {
        let mut report = sample();
        report.quality.stalled_streams = 49;
        assert_eq!(report.doubts(), ["49 pictures stood still when the measurement ended"]);
    }
}
