//! The local API: how programs on this machine speak to the running node.

pub mod types;
