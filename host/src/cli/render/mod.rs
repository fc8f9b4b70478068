//! From the API's shapes to text for people. Pure functions: what is shown depends on nothing but what is given.
//!
//! Whatever came from other peers is cleaned before it is shown: a name must not move the cursor or change colours.

mod bootstrap;
mod events;
mod logs;
mod nat;
mod peers;
mod signal;
mod status;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod ways;
mod why;

pub(crate) use self::{
    bootstrap::bootstrap,
    events::Narrator,
    logs::{entry, sync},
    nat::{languages, transport},
    peers::{peer, peers},
    status::{status, trace},
    text::{bytes, count, round_trip, span, wrapped},
    ways::situation,
    why::why,
};
