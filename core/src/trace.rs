//! The format of traces: what a node was told, and what it commanded.
//!
//! A trace is text, one JSON value a line (often compressed by zstd as a whole or in pieces one after another, which
//! makes no difference to a reader). It is made of *segments*. Each begins with a [`Header`] line and goes on with one
//! [`Frame`] line per input, until the next header or the end:
//!
//! ```text
//! {"kinfolk_trace":1,"core":"0.1.0","node":"12D3KooW…","segment":1,"reason":"start","t":0,"unix_time":1790000000,"lost":0,"checkpoint":null}
//! {"t":1000,"in":{"started":{…}},"out":[{"id":1,"do":{"listen":{"address":"/ip4/0.0.0.0/tcp/4001"}},"why":"settings"}]}
//! {"t":2500000,"in":{"listening":{…}},"out":[]}
//! {"kinfolk_trace":1,"core":"0.1.0","node":"12D3KooW…","segment":2,"reason":"rotation",…,"checkpoint":{…}}
//! {"t":9000000000,"in":"wake","out":[]}
//! ```
//!
//! To replay a segment: take the node of its checkpoint, or `Node::new()` when that is `null` (the first frame then is
//! `Event::Started`); hand in each frame's input at its time; the commands drained after it must equal the frame's.
//! Segments of one file come from one or several runs of the same node. Between two segments nothing is missing unless
//! the later one's reason is [`SegmentReason::Start`], [`SegmentReason::Gap`] or [`SegmentReason::Asked`]; but a ring on
//! disk drops old segments, so a jump in [`Header::segment`] too means that something is missing.
//!
//! The lines are made and read outside of this crate, which only fixes their shape.

use alloc::{boxed::Box, string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::{
    Node,
    vocabulary::{Command, Event, PeerId, Time},
};

/// The number that [`Header::kinfolk_trace`] carries today.
pub const FORMAT: u32 = 1;

/// This core's version, as [`Header::core`] carries it.
pub const CORE_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The first line of a segment.
///
/// `C` is the checkpoint: a `Node` where it is to be used, anything else that can be deserialised (say,
/// `serde::de::IgnoredAny`) where it is not: another core version's checkpoint need not be readable.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Header<C = Node> {
    /// The format's number, [`FORMAT`]. No other line has a field of this name, and here it comes first.
    pub kinfolk_trace: u32,
    /// The version of the core that decided.
    pub core: String,
    /// Whose trace it is.
    pub node: PeerId,
    /// Segments are numbered from 1 on, by the data folder and without end: a restarted node goes on counting.
    pub segment: u64,
    /// Why a segment begins here.
    pub reason: SegmentReason,
    /// Node time at which the checkpoint was taken.
    pub t: Time,
    /// The wall clock at that moment, seconds since 1970; right or wrong.
    pub unix_time: u64,
    /// Inputs that are missing between the segment before and this one; 0 unless the reason is `gap`.
    pub lost: u64,
    /// The node as it stood, with nothing left to drain. `None`: it had not been told anything yet.
    pub checkpoint: Option<Box<C>>,
}

/// Why a segment begins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SegmentReason {
    /// The node started.
    Start,
    /// The segment before was full. Nothing is missing in between.
    Rotation,
    /// The recorder did not keep up, or could not write; [`Header::lost`] inputs are missing in between.
    Gap,
    /// Recording was switched on while the node ran.
    Asked,
}

/// Every other line: one input, and what came of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Frame {
    /// When it was handed in.
    pub t: Time,
    /// The input.
    pub r#in: Event,
    /// Everything that was drained after it, in order.
    pub out: Vec<Command>,
}

impl<C> Header<C> {
    /// A header of today's format and core.
    pub fn new(node: PeerId, segment: u64, reason: SegmentReason, t: Time, unix_time: u64) -> Self {
        Self {
            kinfolk_trace: FORMAT,
            core: CORE_VERSION.into(),
            node,
            segment,
            reason,
            t,
            unix_time,
            lost: 0,
            checkpoint: None,
        }
    }
}

impl SegmentReason {
    /// Its name, as written in the header.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Rotation => "rotation",
            Self::Gap => "gap",
            Self::Asked => "asked",
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::vocabulary::{Action, CommandId, Reason};

    #[test]
    fn lines_have_the_shape_that_the_docs_show() {
        let node: PeerId = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA".parse().unwrap();
        let header = Header::<Node>::new(node, 1, SegmentReason::Start, Time::ZERO, 1_790_000_000);
        let line = serde_json::to_string(&header).unwrap();
        insta::assert_snapshot!(line.replace(CORE_VERSION, "VERSION"), @r#"{"kinfolk_trace":1,"core":"VERSION","node":"12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA","segment":1,"reason":"start","t":0,"unix_time":1790000000,"lost":0,"checkpoint":null}"#);

        let listen = Action::Listen { address: "/ip4/0.0.0.0/tcp/4001".parse().unwrap() };
        let command = Command { id: CommandId(1), action: listen, reason: Reason::Settings };
        let frame = Frame { t: Time::from_nanos(1_000), r#in: Event::Wake, out: vec![command] };
        let line = serde_json::to_string(&frame).unwrap();
        insta::assert_snapshot!(line, @r#"{"t":1000,"in":"wake","out":[{"id":1,"do":{"listen":{"address":"/ip4/0.0.0.0/tcp/4001"}},"why":"settings"}]}"#);
        assert_eq!(serde_json::from_str::<Frame>(&line).unwrap(), frame);
    }

    #[test]
    fn a_checkpoint_can_be_skipped_or_used() {
        let node: PeerId = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA".parse().unwrap();
        let mut header = Header::new(node, 7, SegmentReason::Rotation, Time::from_secs(9), 0);
        header.checkpoint = Some(Box::new(Node::new()));
        let line = serde_json::to_string(&header).unwrap();
        let skipped: Header<serde::de::IgnoredAny> = serde_json::from_str(&line).unwrap();
        assert_eq!((skipped.segment, skipped.checkpoint.is_some()), (7, true));
        let used: Header = serde_json::from_str(&line).unwrap();
        assert!(used.checkpoint.is_some());
    }
}
