//! The command line.

mod batch;
mod simulate;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    str::FromStr,
};

use clap::{Args, Parser, Subcommand};
use kinfolk_core::{PeerId, Time};
use kinfolk_sim::{
    bless::{BlessError, Blessed, bless, traces},
    redact::{RedactError, Redacted, redact},
    replay::{self, replay},
    show::{Filter, Form, show},
    stat::stat,
    trace::{ReadError, Reader},
    words,
};
use serde_json::json;

const EXIT_CODES: &str = "\
Exit codes:
  0  all is well
  1  a run has findings; compared figures are worse; there was nothing to shrink; the replay differs from the trace, or the trace has events that the grammar does not allow; nothing was written, because the redacted trace would; a file could not be blessed
  2  the command line is wrong
  3  the scenario or the results can't be read; the trace could be read only in part (what was read was used), or not at all
  4  what is to be written can't be written";

/// Simulates Kinfolk nodes on a simulated internet; replays, shows, measures, redacts and blesses their traces.
#[derive(Parser, Debug)]
#[command(version, after_help = EXIT_CODES, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run a scenario: real cores on a simulated internet, in simulated time.
    ///
    /// The same scenario and seed give the same run, to the bit; `hash` says so. Ctrl-C ends it with what is known by
    /// then.
    Run(simulate::RunArgs),
    /// Run a scenario with very many seeds: in shares for many machines, with settings that are drawn from each seed.
    ///
    /// The results are JSON lines. Ended by Ctrl-C or by force it goes on from there when it is called again.
    Sweep(batch::SweepArgs),
    /// Put results of sweeps and runs together, and sum them up.
    Merge(batch::MergeArgs),
    /// Compare outcome figures with those of another revision, build or setting.
    Compare(batch::CompareArgs),
    /// Make a failing run small: fewer nodes, fewer faults, less time, the same failure.
    Shrink(simulate::ShrinkArgs),
    /// Tell in words what became of a node, or what was between two.
    Explain(simulate::ExplainArgs),
    /// Make one HTML page of a run: who was connected with whom, by which path, at each moment.
    Report(simulate::ReportArgs),
    /// Tell the core again what the trace says, and compare what it commands.
    ///
    /// Ends at the first difference and shows it with what stands around it.
    Replay(ReplayArgs),
    /// Look at a trace, or redact it.
    #[command(subcommand)]
    Trace(TraceCommand),
    /// Write into golden traces what the present core commands, after an intended change.
    ///
    /// The inputs stay; review the change as a diff.
    Bless(BlessArgs),
}

#[derive(Subcommand, Debug)]
enum TraceCommand {
    /// Show a timeline in words.
    Show(ShowArgs),
    /// Count what is in it.
    Stat(StatArgs),
    /// Rename all peers, addresses and hosts, keeping order and prefixes.
    ///
    /// Not renamed: network and protocol names, agents, ports, times. The new trace is replayed before it is put in its
    /// place; if the core would command anything else, nothing is written.
    Redact(RedactArgs),
}

#[derive(Args, Debug)]
struct ReplayArgs {
    /// The trace, plain or compressed; `-` is the standard input.
    file: PathBuf,
    /// How many inputs to show before and after the first difference.
    #[arg(long, value_name = "N", default_value_t = replay::Options::default().context)]
    context: usize,
    /// Print one JSON value.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct ShowArgs {
    /// The trace, plain or compressed; `-` is the standard input.
    file: PathBuf,
    /// Only what is about this peer.
    #[arg(long, value_parser = peer)]
    peer: Option<PeerId>,
    /// Nothing before this node time: `90`, `1h30m`.
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<Time>,
    /// Nothing after this node time.
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<Time>,
    /// Only events, commands and notices of this kind, such as `connected`, `dial`, `peer_expired`; may be repeated.
    #[arg(long = "kind", value_name = "KIND", value_delimiter = ',', value_parser = kind)]
    kinds: Vec<String>,
    /// Print a JSON value a line.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct StatArgs {
    /// The trace, plain or compressed; `-` is the standard input.
    file: PathBuf,
    /// Print one JSON value.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct RedactArgs {
    /// The trace, plain or compressed.
    from: PathBuf,
    /// Where the redacted one goes; compressed if the name ends in `.zst`.
    to: PathBuf,
    /// Print one JSON value.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct BlessArgs {
    /// Traces, or folders of them, such as `tests/traces`.
    #[arg(required = true)]
    places: Vec<PathBuf>,
    /// Print a JSON value for each trace.
    #[arg(long)]
    json: bool,
}

