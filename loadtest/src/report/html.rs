//! One self-contained page of one or several runs: percentile plot, timeline, numbers, the machine. No script, no
//! request to anywhere.

use std::fmt::Write;

use super::{Distribution, Report};
use crate::compare::Comparison;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const BOTTOM: f64 = 36.0;
const TOP: f64 = 12.0;
const COLOURS: [&str; 6] = ["#0b6e99", "#c2410c", "#4d7c0f", "#7e22ce", "#be123c", "#57534e"];

pub fn page(reports: &[Report]) -> String {
    let title = reports.first().map_or("load test", |report| report.scenario.name.as_str());
    let mut body = String::new();
    let _ = write!(body, "<h1>{}</h1>", escaped(title));
    if let Some(report) = reports.first() {
        let _ = write!(body, "<p>{}</p>", escaped(&report.scenario.description));
    }
    body.push_str(&table(reports));
    body.push_str(&in_full(reports));
    whole(title, &body)
}

/// Latencies of all in one plot, then each by itself, then the machine.
fn in_full(reports: &[Report]) -> String {
    let mut body = String::new();
    body.push_str("<h2>Forwarding latency</h2><p>From the moment at which a packet was due to be sent to its arrival at a receiver's socket.</p>");
    let curves: Vec<_> = reports.iter().map(|report| (report.server.clone(), &report.forward_ms)).collect();
    body.push_str(&percentiles(&curves));
    for report in reports {
        body.push_str(&one_run(report));
    }
    if let Some(report) = reports.first() {
        body.push_str(&machine(report));
    }
    body
}

fn whole(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>{}</title><style>{STYLE}</style><body>{body}</body></html>",
        escaped(title)
    )
}

