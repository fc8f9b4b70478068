//! The program `kinfolk`: on all processors, and with a doorway: `kinfolk doorway`, a signal server in the foreground, or
//! one beside a node.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use clap::{Args, Subcommand};
use futures::FutureExt;
use kinfolk::{
    config::{Defaults, Flag, Settings},
    doorway::{Doorway, DoorwayError, DoorwaySettings},
};
use kinfolk_host::cli::{Beside, Common, Exit, Failure, Out, Program, Signals, load_with, log, say};
use tokio::{runtime::Runtime, sync::oneshot};

/// Where a doorway listens that nobody has told where: behind a reverse proxy on the same machine.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4080);

/// The program.
pub(crate) struct Kinfolk;

/// What only this program has.
#[derive(Subcommand, Debug)]
pub(crate) enum Own {
    /// Run a signal server, where nodes find their first peers; docs/doorway.md tells how
    Doorway(Flags),
}

/// Settings of a doorway.
#[derive(Args, Clone, Default, Debug)]
#[command(next_help_heading = "Settings of the doorway")]
pub(crate) struct Flags {
    /// Answer HTTP there; otherwise 127.0.0.1:4080, to which a reverse proxy leads
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// Serve this network; several times for several networks
    #[arg(long, value_name = "NAME")]
    network: Vec<String>,
    /// Keep the records in this Redis or Valkey server, such as redis://127.0.0.1:6379/0
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// Who may read and write: a file with lines such as "elohim write TOKEN"
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    tokens: Option<String>,
}

impl Program for Kinfolk {
    const NAME: &'static str = "kinfolk";

    type Command = Own;

    fn defaults() -> Defaults {
        Defaults::default()
    }

    fn runtime() -> io::Result<Runtime> {
        tokio::runtime::Builder::new_multi_thread().enable_all().build()
    }

    fn execute(Own::Doorway(flags): Own, common: &Common, out: Out) -> Result<(), Failure> {
        let settings = load_with::<Self>(common, flags.flags())?;
        log(&settings.host.log);
        Self::runtime().map_err(Failure::failed)?.block_on(doorway(settings, out))
    }

    async fn beside(settings: &Settings, out: Out) -> Result<Option<Beside>, Failure> {
        let Some(listen) = settings.host.doorway.listen else { return Ok(None) };
        let doorway = open(settings, listen, out).await?;
        let address = doorway.address();
        let (stop, stopped) = oneshot::channel::<()>();
        let life = tokio::spawn(doorway.serve(stopped.map(drop)));
        // What it keeps is on disk then. An error is a panic, which was told where it happened.
        let shutdown = async move {
            drop(stop);
            let _ = life.await;
        };
        Ok(Some(Beside { doorway: address, shutdown: shutdown.boxed() }))
    }
}

/// Runs a doorway until a signal ends it.
async fn doorway(settings: Settings, out: Out) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let listen = settings.host.doorway.listen.unwrap_or(LISTEN);
    let doorway = open(&settings, listen, out).await?;
    let served = &settings.host.doorway;
    let networks = if served.networks.is_empty() { &vec![settings.config.network.clone()] } else { &served.networks };
    let kept = match &served.redis {
        Some(url) => url.to_string(),
        None => settings.host.data_dir.display().to_string(),
    };
    let address = doorway.address();
    let text = format!(
        "doorway of {} on http://{address}/signal, records in {kept}\nothers name it as https://…/signal, where a reverse proxy \
         leads here",
        networks.join(", ")
    );
    let detail = serde_json::json!({
        "http": address.to_string(),
        "networks": networks,
        "agent": kinfolk::AGENT,
        "pid": std::process::id(),
    });
    say(out, "started", &text, detail)?;
    doorway.serve(async move { signals.next().await }).await;
    say(out, "stopped", "the doorway has ended", serde_json::json!({}))
}

async fn open(settings: &Settings, listen: SocketAddr, out: Out) -> Result<Doorway, Failure> {
    let failed = |error: DoorwayError| match error {
        DoorwayError::Settings(_) => Failure::new(Exit::BadInput, "bad_settings", error),
        DoorwayError::Listen { .. } | DoorwayError::Store(_) => Failure::failed(error),
    };
    let doorway = Doorway::open(DoorwaySettings::of(settings, listen).map_err(failed)?).await.map_err(failed)?;
    doorway.warnings().iter().try_for_each(|warning| say(out, "warning", warning, serde_json::json!({})))?;
    Ok(doorway)
}

impl Flags {
    /// What these flags set.
    fn flags(&self) -> Vec<Flag> {
        let one =
            |name: &str, key: &str, value: &Option<String>| value.as_ref().map(|value| Flag::new(name, key, value));
        let networks = (!self.network.is_empty()).then(|| Flag::list("--network", "doorway.networks", &self.network));
        [
            one("--listen", "doorway.listen", &self.listen),
            networks,
            one("--redis", "doorway.redis", &self.redis),
            one("--tokens", "doorway.tokens", &self.tokens),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}
