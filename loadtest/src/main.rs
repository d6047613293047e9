//! `ringside-loadtest`: parses the command line and says what came of it; the work is in the library.

use anyhow::Context;
use clap::Parser;
use ringside_loadtest::cli::{Cli, Command, Run};
use ringside_loadtest::report::terminal;
use ringside_loadtest::swarm::selftest;
use ringside_loadtest::{compare, plan, ramp, run};

fn main() {
    let result = match Cli::parse().command {
        Command::Run(command) => run_once(&command),
        Command::Ramp(command) => ramp::command(&command),
        Command::Plan(command) => plan::command(&command),
        Command::Compare(command) => compare::command(&command),
        Command::Selftest(command) => selftest::command(&command),
    };
    if let Err(error) = result {
        eprintln!("ringside-loadtest: {error:#}");
        std::process::exit(1);
    }
}

fn run_once(command: &Run) -> anyhow::Result<()> {
    let scenario = run::scenario(&command.load)?;
    run::pin(command.core)?;
    let service = run::Service::found(&command.server, command.core);
    let (report, outcome) = run::run(&scenario, &service, command.load.sockets())?;
    print!("{}", terminal::summary(&report));
    if let Some(base) = &command.load.out {
        for path in report.write(base, &outcome).context("the report")? {
            println!("  wrote        {}", path.display());
        }
    }
    Ok(())
}
