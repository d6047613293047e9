//! `/metrics`: everything that workers and the control plane count, in the text format of Prometheus.
//!
//! Made anew for each scrape from the numbers themselves, so that nothing is counted twice in the program.

use std::fmt::Error;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::shard::stats::{Distribution, WorkerStats};
use crate::signaling::counters::Counters;
use crate::signaling::error::ErrorCode;
use crate::signaling::message::METHODS;
use crate::signaling::session::CloseReason;

/// What a scrape is made of.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub workers: Vec<WorkerStats>,
    pub counters: Counters,
    /// Rooms, peers, ... as the control plane knows them.
    pub totals: Vec<(&'static str, usize)>,
    pub connections: usize,
    pub draining: bool,
}

/// The content type that goes with [`text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub fn text(snapshot: Snapshot) -> Result<String, Error> {
    let mut registry = Registry::with_prefix("ringside");
    registry.register_collector(Box::new(Collector(snapshot)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Collector(Snapshot);

impl prometheus_client::collector::Collector for Collector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        self.control_plane(&mut Scrape { encoder: &mut encoder })?;
        self.workers(&mut Scrape { encoder: &mut encoder })
    }
}

impl Collector {
    fn control_plane(&self, scrape: &mut Scrape) -> Result<(), Error> {
        let Snapshot { counters, totals, connections, draining, .. } = &self.0;
        for (name, count) in totals {
            let help = "How many there are, as the control plane knows them";
            scrape.gauge(name, help, [(NO_LABELS, *count as f64)])?;
        }
        scrape.gauge("signaling_connections", "Open signaling connections", [(NO_LABELS, *connections as f64)])?;
        scrape.gauge("draining", "1 while the server is going down", [(NO_LABELS, f64::from(u8::from(*draining)))])?;
        let opened = "Signaling connections that asked to enter a room";
        scrape.counter("signaling_connections_opened", opened, [(NO_LABELS, counters.connections_opened)])?;
        let resumed = "Peers that were taken over by another connection";
        scrape.counter("signaling_connections_resumed", resumed, [(NO_LABELS, counters.connections_resumed)])?;
        let closed = CloseReason::LABELS.into_iter().zip(counters.closed).map(|(reason, n)| ([("reason", reason)], n));
        scrape.counter("signaling_connections_closed", "Signaling connections that the server ended", closed)?;
        let unknown = ([("method", "unknown")], counters.unknown_requests);
        let requests = METHODS.into_iter().zip(counters.requests).map(|(method, n)| ([("method", method)], n));
        scrape.counter("signaling_requests", "Requests of peers", requests.chain([unknown]))?;
        let errors = ErrorCode::ALL.into_iter().zip(counters.errors).map(|(code, n)| ([("code", code.as_str())], n));
        scrape.counter("signaling_errors", "Requests and connections that were refused", errors)?;
        scrape.counter("signaling_notifications", "Notifications to peers", [(NO_LABELS, counters.notifications)])?;
        let timeouts = "Requests that a worker did not answer in time";
        scrape.counter("signaling_reply_timeouts", timeouts, [(NO_LABELS, counters.reply_timeouts)])
    }

