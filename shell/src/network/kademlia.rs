//! Questions to the hash table, and what others put into it.

use std::collections::HashSet;

use kinfolk_core::{Address, CommandId, Event, PeerId as CorePeerId, Query as Question, Refusal};
use libp2p::{
    Multiaddr, PeerId, kad,
    kad::{QueryId, QueryResult, QueryStats, RecordKey, RoutingUpdate},
    swarm::{ConnectionId, NetworkBehaviour},
};

use super::{
    Network, errors,
    ids::{self, address_to_libp2p, peer_to_core, peer_to_libp2p, real_peer},
    record,
    shelf::NotKept,
    translate::{MAX_ADDRESSES, told},
};

/// Addresses per peer in an answer; more are cut.
const MAX_PER_PEER: usize = 8;

/// A question of the core under way.
pub(super) struct Query {
    command: CommandId,
    kind: Kind,
    /// Nobody was known to ask when it began.
    nobody: bool,
    found: bool,
}

enum Kind {
    Near,
    /// `Members`, `Relays`.
    Providers {
        key: RecordKey,
        named: HashSet<PeerId>,
    },
    Record {
        peer: PeerId,
        newest: Option<u64>,
    },
    /// `Join`, `OfferRelay`, `Publish`.
    Tell,
}

impl<A: NetworkBehaviour> Network<A> {
    pub(super) fn route(&mut self, command: CommandId, peer: &CorePeerId, addresses: &[Address]) {
        let id = peer_to_libp2p(peer);
        let known: Vec<Multiaddr> =
            addresses.iter().take(record::MAX_ADDRESSES).filter_map(address_to_libp2p).collect();
        let there = self.in_table(&id);
        let mut outcome = None;
        for address in known {
            let update = self.swarm.behaviour_mut().kad.inner_mut().add_address(&id, address.clone());
            if !matches!(update, RoutingUpdate::Failed) {
                self.routed.add(id, address);
            }
            outcome = Some(match (outcome, update) {
                (Some(RoutingUpdate::Success), _) => RoutingUpdate::Success,
                (_, update) => update,
            });
        }
        match outcome {
            // A new entry is told by Kademlia itself, now or when its place becomes free.
            Some(RoutingUpdate::Success) if there => self.tell(Event::Routed { peer: *peer, present: true }),
            Some(RoutingUpdate::Success | RoutingUpdate::Pending) => {}
            Some(RoutingUpdate::Failed) if id == *self.swarm.local_peer_id() => {
                let refusal = Refusal::Other("a node is not in its own routing table".to_owned());
                self.tell(Event::Refused { command, refusal });
            }
            Some(RoutingUpdate::Failed) => self.tell(Event::Refused { command, refusal: Refusal::StoreFull }),
            None => {
                let refusal = Refusal::Other("a routing table's entry needs an address".to_owned());
                self.tell(Event::Refused { command, refusal });
            }
        }
    }

    pub(super) fn unroute(&mut self, peer: &CorePeerId) {
        let id = peer_to_libp2p(peer);
        self.routed.remove(&id);
        if self.swarm.behaviour_mut().kad.inner_mut().remove_peer(&id).is_some() {
            self.tell(Event::Routed { peer: *peer, present: false });
        }
    }

    pub(super) fn query(&mut self, command: CommandId, question: &Question) {
        let network = self.network.clone();
        let nobody = self.swarm.behaviour_mut().kad.inner_mut().kbuckets().next().is_none();
        let kademlia = self.swarm.behaviour_mut().kad.inner_mut();
        let begun = match question {
            Question::LookUp { near } => Ok((kademlia.get_closest_peers(peer_to_libp2p(near)), Kind::Near)),
            Question::LookUpRandom { place } => Ok((kademlia.get_closest_peers(ids::place(*place)), Kind::Near)),
            Question::Members | Question::Relays => {
                let key = if *question == Question::Members { network.members } else { network.relays };
                Ok((kademlia.get_providers(key.clone()), Kind::Providers { key, named: HashSet::new() }))
            }
            Question::Join | Question::OfferRelay => {
                let key = if *question == Question::Join { network.members } else { network.relays };
                kademlia.start_providing(key).map(|id| (id, Kind::Tell)).map_err(|_| Refusal::StoreFull)
            }
            Question::Record { peer } => {
                let peer = peer_to_libp2p(peer);
                Ok((kademlia.get_record(record::key_of(&peer)), Kind::Record { peer, newest: None }))
            }
            Question::Publish { addresses } => self.publish(addresses).map(|id| (id, Kind::Tell)),
        };
        match begun {
            Ok((id, kind)) => {
                self.queries.insert(id, Query { command, kind, nobody, found: false });
            }
            Err(refusal) => self.tell(Event::Refused { command, refusal }),
        }
    }

