//! Getting a direct connection to a peer with which a relayed one stands.
//!
//! One side proposes, on the relayed connection, and names the addresses where it can be dialled; the other one answers
//! with its own; then both do their part, by one transport: one *dials*, the other one *accepts*, which for a NAT means
//! that it sends something first, so that the NAT lets the dial in. Who proposes when, with which addresses and which
//! part, is the core's. Here are the words (`wire`), the talk on one connection (`handler`), the offers and talks of
//! all (`behaviour`), and the dials that follow (`tries`).
//!
//! Two protocols are spoken, on relayed connections only: the standard one, `/libp2p/dcutr`, in which the side that the
//! circuit came to proposes, and Kinfolk's own (`Protocols::punch`), in which either may, and the answer deals the
//! roles. A QUIC try between two Kinfolk nodes:
//!
//! ```text
//! Punch(c7: QUIC) ──▶ proposal: QUIC, our NAT, our addresses ────────────▶ PunchOffered(o1)
//!                                          opens its NAT towards these ◀── AnswerPunch(c3: o1, Accept, targets)
//! PunchAnswered(c7) ◀── answer: "I accept", its NAT, its addresses ◀────── 5 ms later
//! dials those ═══════════════════ QUIC handshake ════════════════════════▶ Connected(Punch(c3))
//! Connected(Punch(c7))
//! ```
//!
//! When each side begins, and why:
//!
//! | protocol | transport | answerer | the answerer begins | the proposer begins |
//! |---|---|---|---|---|
//! | Kinfolk | QUIC | accepts | before it answers: the hole must be open when the dial comes, a lost first packet costs 1 s | when the answer comes |
//! | Kinfolk | QUIC | dials | before it answers: it has the harder NAT, so the proposer must be open anyway | when the answer comes |
//! | Kinfolk | TCP | either | when the proposer's signal comes | half a round trip after its signal; 10 ms less if it dials, 10 ms more if it accepts |
//! | standard | QUIC | accepts | before it answers | half a round trip after its SYNC |
//! | standard | QUIC | dials | when SYNC comes | accepts: before its SYNC |
//! | standard | TCP | dials | when SYNC comes | half a round trip after its SYNC, as TCP's listener: both SYNs must cross |
//!
//! "Before" is 5 ms: the dial runs in another task than the message.
//!
//! Over TCP both SYNs must cross: many home routers answer a SYN that comes too early with a reset, which ends the dial
//! and spoils the ports for a while. And the dialler's must leave a little before the other one, which an open other end
//! would take for a dial: then both sides are listeners. Seen on NATs in network namespaces: where routers drop a SYN
//! that comes too early any such timing works; where they reset it, none does if one router hears the other's SYN before
//! its own side's has passed.
//!
//! Under stress: a peer has one unanswered proposal on each connection, all together have 64, what is more is dropped
//! and counted; a proposal that nobody answers, and a talk that does not end, are dropped after 20 s; messages have at
//! most 4 KiB, addresses of home networks are dialled only where the core said so.

mod behaviour;
mod handler;
mod tries;
mod wire;

use std::time::Duration;

use kinfolk_core::{PunchRole, Transport};
use libp2p::StreamProtocol;

pub(super) use behaviour::{Punch, Said};
pub(super) use tries::Punches;

use super::{errors, ids};

/// The standard protocol.
const DCUTR: StreamProtocol = StreamProtocol::new("/libp2p/dcutr");
/// How much earlier one's own part begins where it is to begin first.
const HEAD_START: Duration = Duration::from_millis(5);
/// How much earlier TCP's dialler begins than the side that accepts.
const MARGIN: Duration = Duration::from_millis(10);
/// Nobody waits longer for the other side's words, or for the core's about an offer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Which protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wire {
    Kinfolk,
    Dcutr,
}

/// Which side of the talk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    Proposer,
    Answerer,
}

/// One side's share in a try.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Share {
    wire: Wire,
    side: Side,
    transport: Transport,
    role: PunchRole,
}

impl Share {
    /// Whether our part begins before we say our next word; else the last word, ours or theirs, comes first.
    fn is_first(self) -> bool {
        match self.wire {
            Wire::Kinfolk => self.transport == Transport::Quic,
            Wire::Dcutr => self.transport == Transport::Quic && self.role == PunchRole::Accept,
        }
    }

    /// Whether the proposer has a last word: "now".
    fn has_signal(self) -> bool {
        match self.wire {
            Wire::Kinfolk => self.transport == Transport::Tcp,
            Wire::Dcutr => true,
        }
    }

    /// How long the proposer's part comes after its last word, of which the other side's begins.
    fn pause(self, round_trip: Duration) -> Duration {
        let there = round_trip / 2;
        match (self.wire, self.role) {
            (Wire::Kinfolk, PunchRole::Dial) => there.saturating_sub(MARGIN),
            (Wire::Kinfolk, PunchRole::Accept) => there + MARGIN,
            (Wire::Dcutr, _) => there.max(HEAD_START),
        }
    }

    /// How long a side that accepts waits for the other one's dial: as long as such a dial may take.
    fn accept_patience(self) -> Duration {
        match self.transport {
            Transport::Quic => Duration::from_secs(5),
            Transport::Tcp => Duration::from_secs(10),
        }
    }
}

/// The other side's part.
fn other(role: PunchRole) -> PunchRole {
    match role {
        PunchRole::Dial => PunchRole::Accept,
        PunchRole::Accept => PunchRole::Dial,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_agree_on_the_last_word() {
        for wire in [Wire::Kinfolk, Wire::Dcutr] {
            for transport in [Transport::Quic, Transport::Tcp] {
                for role in [PunchRole::Dial, PunchRole::Accept] {
                    let proposer = Share { wire, side: Side::Proposer, transport, role };
                    let answerer = Share { side: Side::Answerer, role: other(role), ..proposer };
                    assert_eq!(proposer.has_signal(), answerer.has_signal(), "{proposer:?}");
                    // Somebody whose part comes last waits for a word that is said.
                    assert!(answerer.is_first() || answerer.has_signal(), "{answerer:?}");
                    assert!(proposer.is_first() || proposer.has_signal(), "{proposer:?}");
                }
            }
        }
    }

    #[test]
    fn a_hole_for_quic_is_open_before_the_other_side_is_told() {
        for wire in [Wire::Kinfolk, Wire::Dcutr] {
            for side in [Side::Proposer, Side::Answerer] {
                assert!(Share { wire, side, transport: Transport::Quic, role: PunchRole::Accept }.is_first());
            }
        }
    }

    #[test]
    fn over_tcp_both_begin_at_about_the_same_time_and_the_dialler_first() {
        let share = |role| Share { wire: Wire::Kinfolk, side: Side::Proposer, transport: Transport::Tcp, role };
        for millis in [0, 4, 50, 400] {
            let (round_trip, there) = (Duration::from_millis(millis), Duration::from_millis(millis / 2));
            let (dials, accepts) =
                (share(PunchRole::Dial).pause(round_trip), share(PunchRole::Accept).pause(round_trip));
            // The other side begins when the signal is there.
            assert!(dials <= there && there - dials <= MARGIN, "{millis} ms");
            assert!(accepts > there && accepts - there <= MARGIN, "{millis} ms");
        }
    }
}