    fn workers(&self, scrape: &mut Scrape) -> Result<(), Error> {
        type Count = (&'static str, &'static str, fn(&WorkerStats) -> u64);
        const COUNTERS: [Count; 19] = [
            ("packets_received", "Datagrams received", |w| w.packets_received),
            ("bytes_received", "Bytes of datagrams received", |w| w.bytes_received),
            ("packets_sent", "Datagrams sent", |w| w.packets_sent),
            ("bytes_sent", "Bytes of datagrams sent", |w| w.bytes_sent),
            ("messages_sent", "Messages handed to the kernel, each one or more datagrams", |w| w.messages_sent),
            ("padding_packets_sent", "Datagrams of padding among those sent, of probes for more bandwidth", |w| {
                w.padding_packets_sent
            }),
            ("padding_bytes_sent", "Bytes of these datagrams", |w| w.padding_bytes_sent),
            ("ticks", "Rounds of a worker's loop", |w| w.ticks),
            ("key_frames_asked", "Key frames that receivers needed", |w| w.repairs.key_frames_asked),
            ("key_frames_coalesced", "Of these, the ones that a request under way served", |w| {
                w.repairs.key_frames_coalesced
            }),
            ("key_frame_requests_sent", "Requests for key frames to senders (PLI, FIR)", |w| {
                w.repairs.key_frame_requests_sent
            }),
            ("key_frames_received", "Key frames that came, of each layer", |w| w.repairs.key_frames_received),
            ("uplink_packets_asked", "Packets missing from senders and asked for, each time", |w| {
                w.repairs.uplink_packets_asked
            }),
            ("uplink_packets_repaired", "Missing packets that senders sent again", |w| {
                w.repairs.uplink_packets_repaired
            }),
            ("uplink_packets_duplicated", "Packets that had come before", |w| w.repairs.uplink_packets_duplicated),
            ("downlink_packets_asked", "Packets that receivers asked for again", |w| w.repairs.downlink_packets_asked),
            ("downlink_packets_resent", "Packets that receivers were sent again", |w| {
                w.repairs.downlink_packets_resent
            }),
            ("invented_feedback", "Feedback of receivers about packets that were never sent", |w| {
                w.repairs.invented_feedback
            }),
            ("history_packets_cut_short", "Packets forgotten at the bound while they could still be asked for", |w| {
                w.history_packets_cut_short
            }),
        ];
        for (name, help, value) in COUNTERS {
            scrape.counter(&format!("worker_{name}"), help, self.rows().map(|(n, w)| ([("worker", n)], value(w))))?;
        }
        type Gauge = (&'static str, &'static str, fn(&WorkerStats) -> f64);
        const GAUGES: [Gauge; 10] = [
            ("rooms", "Rooms of a worker", |w| w.rooms as f64),
            ("peers", "Peers of a worker", |w| w.peers as f64),
            ("transports", "Transports of a worker", |w| w.transports as f64),
            ("producers", "Producers of a worker", |w| w.producers as f64),
            ("consumers", "Consumers of a worker", |w| w.consumers as f64),
            ("history_bytes", "Memory in use for packets that can be asked for again", |w| w.history_bytes as f64),
            ("busy_ratio", "CPU time of a worker's thread over the last second, as a share of it", |w| w.busy),
            ("overloaded", "1 while a worker takes nobody new", |w| f64::from(u8::from(w.overloaded))),
            ("forwarding_recent_p99_seconds", "99th percentile of the forwarding latency over the last second", |w| {
                w.recent_p99_us as f64 / 1e6
            }),
            ("tick_recent_p99_seconds", "99th percentile of the rounds of a worker's loop over the last second", |w| {
                w.recent_tick_p99_us as f64 / 1e6
            }),
        ];
        for (name, help, value) in GAUGES {
            scrape.gauge(&format!("worker_{name}"), help, self.rows().map(|(n, w)| ([("worker", n)], value(w))))?;
        }
        let discards = self.rows().flat_map(|(worker, stats)| {
            stats
                .discards
                .iter()
                .map(move |(reason, n)| ([("worker", worker.clone()), ("reason", (*reason).to_owned())], *n))
        });
        scrape.counter("worker_discards", "Packets that went no further, by the reason", discards)?;
        self.distributions(scrape)
    }

    /// Since each worker's start, as histograms: rates, sums over workers and quantiles are the monitoring's to make.
    fn distributions(&self, scrape: &mut Scrape) -> Result<(), Error> {
        type Row = (&'static str, &'static str, f64, fn(&WorkerStats) -> &Distribution);
        const ROWS: [Row; 4] = [
            ("forwarding_seconds", "Kernel receive to submitted send of a frame or sound", 1e6, |w| &w.forwarding_us),
            ("tick_seconds", "Length of a round of a worker's loop", 1e6, |w| &w.tick_us),
            ("batch_packets", "Datagrams that one round of a worker's loop took", 1.0, |w| &w.batch_packets),
            ("run_segments", "Datagrams in one message to the kernel, one in sixteen", 1.0, |w| &w.run_segments),
        ];
        for (name, help, divisor, of) in ROWS {
            let rows = self.rows().map(|(worker, stats)| ([("worker", worker)], of(stats)));
            scrape.histogram(&format!("worker_{name}"), help, divisor, rows)?;
        }
        Ok(())
    }

    fn rows(&self) -> impl Iterator<Item = (String, &WorkerStats)> {
        self.0.workers.iter().map(|worker| (worker.worker.to_string(), worker))
    }
}

struct Scrape<'a, 'b> {
    encoder: &'a mut DescriptorEncoder<'b>,
}

/// Of a metric that is there only once.
const NO_LABELS: [(&str, &str); 0] = [];

