//! The engine: what happens next, at random but always the same, and the proof of it.
//!
//! Nothing here knows of networks. [`Queue`] gives entries in the order (time, node, sequence); [`Dice`] are random streams,
//! one for each (seed, node, purpose), so that a draw more in one place shifts no other; [`Digest`] runs over everything
//! that happened; [`Slab`] keeps what is under way. Integers only, no clocks, no hash maps that are walked: the same on every machine.

mod dice;
mod digest;
mod queue;
mod slab;

pub use dice::{Dice, Purpose};
pub use digest::Digest;
pub use queue::{Due, Queue};
pub use slab::{Key, Slab};

/// A moment, in nanoseconds since the simulation began.
pub type Moment = u64;

/// One millisecond in nanoseconds.
pub const MILLI: u64 = 1_000_000;
/// One second in nanoseconds.
pub const SECOND: u64 = 1_000_000_000;
