//! Settings: from a TOML file, the environment and flags to a checked [`ValidConfig`] and what the host needs beside it.
//!
//! Flags win over the environment, that over the file, that over the presets of the role. Everything is read by one
//! table of keys, so each can be set in all three places: `lifecycle.max_peers` in the file is
//! `KINFOLK_LIFECYCLE_MAX_PEERS` in the environment and `--set lifecycle.max_peers=…` as a flag. Lists are replaced,
//! not joined. Whatever is wrong, all of it is told at once, each with its place and what would be right; unknown names
//! are errors that name the nearest known one.

mod doorway;
mod file;
mod footprint;
mod keys;
mod show;
mod value;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use kinfolk_core::{Config, ConfigError, Protocols, Role, ValidConfig};
use kinfolk_shell::{api::server::SOCKET, signal::client::Tokens};

pub use self::{
    doorway::{DoorwayConfig, DoorwayRules, RedisUrl},
    footprint::{Footprint, Power},
    value::{Bytes, peer_address, span},
};
use self::{
    keys::{Draft, KEYS, Key, nearest_key, nearest_variable},
    value::{Raw, Wrong},
};

/// Names the settings file.
const FILE_VARIABLE: &str = "KINFOLK_CONFIG";

/// Where a package puts the settings of the machine's own node.
const OF_THE_MACHINE: &str = "/etc/kinfolk/config.toml";

/// Where settings come from.
#[derive(Clone, Default, Debug)]
pub struct Sources {
    /// The settings file, which must exist. `None`: `KINFOLK_CONFIG`, else `kinfolk/config.toml` in the user's
    /// configuration folder, if there is one, else `/etc/kinfolk/config.toml`, if there is one.
    pub file: Option<PathBuf>,
    /// All environment variables: `KINFOLK_…`, and those that say where the user's folders are.
    pub environment: Vec<(OsString, OsString)>,
    /// What the command line says.
    pub flags: Vec<Flag>,
    /// What holds where nobody says anything.
    pub defaults: Defaults,
}

/// Presets that differ from program to program.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Defaults {
    /// What a node is for; the other presets follow from it.
    pub role: Role,
    /// How much memory it may take.
    pub memory: Option<Bytes>,
}

/// A setting given on the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flag {
    /// As it was typed, for messages: `--listen`.
    pub name: String,
    /// Which key it sets: `listen`.
    pub key: String,
    /// Its values; keys that are no list take one.
    pub values: Vec<String>,
}

/// Settings, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For the core.
    pub config: ValidConfig,
    /// For the host.
    pub host: HostSettings,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    draft: Draft,
    origins: BTreeMap<&'static str, Place>,
}

/// What the host needs to know beside the core's settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostSettings {
    /// Where identity, store and traces live; absolute.
    pub data_dir: PathBuf,
    /// The local API's Unix socket. Default: `api.sock` in the data folder.
    pub api_socket: PathBuf,
    /// Where operators are answered over HTTP: `/health`, `/ready`, `/metrics`. Default: nowhere.
    pub http_listen: Option<SocketAddr>,
    /// What signal servers want to be shown.
    pub signal_tokens: Tokens,
    /// The doorway, if there is to be one.
    pub doorway: DoorwayConfig,
    /// Which log lines are written, in `tracing`'s syntax. Default: `off`.
    pub log: String,
    /// How much is recorded.
    pub trace: TraceSettings,
    /// What it may cost this machine.
    pub footprint: Footprint,
}

/// How much of what happens to a node is recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceSettings {
    /// Whether to record from the start. Default: yes.
    pub record: bool,
    /// A segment ends when so much was written after its beginning, on disk. Default: 4 MiB.
    pub segment: Bytes,
    /// Segments kept; the oldest goes first. Default: 8.
    pub segments: u32,
    /// Kept on disk by all of them. Default: 32 MiB.
    pub total: Bytes,
}

/// Where a setting was made.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    /// Nowhere: it is the role's preset.
    Preset(&'static str),
    /// It follows from this other setting.
    Follows(&'static str),
    /// In a file.
    File {
        /// Which.
        path: PathBuf,
        /// From 1 on; 0: the file as a whole.
        line: usize,
    },
    /// In this environment variable.
    Variable(String),
    /// In this flag.
    Flag(String),
}

/// Something that is wrong with the settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// Which key, where it is about one.
    pub key: Option<String>,
    /// What is wrong, and what would be right.
    pub problem: String,
}

/// Everything that is wrong with the settings; never empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problems(pub Vec<Problem>);

/// A value, where it was found, before it is read.
struct Given {
    key: &'static Key,
    raw: Raw,
    place: Place,
    /// The lines of a list's items, in a file.
    lines: Vec<usize>,
}

