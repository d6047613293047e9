//! The body of each fuzz target over damaged real packets, the same few thousand in every run; and that none is left out
//! (those of transports, of the shard and of signaling have tests of their own).

mod support;

use std::fs;
use std::path::Path;

use ringside::packet::fuzz;
use ringside::packet::rtp::RtpHeader;
use support::{CAPTURE, Random, datagrams, seed};

/// Inputs for each body.
const INPUTS: usize = 5_000;

/// Runs `body`, that of `target`, over seeds as they are, cut at every length, then damaged.
fn run(target: &str, body: fn(&[u8]), seeds: &[Vec<u8>]) {
    assert!(!seeds.is_empty());
    seeds.iter().step_by(seeds.len().div_ceil(64)).for_each(|bytes| seed(target, &bytes[..bytes.len().min(400)]));
    for seed in seeds.iter().take(100) {
        (0..=seed.len().min(200)).for_each(|len| body(&seed[..len]));
    }
    let mut random = Random(0x5eed_0001);
    for round in 0..INPUTS {
        let seed = &seeds[round % seeds.len()];
        // Headers are at the front: most damage should be too.
        let damaged = random.damage(&seed[..seed.len().min(if round % 4 == 0 { 1500 } else { 80 })]);
        body(&damaged);
        let len = random.below(64);
        body(&random.bytes(len));
    }
}

fn captured(wanted: impl Fn(&RtpHeader, &[u8]) -> Option<Vec<u8>>) -> Vec<Vec<u8>> {
    let packets = datagrams(CAPTURE).into_iter().filter(|(_, datagram)| datagram[1] & 0x7f < 64 || datagram[1] < 128);
    packets.filter_map(|(_, packet)| wanted(&RtpHeader::parse(packet)?, packet)).collect()
}

fn payloads(payload_type: u8) -> Vec<Vec<u8>> {
    captured(|header, packet| {
        (header.payload_type == payload_type).then(|| header.payload(packet).unwrap_or_default().to_vec())
    })
}

fn all() -> Vec<Vec<u8>> {
    datagrams(CAPTURE).into_iter().map(|(_, datagram)| datagram.to_vec()).collect()
}

fn reports() -> Vec<Vec<u8>> {
    let mut reports = all();
    reports.retain(|datagram| (192..=223).contains(&datagram[1]));
    reports.extend(FEEDBACK.map(<[u8]>::to_vec));
    reports
}

