//! `kinfolk up`: a node in the foreground, and what happens to it as lines.

use std::{net::SocketAddr, time::Duration};

use futures::{FutureExt, StreamExt};
use kinfolk_core::{Address, Scope};
use kinfolk_shell::api::types::EventLine;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::sleep,
};

use super::{
    clock::{now_unix_ms, time_of_day},
    failure::{Exit, Failure},
    out::Out,
    program::Program,
    render::Narrator,
    service::Service,
};
use crate::{Fed, NoBehaviour, Node, Running, StartError, config::Settings};

/// After this long without a better address, those that only this machine can use are told.
const SETTLE: Duration = Duration::from_secs(1);

/// No person says it twice within this time.
const SAME_SIGNAL: Duration = Duration::from_millis(300);

/// The exit code of a node that was told twice to end: 128 + SIGINT, as shells have it.
const KILLED: i32 = 130;

/// Starts a node and tells what happens, until a signal ends it.
pub(super) async fn up<P: Program>(settings: Settings, out: Out) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let running = Node::builder().settings(&settings).start().await.map_err(failed)?;
    // After the node: it is the one to have the data folder.
    let beside = match P::beside(&settings, out).await {
        Ok(beside) => beside,
        Err(failure) => {
            running.shutdown().await;
            return Err(failure);
        }
    };
    let service = Service::of_process();
    service.ready();
    let told =
        tell(&running, beside.as_ref().map(|beside| beside.doorway), &settings, &service, &mut signals, out).await;
    service.stopping();
    let end = async {
        if let Some(beside) = beside {
            beside.shutdown.await;
        }
        running.shutdown().await;
    };
    tokio::select! {
        () = end => {}
        () = signals.again() => std::process::exit(KILLED),
    }
    told?;
    say(out, "stopped", "the node has ended", serde_json::json!({}))
}

/// Prints events until a signal comes.
async fn tell(
    running: &Running<NoBehaviour>,
    doorway: Option<SocketAddr>,
    settings: &Settings,
    service: &Service,
    signals: &mut Signals,
    out: Out,
) -> Result<(), Failure> {
    let mut events = running.events();
    let mut narrator = Narrator::new(running.peer_id());
    greet(running, doorway, settings, out)?;
    warn(running, out)?;
    let mut settle = Box::pin(sleep(if only_here(&settings.config.listen) { Duration::ZERO } else { SETTLE }));
    let mut settled = false;
    let mut watch = Box::pin(service.watch(running.handle()));
    loop {
        tokio::select! {
            biased;
            () = signals.next() => return Ok(()),
            () = &mut watch => {}
            event = events.next() => match event {
                None => return Err(Failure::failed("the node has ended by itself; `--log info` may tell why")),
                Some(Fed::Lost(lost)) if out.json => out.object(&EventLine::lagged(now_unix_ms(), lost))?,
                Some(Fed::Lost(lost)) => out.line(&stamped(now_unix_ms(), &format!("{lost} events were lost: too many at once")))?,
                Some(Fed::Item(told)) => {
                    let because = told.because.to_string();
                    if out.json {
                        out.object(&EventLine::of(told.at_unix_ms, &told.notice, because))?;
                    } else if let Some(text) = narrator.tell(&told.notice, &because) {
                        out.line(&stamped(told.at_unix_ms, &text))?;
                    }
                }
            },
            () = &mut settle, if !settled => {
                settled = true;
                for text in narrator.settle() {
                    if !out.json {
                        out.line(&stamped(now_unix_ms(), &text))?;
                    }
                }
            }
        }
    }
}

/// The first lines: who this is.
fn greet(
    running: &Running<NoBehaviour>,
    doorway: Option<SocketAddr>,
    settings: &Settings,
    out: Out,
) -> Result<(), Failure> {
    let (peer, config, folder) = (running.peer_id(), &settings.config, settings.host.data_dir.display());
    if out.json {
        let detail = serde_json::json!({
            "peer": peer,
            "agent": crate::AGENT,
            "network": config.network,
            "role": config.role,
            "data_dir": folder.to_string(),
            "api_socket": settings.host.api_socket.display().to_string(),
            "http": running.http().map(|address| address.to_string()),
            "doorway": doorway.map(|address| address.to_string()),
            "pid": std::process::id(),
        });
        return say(out, "started", "the node has started", detail);
    }
    let http = running.http().map(|address| format!("\nfor operators: http://{address}/metrics, /health, /ready"));
    let doorway = doorway.map(|address| format!("\ndoorway: http://{address}/signal"));
    let first = format!("{}, network {}, data in {folder}\npeer id {peer}", crate::AGENT, config.network);
    out.line(&format!("{first}{}{}", http.unwrap_or_default(), doorway.unwrap_or_default()))
}

/// What the user should know about this start.
fn warn(running: &Running<NoBehaviour>, out: Out) -> Result<(), Failure> {
    running.warnings().iter().try_for_each(|warning| say(out, "warning", warning, serde_json::json!({})))
}

/// A line that is no notice of the core.
///
/// # Errors
/// When nobody can read it.
pub fn say(out: Out, event: &str, text: &str, detail: serde_json::Value) -> Result<(), Failure> {
    let at_unix_ms = now_unix_ms();
    if !out.json {
        return out.line(&stamped(at_unix_ms, text));
    }
    let (event, text, because) = (event.to_owned(), text.to_owned(), String::new());
    out.object(&EventLine { at_unix_ms, event, peer: None, text, because, detail })
}

fn stamped(at_unix_ms: u64, text: &str) -> String {
    format!("{}  {text}", time_of_day(at_unix_ms))
}

/// Whether the settings ask for nothing but this machine.
fn only_here(listen: &[Address]) -> bool {
    listen.iter().all(|address| address.scope() == Some(Scope::Loopback))
}

fn failed(error: StartError) -> Failure {
    match error {
        StartError::NodeRunning(_) => Failure::new(Exit::NodeRunning, "node_running", error),
        StartError::Settings(_) => Failure::new(Exit::BadInput, "bad_settings", error),
        StartError::Failed(_) => Failure::failed(error),
    }
}

/// Ctrl-C, and what a service manager or a closing terminal sends.
#[derive(Debug)]
pub struct Signals([Signal; 3]);

impl Signals {
    /// Listens from now on. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the operating system says no.
    pub fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::failed(format!("can't listen for signals: {error}")));
        Ok(Self([listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?, listen(SignalKind::hangup())?]))
    }

    /// Another one after the first. What comes at the same time is the first once more: `timeout` and some service
    /// managers send theirs to the process and to its group.
    async fn again(&mut self) {
        sleep(SAME_SIGNAL).await;
        while self.next().now_or_never().is_some() {}
        self.next().await;
    }

    /// The next one.
    pub async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
