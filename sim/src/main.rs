//! `kinfolk-sim`: replays the traces of Kinfolk nodes, and shows, measures, redacts and blesses them.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
