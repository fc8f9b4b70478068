//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, error::ErrorKind};
use clap_complete::Shell;

use crate::config::Flag;

const AFTER_HELP: &str = "\
Without a command, `NAME` starts a node, like `NAME up`.

A PEER is a peer id, or at least 6 characters of its beginning or end: `NAME why zHZrFxk2`.

Settings: flags win over KINFOLK_… in the environment, those over the settings file.

Exit codes: 0 done, 1 failed, 2 bad usage or settings, 3 no node is running,
            4 the node declined, 5 a node is running already.";

/// Keeps the computers of a family connected.
#[derive(Parser, Debug)]
#[command(version, disable_help_subcommand = true)]
pub(crate) struct Read<C: Subcommand> {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) start: Start,
    #[command(subcommand)]
    pub(crate) command: Option<Command<C>>,
}

/// Flags of every command.
#[derive(Args, Clone, Default, Debug)]
pub struct Common {
    /// Where identity, store and traces live
    #[arg(long, global = true, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Settings file
    #[arg(long, global = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// Set any key of the settings file, such as lifecycle.high_water=100
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = key_and_value)]
    set: Vec<(String, String)>,
    /// Print JSON; docs/cli.md has the shapes
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Write log lines to the standard error stream, such as info or kinfolk_shell=debug
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
}

