use super::{LogSync, Partner};
use crate::{
    view::{LogView, PeerLogView, PeerSyncView, SyncView},
    vocabulary::{PeerId, Time},
};

impl LogSync {
    /// The exchange of logs as a whole.
    pub(crate) fn view(&self, now: Time) -> SyncView {
        let logs = self.logs.iter().map(|(log, known)| {
            let here = known.head.position;
            let lags =
                self.partners.values().filter_map(|partner| partner.claims.get(log)).map(|claim| claim.lag(here).0);
            LogView {
                log: *log,
                position: known.head.position,
                missing: lags.max().unwrap_or(0),
                fetching_from: known.fetch.and_then(|fetch| self.open.get(&fetch)).map(|open| open.peer),
                forked_at: known.forked,
            }
        });
        SyncView {
            ready: self.ready,
            with: self.with,
            logs: logs.collect(),
            partners: self.partners.len() as u32,
            fetching: self.partners.values().map(|partner| partner.fetching).sum(),
            paused_until: Some(self.paused_until).filter(|until| *until > now),
            ignored: self.ignored,
        }
    }

    /// The exchange of logs with one peer, while there is any.
    pub(crate) fn peer_view(&self, peer: &PeerId) -> Option<PeerSyncView> {
        self.partners.get(peer).map(|partner| self.partner_view(partner))
    }

    fn partner_view(&self, partner: &Partner) -> PeerSyncView {
        let (ours, theirs) = self.lag(partner);
        let claimed = partner.claims.iter().filter(|(_, claim)| claim.position > 0);
        let logs =
            claimed.map(|(log, claim)| PeerLogView { log: *log, position: claim.position, forked: claim.forked });
        PeerSyncView {
            position: partner.position(),
            ours,
            theirs,
            pending: partner.fetching + u32::from(partner.talking.is_some()),
            compared: partner.compared,
            rests_until: Some(partner.rest_until.max(partner.talk_after))
                .filter(|_| partner.failures + partner.silences > 0),
            last_error: partner.last_error.clone(),
            logs: logs.collect(),
        }
    }
}
