//! The program `kinfolk`.

mod args;
mod asking;
mod clock;
mod doctor;
mod doorway;
mod failure;
mod logs;
mod node;
mod out;
mod peer_name;
mod render;
mod settings;
mod up;
mod watch;

use std::{ffi::OsString, io, process::ExitCode, time::Duration};

use clap::CommandFactory;
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

use self::{
    args::{Bootstrap, Cli, Command, Common, Doorway, Start, Trace},
    failure::{Exit, Failure},
    node::Node,
    out::Out,
};

/// Runs the program; gives its exit code.
pub(crate) fn run(arguments: Vec<OsString>) -> ExitCode {
    let json = arguments.iter().any(|argument| argument == "--json");
    let cli = match Cli::read(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, json),
    };
    let json = cli.common.json;
    match execute(cli, Out { json }) {
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

fn execute(cli: Cli, out: Out) -> Result<(), Failure> {
    let common = &cli.common;
    match cli.command {
        None => start(common, &cli.start, out),
        Some(Command::Up(flags)) => start(common, &flags, out),
        Some(Command::Doorway(flags)) => open_doorway(common, &flags, out),
        Some(Command::Config(command)) => settings::command(common, &command, out),
        Some(Command::Doctor { timeout, start }) => examine(common, &start, timeout, out),
        Some(Command::Completions { shell }) => completions(shell),
        Some(command) => {
            let settings = settings::load(common, &Start::default())?;
            log(&settings.host.log);
            let node = Node::of(&settings.host);
            block_on(ask(&node, command, out))?
        }
    }
}

fn start(common: &Common, flags: &Start, out: Out) -> Result<(), Failure> {
    let settings = settings::load(common, flags)?;
    log(&settings.host.log);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(Failure::failed)?.block_on(up::up(settings, out))
}

fn open_doorway(common: &Common, flags: &Doorway, out: Out) -> Result<(), Failure> {
    let settings = settings::load_with(common, flags.flags())?;
    log(&settings.host.log);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(Failure::failed)?.block_on(doorway::doorway(settings, out))
}

fn examine(common: &Common, flags: &Start, timeout: Duration, out: Out) -> Result<(), Failure> {
    let settings = settings::load(common, flags)?;
    log(&settings.host.log);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(Failure::failed)?.block_on(doctor::doctor(settings, timeout, out))
}

async fn ask(node: &Node, command: Command, out: Out) -> Result<(), Failure> {
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
        | Command::Doorway(_)
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
fn log(filter: &str) {
    // The settings were checked: such a filter exists.
    let filter: Targets = filter.parse().unwrap_or_default();
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    tracing_subscriber::registry().with(lines).with(filter).init();
}

fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "kinfolk", &mut script);
    Out { json: false }.line(&String::from_utf8_lossy(&script))
}
