//! The command line of Kinfolk's programs. Each is a [`Program`]; [`run`] is its `main`.

mod args;
mod asking;
mod clock;
mod doctor;
mod failure;
mod logs;
mod node;
mod out;
mod peer_name;
mod program;
mod render;
mod service;
mod settings;
mod up;
mod watch;

use std::{ffi::OsString, io, process::ExitCode, time::Duration};

use clap::Subcommand;
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

pub use self::{
    args::Common,
    failure::{Exit, Failure},
    out::Out,
    program::{Beside, NoCommand, Program},
    settings::load_with,
    up::{Signals, say},
};
use self::{
    args::{Bootstrap, Command, Read, Start, Trace},
    node::Node,
};

/// Runs a program; gives its exit code.
pub fn run<P: Program>(arguments: Vec<OsString>) -> ExitCode {
    program::set_name(P::NAME);
    let json = arguments.iter().any(|argument| argument == "--json");
    let cli = match args::read::<P::Command>(P::NAME, arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, json),
    };
    let json = cli.common.json;
    match execute::<P>(cli, Out { json }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json),
    }
}

/// Help and version are no errors; the rest of what `clap` says is.
fn usage(error: &clap::Error, json: bool) -> ExitCode {
    if !error.use_stderr() {
        return match error.print() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => Failure::from(error).report(json),
        };
    }
    if json {
        let text = error.render().to_string();
        return Failure::new(Exit::BadInput, "usage", text.trim().trim_start_matches("error: ")).report(true);
    }
    // An error stream that is closed leaves nobody to tell.
    let _ = error.print();
    ExitCode::from(Exit::BadInput as u8)
}

fn execute<P: Program>(cli: Read<P::Command>, out: Out) -> Result<(), Failure> {
    let common = &cli.common;
    match cli.command {
        None => start::<P>(common, &cli.start, out),
        Some(Command::Up(flags)) => start::<P>(common, &flags, out),
        Some(Command::Own(command)) => P::execute(command, common, out),
        Some(Command::Config(command)) => settings::command::<P>(common, &command, out),
        Some(Command::Doctor { timeout, start }) => examine::<P>(common, &start, timeout, out),
        Some(Command::Completions { shell }) => completions::<P>(shell),
        Some(command) => ask_node::<P>(common, command, out),
    }
}

// What a node never does has no place on the stack of one that runs: 70 KiB that it would keep.
#[inline(never)]
fn ask_node<P: Program>(common: &Common, command: Command<P::Command>, out: Out) -> Result<(), Failure> {
    let settings = settings::load::<P>(common, &Start::default())?;
    log(&settings.host.log);
    let node = Node::of(&settings.host);
    block_on(ask(&node, command, out))?
}

fn start<P: Program>(common: &Common, flags: &Start, out: Out) -> Result<(), Failure> {
    let settings = settings::load::<P>(common, flags)?;
    log(&settings.host.log);
    P::runtime().map_err(Failure::failed)?.block_on(up::up::<P>(settings, out))
}

#[inline(never)]
fn examine<P: Program>(common: &Common, flags: &Start, timeout: Duration, out: Out) -> Result<(), Failure> {
    let settings = settings::load::<P>(common, flags)?;
    log(&settings.host.log);
    P::runtime().map_err(Failure::failed)?.block_on(doctor::doctor(settings, timeout, out))
}

async fn ask<C: Subcommand>(node: &Node, command: Command<C>, out: Out) -> Result<(), Failure> {
    match command {
        Command::Id { addresses } => asking::id(node, addresses, out).await,
        Command::Status => asking::status(node, out).await,
        Command::Peers { peer: None, watch: true, long } => watch::watch(node, long, out).await,
        Command::Peers { peer: Some(_), watch: true, .. } => {
            Err(Failure::bad_input("--watch shows all peers; leave the PEER out"))
        }
        Command::Peers { peer: Some(name), .. } => asking::peer(node, &name, out).await,
        Command::Peers { peer: None, long, .. } => asking::peers(node, long, out).await,
        Command::Connect { to } => asking::connect(node, &to, out).await,
        Command::Disconnect { peer } => asking::request(node, asking::Request::Disconnect, &peer, out).await,
        Command::Pin { peer } => asking::pin(node, &peer, out).await,
        Command::Forget { peer } => asking::request(node, asking::Request::Forget, &peer, out).await,
        Command::Allow { peer } => asking::request(node, asking::Request::Allow, &peer, out).await,
        Command::Block { peer } => asking::request(node, asking::Request::Block, &peer, out).await,
        Command::Why { peer } => asking::why(node, peer.as_deref(), out).await,
        Command::Put { text } => logs::put(node, text, out).await,
        Command::Log { author, last, follow } => logs::log(node, author.as_deref(), last, follow, out).await,
        Command::Sync => logs::sync(node, out).await,
        Command::Bootstrap(Bootstrap::List) => asking::bootstrap_list(node, out).await,
        Command::Bootstrap(Bootstrap::Add { address }) => asking::bootstrap(node, &address, true, out).await,
        Command::Bootstrap(Bootstrap::Remove { address }) => asking::bootstrap(node, &address, false, out).await,
        Command::Trace(Trace::Start) => asking::trace(node, true, out).await,
        Command::Trace(Trace::Stop) => asking::trace(node, false, out).await,
        Command::Trace(Trace::Export { file, force }) => asking::export(node, &file, force, out).await,
        Command::Up(_)
        | Command::Own(_)
        | Command::Config(_)
        | Command::Doctor { .. }
        | Command::Completions { .. } => Ok(()),
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(Failure::failed)?.block_on(future))
}

/// Log lines go to the error stream, and only those that were asked for.
pub fn log(filter: &str) {
    // The settings were checked: such a filter exists.
    let filter: Targets = filter.parse().unwrap_or_default();
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    tracing_subscriber::registry().with(lines).with(filter).init();
}

fn completions<P: Program>(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::command::<P::Command>(P::NAME), P::NAME, &mut script);
    Out { json: false }.line(&String::from_utf8_lossy(&script))
}
