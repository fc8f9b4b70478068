//! Whole-system tests: the real programs, as processes, in networks of their own.
//!
//! A [`World`] is an internet made of Linux network namespaces (by `patchbay`, without root): [`Site`]s with public
//! addresses, homes behind NATs, a device for each node. A [`Node`] is a running `kinfolk` in a device; a [`Foreign`]
//! is any other program there that takes commands as JSON lines: js-libp2p, or a peer that misbehaves.
//!
//! Tests wait for conditions ([`World::eventually`]), never for time. What a node did is read from its own trace
//! ([`Trace`]), and [`World::finish`] replays every trace: the core must give the same commands again, to the bit.
//!
//! In the environment of the tests: `KINFOLK_BLESS=1` makes golden traces of what the nodes did, `KINFOLK_KEEP=1` keeps
//! the folders of nodes whose test failed, `LAB_LOG=trace` (or any filter) changes what nodes log. A test that failed
//! shows all that its nodes knew, said and logged.
//!
//! Everything here panics when the machine does not do what it should: that is a failed test.

mod allowed;
mod figures;
mod foreign;
mod network;
mod node;
mod pair;
mod program;
mod side;
mod trace;
mod world;

pub use allowed::{Side, Through, can_be_direct, situations};
pub use figures::{Figures, Usage};
pub use foreign::Foreign;
pub use network::{Device, Site};
pub use node::{Node, NodeBuilder};
pub use pair::{Met, Pair};
pub use program::program;
pub use trace::Trace;
pub use world::World;
