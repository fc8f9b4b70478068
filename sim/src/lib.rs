//! What can be done with a recorded trace: read it, replay it, show it in words, count it, redact it, bless it.
//!
//! A trace is what a node was told and what it commanded (`kinfolk_core::trace` fixes the format, `docs/traces.md`
//! explains it). Because the core is deterministic, telling a fresh core the same must give the same commands, bit for
//! bit; where it does not, [`replay`] shows the first difference.
//!
//! Everything here streams: a trace may be larger than memory, and is taken for hostile. A file that is cut off or
//! damaged gives all that stands before the damage, and then one clear error with its place.
//!
//! ```no_run
//! use kinfolk_sim::{replay, trace::Reader};
//!
//! let mut reader = Reader::open("home.jsonl.zst".as_ref())?;
//! let report = replay::replay(&mut reader, replay::Options::default());
//! assert!(report.is_good(), "{report}");
//! # Ok::<(), kinfolk_sim::trace::ReadError>(())
//! ```

pub mod artefact;
pub mod bless;
pub mod check;
pub mod compare;
pub mod engine;
pub mod explain;
pub mod internet;
pub mod record;
pub mod redact;
pub mod replay;
pub mod report;
pub mod results;
pub mod run;
pub mod scenario;
pub mod show;
pub mod shrink;
pub mod stat;
pub mod swarm;
pub mod sweep;
pub mod trace;
pub mod words;

mod player;
