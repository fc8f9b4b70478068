//! `kinfolk peers --watch`.

use std::time::Duration;

use futures::StreamExt;
use kinfolk_shell::api::types::Peers;
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
    // The first line says that from here on nothing is missed.
    node.answer(events.next().await.ok_or_else(|| node.gone())?)?;
    let mut refresh = interval_at(Instant::now() + REFRESH, REFRESH);
    refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let peers = Peers { peers: node.answer(client.peers().await)? };
        if out.json {
            out.object(&peers)?;
        } else if let Some((width, height)) = out.size() {
            let table = render::peers(&peers.peers, long, Some(width));
            // What does not fit would scroll, and the next picture would miss its place.
            let lines: Vec<&str> = table.lines().take(height - 1).collect();
            out.redraw(&lines.join("\n"))?;
        } else {
            out.line(&format!("{}\n", render::peers(&peers.peers, long, None)))?;
        }
        let calm = Instant::now() + CALM;
        tokio::select! {
            event = events.next() => {
                node.answer(event.ok_or_else(|| node.gone())?)?;
                // Whatever else happens until then is in the next picture.
                while let Ok(event) = timeout_at(calm, events.next()).await {
                    node.answer(event.ok_or_else(|| node.gone())?)?;
                }
            }
            _ = refresh.tick(), if out.is_terminal() => {}
        }
    }
}
