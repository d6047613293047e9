//! An operator at the command line: the real binary, its one line on stderr and its exit code.

use std::process::{Command, Output};

/// Runs `ringside` with nothing in the environment but these variables.
fn ringside(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringside"));
    command.env_clear().envs(variables.iter().copied()).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A start that fails: one line on stderr, this exit code, and these parts in the line.
fn refused(output: &Output, code: i32, parts: &[&str]) {
    let line = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{line}");
    assert_eq!(line.trim_end().lines().count(), 1, "{line}");
    assert!(line.starts_with("ringside: "), "{line}");
    for part in parts {
        assert!(line.contains(part), "{part:?} is missing: {line}");
    }
    assert!(output.stdout.is_empty());
}

/// A file in cargo's directory for tests' output.
fn file(name: &str, text: &str) -> String {
    let path = format!("{}/{name}", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn mistakes_in_the_settings_end_with_code_2() {
    let misspelt = file("misspelt.toml", "wokers = 2");
    for (arguments, variables, parts) in [
        (&["--port", "99999"][..], &[][..], &["--port \"99999\" (flag)", "0 to 65535"][..]),
        (&[], &[("PORT", "http")], &["--port \"http\" (environment PORT)"]),
        (&["--rtc-min-port", "20000"], &[], &["20000 is above --rtc-max-port 10100", "swap them"]),
        (&["--rtc-max-port", "10000", "--workers", "3"], &[], &["3 worker(s) need 3", "--rtc-max-port"]),
        (&[], &[("MEDIASOUP_RTC_MAX_PORT", "9")], &["10000 is above --rtc-max-port 9"]),
        (&["--announced-ip", "300.1.2.3"], &[], &["300.1.2.3", "under which browsers reach"]),
        (&["--announced-ip", "no-such-host.invalid"], &[], &["no-such-host.invalid", "host name"]),
        (&["--announced-ip", "0.0.0.0"], &[], &["0.0.0.0", "no browser can send to it"]),
        (&["--tls-cert", &misspelt], &[], &["--tls-cert without --tls-key"]),
        (&["--tls-cert", &misspelt, "--tls-key", "/nowhere/key.pem"], &[], &["/nowhere/key.pem", "cannot be read"]),
        (&["--config", "/nowhere/ringside.toml"], &[], &["/nowhere/ringside.toml", "check --config"]),
        (&["--config", &misspelt], &[], &["\"wokers\"", "did you mean \"workers\""]),
        (&["--colour", "red"], &[], &["--colour"]),
        (&["serve"], &[], &["serve"]),
    ] {
        refused(&ringside(arguments, variables), 2, parts);
    }
}

#[test]
fn printed_settings_may_be_given_back() {
    let variables = [("MEDIASOUP_ANNOUNCED_IP", "192.0.2.1"), ("RINGSIDE_WORKERS", "1")];
    let first = stdout(&ringside(&["--print-config", "--port", "9100"], &variables));
    assert!(first.contains("port = 9100  # flag"), "{first}");
    assert!(first.contains("announced-ip = [\"192.0.2.1\"]  # environment MEDIASOUP_ANNOUNCED_IP"), "{first}");
    let path = file("printed.toml", &first);
    let second = stdout(&ringside(&["--print-config", "--config", &path], &[]));
    let values = |page: &str| -> Vec<String> {
        page.lines().filter(|line| !line.starts_with('#')).map(|l| l.split("  #").next().unwrap().to_owned()).collect()
    };
    assert_eq!(values(&first), values(&second));
    assert!(second.contains(&format!("workers = 1  # file {path}")), "{second}");
}

#[test]
fn the_help_names_every_setting() {
    let output = ringside(&["--help"], &[]);
    assert!(output.status.success());
    for setting in ringside::config::SETTINGS {
        assert!(stdout(&output).contains(&format!("--{}", setting.name)), "{}", setting.name);
    }
}

#[test]
fn the_version_is_the_packages() {
    assert_eq!(stdout(&ringside(&["--version"], &[])).trim(), format!("ringside {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_host_check_names_what_it_looked_at() {
    let output = ringside(&["--check-host"], &[]);
    let page = stdout(&output);
    assert_eq!(output.status.success(), !page.contains("FAIL"), "{page}");
    for name in ["io_uring", "locked memory", "net.core.rmem_max", "cores"] {
        assert!(page.contains(name), "{page}");
    }
}
