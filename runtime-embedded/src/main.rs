//! The program `kinfolk-embedded`: starts a node on one thread, and asks a running one.

use std::{io, process::ExitCode};

use kinfolk_embedded::{
    MEMORY,
    cli::{Beside, Common, Exit, Failure, NoCommand, Out, Program, run},
    config::{Defaults, Settings},
    core::Role,
};
use tokio::runtime::Runtime;

struct Embedded;

impl Program for Embedded {
    const NAME: &'static str = "kinfolk-embedded";

    type Command = NoCommand;

    fn defaults() -> Defaults {
        Defaults { role: Role::Family, memory: Some(MEMORY) }
    }

    fn runtime() -> io::Result<Runtime> {
        kinfolk_embedded::runtime()
    }

    fn execute(command: NoCommand, _: &Common, _: Out) -> Result<(), Failure> {
        match command {}
    }

    async fn beside(settings: &Settings, _: Out) -> Result<Option<Beside>, Failure> {
        match settings.host.doorway.listen {
            None => Ok(None),
            Some(_) => Err(Failure::new(
                Exit::BadInput,
                "bad_settings",
                "doorway.listen: this program has no doorway; `kinfolk` has, on a machine that is a server",
            )),
        }
    }
}

fn main() -> ExitCode {
    run::<Embedded>(std::env::args_os().collect())
}
