//! From what the operator gave to one value for each setting, with where it came from.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use super::table::{SETTINGS, Setting, ValueKind};
use super::{Config, ConfigError, page};
use crate::signaling::settings::SignalingConfig;

/// What the operator asked for.
#[derive(Debug)]
pub enum Invocation {
    /// Text to print before ending well: help, version.
    Print(String),
    Run(Mode, Box<Settings>),
}

/// What to do with the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Serve,
    CheckHost,
    PrintConfig,
}

/// The settings, and for each row of the table what was chosen and why.
#[derive(Debug)]
pub struct Settings {
    pub config: Config,
    pub chosen: Vec<Chosen>,
}

#[derive(Clone, Debug)]
pub struct Chosen {
    pub setting: &'static Setting,
    /// As a flag would give it; empty is "not set".
    pub text: String,
    pub origin: Origin,
}

/// Where a value came from, the strongest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Flag,
    Variable(String),
    File(String),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag => f.write_str("flag"),
            Origin::Variable(name) => write!(f, "environment {name}"),
            Origin::File(path) => write!(f, "file {path}"),
            Origin::Default => f.write_str("default"),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        let chosen = SETTINGS.iter().map(|setting| Chosen {
            setting,
            text: setting.default.to_owned(),
            origin: Origin::Default,
        });
        Settings::of(chosen.collect()).expect("every default of the table is valid; a test reads them all")
    }
}

impl Settings {
    fn of(chosen: Vec<Chosen>) -> Result<Settings, ConfigError> {
        let mut config = blank();
        let is_set = |chosen: &&Chosen| !(chosen.text.is_empty() && chosen.setting.default.is_empty());
        for Chosen { setting, text, origin } in chosen.iter().filter(is_set) {
            (setting.store)(&mut config, text).map_err(|problem| ConfigError::Value {
                name: setting.name,
                text: if setting.kind == ValueKind::Secret { "***".to_owned() } else { text.clone() },
                origin: origin.clone(),
                problem,
            })?;
        }
        Ok(Settings { config, chosen })
    }
}

/// Reads everything that the operator said.
///
/// `arguments` begins with the program's name; `variable` looks into the environment; `file` reads a
/// text file.
pub fn read(
    arguments: impl IntoIterator<Item = std::ffi::OsString>,
    variable: &dyn Fn(&str) -> Option<String>,
    file: &dyn Fn(&str) -> std::io::Result<String>,
) -> Result<Invocation, ConfigError> {
    let matches = match page::command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) if !error.use_stderr() => return Ok(Invocation::Print(error.to_string())),
        Err(error) => return Err(ConfigError::Arguments(one_line(&error.to_string()))),
    };
    if matches.get_flag("help-markdown") {
        return Ok(Invocation::Print(page::markdown()));
    }
    // An empty variable is how compose files and units write "not set".
    let variable = |name: &str| variable(name).filter(|text| !text.trim().is_empty());
    let path = matches.get_one::<String>("config").cloned().or_else(|| variable("RINGSIDE_CONFIG"));
    let from_file = path.as_deref().map(|path| read_file(path, file)).transpose()?.unwrap_or_default();
    let choose = |setting: &'static Setting| {
        let flag = matches.get_many::<String>(setting.name).map(|texts| texts.cloned().collect::<Vec<_>>().join(","));
        let own = setting.variable();
        let aliased = setting.alias.and_then(|alias| Some((alias.to_owned(), variable(alias)?)));
        let in_file = from_file.iter().find(|(name, _)| *name == setting.name);
        let (text, origin) = if let Some(text) = flag {
            (text, Origin::Flag)
        } else if let Some(text) = variable(&own) {
            (text, Origin::Variable(own))
        } else if let Some((alias, text)) = aliased {
            (text, Origin::Variable(alias))
        } else if let (Some((_, text)), Some(path)) = (in_file, &path) {
            (text.clone(), Origin::File(path.clone()))
        } else {
            (setting.default.to_owned(), Origin::Default)
        };
        Chosen { setting, text: text.trim().to_owned(), origin }
    };
    let settings = Settings::of(SETTINGS.iter().map(choose).collect())?;
    let mode = match (matches.get_flag("print-config"), matches.get_flag("check-host")) {
        (true, _) => Mode::PrintConfig,
        (_, true) => Mode::CheckHost,
        _ => Mode::Serve,
    };
    Ok(Invocation::Run(mode, Box::new(settings)))
}

/// Name and text of every setting in the file.
fn read_file(
    path: &str,
    file: &dyn Fn(&str) -> std::io::Result<String>,
) -> Result<Vec<(&'static str, String)>, ConfigError> {
    let text = file(path)
        .map_err(|error| ConfigError::FileUnreadable { file: path.to_owned(), problem: error.to_string() })?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| ConfigError::FileSyntax {
        file: path.to_owned(),
        line: error.span().map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1)),
        problem: one_line(error.message()),
    })?;
    let mut settings = Vec::new();
    for (key, value) in &table {
        let setting = Setting::named(key).ok_or_else(|| ConfigError::UnknownKey {
            file: path.to_owned(),
            key: key.clone(),
            nearest: nearest(key),
        })?;
        let text = text_of(value).ok_or_else(|| ConfigError::Value {
            name: setting.name,
            text: one_line(&value.to_string()),
            origin: Origin::File(path.to_owned()),
            problem: "must be a number, a text or an array of texts".to_owned(),
        })?;
        settings.push((setting.name, text));
    }
    Ok(settings)
}

fn text_of(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(truth) => Some(truth.to_string()),
        toml::Value::Array(entries) => {
            let texts: Option<Vec<String>> = entries.iter().map(text_of).collect();
            texts.map(|texts| texts.join(","))
        }
        _ => None,
    }
}

/// The setting whose name is the fewest edits away (Levenshtein), for a mistyped key.
fn nearest(key: &str) -> &'static str {
    let key = key.to_ascii_lowercase().replace('_', "-");
    SETTINGS.iter().map(|setting| setting.name).min_by_key(|name| edits(&key, name)).unwrap_or_default()
}

fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.chars().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.chars().count()]
}

/// A message of several lines (clap's, a parser's) as one.
fn one_line(text: &str) -> String {
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("Usage:") && !line.starts_with("For more information"));
    let text = lines.collect::<Vec<_>>().join("; ");
    text.strip_prefix("error: ").unwrap_or(&text).to_owned()
}

/// Where the table's defaults are written into; a field that keeps its value here is one without default.
fn blank() -> Config {
    Config {
        signaling: SignalingConfig { announced: Vec::new(), ..SignalingConfig::default() },
        tls_cert: None,
        tls_key: None,
        announced_ip: Vec::new(),
        rtc_listen_ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        rtc_min_port: 0,
        rtc_max_port: 0,
        ports_per_worker: 0,
        socket_buffer_bytes: 0,
        workers: None,
        hold: Duration::ZERO,
        gather_max: Duration::ZERO,
        history_bytes: 0,
        log_level: LevelFilter::INFO,
        log_tags: Vec::new(),
        hlog_dir: PathBuf::new(),
    }
}
