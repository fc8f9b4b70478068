//! Keeps the computers of a family connected to each other: on the home network and across the internet.
//!
//! A node finds the others (by multicast on the home network, by peers that it is told of, by a hash table), connects,
//! and stays connected; it tells at any time who is there and how, and why it did what it did. Nothing needs to be
//! configured on a home network. The same node is there as a program, `kinfolk`.
//!
//! # A node in a program
//!
//! ```
//! use futures::StreamExt;
//! use kinfolk::{Event, Fed, Node};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // On this machine only, and without a trace on disk. `Node::builder().data_dir("…").start()` is a node for good.
//! let here = || Node::builder().ephemeral().listen("/ip4/127.0.0.1/tcp/0").mdns(false);
//! let (ada, bob) = (here().start().await?, here().start().await?);
//!
//! // Where is Ada? She tells as soon as she listens.
//! let mut of_ada = ada.events();
//! let address = loop {
//!     if let Some(Fed::Item(told)) = of_ada.next().await
//!         && let Event::Listening { address } = &told.notice
//!     {
//!         break format!("{address}/p2p/{}", ada.peer_id());
//!     }
//! };
//!
//! bob.connect(address.parse()?).await?;
//! let peers = bob.peers().await?;
//! assert_eq!(peers[0].peer, ada.peer_id());
//! assert!(peers[0].path.is_some());
//!
//! bob.shutdown().await;
//! ada.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # The application's own protocols
//!
//! Give [`NodeBuilder::behaviour`] any [`NetworkBehaviour`](libp2p::swarm::NetworkBehaviour), derived ones too. It runs
//! inside the node, on the node's connections: [`Handle::with_behaviour`] reaches it from outside, its events come from
//! [`Running::next_app_event`]. The example `family_chat` is a whole program of this kind.
//!
//! What is shared with the world around, addresses, ids and events, is re-exported from [`kinfolk_core`] as [`core`];
//! the shapes of what can be asked ([`types::Peer`], [`types::Status`]) are those of the program's `--json`.

#[cfg(feature = "doorway")]
pub mod doorway;

pub use kinfolk_host::{
    AGENT, Control, Event, EventStream, Fed, Handle, Logs, NoBehaviour, Node, NodeBuilder, NodeGone, PeerId, PutError,
    ReadError, RequestError, Running, StartError, Told, TraceError, config, core, libp2p, log, peer_to_core,
    peer_to_libp2p, plain_text, short_name, types,
};
