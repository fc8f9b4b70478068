//! `kinfolk peers --watch`.

use std::time::Duration;

use futures::StreamExt;
use kinfolk_shell::api::{
    client::{Client, ClientError, Events},
    types::{EventLine, Peers},
};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout_at};

use super::{failure::Failure, node::Node, out::Out, render};

/// Events that come closer together than this make one picture.
const CALM: Duration = Duration::from_millis(250);

/// Ages and round trips move on by themselves.
const REFRESH: Duration = Duration::from_secs(5);

/// Shows the peers, and again whenever something has happened; ends with the node, or with the terminal's Ctrl-C.
///
/// In a terminal the picture stays in its place; into a pipe each one is printed below the last, with `--json` one
/// object a line.
pub(super) async fn watch(node: &Node, long: bool, out: Out) -> Result<(), Failure> {
    let client = node.client()?;
    let mut events = node.answer(client.events().await)?;
    match show(&client, &mut events, long, out).await {
        Ended::Failed(failure) => Err(failure),
        // A node that is killed leaves half a line behind.
        Ended::Broken(error) => match client.id().await {
            Ok(_) => node.answer(Err(error)),
            Err(_) => Err(node.gone()),
        },
        Ended::Gone => Err(node.gone()),
    }
}

/// How a watch ended.
enum Ended {
    Failed(Failure),
    Broken(ClientError),
    Gone,
}

async fn show(client: &Client, events: &mut Events, long: bool, out: Out) -> Ended {
    // The first line says that from here on nothing is missed.
    if let Err(ended) = heard(events.next().await) {
        return ended;
    }
    let mut refresh = interval_at(Instant::now() + REFRESH, REFRESH);
    refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        match client.peers().await {
            Ok(peers) => {
                if let Err(failure) = draw(&Peers { peers }, long, out) {
                    return Ended::Failed(failure);
                }
            }
            Err(error) => return Ended::Broken(error),
        }
        let calm = Instant::now() + CALM;
        tokio::select! {
            event = events.next() => {
                let mut event = heard(event);
                // Whatever else happens until then is in the next picture.
                while event.is_ok() {
                    match timeout_at(calm, events.next()).await {
                        Ok(next) => event = heard(next),
                        Err(_) => break,
                    }
                }
                if let Err(ended) = event {
                    return ended;
                }
            }
            _ = refresh.tick(), if out.is_terminal() => {}
        }
    }
}

fn heard(event: Option<Result<EventLine, ClientError>>) -> Result<(), Ended> {
    match event {
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(Ended::Broken(error)),
        None => Err(Ended::Gone),
    }
}

fn draw(peers: &Peers, long: bool, out: Out) -> Result<(), Failure> {
    if out.json {
        return out.object(peers);
    }
    let Some((width, height)) = out.size() else {
        return out.line(&format!("{}\n", render::peers(&peers.peers, long, None)));
    };
    let table = render::peers(&peers.peers, long, Some(width));
    // What does not fit would scroll, and the next picture would miss its place.
    let lines: Vec<&str> = table.lines().take(height - 1).collect();
    out.redraw(&lines.join("\n"))
}
