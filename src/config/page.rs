//! The table as people read it: `--help`, `--print-config`, `docs/settings.md`.

use std::fmt::Write;

use clap::{Arg, ArgAction, Command};

use super::invocation::{Chosen, Settings};
use super::table::{Group, SETTINGS, Setting, ValueKind, switch};

/// What `ringside --help` prints.
pub fn help() -> String {
    command().render_help().to_string()
}

pub(super) fn command() -> Command {
    let flags = Group::ALL.into_iter().flat_map(|group| SETTINGS.iter().filter(move |setting| setting.group == group));
    Command::new("ringside")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A WebRTC SFU: rooms of browsers that see and hear each other")
        .after_help(
            "Each setting may also stand in the environment as RINGSIDE_<NAME> (RINGSIDE_RTC_MIN_PORT) and in the file \
             of --config as <name> = <value>. A flag wins over the environment, the environment over the file, the \
             file over the default.",
        )
        .args(flags.map(flag))
        .args(mode_flags())
}

fn flag(setting: &'static Setting) -> Arg {
    let arg = Arg::new(setting.name)
        .long(setting.name)
        .value_name(setting.value)
        .help(flag_help(setting))
        .help_heading(setting.group.title())
        .allow_hyphen_values(true);
    match setting.kind {
        ValueKind::List => arg.action(ArgAction::Append),
        ValueKind::Switch => {
            arg.overrides_with(setting.name).num_args(0..=1).require_equals(true).default_missing_value("true")
        }
        // The last one wins, so that a wrapper script can be overridden.
        _ => arg.action(ArgAction::Set).overrides_with(setting.name),
    }
}

fn flag_help(setting: &Setting) -> String {
    let mut text = setting.help.to_owned();
    if setting.kind == ValueKind::List {
        text.push_str("; several: comma-separated or repeated");
    }
    let _ = match setting.default {
        "" => write!(text, " [default: {}]", setting.unset),
        default => write!(text, " [default: {default}]"),
    };
    if let Some(alias) = setting.alias {
        let _ = write!(text, " [also: {alias}]");
    }
    text
}

fn mode_flags() -> [Arg; 4] {
    let switch = |name, help| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    [
        Arg::new("config")
            .long("config")
            .value_name("FILE")
            .help("Read settings from this TOML file [also: RINGSIDE_CONFIG]"),
        switch("print-config", "Print the effective settings as TOML, with where each came from, and end"),
        switch("check-host", "Print what this machine allows and what would make it faster, and end"),
        switch("help-markdown", "Print the table of settings as Markdown, and end").hide(true),
    ]
}

/// The effective settings as a file for `--config`, each with where it came from.
pub fn toml(settings: &Settings) -> String {
    let mut page = String::new();
    for group in Group::ALL {
        let _ = writeln!(page, "{}# {}", if page.is_empty() { "" } else { "\n" }, group.title());
        for Chosen { setting, text, origin } in settings.chosen.iter().filter(|chosen| chosen.setting.group == group) {
            let _ = match (setting.kind, text.is_empty()) {
                (_, true) => writeln!(page, "# {} is not set: {}", setting.name, setting.unset),
                (ValueKind::Secret, _) => writeln!(page, "# {} is set ({origin}) and not shown", setting.name),
                _ => writeln!(page, "{} = {}  # {origin}", setting.name, value(setting, text)),
            };
        }
    }
    page
}

fn value(setting: &Setting, text: &str) -> String {
    match setting.kind {
        // TOML knows no leading zeros or plus signs.
        ValueKind::Number => text.parse::<u64>().map_or_else(|_| text.to_owned(), |number| number.to_string()),
        // Any accepted spelling of a truth value, as TOML's own.
        ValueKind::Switch => switch(text).unwrap_or(false).to_string(),
        ValueKind::Text | ValueKind::Secret => toml::Value::from(text).to_string(),
        ValueKind::List => {
            let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
            toml::Value::Array(entries.map(toml::Value::from).collect()).to_string()
        }
    }
}

/// The table as `docs/settings.md` has it.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Settings\n\n\
         Every setting is a flag, an environment variable and a key of the TOML file given by `--config`. A flag wins \
         over the environment, the environment over the file, the file over the default. `ringside --print-config` \
         shows the effective values and where each came from. This page is printed by `ringside --help-markdown`.\n",
    );
    for group in Group::ALL {
        let _ = write!(
            page,
            "\n## {}\n\n| flag and key | environment | default | meaning |\n|---|---|---|---|\n",
            group.title()
        );
        for setting in SETTINGS.iter().filter(|setting| setting.group == group) {
            let alias = setting.alias.map(|alias| format!(", `{alias}`")).unwrap_or_default();
            let default = match setting.default {
                "" => setting.unset.to_owned(),
                default => format!("`{default}`"),
            };
            let _ = writeln!(
                page,
                "| `--{} <{}>` | `{}`{alias} | {default} | {} |",
                setting.name,
                setting.value,
                setting.variable(),
                setting.help
            );
        }
    }
    page
}