impl Scrape<'_, '_> {
    fn counter<V: AsRef<str>, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = ([(&'static str, V); N], u64)>,
    ) -> Result<(), Error> {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in rows {
            let labels = labels.each_ref().map(|(name, value)| (*name, value.as_ref()));
            match N {
                0 => metric.encode_counter::<NoLabelSet, _, u64>(&value, None)?,
                _ => metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?,
            }
        }
        Ok(())
    }

    fn gauge<V: AsRef<str>, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = ([(&'static str, V); N], f64)>,
    ) -> Result<(), Error> {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in rows {
            let labels = labels.each_ref().map(|(name, value)| (*name, value.as_ref()));
            match N {
                0 => metric.encode_gauge(&value)?,
                _ => metric.encode_family(&labels)?.encode_gauge(&value)?,
            }
        }
        Ok(())
    }

    /// Values are divided by `divisor`, to the unit of the metric.
    fn histogram<'d, V: AsRef<str>, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        divisor: f64,
        rows: impl IntoIterator<Item = ([(&'static str, V); N], &'d Distribution)>,
    ) -> Result<(), Error> {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, of) in rows {
            let labels = labels.each_ref().map(|(name, value)| (*name, value.as_ref()));
            let bound = |bound: u64| if bound == u64::MAX { f64::INFINITY } else { bound as f64 / divisor };
            let buckets: Vec<(f64, u64)> = of.buckets.iter().map(|(upper, count)| (bound(*upper), *count)).collect();
            let sum = of.sum as f64 / divisor;
            metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, of.count, &buckets, None)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::stats::RepairStats;

    #[test]
    fn every_counter_and_every_discard_is_in_the_text() {
        let mut counters = Counters { connections_opened: 5, ..Counters::default() };
        counters.error(ErrorCode::RoomFull);
        counters.close(CloseReason::Flood);
        counters.request(Some(0));
        let worker = WorkerStats {
            worker: 1,
            packets_received: 42,
            busy: 0.25,
            repairs: RepairStats { key_frames_asked: 50, key_frames_coalesced: 48, ..RepairStats::default() },
            discards: vec![("oversized", 3), ("unknown-source", 0)],
            overloaded: true,
            recent_p99_us: 1_250,
            recent_tick_p99_us: 80,
            forwarding_us: Distribution {
                count: 9,
                sum: 8_100,
                buckets: vec![(500, 3), (1_500, 5), (u64::MAX, 1)],
                ..Distribution::default()
            },
            run_segments: Distribution {
                count: 2,
                sum: 8,
                buckets: vec![(4, 2), (u64::MAX, 0)],
                ..Distribution::default()
            },
            ..WorkerStats::default()
        };
        let snapshot = Snapshot {
            workers: vec![worker],
            counters,
            totals: vec![("rooms", 2), ("peers", 7)],
            connections: 7,
            draining: false,
        };
        let text = text(snapshot).unwrap();
        for line in [
            "ringside_rooms 2.0",
            "ringside_peers 7.0",
            "ringside_signaling_connections_opened_total 5",
            "ringside_signaling_connections_closed_total{reason=\"rate-limited\"} 1",
            "ringside_signaling_errors_total{code=\"room-full\"} 1",
            "ringside_signaling_errors_total{code=\"internal\"} 0",
            "ringside_signaling_requests_total{method=\"get-rtp-capabilities\"} 1",
            "ringside_worker_packets_received_total{worker=\"1\"} 42",
            "ringside_worker_key_frames_asked_total{worker=\"1\"} 50",
            "ringside_worker_key_frames_coalesced_total{worker=\"1\"} 48",
            "ringside_worker_key_frame_requests_sent_total{worker=\"1\"} 0",
            "ringside_worker_downlink_packets_resent_total{worker=\"1\"} 0",
            "ringside_worker_padding_bytes_sent_total{worker=\"1\"} 0",
            "ringside_worker_busy_ratio{worker=\"1\"} 0.25",
            "ringside_worker_discards_total{worker=\"1\",reason=\"oversized\"} 3",
            "ringside_worker_discards_total{worker=\"1\",reason=\"unknown-source\"} 0",
            "ringside_worker_forwarding_recent_p99_seconds{worker=\"1\"} 0.00125",
            "ringside_worker_overloaded{worker=\"1\"} 1.0",
            "ringside_worker_tick_recent_p99_seconds{worker=\"1\"} 0.00008",
            "# TYPE ringside_worker_forwarding_seconds histogram",
            "ringside_worker_forwarding_seconds_sum{worker=\"1\"} 0.0081",
            "ringside_worker_forwarding_seconds_count{worker=\"1\"} 9",
            "ringside_worker_forwarding_seconds_bucket{le=\"0.0005\",worker=\"1\"} 3",
            "ringside_worker_forwarding_seconds_bucket{le=\"0.0015\",worker=\"1\"} 8",
            "ringside_worker_forwarding_seconds_bucket{le=\"+Inf\",worker=\"1\"} 9",
            "ringside_worker_run_segments_sum{worker=\"1\"} 8.0",
            "ringside_worker_run_segments_bucket{le=\"4.0\",worker=\"1\"} 2",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn every_metric_that_the_readme_names_is_there() {
        let readme = include_str!("../../README.md");
        let workers = vec![WorkerStats { worker: 1, discards: vec![("oversized", 3)], ..WorkerStats::default() }];
        let text = text(Snapshot { workers, ..Snapshot::default() }).unwrap();
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let words = readme.split(|c: char| !is_name(c)).filter(|word| word.starts_with("ringside_"));
        let mut named = 0;
        for word in words.filter(|word| word.len() > "ringside_".len()) {
            let family = ["_bucket", "_sum", "_count", "_total"].iter().find_map(|end| word.strip_suffix(end));
            let heading = format!("# TYPE {} ", family.unwrap_or(word));
            assert!(text.contains(&heading), "{word}");
            named += 1;
        }
        assert!(named >= 5, "{named}");
    }
}
