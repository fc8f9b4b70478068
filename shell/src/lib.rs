//! What the runtimes of Kinfolk share.

pub mod api;
pub mod clock;
pub mod data_dir;
pub mod driver;
pub mod feed;
pub mod handle;
pub mod identity;
pub mod interfaces;
pub mod node;
mod snapshot;
pub mod store;
pub mod trace;
pub mod why;
pub mod network;
