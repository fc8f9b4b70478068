//! What the runtimes of Kinfolk share.

pub mod network;
