//! The command `ringside`: reads what the operator wants and starts it.
//!
//! Exit codes: 0 after an orderly end, 2 for a mistake in the settings, each with one line on stderr.

use std::process::ExitCode;

use ringside::config::{self, Invocation, Mode};

fn main() -> ExitCode {
    let invocation =
        config::read(std::env::args_os(), &|name| std::env::var(name).ok(), &|path| std::fs::read_to_string(path));
    match invocation {
        Ok(Invocation::Print(text)) => print(&text),
        Ok(Invocation::Run(Mode::PrintConfig, settings)) => print(&config::toml(&settings)),
        Ok(Invocation::Run(_, settings)) => {
            ringside::log::start(settings.config.log_level, &settings.config.log_tags);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("ringside: {error}");
            ExitCode::from(2)
        }
    }
}

/// A reader that has seen enough (`ringside --help | head`) is no error.
fn print(text: &str) -> ExitCode {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}