impl Sources {
    /// The environment of this process, and no flags.
    pub fn of_process() -> Self {
        Self { environment: std::env::vars_os().collect(), ..Self::default() }
    }

    fn variable(&self, name: &str) -> Option<&OsString> {
        self.environment.iter().find(|(known, value)| known == name && !value.is_empty()).map(|(_, value)| value)
    }

    /// A user's folder after the XDG base directory specification: `$XDG_…`, where absolute, else under `$HOME`.
    fn user_folder(&self, variable: &str, under_home: &str) -> Option<PathBuf> {
        let named = self.variable(variable).map(PathBuf::from).filter(|path| path.is_absolute());
        named.or_else(|| Some(Path::new(self.variable("HOME")?).join(under_home))).map(|path| path.join("kinfolk"))
    }
}

impl Settings {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// Everything that is wrong, at least one thing.
    pub fn load(sources: &Sources) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let (file, mut given) = read_file(sources, &mut problems);
        read_environment(sources, &mut given, &mut problems);
        read_flags(sources, &mut given, &mut problems);

        let Defaults { role, memory } = sources.defaults;
        let mut draft = Draft::of(role);
        let mut origins = BTreeMap::new();
        let mut lines = BTreeMap::new();
        for key in KEYS {
            for given in given.iter().filter(|given| given.key.path == key.path) {
                match (key.set)(&mut draft, &given.raw) {
                    Ok(()) => {
                        origins.insert(key.path, given.place.clone());
                        lines.insert(key.path, given.lines.as_slice());
                    }
                    Err(Wrong { item, problem }) => problems.push(Problem {
                        place: given.place.clone().at_item(item, &given.lines),
                        key: Some(key.path.to_owned()),
                        problem,
                    }),
                }
            }
            match key.path {
                "role" => draft = Draft::of(draft.core.role),
                "power" => {
                    let before = draft.clone();
                    let Footprint { power, memory, .. } = draft.footprint;
                    draft.footprint = Footprint { memory, ..Footprint::of(power) };
                    draft.footprint.apply_power(&mut draft.core);
                    origins.extend(changed(&before, &draft).map(|key| (key, Place::Follows("power"))));
                }
                "memory" => {
                    if !origins.contains_key("memory") {
                        draft.footprint.memory = memory;
                    }
                    let before = draft.clone();
                    draft.footprint.apply_memory(&mut draft.core);
                    origins.extend(changed(&before, &draft).map(|key| (key, Place::Follows("memory"))));
                }
                "network" => draft.core.protocols = Protocols::of(&draft.core.network),
                _ => {}
            }
        }
        settle_paths(sources, &mut draft, &mut origins, &mut problems);
        let role = draft.core.role;
        let place_of = |key: &'static str| origins.get(key).cloned().unwrap_or_else(|| default_place(key, role));
        check_host(&draft, &place_of, &mut problems);
        let signal_tokens = read_tokens(&draft, &place_of, &mut problems);
        let config = match draft.core.clone().validate() {
            Ok(config) => Some(config),
            Err(errors) => {
                let found: Vec<_> = errors.into_iter().map(|error| located(error, &draft, &place_of, &lines)).collect();
                let wrong: Vec<_> = found.iter().filter_map(|problem| problem.key.clone()).collect();
                // What only follows from something wrong goes away with it.
                let own =
                    |problem: &Problem| !matches!(problem.place, Place::Follows(key) if wrong.iter().any(|k| k == key));
                problems.extend(found.into_iter().filter(own));
                None
            }
        };
        match config {
            Some(config) if problems.is_empty() => {
                let host = HostSettings {
                    data_dir: draft.data_dir.clone(),
                    api_socket: draft.api_socket.clone(),
                    http_listen: draft.http_listen,
                    signal_tokens,
                    doorway: draft.doorway.clone(),
                    log: draft.log.clone(),
                    trace: draft.trace,
                    footprint: draft.footprint,
                };
                Ok(Self { config, host, file, draft, origins })
            }
            _ => {
                problems.sort_by(|a, b| a.place.cmp(&b.place));
                Err(Problems(problems))
            }
        }
    }

    /// Where `key` was set.
    pub fn origin(&self, key: &str) -> Option<Place> {
        let key = Key::named(key)?.path;
        Some(self.origins.get(key).cloned().unwrap_or_else(|| default_place(key, self.draft.core.role)))
    }
}

/// The keys whose values are others now.
fn changed(before: &Draft, after: &Draft) -> impl Iterator<Item = &'static str> {
    KEYS.iter().filter(|key| (key.get)(before) != (key.get)(after)).map(|key| key.path)
}

fn default_place(key: &'static str, role: Role) -> Place {
    match key {
        "protocols.identify" | "protocols.kademlia" | "protocols.punch" | "protocols.sync" => Place::Follows("network"),
        "api.socket" => Place::Follows("data_dir"),
        _ => Place::Preset(match role {
            Role::Family => "family",
            Role::Desktop => "desktop",
            Role::Server => "server",
        }),
    }
}