/// What a command came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Well = 0,
    Different = 1,
    Unreadable = 3,
    Unwritable = 4,
}

pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = io::BufWriter::new(io::stdout().lock());
    let done = run(cli, &mut out).and_then(|outcome| out.flush().map(|()| outcome));
    let outcome = match done {
        Ok(outcome) => outcome,
        // `kinfolk-sim trace show … | head` is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Outcome::Well,
        Err(error) => {
            complain(&format!("the output can't be written: {error}"));
            Outcome::Unwritable
        }
    };
    ExitCode::from(outcome as u8)
}

fn run(cli: Cli, out: &mut dyn Write) -> io::Result<Outcome> {
    match cli.command {
        Command::Run(args) => simulate::run(&args, out),
        Command::Sweep(args) => batch::sweep(&args, out),
        Command::Merge(args) => batch::merge(&args, out),
        Command::Compare(args) => batch::compare(&args, out),
        Command::Shrink(args) => simulate::shrink(&args, out),
        Command::Explain(args) => simulate::explain(&args, out),
        Command::Report(args) => simulate::report(&args, out),
        Command::Replay(args) => run_replay(&args, out),
        Command::Trace(TraceCommand::Show(args)) => run_show(args, out),
        Command::Trace(TraceCommand::Stat(args)) => run_stat(&args, out),
        Command::Trace(TraceCommand::Redact(args)) => run_redact(&args, out),
        Command::Bless(args) => run_bless(&args, out),
    }
}

fn run_replay(args: &ReplayArgs, out: &mut dyn Write) -> io::Result<Outcome> {
    let mut reader = match Reader::open(&args.file) {
        Ok(reader) => reader,
        Err(error) => return unreadable(&error, args.json, out),
    };
    let report = replay(&mut reader, replay::Options { context: args.context });
    if args.json {
        writeln!(out, "{}", report.to_json())?;
    } else {
        write!(out, "{report}")?;
    }
    out.flush()?;
    for problem in &report.problems {
        complain(&problem.to_string());
    }
    Ok(match (&report.difference, report.problems.is_empty()) {
        (Some(_), _) => Outcome::Different,
        (None, false) => Outcome::Unreadable,
        (None, true) if report.ungrammatical > 0 => Outcome::Different,
        (None, true) => Outcome::Well,
    })
}

fn run_show(args: ShowArgs, out: &mut dyn Write) -> io::Result<Outcome> {
    let mut reader = match Reader::open(&args.file) {
        Ok(reader) => reader,
        Err(error) => return unreadable(&error, args.json, out),
    };
    let filter = Filter { peer: args.peer, from: args.from, to: args.to, kinds: args.kinds.into_iter().collect() };
    let form = if args.json { Form::Json } else { Form::Text };
    match show(&mut reader, &filter, form, out)? {
        None => Ok(Outcome::Well),
        Some(error) => unreadable(&error, args.json, out),
    }
}

fn run_stat(args: &StatArgs, out: &mut dyn Write) -> io::Result<Outcome> {
    let mut reader = match Reader::open(&args.file) {
        Ok(reader) => reader,
        Err(error) => return unreadable(&error, args.json, out),
    };
    let stat = stat(&mut reader);
    if args.json {
        writeln!(out, "{}", stat.to_json())?;
    } else if stat.inputs > 0 || stat.problem.is_none() {
        write!(out, "{stat}")?;
    }
    match &stat.problem {
        None => Ok(Outcome::Well),
        Some(error) => {
            out.flush()?;
            complain(&error.to_string());
            Ok(Outcome::Unreadable)
        }
    }
}

