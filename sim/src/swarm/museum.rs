//! Planted bugs: each stands between the core and the world, and makes the core look as if it had that bug. The tests
//! show that the checks find each one.

use std::collections::HashSet;

use kinfolk_core::{Action, Answer, Command, CommandId, DeadlineReason, Notice, Reachability, Reason};

use super::World;
use crate::engine::{Key, SECOND};

/// A bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Plant {
    /// Something is walked in the order of a hash map with a random seed.
    HashOrder,
    /// The planner's deadlines are forgotten.
    ForgottenDeadline,
    /// A deadline that has passed is asked for again and again.
    PastDeadline,
    /// Each dial is made twice.
    DoubleDial,
    /// A node dials itself.
    SelfDial,
    /// A dial without any address.
    NowhereDial,
    /// A private address is advertised.
    PrivateAddress,
    /// Requests are never answered.
    LostAnswer,
    /// Requests are answered twice.
    DoubleAnswer,
    /// Reservations are renewed for half an hour, then no more.
    MissedRenewal,
    /// Each relay is asked once; that a reservation has ended changes nothing.
    EdgeTriggeredRelay,
    /// The last connection to a pinned peer is closed for the sake of the budget.
    TrimmedPin,
    /// Reachability is told anew with each probe.
    Flipping,
    /// More queries than the settings allow.
    ManyQueries,
}

impl World {
    /// Plants a bug into all nodes.
    pub fn plant(&mut self, plant: Plant) {
        self.plant = Some(plant);
        let forgets = (plant == Plant::ForgottenDeadline).then_some(DeadlineReason::Bootstrap);
        self.machines.iter_mut().for_each(|machine| machine.forgets = forgets);
    }

    /// What becomes of a command.
    pub(super) fn planted(&self, node: u32, command: Command) -> Vec<Command> {
        let other = CommandId(command.id.0 | 1 << 40);
        let local = self.machines[node as usize].id;
        let more = |action: Action, reason: Reason| vec![command.clone(), Command { id: other, action, reason }];
        match (self.plant, &command.action) {
            (Some(Plant::DoubleDial), Action::Dial { .. }) => more(command.action.clone(), command.reason.clone()),
            (Some(Plant::SelfDial), Action::Dial { addresses, .. }) => {
                let action = Action::Dial { peer: Some(local), addresses: addresses.clone() };
                vec![Command { action, ..command }]
            }
            (Some(Plant::NowhereDial), Action::Dial { peer, .. }) => {
                vec![Command { action: Action::Dial { peer: *peer, addresses: vec![] }, ..command }]
            }
            (Some(Plant::PrivateAddress), Action::Tell(Notice::Listening { address })) => {
                more(Action::Advertise { address: address.clone() }, Reason::OwnAddress)
            }
            (Some(Plant::LostAnswer), Action::Answer { .. }) => vec![],
            (Some(Plant::DoubleAnswer), Action::Answer { request, .. }) => {
                more(Action::Answer { request: *request, answer: Ok(Answer::NothingToDo) }, Reason::Asked)
            }
            (Some(Plant::MissedRenewal), Action::Reserve { .. }) if self.now > 1_800 * SECOND => vec![],
            (Some(Plant::EdgeTriggeredRelay), Action::Reserve { .. }) if self.now > 10 * SECOND => vec![],
            (Some(Plant::TrimmedPin), Action::Tell(Notice::PeerIdentified { peer, .. })) => {
                let machine = &self.machines[node as usize];
                let key = self.index(peer).and_then(|peer| self.connection_to(node, peer));
                let number = machine.conns.iter().find(|one| Some(one.key) == key).map(|one| one.number);
                let Some(number) = number else { return vec![command] };
                let connection = kinfolk_core::ConnectionId(number);
                let reason = Reason::OverBudget { connections: 1, limit: 0 };
                more(Action::Close { connection, peer: *peer }, reason)
            }
            (Some(Plant::Flipping), Action::Tell(Notice::Listening { .. })) => {
                let notice = Notice::ReachabilityChanged { reachability: Reachability::Private };
                more(Action::Tell(notice), Reason::NotReachable)
            }
            (Some(Plant::ManyQueries), Action::Query(query)) => {
                let again = |number: u64| Command {
                    id: CommandId(command.id.0 | number << 40),
                    action: Action::Query(query.clone()),
                    reason: command.reason.clone(),
                };
                (0..4).map(again).collect()
            }
            (Some(_) | None, _) => vec![command],
        }
    }

    /// In which order things are walked.
    pub(super) fn walk(&self, keys: Vec<Key>) -> Vec<Key> {
        if self.plant == Some(Plant::HashOrder) {
            let set: HashSet<Key> = keys.into_iter().collect();
            return set.into_iter().collect();
        }
        keys
    }
}