fn read_file(sources: &Sources, problems: &mut Vec<Problem>) -> (Option<PathBuf>, Vec<Given>) {
    let named = sources.file.clone().or_else(|| sources.variable(FILE_VARIABLE).map(PathBuf::from));
    let path = match named {
        Some(path) => path,
        None => match sources.user_folder("XDG_CONFIG_HOME", ".config").map(|folder| folder.join("config.toml")) {
            Some(path) if path.exists() => path,
            _ if Path::new(OF_THE_MACHINE).exists() => PathBuf::from(OF_THE_MACHINE),
            _ => return (None, Vec::new()),
        },
    };
    let given = file::read(&path, problems);
    (Some(path), given)
}

fn read_environment(sources: &Sources, given: &mut Vec<Given>, problems: &mut Vec<Problem>) {
    let mut variables: Vec<_> = sources.environment.iter().collect();
    variables.sort();
    for (name, value) in variables {
        let name = name.to_string_lossy();
        if !name.starts_with("KINFOLK_") || name == FILE_VARIABLE {
            continue;
        }
        let place = Place::Variable(name.to_string());
        match (KEYS.iter().find(|key| key.variable() == name), value.to_str()) {
            (Some(key), Some(text)) => {
                given.push(Given { key, raw: Raw::Text(text.to_owned()), place, lines: Vec::new() });
            }
            (Some(key), None) => problems.push(Problem {
                place,
                key: Some(key.path.to_owned()),
                problem: "is not valid UTF-8".to_owned(),
            }),
            (None, _) => problems.push(Problem {
                place,
                key: None,
                problem: format!("no setting has this name; the nearest known one is {}", nearest_variable(&name)),
            }),
        }
    }
}

fn read_flags(sources: &Sources, given: &mut Vec<Given>, problems: &mut Vec<Problem>) {
    for flag in &sources.flags {
        let place = Place::Flag(flag.name.clone());
        let Some(key) = Key::named(&flag.key) else {
            problems.push(Problem { place, key: None, problem: unknown_key(&flag.key) });
            continue;
        };
        let raw = match flag.values.as_slice() {
            [one] => Raw::Text(one.clone()),
            _ => Raw::Texts(flag.values.clone()),
        };
        given.push(Given { key, raw, place, lines: Vec::new() });
    }
}

fn unknown_key(path: &str) -> String {
    format!("unknown key '{}'; the nearest known one is '{}'", path.escape_debug(), nearest_key(path))
}

/// Fills in default folders and makes all paths absolute.
fn settle_paths(
    sources: &Sources,
    draft: &mut Draft,
    origins: &mut BTreeMap<&'static str, Place>,
    problems: &mut Vec<Problem>,
) {
    if draft.data_dir.as_os_str().is_empty() {
        match sources.user_folder("XDG_DATA_HOME", ".local/share") {
            Some(folder) => draft.data_dir = folder,
            None => problems.push(Problem {
                place: Place::Variable("HOME".to_owned()),
                key: Some("data_dir".to_owned()),
                problem: "is not set, so there is no default data folder; give one with --data-dir, KINFOLK_DATA_DIR \
                          or data_dir in the settings file"
                    .to_owned(),
            }),
        }
    }
    let tokens = draft.doorway.tokens.iter_mut().map(|path| ("doorway.tokens", path));
    let tokens = tokens.chain(draft.signal_tokens.iter_mut().map(|path| ("signal.tokens", path)));
    let paths = [("data_dir", &mut draft.data_dir), ("api.socket", &mut draft.api_socket)];
    for (key, path) in paths.into_iter().chain(tokens) {
        let base = match origins.get(key) {
            Some(Place::File { path, .. }) => path.parent().map(Path::to_owned).unwrap_or_default(),
            _ => PathBuf::new(),
        };
        let full = match (path.strip_prefix("~"), sources.variable("HOME")) {
            (Ok(rest), Some(home)) => Path::new(home).join(rest),
            _ => base.join(&*path),
        };
        if path.as_os_str().is_empty() {
            continue;
        }
        if let Ok(full) = std::path::absolute(full) {
            *path = full;
        }
    }
    if draft.api_socket.as_os_str().is_empty() {
        draft.api_socket = draft.data_dir.join(SOCKET);
    }
}

