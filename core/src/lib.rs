//! The decisions of a Kinfolk node: which peers to know, dial, keep and leave; which own addresses to believe; where
//! first peers come from.
//!
//! Pure and deterministic: [`Node`] is told what happens ([`Event`]) and says what to do ([`Command`]). It reads no
//! clock, opens no socket, draws no random number and knows nothing of libp2p or an operating system, so a recorded
//! run replays to the bit on any machine.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod bootstrap;
mod cx;
mod jitter;
mod lifecycle;
mod nat;
mod node;
mod peers;
mod sync;
#[cfg(feature = "serde")]
pub mod trace;
pub mod view;
mod vocabulary;

pub use node::{Deadline, DeadlineReason, Node, View};
pub use vocabulary::*;
