//! An operator's morning: every way to say a setting, and every way to say it wrong.

use std::collections::HashMap;
use std::io;

use super::*;

/// Runs with these arguments, variables (`NAME=value`) and the text of `ringside.toml`.
fn run(arguments: &[&str], variables: &[&str], file: &str) -> Result<Invocation, ConfigError> {
    let variables: HashMap<_, _> = variables.iter().filter_map(|text| text.split_once('=')).collect();
    let arguments = std::iter::once("ringside").chain(arguments.iter().copied()).map(Into::into);
    let lookup = |name: &str| variables.get(name).map(|text| text.to_string());
    read(arguments, &lookup, &|path| match path {
        "ringside.toml" => Ok(file.to_owned()),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    })
}

fn settings(arguments: &[&str], variables: &[&str], file: &str) -> Settings {
    match run(arguments, variables, file) {
        Ok(Invocation::Run(_, settings)) => *settings,
        other => panic!("{other:?}"),
    }
}

fn refusal(arguments: &[&str], variables: &[&str], file: &str) -> String {
    let line = run(arguments, variables, file).unwrap_err().to_string();
    assert!(!line.contains('\n'), "{line}");
    line
}

fn origin(settings: &Settings, name: &str) -> String {
    settings.chosen.iter().find(|chosen| chosen.setting.name == name).unwrap().origin.to_string()
}

#[test]
fn without_a_word_the_defaults_hold() {
    let config = settings(&[], &[], "").config;
    assert_eq!((config.signaling.listen.port(), config.rtc_min_port, config.rtc_max_port), (8100, 10000, 10100));
    assert_eq!((config.signaling.peers_per_room, config.ports_per_worker), (50, 1));
    assert_eq!(config.announced_ip, ["127.0.0.1"]);
    assert_eq!(config.workers, None);
    assert_eq!(config.log_tags, LogTag::ALL);
    assert!(config.check(8).is_ok());
}

#[test]
fn a_flag_wins_over_the_environment_that_over_the_file_that_over_the_default() {
    let flags = ["--port", "1", "--config", "ringside.toml"];
    let variables = ["RINGSIDE_PORT=2", "PORT=3"];
    let file = "port = 4";
    let port = |arguments: &[&str], variables: &[&str]| {
        let settings = settings(arguments, variables, file);
        (settings.config.signaling.listen.port(), origin(&settings, "port"))
    };
    assert_eq!(port(&flags, &variables), (1, "flag".into()));
    assert_eq!(port(&flags[2..], &variables), (2, "environment RINGSIDE_PORT".into()));
    assert_eq!(port(&flags[2..], &variables[1..]), (3, "environment PORT".into()));
    assert_eq!(port(&flags[2..], &[]), (4, "file ringside.toml".into()));
    assert_eq!(port(&[], &[]), (8100, "default".into()));
}

#[test]
fn the_variables_of_the_replaced_system_work() {
    let variables = [
        "PORT=9000",
        "MEDIASOUP_ANNOUNCED_IP=192.0.2.7",
        "MEDIASOUP_RTC_MIN_PORT=20000",
        "MEDIASOUP_RTC_MAX_PORT=20050",
    ];
    let config = settings(&[], &variables, "").config;
    assert_eq!((config.signaling.listen.port(), config.rtc_min_port, config.rtc_max_port), (9000, 20000, 20050));
    assert_eq!(config.announced_ip, ["192.0.2.7"]);
}

#[test]
fn an_empty_variable_is_not_set() {
    let settings = settings(&[], &["RINGSIDE_PORT=", "PORT= "], "");
    assert_eq!((settings.config.signaling.listen.port(), origin(&settings, "port")), (8100, "default".into()));
}

#[test]
fn the_file_may_be_named_by_the_environment() {
    assert_eq!(settings(&[], &["RINGSIDE_CONFIG=ringside.toml"], "workers = 2").config.workers, Some(2));
}

#[test]
fn lists_are_repeated_or_comma_separated_or_an_array() {
    let wanted = ["192.0.2.7", "2001:db8::7"];
    let both = settings(&["--announced-ip", "192.0.2.7", "--announced-ip", "2001:db8::7"], &[], "").config;
    assert_eq!(both.announced_ip, wanted);
    assert_eq!(settings(&["--announced-ip=192.0.2.7, 2001:db8::7"], &[], "").config.announced_ip, wanted);
    let file = r#"announced-ip = ["192.0.2.7", "2001:db8::7"]"#;
    assert_eq!(settings(&["--config", "ringside.toml"], &[], file).config.announced_ip, wanted);
}

