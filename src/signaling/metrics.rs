//! `/metrics`: everything that workers and the control plane count, in the text format of Prometheus.
//!
//! Made anew for each scrape from the numbers themselves, so that nothing is counted twice in the program.

use std::fmt::Error;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::shard::stats::{Percentiles, WorkerStats};
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
        const COUNTERS: [Count; 6] = [
            ("packets_received", "Datagrams received", |w| w.packets_received),
            ("bytes_received", "Bytes of datagrams received", |w| w.bytes_received),
            ("packets_sent", "Datagrams sent", |w| w.packets_sent),
            ("bytes_sent", "Bytes of datagrams sent", |w| w.bytes_sent),
            ("messages_sent", "Messages handed to the kernel, each one or more datagrams", |w| w.messages_sent),
            ("ticks", "Rounds of a worker's loop", |w| w.ticks),
        ];
        for (name, help, value) in COUNTERS {
            scrape.counter(&format!("worker_{name}"), help, self.rows().map(|(n, w)| ([("worker", n)], value(w))))?;
        }
        type Gauge = (&'static str, &'static str, fn(&WorkerStats) -> f64);
        const GAUGES: [Gauge; 7] = [
            ("rooms", "Rooms of a worker", |w| w.rooms as f64),
            ("peers", "Peers of a worker", |w| w.peers as f64),
            ("transports", "Transports of a worker", |w| w.transports as f64),
            ("producers", "Producers of a worker", |w| w.producers as f64),
            ("consumers", "Consumers of a worker", |w| w.consumers as f64),
            ("busy_ratio", "Share of the last second that a worker did not wait", |w| w.busy),
            ("forwarding_recent_p99_seconds", "99th percentile of the forwarding latency over the last second", |w| {
                w.recent_p99_us as f64 / 1e6
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
        self.percentiles(scrape)
    }

    /// Quantiles since the worker's start, as gauges with the quantile as a label.
    fn percentiles(&self, scrape: &mut Scrape) -> Result<(), Error> {
        type Row = (&'static str, &'static str, f64, fn(&WorkerStats) -> &Percentiles);
        const ROWS: [Row; 4] = [
            ("forwarding_seconds", "Kernel receive to submitted send, sampled", 1e6, |w| &w.forwarding_us),
            ("tick_seconds", "Length of a round of a worker's loop", 1e6, |w| &w.tick_us),
            ("batch_packets", "Datagrams that one round found", 1.0, |w| &w.batch_packets),
            ("run_segments", "Datagrams in one message to the kernel", 1.0, |w| &w.run_segments),
        ];
        for (name, help, divisor, of) in ROWS {
            let quantiles = self.rows().flat_map(|(worker, stats)| {
                let p = of(stats);
                [("0.5", p.p50), ("0.9", p.p90), ("0.99", p.p99), ("0.999", p.p999), ("1", p.max)].map(
                    |(quantile, value)| {
                        ([("worker", worker.clone()), ("quantile", quantile.to_owned())], value as f64 / divisor)
                    },
                )
            });
            scrape.gauge(&format!("worker_{name}"), help, quantiles)?;
            let counts = self.rows().map(|(worker, stats)| ([("worker", worker)], of(stats).count));
            scrape.counter(&format!("worker_{name}_samples"), "Samples behind the quantiles", counts)?;
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
}

#[cfg(test)]
mod tests {
    use super::*;

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
            discards: vec![("oversized", 3), ("unknown-source", 0)],
            forwarding_us: Percentiles { count: 9, p99: 1500, ..Percentiles::default() },
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
            "ringside_worker_busy_ratio{worker=\"1\"} 0.25",
            "ringside_worker_discards_total{worker=\"1\",reason=\"oversized\"} 3",
            "ringside_worker_discards_total{worker=\"1\",reason=\"unknown-source\"} 0",
            "ringside_worker_forwarding_seconds{worker=\"1\",quantile=\"0.99\"} 0.0015",
            "ringside_worker_forwarding_seconds_samples_total{worker=\"1\"} 9",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
