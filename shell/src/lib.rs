//! What the runtimes of Kinfolk share.
//!
//! The core decides; everything here only carries. [`driver`] moves events to the core and commands to the world, and
//! [`network`] is that world, on libp2p. Around them stand what a machine gives ([`clock`], [`interfaces`]), what must
//! not be forgotten ([`data_dir`], [`identity`], [`store`], [`sync`], [`trace`], all by [`disk`]), how others speak to the node ([`handle`],
//! [`api`], [`why`]), and what doorways and nodes say to each other ([`signal`]). [`node`] puts it all together.

pub mod api;
pub mod clock;
pub mod data_dir;
pub mod disk;
pub mod driver;
pub mod feed;
pub mod handle;
pub mod identity;
pub mod interfaces;
mod metrics;
pub mod network;
pub mod node;
mod port_mapping;
pub mod signal;
mod snapshot;
pub mod store;
pub mod sync;
pub mod trace;
pub mod why;
