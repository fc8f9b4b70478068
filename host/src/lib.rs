//! What the programs of Kinfolk share, whatever their executor: settings, starting a node and letting it run, and (feature
//! `cli`) the command line that starts one and asks a running one.
//!
//! `kinfolk` and `kinfolk-embedded` add a runtime of their own kind and what only they can do ([`cli::Program`]); both
//! re-export what is here, so applications name one of those two.

mod builder;
#[cfg(feature = "cli")]
pub mod cli;
pub mod config;
mod running;
mod text;

pub use kinfolk_core::{self as core, Notice as Event, PeerId};
pub use kinfolk_shell::{
    api::types,
    feed::Fed,
    handle::{Control, EventStream, Handle, NodeGone, RequestError, Told, TraceError},
    network::ids::{peer_to_core, peer_to_libp2p},
    signal::client::{BadTokens, Tokens},
    sync::{Logs, PutError, ReadError, log},
};
pub use libp2p;

pub use self::{
    builder::NodeBuilder,
    running::{Running, StartError},
    text::{plain_text, short_name},
};

/// Program and version, as other peers see it. Both programs are one to them.
pub const AGENT: &str = concat!("kinfolk/", env!("CARGO_PKG_VERSION"));

/// For a node without a behaviour of the application's own.
pub type NoBehaviour = libp2p::swarm::dummy::Behaviour;

/// Where nodes begin: [`Node::builder`].
#[derive(Clone, Copy, Debug)]
pub enum Node {}

impl Node {
    /// A node with the presets of somebody's computer, and without a behaviour of the application's own. It needs to be
    /// told where to keep its identity: [`NodeBuilder::data_dir`] or [`NodeBuilder::ephemeral`].
    pub fn builder() -> NodeBuilder<NoBehaviour> {
        NodeBuilder::new()
    }
}
