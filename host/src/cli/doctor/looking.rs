//! Looking around.

use std::{
    net::{IpAddr, Ipv4Addr, UdpSocket},
    process::Stdio,
    time::Duration,
};

use futures::join;
use kinfolk_core::{Address, Config, Interfaces, Mapping, Reachability, Scope, SignalConfig};
use kinfolk_shell::{
    api::{
        client::ClientError,
        types::{SignalServer, SignalState, Snapshot, Status},
    },
    clock, interfaces,
};
use tokio::{
    process::Command,
    time::{Instant, sleep, timeout},
};

use super::{
    super::{failure::Failure, node::Node},
    facts::{Asked, Clock, Facts},
    servers,
};
use crate::{Control, Node as Builder, config::Settings};

/// How often is looked whether everything is known.
const LOOK: Duration = Duration::from_millis(200);

/// A change of verdict has to hold this long. A family's node has time, somebody who waits has not.
const DWELL: Duration = Duration::from_secs(3);

/// On the home network nobody takes longer to answer.
const NEIGHBOURS: Duration = Duration::from_secs(3);

/// Programs of this machine answer within this time.
const LOCAL: Duration = Duration::from_secs(2);

/// Looks until everything is known, or time is up.
pub(super) async fn look(settings: &Settings, node: &Node, limit: Duration) -> Result<Facts, Failure> {
    let start = Instant::now();
    let until = start + limit;
    let config: Config = settings.config.clone().into();
    let interfaces = interfaces::read();
    let before = ask(node).await?;
    let own = temporary(&config, before.is_some());
    let temporary = Builder::builder().ephemeral().signal_tokens(settings.host.signal_tokens.clone());
    let temporary = temporary.configure(|settings| *settings = own).start().await;
    let temporary = temporary.map_err(Failure::failed)?;
    let (servers, snapshot, synced) =
        join!(servers::try_all(&config, until), settled(&temporary, &interfaces, &config, start, until), synced(),);
    temporary.shutdown().await;
    // What it knows by now counts.
    let running = ask(node).await?;
    let asked = Asked { role: config.role, mdns: config.mdns, port_mapping: config.nat.port_mapping };
    Ok(Facts {
        multicast: multicast(&interfaces),
        interfaces,
        settings: asked,
        temporary: snapshot?,
        running,
        servers,
        clock: Clock { unix: clock::unix_secs(), synced },
        took: start.elapsed(),
    })
}

/// The node that runs on the data folder, if one does.
async fn ask(node: &Node) -> Result<Option<Snapshot>, Failure> {
    match node.client()?.snapshot().await {
        Ok(snapshot) => Ok(Some(snapshot)),
        Err(ClientError::NoNode { .. }) => Ok(None),
        Err(error) => node.answer(Err(error)),
    }
}

/// Settings of the temporary node. Beside a running node it takes other ports; else the usual ones, for which the router
/// may have been set up.
fn temporary(config: &Config, beside: bool) -> Config {
    let mut own = servers::unlisted(config);
    if beside {
        for address in &mut own.listen {
            if let (Some(ip), Some(transport)) = (address.host_ip(), address.transport()) {
                *address = Address::ip(ip, 0, transport);
            }
        }
    }
    // It is gone in a moment: nobody is to look for it.
    own.signal = SignalConfig { publish: false, ..config.signal.clone() };
    own.nat.dwell = own.nat.dwell.min(DWELL);
    own
}

/// What the temporary node knows, when there is nothing more to wait for.
async fn settled(
    node: &Control,
    interfaces: &Interfaces,
    config: &Config,
    start: Instant,
    until: Instant,
) -> Result<Snapshot, Failure> {
    loop {
        let snapshot = node.snapshot().await.map_err(Failure::failed)?;
        let neighbours = !config.mdns || start.elapsed() >= NEIGHBOURS;
        if Instant::now() >= until || (neighbours && is_known(&snapshot.status, interfaces, config)) {
            return Ok(snapshot);
        }
        sleep(LOOK.min(until.saturating_duration_since(Instant::now()))).await;
    }
}

fn is_known(status: &Status, interfaces: &Interfaces, config: &Config) -> bool {
    let has_way_out = interfaces.default_v4 || interfaces.default_v6;
    let router = !config.nat.port_mapping || !interfaces.default_v4 || status.gateway.is_some();
    let tells = |server: &SignalServer| server.peers > 0 || server.state == SignalState::NotAsked;
    let nobody = config.bootstrap.is_empty() && config.nat.relays.is_empty() && !status.signal.iter().any(tells);
    if nobody || !has_way_out {
        return router && !status.listening.is_empty();
    }
    let mapping = status.mappings.iter().all(|port| port.mapping != Mapping::Unknown);
    let held = status.relays.iter().filter(|relay| relay.held_for_s.is_some()).count();
    let relays = held >= usize::try_from(status.relays_wanted).unwrap_or(usize::MAX);
    router && mapping && relays && status.reachability != Reachability::Unknown
}

/// Whether groups of the home network can be joined: mDNS lives in one.
fn multicast(interfaces: &Interfaces) -> Vec<(IpAddr, Result<(), String>)> {
    const MDNS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
    let join = |ip: &Ipv4Addr| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.join_multicast_v4(&MDNS, ip)
    };
    let mut joined = vec![];
    for own in &interfaces.addresses {
        if let IpAddr::V4(ip) = own.ip
            && !matches!(Scope::of(own.ip), Scope::Loopback | Scope::LinkLocal)
        {
            joined.push((own.ip, join(&ip).map_err(|error| error.to_string())));
        }
    }
    joined
}

/// Whether a time service keeps the clock right, as the service or systemd says.
async fn synced() -> Option<bool> {
    if let kinfolk_core::Event::WallClock { synced: true, .. } = clock::wall_clock() {
        return Some(true);
    }
    let mut asking = Command::new("timedatectl");
    asking.args(["show", "--property", "NTPSynchronized", "--value"]).stdin(Stdio::null()).kill_on_drop(true);
    // That there is no such program, or that it can't tell, is an answer as well: nobody knows.
    let answer = timeout(LOCAL, asking.output()).await.ok()?.ok()?;
    match String::from_utf8_lossy(&answer.stdout).trim() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}