fn run_redact(args: &RedactArgs, out: &mut dyn Write) -> io::Result<Outcome> {
    let redacted = match redact(&args.from, &args.to) {
        Ok(redacted) => redacted,
        Err(RedactError::Read(error)) => return unreadable(&error, args.json, out),
        Err(error) => {
            if args.json {
                writeln!(out, "{}", json!({"type": "error", "error": {"message": error.to_string()}}))?;
            }
            complain(error.to_string().trim_end());
            return Ok(match error {
                RedactError::Write(_) | RedactError::SameFile(_) => Outcome::Unwritable,
                RedactError::Changed { .. }
                | RedactError::Broken { .. }
                | RedactError::NoFile
                | RedactError::Read(_) => Outcome::Unreadable,
                RedactError::DoesNotReplay(_) | RedactError::Differs(_) => Outcome::Different,
            });
        }
    };
    if args.json {
        let Redacted { peers, addresses, names, inputs, commands, problem } = &redacted;
        let error = problem.as_ref().map(|problem| json!(problem.to_json()));
        let value = json!({
            "file": args.to, "peers": peers, "addresses": addresses, "names": names, "inputs": inputs,
            "commands": commands, "error": error,
        });
        writeln!(out, "{value}")?;
    } else {
        writeln!(out, "{}: {redacted}", args.to.display())?;
    }
    match &redacted.problem {
        None => Ok(Outcome::Well),
        Some(problem) => {
            out.flush()?;
            complain(&problem.to_string());
            Ok(Outcome::Unreadable)
        }
    }
}

fn run_bless(args: &BlessArgs, out: &mut dyn Write) -> io::Result<Outcome> {
    let mut outcome = Outcome::Well;
    for place in &args.places {
        let files = match traces(place) {
            Ok(files) if files.is_empty() => Err("there are no traces in it".to_string()),
            files => files.map_err(|error| error.to_string()),
        };
        let files = files.unwrap_or_else(|error| {
            complain(&format!("{}: {error}", place.display()));
            outcome = Outcome::Unreadable;
            vec![]
        });
        for file in files {
            match bless(&file) {
                Ok(blessed) if args.json => {
                    let Blessed { inputs, changed_inputs, commands_before, commands_now, changed_headers } = blessed;
                    let value = json!({
                        "file": file, "changed": blessed.is_changed(), "inputs": inputs, "changed_inputs": changed_inputs,
                        "commands_before": commands_before, "commands_now": commands_now,
                        "changed_headers": changed_headers,
                    });
                    writeln!(out, "{value}")?;
                }
                Ok(blessed) => writeln!(out, "{}: {blessed}", file.display())?,
                Err(error) => {
                    if args.json {
                        writeln!(out, "{}", json!({"file": file, "error": {"message": error.to_string()}}))?;
                    }
                    out.flush()?;
                    complain(&error.to_string());
                    outcome = match error {
                        BlessError::Read(_) => Outcome::Unreadable,
                        BlessError::Write(_) => Outcome::Unwritable,
                        BlessError::Panicked { .. } => Outcome::Different,
                    };
                }
            }
        }
    }
    Ok(outcome)
}

/// Says so where people look, and with `--json` where programs do.
fn unreadable(error: &ReadError, json: bool, out: &mut dyn Write) -> io::Result<Outcome> {
    if json {
        writeln!(out, "{}", json!({"type": "error", "error": error.to_json()}))?;
    }
    out.flush()?;
    complain(&error.to_string());
    Ok(Outcome::Unreadable)
}

#[expect(clippy::print_stderr, reason = "a program tells people its errors there")]
fn complain(text: &str) {
    eprintln!("error: {text}");
}

fn peer(text: &str) -> Result<PeerId, String> {
    PeerId::from_str(text).map_err(|error| error.to_string())
}

fn time(text: &str) -> Result<Time, String> {
    words::parse_span(text).map(|span| Time::ZERO + span)
}

fn kind(text: &str) -> Result<String, String> {
    let known = [words::EVENTS, words::COMMANDS, words::NOTICES];
    if known.iter().any(|kinds| kinds.contains(&text)) {
        return Ok(text.to_string());
    }
    let [events, commands, notices] = known.map(|kinds| kinds.join(", "));
    Err(format!("no such kind.\nEvents: {events}.\nCommands: {commands}.\nNotices: {notices}."))
}
