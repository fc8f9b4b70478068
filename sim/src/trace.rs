//! Trace files: reading them, whatever their state, and writing them whole or not at all.

mod lines;
mod problem;
mod read;
mod write;

pub use lines::{MAX_FRAME, MAX_HEADER};
pub use problem::{Problem, ReadError};
pub use read::{Entry, FORMATS, Item, Reader};
pub use write::{WriteError, Writer, Written};
