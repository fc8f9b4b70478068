//! What the runtimes of Kinfolk share.

pub mod api;
pub mod feed;
pub mod handle;
