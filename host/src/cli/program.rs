//! What the programs differ in.

use std::{fmt, future::Future, io, net::SocketAddr, sync::OnceLock};

use clap::{ArgMatches, Command, Subcommand, error::ErrorKind};
use futures::future::BoxFuture;

use super::{args::Common, failure::Failure, out::Out};
use crate::config::{Defaults, Settings};

/// A program with this command line.
pub trait Program {
    /// What people type.
    const NAME: &'static str;

    /// Commands that only it has; [`NoCommand`] if it has none.
    type Command: Subcommand;

    /// Presets that are its own.
    fn defaults() -> Defaults;

    /// What its nodes run on.
    ///
    /// # Errors
    /// When the operating system says no.
    fn runtime() -> io::Result<tokio::runtime::Runtime>;

    /// Does a command of its own.
    ///
    /// # Errors
    /// What is told to the user.
    fn execute(command: Self::Command, common: &Common, out: Out) -> Result<(), Failure>;

    /// Starts what is to run beside a node that has just started, if anything.
    ///
    /// # Errors
    /// What is told to the user; the node ends then.
    fn beside(settings: &Settings, out: Out) -> impl Future<Output = Result<Option<Beside>, Failure>>;
}

/// Something that runs beside a node.
pub struct Beside {
    /// Where it listens.
    pub doorway: SocketAddr,
    /// Ends it.
    pub shutdown: BoxFuture<'static, ()>,
}

impl fmt::Debug for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Beside").field("doorway", &self.doorway).finish_non_exhaustive()
    }
}

/// No command of its own.
#[derive(Clone, Copy, Debug)]
pub enum NoCommand {}

impl clap::FromArgMatches for NoCommand {
    fn from_arg_matches(_: &ArgMatches) -> Result<Self, clap::Error> {
        Err(clap::Error::new(ErrorKind::InvalidSubcommand))
    }

    fn update_from_arg_matches(&mut self, _: &ArgMatches) -> Result<(), clap::Error> {
        match *self {}
    }
}

impl Subcommand for NoCommand {
    fn augment_subcommands(command: Command) -> Command {
        command
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        command
    }

    fn has_subcommand(_: &str) -> bool {
        false
    }
}

static NAME: OnceLock<&'static str> = OnceLock::new();

/// The name of this program is set once, at its start.
pub(super) fn set_name(name: &'static str) {
    // The second time it is the same one.
    let _ = NAME.set(name);
}

/// What to type, for advice: `typed("up")` is "`kinfolk up`".
pub(super) fn typed(command: &str) -> String {
    format!("`{} {command}`", NAME.get().unwrap_or(&"kinfolk"))
}