#[test]
fn the_last_of_two_flags_wins() {
    assert_eq!(settings(&["--port", "1", "--port", "2"], &[], "").config.signaling.listen.port(), 2);
}

#[test]
fn the_table_and_the_control_plane_agree_on_defaults() {
    let config = settings(&[], &[], "").config;
    let announced = config.announced_addresses().unwrap();
    let wanted = crate::signaling::settings::SignalingConfig::default();
    assert_eq!(format!("{:?}", config.signaling(announced)), format!("{wanted:?}"));
    assert_eq!(config.history_bytes, crate::limits::HISTORY_BYTES);
    assert_eq!(config.socket_buffer_bytes, crate::limits::SOCKET_BUFFER_BYTES);
}

#[test]
fn a_switch_is_set_by_its_name_alone_or_by_a_truth_value() {
    let is_on = |arguments: &[&str], variables: &[&str], file: &str| {
        settings(arguments, variables, file).config.signaling.rooms_by_api_only
    };
    assert!(is_on(&["--rooms-by-api-only", "--port", "1"], &[], ""));
    assert!(!is_on(&["--rooms-by-api-only=false"], &["RINGSIDE_ROOMS_BY_API_ONLY=1"], ""));
    assert!(is_on(&["--config", "ringside.toml"], &[], "rooms-by-api-only = true"));
}

