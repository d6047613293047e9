//! The command `ringside`: reads what the operator wants, checks the host, starts and stops.
//!
//! Exit codes: 0 after an orderly end, 1 when a worker died, 2 for a mistake in the settings, 3 where
//! the host forbids io_uring; each with one line on stderr that names cause and cure.

use std::process::ExitCode;

use ringside::config::{self, Config, Invocation, Mode};
use ringside::host::{self, Host};
use ringside::process;

const SETTINGS_ARE_WRONG: u8 = 2;
const HOST_FORBIDS: u8 = 3;

fn main() -> ExitCode {
    let invocation =
        config::read(std::env::args_os(), &|name| std::env::var(name).ok(), &|path| std::fs::read_to_string(path));
    match invocation {
        Ok(Invocation::Print(text)) => print(&text),
        Ok(Invocation::Run(Mode::PrintConfig, settings)) => print(&config::toml(&settings)),
        Ok(Invocation::Run(Mode::CheckHost, settings)) => check_host(&settings.config),
        Ok(Invocation::Run(Mode::Serve, settings)) => serve(&settings.config),
        Err(error) => refuse(SETTINGS_ARE_WRONG, &error),
    }
}

fn serve(config: &Config) -> ExitCode {
    ringside::log::start(config.log_level, &config.log_tags);
    match process::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => refuse(failure.exit_code(), &failure),
    }
}

fn check_host(config: &Config) -> ExitCode {
    let io_uring = host::io_uring_permission();
    let cores = host::allowed_cores();
    let (file, offloads, firewall) = (&host::file, &host::ethtool_features, &host::firewall_rules);
    let host = Host { file, offloads, firewall, io_uring: &io_uring, allowed_cores: &cores, config };
    print(&host::report(&host::findings(&host)));
    if io_uring.is_err() { ExitCode::from(HOST_FORBIDS) } else { ExitCode::SUCCESS }
}

fn refuse(code: u8, error: &dyn std::error::Error) -> ExitCode {
    eprintln!("ringside: {error}");
    ExitCode::from(code)
}

/// A reader that has seen enough (`ringside --help | head`) is no error.
fn print(text: &str) -> ExitCode {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}
