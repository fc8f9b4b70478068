//! A node that is told again what a trace says it was told.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

use kinfolk_core::{
    Command, Node, PeerId,
    trace::{Frame, Header, SegmentReason},
};
use serde::Deserialize;
use serde_json::Value;

use crate::words;

/// The node of the segment at hand, and whose trace it is.
#[derive(Default)]
pub(crate) struct Player {
    node: Option<Node>,
    segment: Option<(PeerId, u64)>,
}

/// What the beginning of a segment made of the node.
#[derive(Debug)]
pub(crate) enum Began {
    /// A node that has not been told anything.
    Fresh,
    /// The checkpoint's node: what was before is unknown or over.
    Restored,
    /// Nothing is missing since the segment before, so the replayed node must equal the checkpoint; and does, unless
    /// there is a mismatch. Goes on from the checkpoint.
    Continued(Option<Mismatch>),
    /// The checkpoint can't be used. With the node of the segment before, if nothing is missing in between, the replay
    /// can go on all the same.
    Unusable {
        /// Why not.
        what: String,
        /// Whether there is a node to go on with.
        goes_on: bool,
    },
}

/// A replayed node that is not what the checkpoint says.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Mismatch {
    /// Where in the checkpoint: `/peers/3/state`.
    pub(crate) at: String,
    /// What the trace has there.
    pub(crate) expected: Option<Value>,
    /// What the replayed node has there.
    pub(crate) got: Option<Value>,
}

/// Why an input gave no commands to compare.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The core panicked; its words. The node is lost.
    Panicked(String),
    /// No segment has begun that could be replayed.
    NoNode,
}

impl Player {
    /// Whether nothing is missing between what was fed last and this segment.
    pub(crate) fn continues(&self, header: &Header<Value>) -> bool {
        let next = self
            .segment
            .is_some_and(|(node, number)| node == header.node && number.checked_add(1) == Some(header.segment));
        next && self.node.is_some() && header.reason == SegmentReason::Rotation && header.lost == 0
    }

    /// Takes in a segment's header.
    pub(crate) fn begin(&mut self, header: &Header<Value>) -> Began {
        let continues = self.continues(header);
        self.segment = Some((header.node, header.segment));
        let Some(checkpoint) = &header.checkpoint else {
            self.node = Some(Node::new());
            return Began::Fresh;
        };
        let restored = match restore(checkpoint) {
            Ok(node) => node,
            Err(what) => {
                if !continues {
                    self.node = None;
                }
                return Began::Unusable { what, goes_on: continues };
            }
        };
        let before = self.node.replace(restored);
        if !continues {
            return Began::Restored;
        }
        match serde_json::to_value(before) {
            Ok(got) => Began::Continued(mismatch(checkpoint, &got, String::new())),
            Err(error) => Began::Unusable { what: error.to_string(), goes_on: true },
        }
    }

    /// Hands in one input and drains what comes of it.
    pub(crate) fn feed(&mut self, frame: &Frame) -> Result<Vec<Command>, Fault> {
        let Some(node) = &mut self.node else { return Err(Fault::NoNode) };
        let told = catch_unwind(AssertUnwindSafe(|| {
            node.handle(frame.t, frame.r#in.clone());
            std::iter::from_fn(|| node.next_command()).collect()
        }));
        told.map_err(|payload| {
            self.node = None;
            Fault::Panicked(panic_words(&*payload))
        })
    }

    /// Takes in a segment's header, but goes on with the node of the segment before wherever nothing is missing, and
    /// gives the checkpoint that this core would write there.
    pub(crate) fn begin_anew(&mut self, header: &Header<Value>) -> Result<Option<Node>, String> {
        let continues = self.continues(header);
        self.segment = Some((header.node, header.segment));
        let Some(checkpoint) = &header.checkpoint else {
            self.node = Some(Node::new());
            return Ok(None);
        };
        if !continues {
            self.node = Some(restore(checkpoint)?);
        }
        Ok(self.node.clone())
    }
}

/// The node of a checkpoint, which is a part of a file and may hold anything.
fn restore(checkpoint: &Value) -> Result<Node, String> {
    match catch_unwind(|| Node::deserialize(checkpoint)) {
        Ok(restored) => restored.map_err(|error| error.to_string()),
        Err(payload) => Err(panic_words(&*payload)),
    }
}

fn panic_words(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    words::fit(text.unwrap_or("a panic without words").to_string())
}

/// The first place at which two values differ, objects by key, lists by index.
fn mismatch(expected: &Value, got: &Value, at: String) -> Option<Mismatch> {
    let absent = |at: String, expected: Option<&Value>, got: Option<&Value>| {
        Some(Mismatch { at, expected: expected.cloned(), got: got.cloned() })
    };
    match (expected, got) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
            for key in keys {
                let at = format!("{at}/{key}");
                let found = match (a.get(key), b.get(key)) {
                    (Some(a), Some(b)) => mismatch(a, b, at),
                    (a, b) => absent(at, a, b),
                };
                if found.is_some() {
                    return found;
                }
            }
            None
        }
        (Value::Array(a), Value::Array(b)) => {
            for at_index in 0..a.len().max(b.len()) {
                let at = format!("{at}/{at_index}");
                let found = match (a.get(at_index), b.get(at_index)) {
                    (Some(a), Some(b)) => mismatch(a, b, at),
                    (a, b) => absent(at, a, b),
                };
                if found.is_some() {
                    return found;
                }
            }
            None
        }
        (a, b) if a == b => None,
        (a, b) => absent(at, Some(a), Some(b)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_difference_of_two_states_has_a_path() {
        let state = json!({"peers": [{"state": "connected", "since": 3}], "next": 7});
        assert_eq!(mismatch(&state, &state.clone(), String::new()), None);
        let find = |got: Value| {
            let found = mismatch(&state, &got, String::new()).unwrap();
            (found.at, found.expected, found.got)
        };
        assert_eq!(
            find(json!({"peers": [{"state": "dialing", "since": 3}], "next": 7})),
            ("/peers/0/state".into(), Some(json!("connected")), Some(json!("dialing")))
        );
        assert_eq!(
            find(json!({"peers": [], "next": 7})),
            ("/peers/0".into(), Some(json!({"state": "connected", "since": 3})), None)
        );
        assert_eq!(
            find(json!({"peers": [{"state": "connected", "since": 3}], "next": 7, "more": 1})),
            ("/more".into(), None, Some(json!(1)))
        );
    }
}
