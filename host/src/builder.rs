use std::{fmt, net::SocketAddr, path::PathBuf};

use kinfolk_core::{Config, PeerAddress, PinnedPeer, Protocols, Role, ValidConfig};
use kinfolk_shell::{signal::client::Tokens, sync::log::Log};
use libp2p::{
    identity::Keypair,
    swarm::{NetworkBehaviour, dummy},
};

use crate::{
    NoBehaviour, Running, StartError,
    config::{Footprint, HostSettings, Settings, peer_address},
    running::{self, Outside},
};

/// A node that is about to start. Made by [`Node::builder`](crate::Node::builder).
///
/// Addresses are multiaddrs in text; what can't be read is told by [`start`](Self::start), all at once.
#[must_use = "nothing happens before `start`"]
pub struct NodeBuilder<A> {
    config: Config,
    place: Option<Place>,
    http: Option<SocketAddr>,
    footprint: Footprint,
    tokens: Tokens,
    log: Option<Box<dyn Log>>,
    /// The presets' addresses were replaced by the application's.
    listens: bool,
    problems: Vec<String>,
    app: Box<dyn FnOnce(&Keypair) -> A + Send>,
}

/// Where a node keeps what it must not forget.
enum Place {
    Memory,
    Disk(Box<HostSettings>),
}

impl<A> fmt::Debug for NodeBuilder<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}

impl NodeBuilder<NoBehaviour> {
    pub(crate) fn new() -> Self {
        Self {
            config: Config::desktop(),
            place: None,
            http: None,
            footprint: Footprint::default(),
            tokens: Tokens::default(),
            log: None,
            listens: false,
            problems: Vec::new(),
            app: Box::new(|_| dummy::Behaviour),
        }
    }
}