/// Of several servers: the ratios, every run in a line, and the first run of each in full.
pub fn comparison(found: &Comparison) -> String {
    let mut body =
        format!("<h1>{}</h1><p>{}</p><h2>Ratios</h2><ul>", escaped(&found.scenario), escaped(&found.conditions));
    for line in found.lines() {
        let _ = write!(body, "<li>{}</li>", escaped(&line));
    }
    body.push_str("</ul><h2>Servers</h2><ul>");
    for server in &found.servers {
        let _ = write!(body, "<li>{}: {}", escaped(&server.name), escaped(&server.version));
        for knee in &server.knees {
            let _ = write!(body, "; knee at {}", escaped(&knee.in_words()));
        }
        for failure in &server.failures {
            let _ = write!(body, "; <span class=doubt>failed: {}</span>", escaped(failure));
        }
        body.push_str("</li>");
    }
    for absence in &found.absent {
        let _ = write!(body, "<li>{} is absent: {}</li>", escaped(&absence.name), escaped(&absence.why));
    }
    body.push_str("</ul><h2>All runs</h2>");
    let all: Vec<Report> = found.reports().cloned().collect();
    body.push_str(&table(&all));
    let first = found.servers.iter().filter_map(|server| server.runs.first());
    body.push_str(&in_full(&first.map(|run| run.report.clone()).collect::<Vec<_>>()));
    whole(&found.scenario, &body)
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1c1917}\
    table{border-collapse:collapse;margin:1rem 0}td,th{padding:.25rem .9rem .25rem 0;text-align:right;border-bottom:1px solid #e7e5e4}\
    td:first-child,th:first-child{text-align:left}svg{width:100%;height:auto;max-width:760px}text{font:12px system-ui,sans-serif;fill:#57534e}\
    .grid{stroke:#e7e5e4}pre{white-space:pre-wrap}.doubt{color:#b91c1c}h2{margin-top:2rem}";

fn table(reports: &[Report]) -> String {
    type Column = (&'static str, fn(&Report) -> String);
    let columns: [Column; 12] = [
        ("server", |r| escaped(&r.server)),
        ("packets/s out", |r| format!("{:.0}", r.received.packets_per_second)),
        ("Mbit/s out", |r| format!("{:.1}", r.received.bits_per_second / 1e6)),
        ("loss %", |r| format!("{:.4}", r.quality.loss * 100.0)),
        ("before repair", |r| format!("{:.4}", r.quality.loss_before_repair * 100.0)),
        ("p50 ms", |r| format!("{:.2}", r.forward_ms.p50)),
        ("p99 ms", |r| format!("{:.2}", r.forward_ms.p99)),
        ("max ms", |r| format!("{:.2}", r.forward_ms.max)),
        ("freezes", |r| r.quality.freezes.to_string()),
        ("CPU us/packet", |r| r.cost.map_or("-".into(), |c| format!("{:.2}", c.cpu_us_per_packet))),
        ("% of a core", |r| r.cost.map_or("-".into(), |c| format!("{:.4}", c.cores * 100.0))),
        ("peak MiB", |r| r.cost.map_or("-".into(), |c| format!("{:.1}", mib(c.peak_bytes)))),
    ];
    let mut out = String::from("<table><tr>");
    for (name, _) in &columns {
        let _ = write!(out, "<th>{name}</th>");
    }
    out.push_str("</tr>");
    for report in reports {
        out.push_str("<tr>");
        for (_, value) in &columns {
            let _ = write!(out, "<td>{}</td>", value(report));
        }
        out.push_str("</tr>");
    }
    out.push_str("</table>");
    out
}

fn one_run(report: &Report) -> String {
    let mut out = format!("<h2>{}</h2><p>{}</p>", escaped(&report.server), escaped(&report.version));
    for doubt in report.doubts() {
        let _ = write!(out, "<p class=doubt>{}</p>", escaped(&doubt));
    }
    out.push_str(&details(report));
    let line = |value: fn(&crate::measure::Second) -> f64| {
        report.timeline.iter().map(|second| (second.at_s, value(second))).collect::<Vec<_>>()
    };
    let measured = |value: fn(&crate::measure::Second) -> f64| {
        let seconds = report.timeline.iter().filter(|second| second.measured);
        seconds.map(|second| (second.at_s, value(second))).collect::<Vec<_>>()
    };
    for note in &report.notes {
        let _ = write!(out, "<p>{}</p>", escaped(note));
    }
    out.push_str("<p>Packets per second, from the server and to it</p>");
    out.push_str(&lines(&[
        ("from the server", line(|s| s.received_packets as f64)),
        ("to the server", line(|s| s.sent_packets as f64)),
    ]));
    out.push_str("<p>Lost packets and freezes of all receivers, each second</p>");
    out.push_str(&lines(&[
        ("lost packets", measured(|s| s.lost_packets as f64)),
        ("freezes", measured(|s| s.freezes as f64)),
    ]));
    out.push_str("<p>Forwarding latency, ms</p>");
    out.push_str(&lines(&[("p99", measured(|s| s.p99_ms)), ("p50", measured(|s| s.p50_ms))]));
    if report.cost.is_some() {
        out.push_str("<p>Cores in use</p>");
        out.push_str(&lines(&[("server", line(|s| s.server_cores)), ("load test", line(|s| s.own_cores))]));
        out.push_str("<p>Memory of the server, MiB</p>");
        out.push_str(&lines(&[("resident", line(|s| mib(s.server_resident_bytes)))]));
    }
    out.push_str("<p>Joining, from the moment at which a participant was due</p>");
    let join = &report.join_ms;
    out.push_str(&percentiles(&[
        ("transports made".to_owned(), &join.signaling),
        ("ICE".to_owned(), &join.ice),
        ("DTLS".to_owned(), &join.dtls),
        ("first media".to_owned(), &join.first_media),
        ("first key frame".to_owned(), &join.first_key_frame),
    ]));
    out
}

/// The numbers that have no plot.
fn details(report: &Report) -> String {
    let (q, join) = (&report.quality, &report.join_ms);
    let mut rows = vec![
        ("joined", join.joined.to_string()),
        ("joins failed", join.failed.to_string()),
        ("failures of any kind while measured", q.failures.to_string()),
        ("packets lost", format!("{} of {}, {} repaired", q.lost_packets, q.expected_packets, q.repaired)),
        ("duplicates", q.duplicates.to_string()),
        ("reordered", q.reordered.to_string()),
        ("frames", q.frames.to_string()),
        ("freezes", format!("{}, {:.1} s together", q.freezes, q.frozen_s)),
        ("pictures that never came", q.silent_streams.to_string()),
        ("pictures that stood still at the end", q.stalled_streams.to_string()),
        ("key frames asked for", q.key_frames_asked.to_string()),
        ("packets that came again on request", report.repairs.packets.to_string()),
        ("probes and fillers", report.probes.packets.to_string()),
        ("packets of unknown streams", report.unknown.packets.to_string()),
        ("load test late by, p99", format!("{:.2} ms", report.generator.lag_ms.p99)),
    ];
    if let Some(cost) = &report.cost {
        let memory = [cost.resident_start_bytes, cost.resident_bytes, cost.peak_bytes].map(mib);
        rows.extend([
            ("server's CPU time, user", format!("{:.2} s", cost.user_s)),
            ("server's CPU time, system", format!("{:.2} s", cost.system_s)),
            ("server's threads", cost.threads.to_string()),
            ("server's memory at start, end, most", memory.map(|mib| format!("{mib:.1}")).join(", ") + " MiB"),
        ]);
    }
    let rows: String = rows.iter().map(|(name, value)| format!("<tr><td>{name}</td><td>{value}</td></tr>")).collect();
    format!("<table>{rows}</table>")
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn machine(report: &Report) -> String {
    let machine = &report.machine;
    let settings = serde_json::to_string_pretty(&report.scenario).unwrap_or_default();
    format!(
        "<h2>Machine and scenario</h2><p>{}, {} cores, {:.1} GiB; Linux {}; {}. SRTP {}; {}.</p><pre>{}</pre>",
        escaped(&machine.cpu),
        machine.cores,
        machine.memory_bytes as f64 / f64::from(1 << 30),
        escaped(&machine.kernel),
        escaped(&machine.system),
        escaped(&report.srtp_profile),
        escaped(&report.placement),
        escaped(&settings)
    )
}

/// Percentiles on a scale of nines: 90, 99, 99.9 stand at equal distances.
fn percentiles(curves: &[(String, &Distribution)]) -> String {
    let nines = |percentile: f64| -(1.0 - (percentile / 100.0).min(0.99999)).log10();
    let series: Vec<(&str, Vec<(f64, f64)>)> = curves
        .iter()
        .filter(|(_, one)| one.count > 0)
        .map(|(name, one)| (name.as_str(), one.curve.iter().map(|(p, ms)| (nines(*p), *ms)).collect()))
        .collect();
    let ticks = [(0.0, "0 %"), (0.301, "50"), (1.0, "90"), (2.0, "99"), (3.0, "99.9"), (4.0, "99.99"), (5.0, "99.999")];
    plot(&series, &ticks.map(|(at, label)| (at, label.to_owned())), "ms")
}

fn lines(series: &[(&str, Vec<(f64, f64)>)]) -> String {
    let end = series.iter().flat_map(|(_, points)| points.iter().map(|(x, _)| *x)).fold(1.0, f64::max);
    let step = nice(end / 6.0);
    let ticks: Vec<_> =
        (0..=(end / step) as usize).map(|n| (n as f64 * step, format!("{:.0} s", n as f64 * step))).collect();
    plot(series, &ticks, "")
}

fn plot(series: &[(&str, Vec<(f64, f64)>)], x_ticks: &[(f64, String)], unit: &str) -> String {
    let points = || series.iter().flat_map(|(_, points)| points.iter());
    let x_max = points().map(|(x, _)| *x).fold(1e-9, f64::max);
    // Where everything is 0, a scale up to 1 shows that.
    let highest = Some(points().map(|(_, y)| *y).fold(0.0, f64::max)).filter(|highest| *highest > 0.0).unwrap_or(1.0);
    let step = nice(highest / 5.0);
    let y_max = (highest / step).ceil() * step;
    let x_of = |x: f64| LEFT + x / x_max * (WIDTH - LEFT - 12.0);
    let y_of = |y: f64| HEIGHT - BOTTOM - y / y_max * (HEIGHT - BOTTOM - TOP);
    let mut out = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=img>");
    for n in 0..=(y_max / step).round() as usize {
        let (value, y) = (n as f64 * step, y_of(n as f64 * step));
        let _ = write!(
            out,
            "<line class=grid x1={LEFT} x2={WIDTH} y1={y:.1} y2={y:.1} /><text x={:.1} y={:.1} text-anchor=end>{}{}</text>",
            LEFT - 6.0,
            y + 4.0,
            short(value),
            if unit.is_empty() { String::new() } else { format!(" {unit}") }
        );
    }
    for (at, label) in x_ticks.iter().filter(|(at, _)| *at <= x_max) {
        let _ = write!(out, "<text x={:.1} y={:.1} text-anchor=middle>{label}</text>", x_of(*at), HEIGHT - 14.0);
    }
    for (place, (name, points)) in series.iter().enumerate() {
        let colour = COLOURS[place % COLOURS.len()];
        let path: String = points.iter().map(|(x, y)| format!("{:.1},{:.1} ", x_of(*x), y_of(*y))).collect();
        let _ = write!(
            out,
            "<polyline fill=none stroke=\"{colour}\" stroke-width=2 points=\"{}\" /><text x={:.1} y={:.1} style=\"fill:{colour}\">{}</text>",
            path.trim_end(),
            LEFT + 12.0,
            TOP + 14.0 + 16.0 * place as f64,
            escaped(name)
        );
    }
    out.push_str("</svg>");
    out
}

/// 1, 2 or 5 times a power of ten, not below `rough`.
fn nice(rough: f64) -> f64 {
    let power = 10f64.powf(rough.max(1e-12).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| *step >= rough).unwrap_or(power * 10.0)
}

fn short(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{} M", v / 1e6),
        v if v >= 1e4 => format!("{} k", v / 1e3),
        v => format!("{}", (v * 1e6).round() / 1e6),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_asks_nobody_for_anything_and_says_who_was_measured() {
        let page = page(&[super::super::tests::sample()]);
        for needed in [
            "<svg",
            "a processor",
            "sample &lt;1&gt;",
            "ringside",
            "AEAD_AES_256_GCM",
            "UDP GRO",
            "joins failed",
            "freezes",
            "threads",
        ] {
            assert!(page.contains(needed), "{needed} is missing");
        }
        for forbidden in ["http://", "https://", "<script", "<1>"] {
            assert!(!page.contains(forbidden), "{forbidden} is in the page");
        }
    }

    #[test]
    fn a_page_of_a_comparison_has_ratios_versions_absent_peers_and_every_run() {
        let page = comparison(&crate::compare::tests::comparison());
        for needed in ["janus/ringside cpu per packet: 9.5", "ringside 1.2.3", "mediasoup is absent", "on loopback"] {
            assert!(page.contains(needed), "{needed} is missing");
        }
        let all_runs = page.split("<h2>All runs</h2>").nth(1).and_then(|rest| rest.split("</table>").next()).unwrap();
        assert_eq!(all_runs.matches("<tr>").count(), 1 + 6, "a line for each run");
    }

    #[test]
    fn a_plot_of_nothing_but_zeros_has_a_scale() {
        let plot = lines(&[("freezes", vec![(1.0, 0.0), (2.0, 0.0)])]);
        assert!(plot.contains(">1</text>") && plot.matches(">0</text>").count() == 1, "{plot}");
    }

    #[test]
    fn steps_of_a_scale_are_round() {
        assert_eq!([0.3, 7.0, 11.0, 2000.0].map(nice), [0.5, 10.0, 20.0, 2000.0]);
    }
}
