//! Commands that ask the running node.

use std::path::Path;

use kinfolk_core::{PeerAddress, PeerId};
use kinfolk_shell::{
    api::{
        client::{Client, ClientError},
        types::{Bootstrap, Id, Outcome, Peers, ProblemKind, Why},
    },
    identity::Identity,
};
use serde::Serialize;

use super::{
    clock,
    failure::{Exit, Failure},
    node::Node,
    out::Out,
    peer_name::PeerName,
    program::typed,
    render,
};
use crate::short_name;

/// Requests about a peer that is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Request {
    Disconnect,
    Forget,
    Allow,
    Block,
}

/// `bootstrap list --json`.
#[derive(Serialize)]
struct BootstrapList {
    bootstrap: Vec<Bootstrap>,
}

pub(super) async fn status(node: &Node, out: Out) -> Result<(), Failure> {
    let status = node.answer(node.client()?.status().await)?;
    out.either(&status, || render::status(&status))
}

/// The own id. It is in the data folder, so no node needs to run for that.
pub(super) async fn id(node: &Node, addresses: bool, out: Out) -> Result<(), Failure> {
    let id = match node.client()?.id().await {
        Err(ClientError::NoNode { .. }) if !addresses => id_on_disk(node)?,
        answer => node.answer(answer)?,
    };
    match (out.json, addresses) {
        (true, _) => out.object(&id),
        (false, true) => out.line(&id.addresses.join("\n")),
        (false, false) => out.line(&id.peer.to_string()),
    }
}

fn id_on_disk(node: &Node) -> Result<Id, Failure> {
    let folder = &node.data_dir;
    match Identity::load(folder).map_err(Failure::failed)? {
        Some(identity) => Ok(Id { peer: identity.peer, agent: crate::AGENT.to_owned(), addresses: Vec::new() }),
        None => Err(Failure::new(
            Exit::Failed,
            "no_identity",
            format!("there is no identity in {} so far; {} makes one", folder.display(), typed("up")),
        )),
    }
}

pub(super) async fn peers(node: &Node, long: bool, out: Out) -> Result<(), Failure> {
    let peers = Peers { peers: node.answer(node.client()?.peers().await)? };
    let width = out.size().map(|(width, _)| width);
    out.either(&peers, || render::peers(&peers.peers, long, width))
}

pub(super) async fn peer(node: &Node, name: &str, out: Out) -> Result<(), Failure> {
    let name = PeerName::read(name)?;
    let client = node.client()?;
    let peer = node.answer(client.peer(find(node, &client, &name).await?).await)?;
    out.either(&peer, || render::peer(&peer))
}

pub(super) async fn why(node: &Node, name: Option<&str>, out: Out) -> Result<(), Failure> {
    let name = name.map(PeerName::read).transpose()?;
    let client = node.client()?;
    let peer = match name {
        Some(name) => Some(find(node, &client, &name).await?),
        None => None,
    };
    let why = Why { entries: node.answer(client.why(peer).await)? };
    if out.json {
        return out.object(&why);
    }
    let now = match peer {
        Some(peer) => match client.peer(peer).await {
            Ok(peer) => Some(render::situation(&peer)),
            // Its reasons are kept longer than the peer.
            Err(ClientError::Problem(problem)) if problem.kind == ProblemKind::UnknownPeer => None,
            Err(error) => return node.answer(Err(error)),
        },
        None => None,
    };
    out.line(&render::why(&why.entries, now.as_deref(), clock::day_and_time))
}

pub(super) async fn connect(node: &Node, to: &str, out: Out) -> Result<(), Failure> {
    let target = Target::read(to)?;
    let client = node.client()?;
    let to = target.find(node, &client).await?;
    outcome_of(&node.answer(client.connect(&to.to_string()).await)?, "connected", out)
}

pub(super) async fn pin(node: &Node, peer: &str, out: Out) -> Result<(), Failure> {
    let target = Target::read(peer)?;
    if let Target::Address(PeerAddress { peer: None, .. }) = target {
        return Err(Failure::bad_input("say whom to pin: a peer id, or an address that ends in /p2p/PEER"));
    }
    let client = node.client()?;
    let peer = target.find(node, &client).await?;
    let name = peer.peer.as_ref().map(short_name).unwrap_or_default();
    outcome_of(&node.answer(client.pin(&peer.to_string()).await)?, &format!("{name} is pinned"), out)
}