impl<A> NodeBuilder<A> {
    /// Keeps identity, peers and traces in this folder, which belongs to one running node at a time; it is made if it
    /// does not exist. The node answers on a Unix socket in it, so the program `kinfolk` can be used to look at it.
    pub fn data_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.place = Some(Place::Disk(Box::new(HostSettings::in_folder(folder.into()))));
        self
    }

    /// Keeps nothing: each start is a new identity that knows nobody, without trace and local API.
    pub fn ephemeral(mut self) -> Self {
        self.place = Some(Place::Memory);
        self
    }

    /// Takes all settings from here, in place of what was said so far.
    pub fn config(mut self, config: ValidConfig) -> Self {
        self.config = config.into();
        self.listens = false;
        self
    }

    /// Takes all settings from here, the data folder included, in place of what was said so far.
    pub fn settings(mut self, settings: &Settings) -> Self {
        self.place = Some(Place::Disk(Box::new(settings.host.clone())));
        self.http = settings.host.http_listen;
        self.footprint = settings.host.footprint;
        self.tokens = settings.host.signal_tokens.clone();
        self.config(settings.config.clone())
    }

    /// The presets of this role for limits and for looking on the home network.
    pub fn role(mut self, role: Role) -> Self {
        let Config { role, mdns, lifecycle, nat, planner, .. } = Config::of(role);
        let external = std::mem::take(&mut self.config.nat.external);
        self.config = Config { role, mdns, lifecycle, nat, planner, ..self.config };
        self.config.nat.external = external;
        self.fit();
        self
    }

    /// The network's name, and the protocol names that it gives. Nodes of different names don't meet. Default:
    /// `elohim`.
    pub fn network(mut self, name: &str) -> Self {
        self.config.network = name.to_owned();
        self.config.protocols = Protocols::of(name);
        self
    }

    /// Listens there: an IP address with TCP or QUIC, port 0 for any. May be called several times; without it, the node
    /// listens on port 4001 of all interfaces, or on another port if that one is taken.
    pub fn listen(mut self, address: &str) -> Self {
        if !std::mem::replace(&mut self.listens, true) {
            self.config.listen.clear();
        }
        match address.parse() {
            Ok(address) => self.config.listen.push(address),
            Err(error) => self.problems.push(format!("listen: '{address}': {error}")),
        }
        self
    }

    /// Asks there first. May be called several times.
    pub fn bootstrap(mut self, address: &str) -> Self {
        match peer_address(address) {
            Ok(address) => self.config.bootstrap.push(address),
            Err(error) => self.problems.push(format!("bootstrap: {error}")),
        }
        self
    }

    /// Never gives this peer up; a peer id, or an address that ends in one. May be called several times.
    pub fn pin(mut self, peer: &str) -> Self {
        let read = match peer.parse() {
            Ok(peer) => Ok(PeerAddress { peer: Some(peer), address: None }),
            Err(_) => peer_address(peer),
        };
        match read {
            Ok(PeerAddress { peer: Some(peer), address }) => {
                match self.config.pinned.iter_mut().find(|pinned| pinned.peer == peer) {
                    Some(pinned) => pinned.addresses.extend(address),
                    None => self.config.pinned.push(PinnedPeer { peer, addresses: address.into_iter().collect() }),
                }
            }
            Ok(_) => self.problems.push(format!("pin: '{peer}' does not say whom it means: …/p2p/12D3KooW…")),
            Err(error) => self.problems.push(format!("pin: {error}")),
        }
        self
    }

    /// Whether to look for peers on the home network.
    pub fn mdns(mut self, on: bool) -> Self {
        self.config.mdns = on;
        self
    }

    /// Answers operators over HTTP there: `/health` (alive), `/ready` (of use), `/metrics` (for Prometheus); port 0 takes
    /// any, which [`Running::http`] tells. Without it, nothing is counted for them. There is no password.
    pub fn http(mut self, listen: SocketAddr) -> Self {
        self.http = Some(listen);
        self
    }

    /// What the node may cost its machine. What follows from `power` and `memory` is set now, and what is set later wins.
    pub fn footprint(mut self, footprint: Footprint) -> Self {
        self.footprint = footprint;
        self.fit();
        self
    }

    /// What signal servers want to be shown ([`Tokens::read`]).
    pub fn signal_tokens(mut self, tokens: Tokens) -> Self {
        self.tokens = tokens;
        self
    }

    fn fit(&mut self) {
        self.footprint.apply_power(&mut self.config);
        self.footprint.apply_memory(&mut self.config);
    }

    /// Keeps logs there, in place of Kinfolk's own store in the data folder.
    pub fn log(mut self, log: impl Log) -> Self {
        self.log = Some(Box::new(log));
        self
    }

    /// Changes settings that have no method of their own.
    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Composes the application's own behaviour in, in place of the one before. Its dials pass the same gate as those
    /// of Kinfolk's own behaviours: the core may delay or refuse them.
    ///
    /// A second behaviour for a protocol that Kinfolk speaks already (identify, ping, Kademlia, mDNS) compiles and runs
    /// quietly, but each inbound stream goes to one of the two only.
    pub fn behaviour<B: NetworkBehaviour + Send>(self, behaviour: B) -> NodeBuilder<B> {
        self.behaviour_with(move |_| behaviour)
    }

    /// The same for a behaviour that needs the node's key.
    pub fn behaviour_with<B: NetworkBehaviour>(
        self,
        behaviour: impl FnOnce(&Keypair) -> B + Send + 'static,
    ) -> NodeBuilder<B> {
        let Self { config, place, http, footprint, tokens, log, listens, problems, app: _ } = self;
        NodeBuilder { config, place, http, footprint, tokens, log, listens, problems, app: Box::new(behaviour) }
    }
}

impl<A> NodeBuilder<A>
where
    A: NetworkBehaviour + Send,
    A::ToSwarm: Send,
{
    /// Starts the node on tokio's runtime, which the caller must be in.
    ///
    /// # Errors
    /// When the settings are wrong, another node runs on the data folder, or its files or the local API's socket can't
    /// be used. That a port is taken is no error: another one is used, and [`Event::PortTaken`](crate::Event) says so.
    pub async fn start(self) -> Result<Running<A>, StartError> {
        let mut problems = self.problems;
        let config = match self.config.validate() {
            Ok(config) => Some(config),
            Err(errors) => {
                problems.extend(errors.iter().map(ToString::to_string));
                None
            }
        };
        if self.place.is_none() {
            problems.push("say where the node keeps its identity: `.data_dir(..)`, or `.ephemeral()`".to_owned());
        }
        let (Some(config), Some(place)) = (config.filter(|_| problems.is_empty()), self.place) else {
            return Err(StartError::Settings(problems.join("; ")));
        };
        let host = match place {
            Place::Memory => None,
            Place::Disk(host) => Some(*host),
        };
        let outside = Outside { host, http: self.http, footprint: self.footprint, tokens: self.tokens };
        running::start(config, outside, self.log, self.app).await
    }
}