    fn publish(&mut self, addresses: &[Address]) -> Result<QueryId, Refusal> {
        let addresses: Vec<Multiaddr> = addresses.iter().filter_map(address_to_libp2p).collect();
        let value = record::sign(&self.key, self.numbers.next(), &addresses)
            .map_err(|error| Refusal::Other(errors::plain(&format!("the record can't be signed: {error}"), 200)))?;
        let entry = kad::Record::new(record::key_of(self.swarm.local_peer_id()), value);
        let kademlia = self.swarm.behaviour_mut().kad.inner_mut();
        kademlia.put_record(entry, kad::Quorum::One).map_err(|_| Refusal::StoreFull)
    }

    pub(super) fn cancel(&mut self, command: CommandId) {
        let Some(id) = self.queries.iter().find(|(_, query)| query.command == command).map(|(id, _)| *id) else {
            return;
        };
        self.queries.remove(&id);
        if let Some(mut query) = self.swarm.behaviour_mut().kad.inner_mut().query_mut(&id) {
            query.finish();
        }
    }

    pub(super) fn on_kademlia(&mut self, event: kad::Event) {
        match event {
            kad::Event::OutboundQueryProgressed { id, result, stats, step } => {
                if self.queries.contains_key(&id) {
                    self.on_progress(id, result);
                    if step.last {
                        self.on_query_end(id, &stats);
                    }
                } else {
                    // Kademlia's own, or one that was dropped.
                    self.counters.count("kademlia.other_queries");
                }
            }
            kad::Event::RoutingUpdated { peer, is_new_peer, addresses, old_peer, .. } => {
                let present = self.prune(&peer, &addresses);
                if let Some(old) = old_peer {
                    self.routed.remove(&old);
                    self.tell(Event::Routed { peer: peer_to_core(old), present: false });
                }
                if is_new_peer || !present {
                    self.tell(Event::Routed { peer: peer_to_core(peer), present });
                }
            }
            kad::Event::InboundRequest { request } => self.on_request(request),
            kad::Event::UnroutablePeer { .. }
            | kad::Event::RoutablePeer { .. }
            | kad::Event::PendingRoutablePeer { .. } => self.counters.count("kademlia.not_routed"),
            kad::Event::ModeChanged { .. } => self.counters.count("kademlia.modes"),
        }
    }

    /// Kademlia adds each address by which we reach a peer of its table, and would tell it to others. Whether the peer
    /// is still in the table after such addresses are taken out.
    fn prune(&mut self, peer: &PeerId, addresses: &kad::Addresses) -> bool {
        for address in addresses.iter() {
            if !self.routed.allows(peer, address) {
                self.counters.count("kademlia.addresses_pruned");
                if self.swarm.behaviour_mut().kad.inner_mut().remove_address(peer, address).is_some() {
                    self.routed.remove(peer);
                    return false;
                }
            }
        }
        true
    }

    fn on_progress(&mut self, id: QueryId, result: QueryResult) {
        match result {
            QueryResult::GetClosestPeers(
                Ok(kad::GetClosestPeersOk { peers, .. }) | Err(kad::GetClosestPeersError::Timeout { peers, .. }),
            ) => {
                self.found(id, peers.into_iter().map(|peer| (peer.peer_id, peer.addrs)).collect());
            }
            QueryResult::GetProviders(Ok(kad::GetProvidersOk::FoundProviders { providers, .. })) => {
                let local = *self.swarm.local_peer_id();
                let Some(Query { kind: Kind::Providers { key, named }, .. }) = self.queries.get_mut(&id) else {
                    return;
                };
                let key = key.clone();
                let news: Vec<PeerId> =
                    providers.into_iter().filter(|peer| *peer != local && named.insert(*peer)).collect();
                let found = news.into_iter().map(|peer| (peer, self.told_of(&key, peer))).collect();
                self.found(id, found);
            }
            QueryResult::GetRecord(Ok(kad::GetRecordOk::FoundRecord(found))) => self.on_record(id, &found.record),
            QueryResult::GetProviders(Ok(kad::GetProvidersOk::FinishedWithNoAdditionalRecord { .. }) | Err(_))
            | QueryResult::GetRecord(Ok(kad::GetRecordOk::FinishedWithNoAdditionalRecord { .. }) | Err(_))
            | QueryResult::Bootstrap(_)
            | QueryResult::StartProviding(_)
            | QueryResult::RepublishProvider(_)
            | QueryResult::PutRecord(_)
            | QueryResult::RepublishRecord(_) => {}
        }
    }