/// Settings of a start; also for looking at them with `config`.
#[derive(Args, Clone, Default, Debug)]
#[command(next_help_heading = "Settings of the node")]
pub(crate) struct Start {
    /// Listen there; several times for several addresses, such as /ip4/0.0.0.0/tcp/4001
    #[arg(long, value_name = "MULTIADDR")]
    listen: Vec<String>,
    /// The network's name
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// What this node is for
    #[arg(long, value_name = "ROLE", value_parser = ["family", "desktop", "server"])]
    role: Option<String>,
    /// Ask there first; several times for several peers
    #[arg(long, value_name = "MULTIADDR")]
    bootstrap: Vec<String>,
    /// Ask this signal server for peers, and tell it where this node is; several times for several servers
    #[arg(long, value_name = "URL")]
    signal: Vec<String>,
    /// Never give this peer up; several times for several peers
    #[arg(long, value_name = "PEER|MULTIADDR")]
    pin: Vec<String>,
    /// Look for peers on the home network
    #[arg(long, overrides_with = "no_mdns")]
    mdns: bool,
    /// Don't look for peers on the home network
    #[arg(long, overrides_with = "mdns")]
    no_mdns: bool,
    /// Whether to serve the hash table
    #[arg(long, value_name = "MODE", value_parser = ["auto", "client", "server"])]
    kademlia: Option<String>,
    /// The hash table's protocol, such as /ipfs/kad/1.0.0
    #[arg(long, value_name = "PROTOCOL")]
    kademlia_name: Option<String>,
    /// What this node calls its network when it introduces itself
    #[arg(long, value_name = "PROTOCOL")]
    identify_name: Option<String>,
    /// An address of this node that you vouch for; several times for several addresses
    #[arg(long, value_name = "MULTIADDR")]
    external: Vec<String>,
    /// Ask this relay first; several times for several relays. It needs its peer id at the end
    #[arg(long, value_name = "MULTIADDR")]
    relay: Vec<String>,
    /// Answer /health, /ready and /metrics over HTTP there, such as 127.0.0.1:9090
    #[arg(long, value_name = "IP:PORT")]
    http: Option<String>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command<C: Subcommand> {
    /// Start a node and tell what happens (Ctrl-C ends it)
    Up(Start),
    /// What only this program has.
    #[command(flatten)]
    Own(C),
    /// Print this node's peer id
    Id {
        /// Print the addresses to give to others instead; needs a running node
        #[arg(long)]
        addresses: bool,
    },
    /// How the node is doing
    Status,
    /// Who is known, and how each peer is reached
    Peers {
        /// Only this peer, with all that is known of it
        #[arg(value_name = "PEER")]
        peer: Option<String>,
        /// Go on, and show every change
        #[arg(long, short)]
        watch: bool,
        /// Whole peer ids
        #[arg(long, short)]
        long: bool,
    },
    /// Connect to a peer, and remember it
    Connect {
        /// Where; or a PEER, which is looked for
        #[arg(value_name = "MULTIADDR")]
        to: String,
    },
    /// End the connections to a peer until somebody asks for it again
    Disconnect {
        /// Whom
        #[arg(value_name = "PEER")]
        peer: String,
    },
    /// Never give a peer up: it is a member of the family
    Pin {
        /// Whom, or where it is (ending in /p2p/PEER)
        #[arg(value_name = "PEER|MULTIADDR")]
        peer: String,
    },
    /// Undo `pin` and `connect`
    Forget {
        /// Whom
        #[arg(value_name = "PEER")]
        peer: String,
    },
    /// Undo `block`
    Allow {
        /// Whom
        #[arg(value_name = "PEER")]
        peer: String,
    },
    /// Never speak to a peer
    Block {
        /// Whom
        #[arg(value_name = "PEER")]
        peer: String,
    },
    /// Why the node did what it did lately, about a peer or itself
    Why {
        /// Whom; without one, what is about no peer
        #[arg(value_name = "PEER")]
        peer: Option<String>,
    },
    /// Put an entry into this node's log; the others of the family get it
    Put {
        /// What it says; `-`: each line of the standard input is an entry
        #[arg(value_name = "TEXT")]
        text: String,
    },
    /// Print what this node and the others have put
    Log {
        /// Only this one's
        #[arg(long, value_name = "PEER")]
        author: Option<String>,
        /// Only so many entries of each log
        #[arg(long, short = 'n', value_name = "NUMBER")]
        last: Option<u64>,
        /// Go on, and print what comes
        #[arg(long, short)]
        follow: bool,
    },
    /// Who has what: logs, and how far each peer is
    Sync,
    /// What this machine's network allows, and what to do about it; works without a running node, too
    Doctor {
        /// Look no longer than this
        #[arg(long, value_name = "TIME", default_value = "20s", value_parser = look_for)]
        timeout: Duration,
        #[command(flatten)]
        start: Start,
    },
    /// Who is asked first
    #[command(subcommand)]
    Bootstrap(Bootstrap),
    /// Look at the settings
    #[command(subcommand)]
    Config(Config),
    /// Record what the node is told and decides
    #[command(subcommand)]
    Trace(Trace),
    /// Print a script that completes commands in a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
}

#[derive(Subcommand, Debug)]
pub(crate) enum Bootstrap {
    /// Ask there too, until this node ends (for good: `bootstrap` in the settings)
    Add {
        /// Where
        #[arg(value_name = "MULTIADDR")]
        address: String,
    },
    /// No longer ask there
    Remove {
        /// Where, as `bootstrap list` shows it
        #[arg(value_name = "MULTIADDR")]
        address: String,
    },
    /// Who is asked first, and how it goes
    List,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Config {
    /// Say whether the settings are right
    Check {
        /// Only this file, without environment and flags
        #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
        file: Option<PathBuf>,
        #[command(flatten)]
        start: Start,
    },
    /// Print all settings as TOML, with where each was set
    Show(Start),
}

#[derive(Subcommand, Debug)]
pub(crate) enum Trace {
    /// Record from now on
    Start,
    /// Stop recording; what was recorded stays
    Stop,
    /// Write what was recorded to a file for `kinfolk-sim replay`; compressed when its name ends in .zst
    Export {
        /// Where to
        #[arg(value_hint = clap::ValueHint::FilePath)]
        file: PathBuf,
        /// Replace the file if there is one
        #[arg(long)]
        force: bool,
    },
}

/// Reads the command line of the program of this name.
pub(crate) fn read<C: Subcommand>(
    name: &'static str,
    arguments: impl IntoIterator<Item = std::ffi::OsString>,
) -> Result<Read<C>, clap::Error> {
    let mut command = command::<C>(name);
    let read = Read::<C>::from_arg_matches(&command.try_get_matches_from_mut(arguments)?)
        .map_err(|error| error.format(&mut command))?;
    // These stand before a command only so that `kinfolk --listen …` starts a node.
    if let (Some(_), Some(flag)) = (&read.command, read.start.flags().first()) {
        let message = format!("{} has no place before a command; it belongs behind `up` or `config`", flag.name);
        return Err(command.error(ErrorKind::ArgumentConflict, message));
    }
    Ok(read)
}

/// The definition of the command line of the program of this name.
pub(crate) fn command<C: Subcommand>(name: &'static str) -> clap::Command {
    Read::<C>::command().name(name).after_help(AFTER_HELP.replace("NAME", name))
}

impl Common {
    /// What these flags set.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        let data_dir = self.data_dir.as_ref().map(|path| Flag::new("--data-dir", "data_dir", path.to_string_lossy()));
        let log = self.log.as_ref().map(|filter| Flag::new("--log", "log", filter));
        let set = self.set.iter().map(|(key, value)| Flag::new("--set", key, value));
        set.chain(data_dir).chain(log).collect()
    }
}

/// At least a second, at most an hour.
fn look_for(text: &str) -> Result<Duration, String> {
    let span = crate::config::span(text).map_err(|_| "write a span of time with its unit, such as 20s or 1m")?;
    if (1..=3_600).contains(&span.as_secs()) { Ok(span) } else { Err("must be 1s to 1h".to_owned()) }
}

fn key_and_value(text: &str) -> Result<(String, String), &'static str> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, such as lifecycle.high_water=100")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

impl Start {
    /// What these flags set.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        let one =
            |name: &str, key: &str, value: &Option<String>| value.as_ref().map(|value| Flag::new(name, key, value));
        let list =
            |name: &str, key: &str, values: &[String]| (!values.is_empty()).then(|| Flag::list(name, key, values));
        let mdns = match (self.mdns, self.no_mdns) {
            (true, _) => Some(Flag::new("--mdns", "mdns", "true")),
            (_, true) => Some(Flag::new("--no-mdns", "mdns", "false")),
            (false, false) => None,
        };
        [
            list("--listen", "listen", &self.listen),
            one("--network", "network", &self.network),
            one("--role", "role", &self.role),
            list("--bootstrap", "bootstrap", &self.bootstrap),
            list("--signal", "signal.servers", &self.signal),
            list("--pin", "pinned", &self.pin),
            mdns,
            one("--kademlia", "kademlia", &self.kademlia),
            one("--kademlia-name", "protocols.kademlia", &self.kademlia_name),
            one("--identify-name", "protocols.identify", &self.identify_name),
            list("--external", "nat.external", &self.external),
            list("--relay", "nat.relays", &self.relay),
            one("--http", "http.listen", &self.http),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::NoCommand;

    fn read(line: &str) -> Result<Read<NoCommand>, clap::Error> {
        super::read("kinfolk", line.split(' ').map(Into::into))
    }

    #[test]
    fn the_definition_holds_together() {
        command::<NoCommand>("kinfolk").debug_assert();
    }

    #[test]
    fn a_start_needs_no_command() {
        let plain = read("kinfolk --listen /ip4/127.0.0.1/tcp/0 --no-mdns --json").unwrap();
        assert!(plain.command.is_none() && plain.common.json);
        let up = read("kinfolk up --listen /ip4/127.0.0.1/tcp/0 --no-mdns --json").unwrap();
        let Some(Command::Up(start)) = up.command else { panic!("{up:?}") };
        assert_eq!(start.flags(), plain.start.flags());
        assert_eq!(start.flags().len(), 2);
    }

    #[test]
    fn settings_of_a_start_do_not_stand_before_other_commands() {
        let error = read("kinfolk --network smith status").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ArgumentConflict);
        assert!(error.to_string().contains("--network has no place before a command"), "{error}");
        assert!(read("kinfolk --data-dir /d status").is_ok());
        assert!(read("kinfolk status --data-dir /d").is_ok());
    }

    #[test]
    fn the_last_word_on_mdns_counts() {
        let flags = |line| read(line).unwrap().start.flags();
        assert_eq!(flags("kinfolk --mdns --no-mdns"), [Flag::new("--no-mdns", "mdns", "false")]);
        assert_eq!(flags("kinfolk --no-mdns --mdns"), [Flag::new("--mdns", "mdns", "true")]);
    }
}
