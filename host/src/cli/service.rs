//! What a service manager is told (`sd_notify`): that the node runs, that it still answers, that it ends.

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    time::Duration,
};

use crate::Control;

/// The service manager that has started this process, if one has.
#[derive(Debug)]
pub(super) struct Service {
    manager: Option<(UnixDatagram, SocketAddr)>,
    /// It wants to hear this often that all is well.
    beat: Option<Duration>,
}

impl Service {
    /// As the environment says it.
    pub(super) fn of_process() -> Self {
        let address = env::var("NOTIFY_SOCKET").ok().filter(|address| !address.is_empty());
        let manager = address.and_then(|address| match manager(&address) {
            Ok(manager) => Some(manager),
            Err(error) => {
                tracing::warn!(%error, address, "the service manager can't be told anything");
                None
            }
        });
        let own = env::var("WATCHDOG_PID").map_or(true, |pid| pid.parse() == Ok(std::process::id()));
        let limit = env::var("WATCHDOG_USEC").ok().filter(|_| own).and_then(|limit| limit.parse().ok());
        Self { manager, beat: limit.map(|limit| Duration::from_micros(limit) / 2) }
    }

    /// The node runs.
    pub(super) fn ready(&self) {
        self.tell("READY=1");
    }

    /// It is about to end.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// Says as often as it is wanted that the node answers. A node that does not is silence, and ended by the manager.
    pub(super) async fn watch(&self, node: &Control) {
        let Some(beat) = self.beat else { return std::future::pending().await };
        loop {
            if node.config().await.is_ok() {
                self.tell("WATCHDOG=1");
            }
            tokio::time::sleep(beat).await;
        }
    }

    fn tell(&self, what: &str) {
        if let Some((socket, address)) = &self.manager
            && let Err(error) = socket.send_to_addr(what.as_bytes(), address)
        {
            tracing::warn!(%error, what, "the service manager was not told");
        }
    }
}

/// A path, or the name of an abstract socket behind an `@`.
fn manager(address: &str) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match address.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(address)?,
    };
    let socket = UnixDatagram::unbound()?;
    // Whoever does not read must not hold the node up.
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}
