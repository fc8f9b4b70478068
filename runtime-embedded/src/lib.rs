//! A Kinfolk node on one thread, for a small machine that is always on: a Raspberry Pi in a cupboard.
//!
//! It is the node of the crate `kinfolk`, with the same core, shell, settings and data folder, on a runtime of its own
//! kind ([`runtime`]) and without what only servers need. Everything runs on the thread that calls
//! [`Runtime::block_on`]; beside it there is libp2p's timer, and while something is written a thread for the disk.
//!
//! ```
//! use kinfolk_embedded::{Node, runtime};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! runtime()?.block_on(async {
//!     // On this machine only, and without a trace on disk. `.data_dir("…")` makes a node for good.
//!     let node = Node::builder().ephemeral().listen("/ip4/127.0.0.1/tcp/0").mdns(false).start().await?;
//!     assert!(node.peers().await?.is_empty());
//!     node.shutdown().await;
//!     Ok(())
//! })
//! # }
//! ```

use std::{io, time::Duration};

pub use kinfolk_host::*;
use kinfolk_host::{
    config::{Bytes, Footprint},
    core::Role,
};
use tokio::runtime::{Builder, Runtime};

/// How much memory a node may take, unless somebody says otherwise; limits follow from it.
pub const MEMORY: Bytes = Bytes(64 << 20);

/// What has to block, such as asking the system for a name's addresses, does so on one thread, which is gone this long after
/// the last of it.
const KEEP_BLOCKING_THREAD: Duration = Duration::from_secs(1);

/// Where nodes begin: [`Node::builder`].
#[derive(Clone, Copy, Debug)]
pub enum Node {}

impl Node {
    /// A node with the presets of a small machine that is always on ([`Role::Family`], [`MEMORY`]), and without a behaviour of
    /// the application's own. It needs to be told where to keep its identity: [`NodeBuilder::data_dir`] or
    /// [`NodeBuilder::ephemeral`].
    pub fn builder() -> NodeBuilder<NoBehaviour> {
        let footprint = Footprint { memory: Some(MEMORY), ..Footprint::default() };
        kinfolk_host::Node::builder().role(Role::Family).footprint(footprint)
    }
}

/// A runtime for one thread: the one that calls [`Runtime::block_on`].
///
/// # Errors
/// When the operating system has no means for it.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().max_blocking_threads(1).thread_keep_alive(KEEP_BLOCKING_THREAD).build()
}
