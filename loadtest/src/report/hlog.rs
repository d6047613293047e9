//! The latencies as an HdrHistogram log (V2, deflated): one line per second with tag `forward`, one line for each phase
//! of joining. Any HdrHistogram tool plots it.

use std::time::Duration;

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::swarm::Outcome;

pub fn log(outcome: &Outcome) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut writer = IntervalLogWriterBuilder::new()
        .add_comment("ringside-loadtest: nanoseconds; \"forward\" from when a packet was due to its arrival, the others from when a participant was due to join")
        .with_start_time(outcome.clock.real_start())
        .with_max_value_divisor(1e6)
        .begin_log_with(&mut bytes, &mut serializer)?;
    let second = Duration::from_secs(1);
    for (end, histogram) in outcome.measures.intervals() {
        let start = Duration::from_nanos(end).saturating_sub(second);
        writer.write_histogram(&histogram, start, second, Tag::new("forward")).map_err(log_error)?;
    }
    let join = &outcome.measures.join;
    let phases = [
        ("signaling", &join.signaling),
        ("ice", &join.ice),
        ("dtls", &join.dtls),
        ("first-media", &join.first_media),
        ("first-key-frame", &join.first_key_frame),
    ];
    let all = Duration::from_nanos(outcome.measured_from) + Duration::from_secs_f64(outcome.seconds);
    for (name, histogram) in phases.into_iter().filter(|(_, histogram)| !histogram.is_empty()) {
        writer.write_histogram(histogram, Duration::ZERO, all, Tag::new(name)).map_err(log_error)?;
    }
    drop(writer);
    Ok(bytes)
}

fn log_error(error: impl std::fmt::Debug) -> anyhow::Error {
    anyhow::anyhow!("histogram log: {error:?}")
}
