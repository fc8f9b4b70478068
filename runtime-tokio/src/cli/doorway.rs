//! `kinfolk doorway`: a signal server in the foreground, or one beside a node.

use std::net::{Ipv4Addr, SocketAddr};

use kinfolk::{
    config::Settings,
    doorway::{Doorway, DoorwayError, DoorwaySettings},
};
use tokio::{sync::oneshot, task::JoinHandle};

use super::{
    failure::{Exit, Failure},
    out::Out,
    up::{Signals, say},
};

/// Where a doorway listens that nobody has told where: behind a reverse proxy on the same machine.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4080);

/// A doorway that runs beside something else.
pub(super) struct Beside {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    life: JoinHandle<()>,
}

/// Runs a doorway until a signal ends it.
pub(super) async fn doorway(settings: Settings, out: Out) -> Result<(), Failure> {
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

impl Beside {
    /// Starts the doorway that the settings ask for, if they do.
    pub(super) async fn start(settings: &Settings, out: Out) -> Result<Option<Self>, Failure> {
        let Some(listen) = settings.host.doorway.listen else { return Ok(None) };
        let doorway = open(settings, listen, out).await?;
        let address = doorway.address();
        let (stop, stopped) = oneshot::channel();
        let life = tokio::spawn(doorway.serve(async move {
            // An error is the end of whoever could say it.
            let _ = stopped.await;
        }));
        Ok(Some(Self { address, stop, life }))
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it; what it keeps is on disk then.
    pub(super) async fn shutdown(self) {
        let _ = self.stop.send(());
        // An error is a panic, which was told where it happened.
        let _ = self.life.await;
    }
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