/// Kinds of which the capture has none: NACK, transport-cc in runs and vectors, PLI, FIR, REMB, XR, BYE.
const FEEDBACK: [&[u8]; 8] = [
    &[0x81, 205, 0, 4, 0, 0, 0, 1, 0, 0, 0, 2, 0, 7, 0x80, 0x01, 0xff, 0xfe, 0xff, 0xff],
    &[0xaf, 205, 0, 6, 0, 0, 0, 1, 0, 0, 0, 2, 0, 1, 0, 6, 0, 0, 9, 3, 0xd2, 0x40, 0x04, 0xff, 0xfe, 0x08, 0, 2],
    &[
        0x8f, 205, 0, 7, 0, 0, 0, 1, 0, 0, 0, 2, 0, 1, 0, 24, 0, 0, 9, 3, 0x20, 4, 0xbf, 0x03, 0x1f, 0xff, 9, 9, 9, 9,
        9, 9,
    ],
    &[0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2],
    &[0x84, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 7, 0, 0, 0],
    &[0x8f, 206, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B', 1, 0x0b, 0xd0, 0x90, 0, 0, 0, 2],
    &[0x80, 207, 0, 8, 0, 0, 0, 1, 4, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8, 5, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 9, 0, 0, 0, 8],
    &[0x81, 203, 0, 2, 0, 0, 0, 5, 3, b'b', b'y', b'e'],
];

#[test]
fn damaged_datagrams_are_told_apart() {
    run("datagram", fuzz::datagram, &all());
}

#[test]
fn damaged_rtp_headers_are_refused_or_read() {
    run("rtp", fuzz::rtp, &captured(|_, packet| Some(packet.to_vec())));
}

#[test]
fn damaged_extension_blocks_are_refused_or_read() {
    let blocks =
        captured(|header, packet| Some(packet[header.extension_start.into()..header.extension_end.into()].to_vec()));
    run("extensions", fuzz::extensions, &blocks);
}

#[test]
fn damaged_reports_are_refused_or_read() {
    run("rtcp", fuzz::rtcp, &reports());
}

#[test]
fn damaged_vp8_is_refused_or_read() {
    run("vp8", fuzz::vp8, &payloads(96));
}

#[test]
fn damaged_opus_is_refused_or_read() {
    run("opus", fuzz::opus, &payloads(111));
}

#[test]
fn damaged_vp9_is_refused_or_read() {
    let structure = [0x58, 0, 160, 0, 90, 1, 64, 0, 180, 2, 128, 1, 104, 2, 0x00, 0x34, 1, 0x82];
    let key = [&[0xaa, 0x92, 0x34, 0x10, 7][..], &structure].concat();
    run("vp9", fuzz::vp9, &[key, vec![0xe4, 5, 0x53, 9, 1], vec![0x50, 0x03, 0x05, 0x06, 9]]);
}

#[test]
fn damaged_h264_is_refused_or_read() {
    let aggregate = vec![0x78, 0, 2, 0x67, 1, 0, 1, 0x68, 0, 2, 0x65, 9];
    run("h264", fuzz::h264, &[aggregate, vec![0x7c, 0x85, 1, 2], vec![0x65, 1, 2]]);
}

#[test]
fn damaged_av1_is_refused_or_read() {
    run(
        "av1",
        fuzz::av1,
        &[vec![0x18, 0x0a, 0x0b, 0], vec![0x20, 2, 0x0a, 9, 0x32, 0], vec![0x00, 0x82, 0x00, 0x0a, 9]],
    );
}

#[test]
fn damaged_dependency_descriptors_are_refused_or_read() {
    // L1T3 of Chromium: a key frame's descriptor with its structure, then one of a delta frame.
    let key = [0x80, 0x00, 0x01, 0x80, 0x02, 0x14, 0xea, 0xa8, 0x60, 0x41, 0x4d, 0x14, 0x10, 0x20, 0x84, 0x26];
    let pair = [&[16][..], &key, &[0x43, 0, 2]].concat();
    run("dependency_descriptor", fuzz::dependency_descriptor, &[pair]);
}

/// The targets by name, each with the module and the function of its body.
fn targets() -> Vec<(String, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    let files = fs::read_dir(root).unwrap().map(|file| file.unwrap().path());
    let target = |path: std::path::PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let body = text.split("ringside::").nth(1).unwrap().split('(').next().unwrap();
        // No test compiles a target: it is one of the two texts that are known to.
        let frame = |inner: String| format!("#![no_main]\n\nlibfuzzer_sys::fuzz_target!(|data: &[u8]| {inner});\n");
        let call = format!("ringside::{body}(data)");
        assert!([frame(call.clone()), frame(format!("{{\n    {call};\n}}"))].contains(&text), "{}", path.display());
        let (module, function) = body.split_once("::fuzz::").unwrap();
        (path.file_stem().unwrap().to_str().unwrap().to_owned(), module.to_owned(), function.to_owned())
    };
    files.map(target).collect()
}

/// Whether `text` calls `name`, or hands it over as a value, and does not only define or mention it.
fn uses(text: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(name).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + name.len()..]);
        let handed_over = [",", ")", " as fn"].iter().any(|end| after.starts_with(end));
        !before.ends_with(is_word) && !before.ends_with("fn ") && (after.starts_with('(') || handed_over)
    })
}

#[test]
fn every_fuzz_target_is_listed_and_its_body_is_run_by_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("fuzz/Cargo.toml")).unwrap();
    let tests = fs::read_dir(root.join("tests")).unwrap().map(|file| file.unwrap().path());
    let tests = tests.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let tests: Vec<String> = tests.map(|path| fs::read_to_string(path).unwrap()).collect();
    let targets = targets();
    for (target, module, function) in &targets {
        assert!(
            manifest.contains(&format!("path = \"fuzz_targets/{target}.rs\"")),
            "{target} is not in fuzz/Cargo.toml"
        );
        let bodies = fs::read_to_string(root.join("src").join(module).join("fuzz.rs")).unwrap();
        let within = bodies.split_once("#[cfg(test)]").is_some_and(|(_, tests)| uses(tests, function));
        let path = format!("{module}::fuzz");
        let beside = tests.iter().any(|test| test.contains(&path) && uses(test, &format!("fuzz::{function}")));
        assert!(within || beside, "no test runs {module}::fuzz::{function}, the body of {target}");
    }
    assert_eq!(manifest.matches("[[bin]]").count(), targets.len());
}

#[test]
fn every_body_has_a_fuzz_target() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let targets = targets();
    let mut bodies = 0;
    for module in ["packet", "transport", "shard", "signaling"] {
        let text = fs::read_to_string(root.join(module).join("fuzz.rs")).unwrap();
        for (name, arguments) in text.split("pub fn ").skip(1).filter_map(|rest| rest.split_once('(')) {
            if arguments.split(')').next().is_some_and(|arguments| arguments.ends_with(": &[u8]")) {
                bodies += 1;
                assert!(targets.iter().any(|(_, m, f)| m == module && f == name), "{module}::fuzz::{name}");
            }
        }
    }
    assert_eq!(bodies, targets.len());
}