#[test]
fn https_needs_a_certificate_and_its_key() {
    let check = |arguments: &[&str]| settings(arguments, &[], "").config.check(1).map_err(|error| error.to_string());
    assert_eq!(check(&["--tls-cert", "Cargo.toml"]).unwrap_err(), "--tls-cert without --tls-key: HTTPS needs both");
    assert_eq!(check(&["--tls-key", "Cargo.toml"]).unwrap_err(), "--tls-key without --tls-cert: HTTPS needs both");
    assert_eq!(check(&["--tls-cert", "Cargo.toml", "--tls-key", "Cargo.toml"]), Ok(()));
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_one() {
    let line = refusal(&["--config", "ringside.toml"], &[], "rtc_min_prt = 5");
    assert!(line.contains("\"rtc_min_prt\"") && line.contains("\"rtc-min-port\""), "{line}");
}

#[test]
fn a_broken_file_is_told_with_its_line() {
    let line = refusal(&["--config", "ringside.toml"], &[], "port = 1\nworkers = = 2\n");
    assert!(line.starts_with("ringside.toml, line 2: not TOML"), "{line}");
    assert!(refusal(&["--config", "nowhere.toml"], &[], "").contains("nowhere.toml: cannot be read"));
    let line = refusal(&["--config", "ringside.toml"], &[], "port = 1979-05-27");
    assert!(line.contains("--port") && line.contains("must be a number"), "{line}");
}

#[test]
fn a_wrong_value_names_setting_value_origin_and_cure() {
    for (arguments, variables, parts) in [
        (&["--port", "80000"][..], &[][..], ["--port \"80000\"", "(flag)", "0 to 65535"]),
        (&[], &["MEDIASOUP_RTC_MIN_PORT=x"], ["--rtc-min-port \"x\"", "(environment MEDIASOUP_RTC_MIN_PORT)", "whole"]),
        (&["--listen", "localhost"], &[], ["--listen", "localhost", "0.0.0.0"]),
        (&["--announced-ip", "1.2.3"], &[], ["--announced-ip", "1.2.3", "browsers reach"]),
        (&["--announced-ip", "1.2.3.4:80"], &[], ["--announced-ip", "1.2.3.4:80", "without a port"]),
        (&["--announced-ip", ""], &[], ["--announced-ip", "\"\"", "must not be empty"]),
        (&["--port", ""], &[], ["--port", "\"\"", "whole number"]),
        (&["--log-level", "loud"], &[], ["--log-level", "loud", "debug"]),
        (&["--log-tags", "ice,rpt"], &[], ["--log-tags", "ice,rpt", "rtcp"]),
        (&["--cors-origin", "example.org"], &[], ["--cors-origin", "example.org", "https://"]),
        (&["--ice-servers", "stun:a"], &[], ["--ice-servers", "stun:a", "JSON array"]),
        (&["--ice-servers", "[{}]"], &[], ["--ice-servers", "[{}]", "urls"]),
        (&["--rooms-by-api-only=maybe"], &[], ["--rooms-by-api-only", "maybe", "true or false"]),
        (&["--workers", "-1"], &[], ["--workers", "-1", "1 to 256"]),
    ] {
        let line = refusal(arguments, variables, "");
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    }
}

#[test]
fn a_secret_is_never_repeated() {
    assert!(!refusal(&["--token-secret", "hunter2"], &[], "").contains("hunter2"));
    let settings = settings(&[], &["RINGSIDE_TOKEN_SECRET=correct horse battery staple"], "");
    assert_eq!(settings.config.signaling.token_secret.as_deref(), Some("correct horse battery staple"));
    assert!(!toml(&settings).contains("horse"));
}

#[test]
fn an_unknown_flag_is_one_line_with_a_tip() {
    let line = refusal(&["--prot", "1"], &[], "");
    assert!(line.contains("--prot") && line.contains("--port"), "{line}");
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let check = |arguments: &[&str], cores| settings(arguments, &[], "").config.check(cores).unwrap_err().to_string();
    assert!(check(&["--rtc-min-port", "10200"], 1).contains("10200 is above --rtc-max-port 10100"));
    let line = check(&["--rtc-max-port", "10002", "--workers", "4"], 1);
    assert!(line.contains("are 3, but 4 worker(s) need 4"), "{line}");
    assert!(check(&["--ports-per-worker", "60"], 2).contains("need 120"));
}

#[test]
fn a_worker_has_its_own_slice_of_the_range() {
    let config = settings(&["--ports-per-worker", "2", "--rtc-max-port", "65535"], &[], "").config;
    assert_eq!(config.worker_ports(0).collect::<Vec<_>>(), [10000, 10001]);
    assert_eq!(config.worker_ports(1).collect::<Vec<_>>(), [10002, 10003]);
}

#[test]
fn the_printed_settings_are_a_file_that_means_the_same() {
    let arguments = [
        "--port",
        "08200",
        "--announced-ip",
        "192.0.2.7,example.org",
        "--uplink-bitrate-bps",
        "900000",
        "--rooms-by-api-only",
        "--ice-servers",
        "[{\"urls\": \"stun:a,'b'\"}]",
    ];
    let first = settings(&arguments, &["RINGSIDE_LOG_TAGS=ice,dtls"], "");
    let printed = toml(&first);
    assert!(printed.contains("port = 8200  # flag"), "{printed}");
    assert!(printed.contains("log-tags = [\"ice\", \"dtls\"]  # environment RINGSIDE_LOG_TAGS"), "{printed}");
    assert!(printed.contains("# workers is not set: one for each core"), "{printed}");
    let second = settings(&["--config", "ringside.toml"], &[], &printed);
    assert_eq!(format!("{:?}", first.config), format!("{:?}", second.config));
}

#[test]
fn the_help_explains_every_setting_with_its_unit_and_default() {
    let page = help().split_whitespace().collect::<Vec<_>>().join(" ");
    for setting in SETTINGS {
        let help = setting.help.split_whitespace().collect::<Vec<_>>().join(" ");
        let value = if setting.kind == ValueKind::Switch { "[=<BOOL>]" } else { &format!(" <{}>", setting.value) };
        assert!(page.contains(&format!("--{}{value}", setting.name)), "{}", setting.name);
        assert!(page.contains(&help), "{}: {page}", setting.name);
        let default = if setting.default.is_empty() { setting.unset } else { setting.default };
        assert!(page.contains(&format!("[default: {default}]")), "{}", setting.name);
        assert!(setting.default.is_empty() != setting.unset.is_empty(), "{}", setting.name);
    }
}

#[test]
fn the_documented_table_is_up_to_date() {
    assert_eq!(
        include_str!("../../docs/settings.md"),
        markdown(),
        "write it: ringside --help-markdown > docs/settings.md"
    );
}

#[test]
fn announced_names_become_addresses() {
    let resolve = |announced: &str, listen: &str| {
        settings(&["--announced-ip", announced, "--rtc-listen-ip", listen], &[], "").config.announced_addresses()
    };
    assert_eq!(resolve("192.0.2.7", "0.0.0.0").unwrap(), ["192.0.2.7".parse::<IpAddr>().unwrap()]);
    assert_eq!(resolve("192.0.2.7,2001:db8::7", "::").unwrap().len(), 2);
    assert_eq!(resolve("localhost", "0.0.0.0").unwrap(), ["127.0.0.1".parse::<IpAddr>().unwrap()]);
    for text in ["0.0.0.0", "::", "224.0.0.1", "no-such-host.invalid"] {
        let line = resolve(text, "::").unwrap_err().to_string();
        assert!(line.contains(text) && !line.contains('\n'), "{line}");
    }
    let line = resolve("2001:db8::7", "0.0.0.0").unwrap_err().to_string();
    assert!(line.contains("another family than --rtc-listen-ip 0.0.0.0"), "{line}");
}
