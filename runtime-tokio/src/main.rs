//! The program `kinfolk`: starts a node, and asks a running one.

mod cli;

fn main() -> std::process::ExitCode {
    kinfolk_host::cli::run::<cli::Kinfolk>(std::env::args_os().collect())
}
