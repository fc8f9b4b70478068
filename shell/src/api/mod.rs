//! The local API: how programs on this machine speak to the running node.
//!
//! HTTP with JSON over a Unix socket in the data folder (`api.sock`, mode 0600), under `/v1/`. The shapes are in
//! [`types`], each with its path; answers of 400 and above are [`types::Problem`]s.
//!
//! ```text
//! $ curl --unix-socket ~/.local/share/kinfolk/api.sock http://kinfolk/v1/status
//! $ curl --unix-socket … -d '{"address":"/ip4/192.0.2.1/tcp/4001"}' http://kinfolk/v1/connect
//! ```
//!
//! What operators need (health, readiness, metrics) is on TCP, where a setting says so: [`operator`].

pub mod client;
mod limited;
pub mod logs;
pub mod operator;
pub mod server;
pub mod types;