fn read_tokens(draft: &Draft, place_of: &impl Fn(&'static str) -> Place, problems: &mut Vec<Problem>) -> Tokens {
    let Some(file) = &draft.signal_tokens else { return Tokens::default() };
    Tokens::read(file).unwrap_or_else(|error| {
        let problem = format!("{}: {error}", file.display());
        problems.push(Problem { place: place_of("signal.tokens"), key: Some("signal.tokens".to_owned()), problem });
        Tokens::default()
    })
}

fn check_host(draft: &Draft, place_of: &impl Fn(&'static str) -> Place, problems: &mut Vec<Problem>) {
    let mut check = |ok: bool, key: &'static str, problem: String| {
        if !ok {
            problems.push(Problem { place: place_of(key), key: Some(key.to_owned()), problem });
        }
    };
    if let Err(error) = draft.log.parse::<tracing_subscriber::filter::Targets>() {
        check(false, "log", format!("must be such as \"info\" or \"kinfolk=debug,libp2p=warn\": {error}"));
    }
    let memory =
        draft.footprint.memory.is_none_or(|memory| (footprint::LEAST_MEMORY..=Bytes(1 << 40)).contains(&memory));
    check(memory, "memory", "must be \"32MiB\" to \"1024GiB\", or \"off\" for no limit".to_owned());
    check(draft.footprint.slack <= Duration::from_secs(60), "slack", "must be at most \"1m\"".to_owned());
    let batches = Duration::from_millis(100)..=Duration::from_secs(3_600);
    check(batches.contains(&draft.footprint.batch), "batch", "must be \"100ms\" to \"1h\"".to_owned());
    check(
        (Bytes(64 << 10)..=Bytes(1 << 30)).contains(&draft.trace.segment),
        "trace.segment",
        "must be \"64KiB\" to \"1GiB\"".to_owned(),
    );
    check((2..=1_000).contains(&draft.trace.segments), "trace.segments", "must be 2 to 1 000".to_owned());
    check(
        (draft.trace.segment..=Bytes(1 << 40)).contains(&draft.trace.total),
        "trace.total",
        "must be trace.segment to \"1024GiB\"".to_owned(),
    );
    for (key, problem) in draft.doorway.problems() {
        check(false, key, problem);
    }
}

/// Finds the place of what the core complains about: `listen[2]` is an item of `listen`.
fn located(
    error: ConfigError,
    draft: &Draft,
    place_of: &impl Fn(&'static str) -> Place,
    lines: &BTreeMap<&'static str, &[usize]>,
) -> Problem {
    let (path, item) = match error.field.split_once('[') {
        Some((path, rest)) => (path, rest.trim_end_matches(']').parse().ok()),
        None => (error.field.as_str(), None),
    };
    let Some(key) = Key::named(path) else {
        return Problem { place: Place::Follows("settings"), key: Some(error.field), problem: error.problem };
    };
    let mut problem = error.problem;
    let place = place_of(key.path).at_item(item, lines.get(key.path).copied().unwrap_or_default());
    if let Place::Preset(_) | Place::Follows(_) = place {
        problem = format!("{problem} (it is {})", (key.get)(draft));
    }
    Problem { place, key: Some(error.field), problem }
}

impl HostSettings {
    /// For this data folder, with everything else as by default.
    pub fn in_folder(data_dir: impl Into<PathBuf>) -> Self {
        let data_dir = data_dir.into();
        let api_socket = data_dir.join(SOCKET);
        Self {
            data_dir,
            api_socket,
            http_listen: None,
            signal_tokens: Tokens::default(),
            doorway: DoorwayConfig::default(),
            log: "off".to_owned(),
            trace: TraceSettings::default(),
            footprint: Footprint::default(),
        }
    }
}

impl Default for TraceSettings {
    fn default() -> Self {
        Self { record: true, segment: Bytes(4 << 20), segments: 8, total: Bytes(32 << 20) }
    }
}

impl Place {
    fn at_item(self, item: Option<usize>, lines: &[usize]) -> Self {
        match (self, item.and_then(|item| lines.get(item))) {
            (Self::File { path, .. }, Some(line)) => Self::File { path, line: *line },
            (place, _) => place,
        }
    }
}

impl Flag {
    /// A flag for a key of one value.
    pub fn new(name: &str, key: &str, value: impl Into<String>) -> Self {
        Self { name: name.to_owned(), key: key.to_owned(), values: vec![value.into()] }
    }

    /// A flag for a list.
    pub fn list(name: &str, key: &str, values: &[String]) -> Self {
        Self { name: name.to_owned(), key: key.to_owned(), values: values.to_vec() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Preset(role) => write!(f, "preset of role '{role}'"),
            Self::Follows(key) => write!(f, "follows from {key}"),
            Self::File { path, line: 0 } => write!(f, "{}", path.display()),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "{}: {key}: {}", self.place, self.problem),
            None => write!(f, "{}: {}", self.place, self.problem),
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            let line = if at == 0 { "" } else { "\n" };
            write!(f, "{line}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl From<&Settings> for Config {
    fn from(settings: &Settings) -> Self {
        settings.config.clone().into()
    }
}
