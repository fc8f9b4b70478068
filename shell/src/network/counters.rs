//! What is not worth an event is counted.

use std::collections::BTreeMap;

/// Counts by name, from the start of the run. The names are fixed, a few dozen; what is missing was never seen.
///
/// | begins with | counts |
/// |---|---|
/// | `refused.` | what was turned away: `denied_peers`, `over_limit` (connections), `by_guard` (dials into private networks), `forged_records`, `old_records`, `own_records`, `no_room` (in the hash table), `answers` (forged ones to our questions) |
/// | `cut.` | what was left out of events: `addresses`, `protocols`, `mdns_peers` |
/// | `knocks.`, `connections.` | inbound: `connections.knocks` in all, `knocks.failed`, `knocks.own` (we dialled ourselves) |
/// | `copies.seen` | how often another machine with our identity was met |
/// | `dials.` | `released`, `refused` and `without_address` (of behaviours), `to_ourselves`, `addresses_failed_before_success` (of dials that succeeded elsewhere) |
/// | `probes.` | ours: `paid_bytes` (that servers wanted), `strays` (dial-backs that nobody waits for); for others: `asked`, `reached` and `not_reached` (dials), `served`, `failed` (no answer of ours got through), `refused` (too often, or of an address where we don't dial), `bytes` (that we wanted) |
/// | `identify.`, `pings.` | `sent`, `pushed`, `unchanged`, `too_often` (not heeded); `unsupported` |
/// | `kademlia.` | requests of others (`find_node`, `get_providers`, `get_record`, `add_provider`, `put_record`), `older_answers`, `addresses_pruned` (learnt by reaching a peer, not told to others), `other_queries` (its own, or dropped ones), `not_routed`, `modes` |
/// | `punch.` | proposals of others that were dropped: `too_many_offers`, `unreadable_offers`, `unanswered_offers` |
/// | `addresses.`, `listeners.` | what behaviours say of addresses (`relayed`: not heeded, because seen through a relay), and listeners of theirs |
/// | `relays.` | as a client: `late_answers` (to what was given back or asked again), `bad_addresses` (not told) |
/// | `relay.` | as a relay: `reservations_accepted`, `_renewed`, `_denied`, `_closed`, `_timed_out`; `circuits_opened`, `_denied`, `_failed` (the other side did not take it), `_closed`; `answers_failed` (not taken); `refused_strangers`, `_full`, `_network`, `_too_often` (why it was denied, where it was by a quota of ours) |
/// | `unknown` | what this version of libp2p should not say |
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Counters(BTreeMap<&'static str, u64>);

impl Counters {
    /// How often this was seen.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// All that was seen at least once, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(name, count)| (*name, *count))
    }

    pub(super) fn count(&mut self, name: &'static str) {
        self.add(name, 1);
    }

    pub(super) fn add(&mut self, name: &'static str, more: u64) {
        if more > 0 {
            let count = self.0.entry(name).or_default();
            *count = count.saturating_add(more);
        }
    }
}
