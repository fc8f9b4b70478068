//! The program `kinfolk`: starts a node, and asks a running one.

mod cli;

fn main() -> std::process::ExitCode {
    cli::run(std::env::args_os().collect())
}