pub(super) async fn request(node: &Node, request: Request, name: &str, out: Out) -> Result<(), Failure> {
    let name = PeerName::read(name)?;
    let client = node.client()?;
    let peer = find(node, &client, &name).await?;
    let (answer, done) = match request {
        Request::Disconnect => (client.disconnect(peer).await, "is disconnected until somebody asks for it"),
        Request::Forget => (client.forget(peer).await, "is no longer remembered by hand"),
        Request::Allow => (client.allow(peer).await, "is allowed"),
        Request::Block => (client.block(peer).await, "is blocked"),
    };
    outcome_of(&node.answer(answer)?, &format!("{} {done}", short_name(&peer)), out)
}

pub(super) async fn bootstrap_list(node: &Node, out: Out) -> Result<(), Failure> {
    let list = BootstrapList { bootstrap: node.answer(node.client()?.status().await)?.bootstrap };
    out.either(&list, || render::bootstrap(&list.bootstrap))
}

pub(super) async fn bootstrap(node: &Node, address: &str, add: bool, out: Out) -> Result<(), Failure> {
    let address = crate::config::peer_address(address).map_err(Failure::bad_input)?.to_string();
    let client = node.client()?;
    let (answer, done) = if add {
        (client.add_bootstrap(&address).await, "is a bootstrap peer now")
    } else {
        (client.remove_bootstrap(&address).await, "is no bootstrap peer any more")
    };
    outcome_of(&node.answer(answer)?, &format!("{address} {done}"), out)
}

pub(super) async fn trace(node: &Node, on: bool, out: Out) -> Result<(), Failure> {
    let client = node.client()?;
    let status = node.answer(if on { client.trace_start().await } else { client.trace_stop().await })?;
    out.either(&status, || render::trace(&status))
}

pub(super) async fn export(node: &Node, file: &Path, force: bool, out: Out) -> Result<(), Failure> {
    // The node has another working folder than this process.
    let file = std::path::absolute(file).map_err(|error| Failure::bad_input(format!("{}: {error}", file.display())))?;
    if file.exists() && !force {
        return Err(Failure::bad_input(format!("{} exists; --force replaces it", file.display())));
    }
    let exported = node.answer(node.client()?.trace_export(&file).await)?;
    out.either(&exported, || {
        let segments = render::count(exported.segments.into(), "segment", "segments");
        format!("{}: {segments}, {}", exported.file, render::bytes(exported.bytes))
    })
}

fn outcome_of(outcome: &Outcome, done: &str, out: Out) -> Result<(), Failure> {
    out.either(outcome, || match outcome {
        Outcome::Connected { peer, address, .. } => format!("connected to {peer} at {address}"),
        Outcome::Done => done.to_owned(),
        Outcome::NothingToDo => format!("{done} (as before)"),
    })
}

/// A multiaddr, or the name of a peer.
enum Target {
    Address(PeerAddress),
    Peer(PeerName),
}

impl Target {
    fn read(text: &str) -> Result<Self, Failure> {
        if text.starts_with('/') {
            return crate::config::peer_address(text).map(Self::Address).map_err(Failure::bad_input);
        }
        if text.contains(['/', ':', '.']) {
            return Err(Failure::bad_input(format!(
                "'{}' is no multiaddr: those begin with '/', such as /ip4/192.0.2.1/tcp/4001",
                text.escape_debug()
            )));
        }
        PeerName::read(text).map(Self::Peer)
    }

    async fn find(self, node: &Node, client: &Client) -> Result<PeerAddress, Failure> {
        match self {
            Self::Address(address) => Ok(address),
            Self::Peer(name) => Ok(PeerAddress { peer: Some(find(node, client, &name).await?), address: None }),
        }
    }
}

/// The peer that a name means.
pub(super) async fn find(node: &Node, client: &Client, name: &PeerName) -> Result<PeerId, Failure> {
    match name {
        PeerName::Whole(peer) => Ok(*peer),
        PeerName::Part { .. } => {
            let known = node.answer(client.peers().await)?;
            name.find(known.into_iter().map(|peer| peer.peer))
        }
    }
}
