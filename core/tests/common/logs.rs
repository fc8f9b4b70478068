//! Logs in a test's hands.

use kinfolk_core::{
    Action, Command, CommandId, Config, ConnectionId, Direction, EntryHash, Event, Head, Identity, LogHead, LogId,
    Origin, PeerId, Service, SyncError, Told,
    view::{LogView, PeerSyncView},
};

use super::{LOCAL, Rig, kinfolk, near, peer};

/// The hash of an entry on a branch of its log.
pub fn hash(log: u64, epoch: u64, position: u64, branch: u8) -> EntryHash {
    let mut hash = EntryHash::default();
    if position > 0 {
        hash.0[..8].copy_from_slice(&log.to_be_bytes());
        hash.0[8..16].copy_from_slice(&epoch.to_be_bytes());
        hash.0[16..24].copy_from_slice(&position.to_be_bytes());
        hash.0[31] = branch + 1;
    }
    hash
}

pub fn head(log: u64, epoch: u64, position: u64) -> Head {
    Head { position, hash: hash(log, epoch, position, 0) }
}

/// A log of the n-th peer.
pub fn log_of(n: u64, epoch: u64) -> LogId {
    LogId { author: peer(n), epoch }
}

/// How far the first log of the n-th peer goes.
pub fn log(n: u64, position: u64) -> LogHead {
    log_in(n, 0, position)
}

pub fn log_in(n: u64, epoch: u64, position: u64) -> LogHead {
    LogHead { log: log_of(n, epoch), head: head(n, epoch, position) }
}

pub fn logs(all: &[(u64, u64)]) -> Vec<LogHead> {
    all.iter().map(|(n, position)| log(*n, *position)).collect()
}

/// Exchanges logs with everybody who speaks the protocol.
pub fn open_to_all() -> Config {
    let mut config = Config::desktop();
    config.sync.with = Service::Anyone;
    config
}

/// What a node that exchanges logs says of itself.
pub fn keeper() -> Identity {
    let mut identity = kinfolk();
    identity.protocols.push("/elohim/kinfolk-sync/1.0.0".into());
    identity
}

/// A range that is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    pub id: CommandId,
    pub from: PeerId,
    pub connection: ConnectionId,
    pub log: LogId,
    pub since: u64,
    pub limit: u32,
}

pub fn range(command: &Command) -> Option<Range> {
    match command.action {
        Action::SyncFetch { peer: from, connection, log, since, limit } => {
            Some(Range { id: command.id, from, connection, log, since, limit })
        }
        _ => None,
    }
}

impl Rig {
    /// A node whose store holds these logs.
    pub fn with_logs(config: Config, all: &[(u64, u64)]) -> Self {
        let mut rig = Self::quiet(config);
        rig.heads(all);
        rig.take();
        rig
    }

    pub fn heads(&mut self, all: &[(u64, u64)]) {
        self.tell(Event::SyncHeads { heads: logs(all), last: true });
    }

    /// Peer n, dialled a moment ago, exchanges logs.
    pub fn partner(&mut self, n: u64) -> ConnectionId {
        let origin = Origin::Dial(CommandId(1_000_000));
        let connection = self.connected(n, Direction::Outbound, near(n), origin);
        self.identified_as(connection, n, keeper());
        connection
    }

    /// The same, and it has said that it has these logs.
    pub fn partner_with(&mut self, n: u64, all: &[(u64, u64)]) -> ConnectionId {
        let connection = self.partner(n);
        self.answers(n, connection, &Told::Heads(logs(all)));
        connection
    }

    /// The latest exchange or announcement that peer n was asked for.
    pub fn talk(&self, n: u64) -> Option<CommandId> {
        self.last(|action| match action {
            Action::SyncExchange { peer: to, .. } | Action::SyncAnnounce { peer: to, .. } => {
                (*to == peer(n)).then_some(())
            }
            _ => None,
        })
        .map(|(id, ())| id)
    }

    /// Peer n answers the latest exchange or announcement.
    pub fn answers(&mut self, n: u64, connection: ConnectionId, told: &Told) {
        let sync = Some(self.talk(n).expect("an exchange or announcement"));
        self.tell(Event::SyncTold { peer: peer(n), connection, sync, told: told.clone(), last: true });
    }

    /// Peer n says how far logs go there, unasked.
    pub fn says(&mut self, n: u64, connection: ConnectionId, told: Told) {
        self.tell(Event::SyncTold { peer: peer(n), connection, sync: None, told, last: true });
    }

    /// All ranges asked for since commands were last taken.
    pub fn ranges(&self) -> Vec<Range> {
        self.commands.iter().filter_map(range).collect()
    }

    /// A range is stored up to an entry.
    pub fn stored(&mut self, range: Range, n: u64, position: u64, has_more: bool) {
        let entries = u32::try_from(position.saturating_sub(range.since)).unwrap();
        let head = head(n, range.log.epoch, position);
        self.tell(Event::SyncFetched { fetch: range.id, log: range.log, head, entries, has_more });
    }

    pub fn broke(&mut self, range: Range, error: SyncError) {
        self.tell(Event::SyncFailed { sync: range.id, error });
    }

    pub fn log_view(&self, n: u64) -> Option<LogView> {
        self.node.view().unwrap().sync().logs.into_iter().find(|view| view.log == log_of(n, 0))
    }

    pub fn sync_view(&self, n: u64) -> PeerSyncView {
        self.view(n).expect("it is known").sync.expect("logs are exchanged with it")
    }

    /// How often positions are compared, with whomever.
    pub fn exchanges(&self) -> usize {
        self.commands.iter().filter(|command| matches!(command.action, Action::SyncExchange { .. })).count()
    }

    /// What was announced since commands were last taken.
    pub fn announcements(&self) -> Vec<(PeerId, Vec<LogHead>)> {
        let announced = |command: &Command| match &command.action {
            Action::SyncAnnounce { peer, heads, .. } => Some((*peer, heads.clone())),
            _ => None,
        };
        self.commands.iter().filter_map(announced).collect()
    }
}

/// The node's own log.
pub const OWN: u64 = LOCAL;
