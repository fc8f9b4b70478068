//! The running node, as a command sees it.

use std::path::PathBuf;

use kinfolk_shell::api::{
    client::{Client, ClientError},
    types::{Problem, ProblemKind},
};

use super::{
    failure::{Exit, Failure},
    program::typed,
};
use crate::config::HostSettings;

/// Where the running node is to be found, if there is one.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) data_dir: PathBuf,
    socket: PathBuf,
}

impl Node {
    pub(super) fn of(settings: &HostSettings) -> Self {
        Self { data_dir: settings.data_dir.clone(), socket: settings.api_socket.clone() }
    }

    /// A way to ask it. Whether it is there shows with the first question.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        self.answer(Client::new(&self.socket))
    }

    /// An answer, or the program's failure.
    pub(super) fn answer<T>(&self, answer: Result<T, ClientError>) -> Result<T, Failure> {
        answer.map_err(|error| match error {
            ClientError::NoNode { .. } => Failure::new(
                Exit::NoNode,
                "no_node",
                format!("no node is running on {}; start one with {}", self.data_dir.display(), typed("up")),
            ),
            ClientError::Problem(problem) => declined(&problem),
            ClientError::Forbidden { .. } => Failure::failed(error),
            ClientError::Broken(text) => {
                Failure::failed(format!("can't speak with the node over {}: {text}", self.socket.display()))
            }
        })
    }

    /// There was a node, and now there is none.
    pub(super) fn gone(&self) -> Failure {
        Failure::new(Exit::NoNode, "no_node", format!("the node on {} has ended", self.data_dir.display()))
    }
}

/// The node said no.
fn declined(problem: &Problem) -> Failure {
    let (exit, word) = match problem.kind {
        ProblemKind::UnknownPeer => (Exit::Declined, "unknown_peer"),
        ProblemKind::NotFound => (Exit::Declined, "not_found"),
        ProblemKind::OwnIdentity => (Exit::Declined, "own_identity"),
        ProblemKind::Blocked => (Exit::Declined, "blocked"),
        ProblemKind::UnusableAddress => (Exit::Declined, "unusable_address"),
        ProblemKind::Failed => (Exit::Declined, "failed_to_connect"),
        ProblemKind::TimedOut => (Exit::Declined, "timed_out"),
        ProblemKind::Limit => (Exit::Declined, "limit"),
        ProblemKind::Incomplete => (Exit::Declined, "incomplete"),
        ProblemKind::BadRequest | ProblemKind::TooLarge => (Exit::BadInput, "bad_request"),
        // A node of another version than this program.
        ProblemKind::NoSuchEndpoint | ProblemKind::WrongMethod => (Exit::Failed, "failed"),
        ProblemKind::ShuttingDown => (Exit::Failed, "shutting_down"),
        ProblemKind::Internal => (Exit::Failed, "internal"),
    };
    Failure::new(exit, word, &problem.detail)
}
