use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use kinfolk_core::{PeerId, Transport};
use kinfolk_shell::api::types::{Path, PathKind};
use serde_json::Value;

use crate::{Node, NodeBuilder, Side, Site, World};

/// Two nodes on two sides, and a small server in the cloud that both know: a family.
#[derive(Debug)]
pub struct Pair {
    /// Where they live.
    pub world: World,
    /// The data centre.
    pub centre: Site,
    /// The server there.
    pub server: Node,
    /// The two networks.
    pub sites: [Site; 2],
    /// The two nodes; they are made and not started.
    pub nodes: [Node; 2],
}

/// How two nodes came to be connected, as one of them tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Met {
    /// From the later start to the first connection.
    pub first: Duration,
    /// To the first direct one, if there was one.
    pub direct: Option<(Duration, Option<Transport>)>,
}

impl Pair {
    /// The server runs.
    pub async fn new(sides: [Side; 2]) -> Self {
        Self::with(sides, |builder| builder).await
    }

    /// The same, with settings for all three.
    pub async fn with(sides: [Side; 2], set: impl Fn(NodeBuilder) -> NodeBuilder) -> Self {
        let world = World::new().await;
        let centre = world.public("centre", 20).await;
        let server = set(world.node("server", &centre.device("server").await).set("role", "\"server\"")).start().await;
        let (a, b) = (world.side("left", sides[0], 30).await, world.side("right", sides[1], 40).await);
        let mut nodes = Vec::new();
        for (name, site) in [("a", &a), ("b", &b)] {
            let builder = world.node(name, &site.device(name).await).bootstrap(&server.addresses());
            nodes.push(set(builder).node());
        }
        let [one, other] = <[Node; 2]>::try_from(nodes).expect("two");
        Self { world, centre, server, sites: [a, b], nodes: [one, other] }
    }

    /// Starts both at once.
    pub async fn start(&self) {
        tokio::join!(self.nodes[0].start(), self.nodes[1].start());
    }

    /// Each with the other one.
    pub fn both(&self) -> [(&Node, &Node); 2] {
        let [a, b] = &self.nodes;
        [(a, b), (b, a)]
    }

    /// Waits until both have each other on a path that is `is`.
    ///
    /// # Panics
    /// If they do not in time.
    pub async fn on(&self, what: &str, within: Duration, is: impl Fn(&Path) -> bool) {
        let on = async || {
            for (node, other) in self.both() {
                node.connected(other).await.and_then(|peer| peer.path).filter(|path| is(path))?;
            }
            Some(())
        };
        self.world.eventually(what, within, on).await;
    }

    /// Waits until both are directly connected, and by exactly one connection, the same one.
    ///
    /// # Panics
    /// If they are not in time.
    pub async fn on_one_direct_connection(&self, within: Duration) {
        self.on("both are directly connected", within, |path| path.kind == PathKind::Direct).await;
        let single = async || {
            let mut transports = Vec::new();
            for (node, other) in self.both() {
                let peer = node.connected(other).await?;
                let [connection] = peer.connections.as_slice() else { return None };
                transports.push((connection.path.kind == PathKind::Direct).then_some(connection.path.transport)?);
            }
            (transports[0] == transports[1]).then_some(())
        };
        // A relayed connection stands until the direct one is proven.
        self.world.eventually("one direct connection is left on both sides", Duration::from_secs(40), single).await;
    }

    /// How they met, by what they printed: the times of the one that knew first.
    ///
    /// # Panics
    /// If they have not.
    pub fn met(&self) -> Met {
        let start = self.nodes.iter().map(Node::started_at).max().expect("two nodes");
        let mets: Vec<Met> = self.both().iter().map(|(node, other)| node.met(&other.peer_id(), start)).collect();
        Met {
            first: mets.iter().map(|met| met.first).min().expect("two nodes"),
            direct: mets.iter().filter_map(|met| met.direct).min_by_key(|(after, _)| *after),
        }
    }
}

impl Node {
    /// How it came to be connected with a peer, in this run, by what it printed.
    ///
    /// # Panics
    /// If it was not.
    pub fn met(&self, peer: &PeerId, start: SystemTime) -> Met {
        let start = u64::try_from(start.duration_since(UNIX_EPOCH).expect("after 1970").as_millis()).expect("millis");
        let mut met = None;
        for line in
            self.events().into_iter().filter(|line| line.peer.as_ref() == Some(peer) && line.at_unix_ms >= start)
        {
            let path = match line.event.as_str() {
                "peer_connected" => &line.detail["path"],
                "path_changed" => &line.detail["to"],
                _ => continue,
            };
            let after = Duration::from_millis(line.at_unix_ms - start);
            let met = met.get_or_insert(Met { first: after, direct: None });
            if met.direct.is_none()
                && let Some(direct) = path.get("direct")
            {
                met.direct = Some((after, transport(direct)));
            }
        }
        met.unwrap_or_else(|| panic!("{} has not met {peer}: {:#?}", self.name(), self.printed()))
    }
}

fn transport(path: &Value) -> Option<Transport> {
    serde_json::from_value(path["transport"].clone()).ok()
}

impl fmt::Display for Met {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "first {:>6} ms", self.first.as_millis())?;
        match self.direct {
            Some((after, transport)) => {
                let by = transport.map_or_else(|| "?".to_owned(), |transport| format!("{transport:?}"));
                write!(f, ", direct {:>6} ms by {by}", after.as_millis())
            }
            None => f.write_str(", relayed"),
        }
    }
}