    /// The addresses of a provider that the query's answers name, which Kademlia keeps for its own dials only, and those
    /// that it has told us itself.
    fn told_of(&mut self, key: &RecordKey, provider: PeerId) -> Vec<Multiaddr> {
        let nobody = ConnectionId::new_unchecked(0);
        let kademlia = self.swarm.behaviour_mut().kad.inner_mut();
        let role = libp2p::core::Endpoint::Dialer;
        let mut told =
            kademlia.handle_pending_outbound_connection(nobody, Some(provider), &[], role).unwrap_or_default();
        told.extend_from_slice(kademlia.store_mut().addresses_of(key, &provider));
        told
    }

    fn on_record(&mut self, id: QueryId, found: &kad::Record) {
        let Some(Query { kind: Kind::Record { peer, newest }, .. }) = self.queries.get_mut(&id) else { return };
        let peer = *peer;
        let record = match record::verify(&found.key, &found.value) {
            Ok(record) if record.peer_id() == peer => record,
            Ok(_) | Err(_) => return self.counters.count("refused.answers"),
        };
        if newest.is_some_and(|newest| newest >= record.seq()) {
            return self.counters.count("kademlia.older_answers");
        }
        *newest = Some(record.seq());
        if peer == *self.swarm.local_peer_id() {
            // Of an earlier run whose store is lost, perhaps: the next one must be newer.
            self.numbers.raise(record.seq());
        }
        let (addresses, cut) = told(record.addresses().iter(), MAX_ADDRESSES);
        self.tell_found(id, vec![(peer_to_core(peer), addresses)], cut, Some(record.seq()));
    }

    /// Tells of peers in events of at most 32 peers and 32 addresses.
    fn found(&mut self, id: QueryId, peers: Vec<(PeerId, Vec<Multiaddr>)>) {
        let mut batch = vec![];
        let (mut size, mut cut) = (0, 0);
        for (peer, addresses) in peers {
            let Some(peer) = real_peer(&peer) else {
                cut += 1;
                continue;
            };
            let (addresses, more) = told(addresses.iter(), MAX_PER_PEER);
            if batch.len() == MAX_ADDRESSES || size + addresses.len() > MAX_ADDRESSES {
                self.tell_found(id, std::mem::take(&mut batch), std::mem::take(&mut cut), None);
                size = 0;
            }
            size += addresses.len();
            cut += more;
            batch.push((peer, addresses));
        }
        if !batch.is_empty() {
            self.tell_found(id, batch, cut, None);
        }
    }

    fn tell_found(&mut self, id: QueryId, peers: Vec<(CorePeerId, Vec<Address>)>, cut: u32, record: Option<u64>) {
        let Some(query) = self.queries.get_mut(&id) else { return };
        query.found = true;
        let query = query.command;
        self.counters.add("cut.addresses", cut.into());
        self.tell(Event::QueryFound { query, peers, cut, record });
    }

    fn on_query_end(&mut self, id: QueryId, stats: &QueryStats) {
        let Some(query) = self.queries.remove(&id) else { return };
        let (successes, failures) = (stats.num_successes(), stats.num_failures());
        if query.nobody && !query.found && successes == 0 {
            self.tell(Event::Refused { command: query.command, refusal: Refusal::NobodyToAsk });
        } else {
            self.tell(Event::QueryEnded { query: query.command, successes, failures });
        }
    }

    /// What others ask of us, and want us to keep.
    fn on_request(&mut self, request: kad::InboundRequest) {
        let kept = match request {
            kad::InboundRequest::FindNode { .. } => return self.counters.count("kademlia.find_node"),
            kad::InboundRequest::GetProvider { .. } => return self.counters.count("kademlia.get_providers"),
            kad::InboundRequest::GetRecord { .. } => return self.counters.count("kademlia.get_record"),
            kad::InboundRequest::PutRecord { record: Some(record), .. } => {
                self.counters.count("kademlia.put_record");
                self.swarm.behaviour_mut().kad.inner_mut().store_mut().offer(record)
            }
            kad::InboundRequest::AddProvider { record: Some(provider) } => {
                self.counters.count("kademlia.add_provider");
                self.swarm.behaviour_mut().kad.inner_mut().store_mut().offer_provider(provider)
            }
            kad::InboundRequest::PutRecord { record: None, .. } | kad::InboundRequest::AddProvider { record: None } => {
                return self.counters.count("unknown");
            }
        };
        match kept {
            Ok(()) => {}
            Err(NotKept::Bad(_)) => self.counters.count("refused.forged_records"),
            Err(NotKept::Old) => self.counters.count("refused.old_records"),
            Err(NotKept::Own { seq }) => {
                self.counters.count("refused.own_records");
                self.numbers.raise(seq);
            }
            Err(NotKept::Full) => self.counters.count("refused.no_room"),
        }
    }

    fn in_table(&mut self, peer: &PeerId) -> bool {
        let kademlia = self.swarm.behaviour_mut().kad.inner_mut();
        kademlia.kbucket(*peer).is_some_and(|bucket| bucket.iter().any(|entry| entry.node.key.preimage() == peer))
    }
}
