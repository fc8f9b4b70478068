//! The node's listeners: kept up, moved to another port when theirs is taken.

use alloc::{collections::BTreeSet, vec::Vec};
use core::time::Duration;

use crate::{
    cx::Cx,
    jitter::{self, Purpose},
    vocabulary::{Action, Address, CommandId, Event, ListenError, ListenerId, Notice, Reason, Time},
};

#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub(crate) struct Listeners {
    all: Vec<Listener>,
}

#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Listener {
    /// What the settings say.
    wanted: Address,
    /// The command that asked for it, while that is open or it stands.
    command: Option<CommandId>,
    id: Option<ListenerId>,
    bound: BTreeSet<Address>,
    /// The wanted port is taken: any free one.
    any_port: bool,
    failures: u32,
    retry_at: Time,
}

const FIRST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(300);

impl Listeners {
    /// Takes the addresses over from the settings. A listener that they no longer name stays until the next start:
    /// connections hang on its port.
    pub(super) fn configure(&mut self, cx: &Cx<'_>) {
        for wanted in &cx.config.listen {
            if !self.all.iter().any(|listener| listener.wanted == *wanted) {
                self.all.push(Listener {
                    wanted: wanted.clone(),
                    command: None,
                    id: None,
                    bound: BTreeSet::new(),
                    any_port: false,
                    failures: 0,
                    retry_at: cx.now,
                });
            }
        }
    }

    pub(super) fn absorb(&mut self, cx: &mut Cx<'_>, event: &Event) {
        if let Event::Listening { listener, command, address } = event {
            self.listening(cx, *listener, *command, address);
        } else if let Event::ListenAddressGone { listener, address } = event {
            self.gone(*listener, address);
        } else if let Event::ListenFailed { command, error } = event {
            self.failed(cx, *command, error);
        } else if matches!(event, Event::Interfaces(_) | Event::Resumed { .. }) {
            self.retry(cx.now);
        }
    }

    pub(super) fn step(&mut self, cx: &mut Cx<'_>) {
        for listener in &mut self.all {
            if listener.command.is_none() && listener.retry_at <= cx.now {
                let mut address = listener.wanted.clone();
                if let Address::Ip { port, .. } = &mut address
                    && listener.any_port
                {
                    *port = 0;
                }
                let reason = match (listener.any_port, listener.failures) {
                    (true, _) => Reason::PortTaken,
                    (false, 0) => Reason::Settings,
                    (false, failures) => Reason::Retry { attempt: failures + 1 },
                };
                listener.command = Some(cx.command(Action::Listen { address }, reason));
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.all.iter().filter(|listener| listener.command.is_none()).map(|listener| listener.retry_at).min()
    }

    fn listening(&mut self, cx: &mut Cx<'_>, id: ListenerId, command: CommandId, address: &Address) {
        let Some(listener) = self.all.iter_mut().find(|listener| listener.command == Some(command)) else { return };
        listener.id = Some(id);
        listener.failures = 0;
        if listener.bound.insert(address.clone()) {
            cx.tell(Notice::Listening { address: address.clone() }, Reason::Settings);
        }
    }

    fn gone(&mut self, id: ListenerId, address: &Address) {
        if let Some(listener) = self.all.iter_mut().find(|listener| listener.id == Some(id)) {
            listener.bound.remove(address);
        }
    }

    fn failed(&mut self, cx: &mut Cx<'_>, command: CommandId, error: &ListenError) {
        let Some((at, listener)) =
            self.all.iter_mut().enumerate().find(|(_, listener)| listener.command == Some(command))
        else {
            return;
        };
        listener.command = None;
        listener.id = None;
        listener.bound.clear();
        let address = listener.wanted.clone();
        if *error == ListenError::PortTaken && !listener.any_port && address.port() != Some(0) {
            listener.any_port = true;
            listener.retry_at = cx.now;
            cx.tell(Notice::PortTaken { address }, Reason::PortTaken);
            return;
        }
        listener.failures = listener.failures.saturating_add(1);
        let wait = FIRST_WAIT.saturating_mul(1 << listener.failures.min(6)).min(LONGEST_WAIT);
        let draw = jitter::draw(cx.seed, Purpose::Listen, at as u64, u64::from(listener.failures));
        listener.retry_at = cx.now + jitter::vary(wait, draw);
        if listener.failures == 1 {
            cx.tell(Notice::NotListening { address, error: error.clone() }, Reason::Settings);
        }
    }

    /// The network has changed: what did not work may work now.
    fn retry(&mut self, now: Time) {
        for listener in &mut self.all {
            listener.retry_at = listener.retry_at.min(now);
        }
    }
}
