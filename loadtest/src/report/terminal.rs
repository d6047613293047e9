//! A run in the terminal: one live line while it goes, a summary at its end.

use std::fmt::Write;

use super::{Distribution, Report};
use crate::measure::{Second, Totals};
use crate::swarm::Phase;

/// The line that is rewritten each second.
pub fn live(second: &Second, phase: Phase, totals: &Totals) -> String {
    let phase = match phase {
        Phase::Joining => "joining",
        Phase::WarmUp => "warming up",
        Phase::Measuring => "measuring",
        Phase::Draining => "draining",
    };
    let mut line = format!(
        "{:>6.0} s  {phase:<10}  {} people  {} packets/s in  {} out  {:.0} Mbit/s  {} lost  {} freezes  p50 {:.2} ms  p99 {:.2} ms  server {:.2} cores  load {:.2}",
        second.at_s,
        second.participants,
        grouped(second.sent_packets),
        grouped(second.received_packets),
        second.received_bits as f64 / 1e6,
        second.lost_packets,
        second.freezes,
        second.p50_ms,
        second.p99_ms,
        second.server_cores,
        second.own_cores,
    );
    if totals.failed > 0 {
        let _ = write!(line, "  {} failures", totals.failed);
    }
    line
}

pub fn summary(report: &Report) -> String {
    let mut text = String::new();
    let scenario = &report.scenario;
    let q = &report.quality;
    let how = [&report.server, &report.srtp_profile, &report.placement];
    let how: Vec<&str> = how.into_iter().map(String::as_str).filter(|text| !text.is_empty()).collect();
    let _ = writeln!(
        text,
        "{}  {} rooms x {} participants, {:.0} s, {}",
        scenario.name,
        scenario.rooms,
        scenario.participants,
        report.seconds,
        how.join(", ")
    );
    let _ = writeln!(
        text,
        "  packets      {} /s to the server, {} /s from it ({:.1} Mbit/s)",
        grouped(report.sent.packets_per_second as u64),
        grouped(report.received.packets_per_second as u64),
        report.received.bits_per_second / 1e6
    );
    let _ = writeln!(
        text,
        "  loss         {:.4} % ({} of {}), {:.4} % before repair ({} repaired), {} duplicates, {} reordered",
        q.loss * 100.0,
        q.lost_packets,
        q.expected_packets,
        q.loss_before_repair * 100.0,
        q.repaired,
        q.duplicates,
        q.reordered
    );
    let beside =
        [("repairs", report.repairs), ("probes and fillers", report.probes), ("of unknown streams", report.unknown)];
    let beside: Vec<String> = beside
        .iter()
        .filter(|(_, rate)| rate.packets > 0)
        .map(|(what, rate)| format!("{:.0} /s {what}", rate.packets_per_second))
        .collect();
    if !beside.is_empty() {
        let _ = writeln!(text, "  beside       {}, not counted as forwarded", beside.join(", "));
    }
    let _ = writeln!(text, "  video        {} frames, {} freezes ({:.1} s)", q.frames, q.freezes, q.frozen_s);
    let _ = writeln!(text, "  forwarding   {}", distribution(&report.forward_ms));
    let join = &report.join_ms;
    let _ = writeln!(text, "  joins        {} joined, {} failed", join.joined, join.failed);
    for (name, one) in [
        ("signaling", &join.signaling),
        ("ice", &join.ice),
        ("dtls", &join.dtls),
        ("media", &join.first_media),
        ("key frame", &join.first_key_frame),
    ] {
        let _ = writeln!(text, "    {name:<10} {}", distribution(one));
    }
    match &report.cost {
        Some(cost) => {
            let _ = writeln!(
                text,
                "  server       {:.2} us of CPU per packet, {} ({:.0} % user), {:.1} MiB, {:.1} at the start (peak {:.1}), {} threads",
                cost.cpu_us_per_packet,
                cores(cost.cores),
                100.0 * cost.user_s / (cost.user_s + cost.system_s).max(1e-9),
                mib(cost.resident_bytes),
                mib(cost.resident_start_bytes),
                mib(cost.peak_bytes),
                cost.threads
            );
        }
        None => text.push_str("  server       not on this machine: its cost was not measured\n"),
    }
    let _ = writeln!(
        text,
        "  load test    {:.2} cores, late by p99 {:.2} ms, {:.1} packets per receive",
        report.generator.cores, report.generator.lag_ms.p99, report.generator.packets_per_call
    );
    for note in &report.notes {
        let _ = writeln!(text, "  note         {note}");
    }
    for doubt in report.doubts() {
        let _ = writeln!(text, "  doubt        {doubt}");
    }
    text
}

fn distribution(one: &Distribution) -> String {
    if one.count == 0 {
        return "nothing measured".into();
    }
    format!(
        "p50 {:.2} ms  p90 {:.2}  p99 {:.2}  p99.9 {:.2}  max {:.2}  ({} samples)",
        one.p50,
        one.p90,
        one.p99,
        one.p999,
        one.max,
        grouped(one.count)
    )
}

/// A share of a core in percent, with the digits that an idle server needs.
fn cores(cores: f64) -> String {
    match cores {
        cores if cores < 0.1 => format!("{:.4} % of a core", cores * 100.0),
        cores => format!("{cores:.2} cores"),
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Digits in groups of three.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_names_what_a_planner_asks_for() {
        let text = summary(&super::super::tests::sample());
        for needed in
            ["us of CPU per packet", "p99", "loss", "before repair", "repairs", "joins", "AEAD_AES_256_GCM", "UDP GRO"]
        {
            assert!(text.contains(needed), "{needed} is missing in\n{text}");
        }
    }

    #[test]
    fn an_idle_servers_share_has_digits() {
        assert_eq!([0.000_012, 0.25].map(cores), ["0.0012 % of a core", "0.25 cores"]);
    }

    #[test]
    fn digits_are_grouped_in_threes() {
        assert_eq!([0, 12, 1234, 1_234_567].map(grouped), ["0", "12", "1 234", "1 234 567"]);
    }
}
