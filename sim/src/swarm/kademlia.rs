//! Kademlia: routing tables with buckets of 20, iterative look-ups three at a time, records and providers on the servers
//! nearest to a key. Its dials wait for the core, as the shell has them wait.
//!
//! Places in the hash table are 64 bits instead of 256: as evenly spread, and enough for any number of machines.

use kinfolk_core::{
    Address, Asker as Behaviour, CommandId, DialError, Event, HeldId, PeerId, Query as Question, Refusal,
};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::{
    Addresses, What, World,
    dialing::Asker,
    machine::{Held, Machine, Standing},
    peer_id,
};
use crate::engine::{Dice, Digest, Key, MILLI, Moment, Purpose, SECOND};

pub(super) const K: usize = 20;
const ALPHA: usize = 3;
/// Bytes of a question and its answer.
const QUESTION: u64 = 900;
/// libp2p-kad: one peer of a query may take this long, and the query as a whole.
const PEER_TIMEOUT: u64 = 10 * SECOND;
const QUERY_TIMEOUT: u64 = 60 * SECOND;
/// A new entry in a table of fewer than `K` starts look-ups of its own after this.
const OWN_LOOKUP: u64 = 500 * MILLI;
/// Whoever waits for a place in a full bucket gets it after this, if the one that is gone longest has not come back.
const PENDING: u64 = 60 * SECOND;
/// The shell's `RECORD_LIFETIME`.
const LIFETIME: u64 = 7_200 * SECOND;
/// What the shell tells in one event, and of one peer.
const MAX_TOLD: usize = 32;
const MAX_PER_PEER: usize = 8;
const MAX_HELD: usize = 64;

/// A question under way.
pub(super) struct Query {
    node: u32,
    command: Option<CommandId>,
    kind: Kind,
    target: u64,
    contacts: Vec<Contact>,
    /// The contacts' numbers, the nearest first.
    order: Vec<u16>,
    successes: u32,
    failures: u32,
    found: bool,
    nobody: bool,
    telling: bool,
    named: Vec<u32>,
    newest: u64,
    /// Of the library's own look-ups: the farther buckets, which are looked up next.
    farther: Vec<u64>,
}

enum Kind {
    Near,
    Providers(Topic),
    Provide(Topic),
    Record(u32),
    Publish(u64, Addresses),
}

/// What one can be a provider of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Topic {
    Members = 0,
    Relays = 1,
}

struct Contact {
    peer: u32,
    distance: u64,
    state: State,
    addresses: Option<Addresses>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    New,
    /// For a connection.
    Waiting,
    Asked,
    Done,
    Failed,
    Told,
}

/// A routing table.
#[derive(Default)]
pub(super) struct Table {
    /// Whose connection has come or gone last is last.
    entries: Vec<Entry>,
    /// Who waits for a place in a full bucket, one for each.
    pending: Vec<Pending>,
    /// When its own look-ups begin, while one is due.
    lookup_at: Option<Moment>,
    looking_up: bool,
}

struct Entry {
    place: u64,
    peer: u32,
    addresses: Addresses,
}

struct Pending {
    bucket: u32,
    entry: Entry,
    /// Who makes room.
    old: u32,
    until: Moment,
}

/// What others have put here.
#[derive(Default)]
pub(super) struct Shelf {
    records: FxHashMap<u32, Record>,
    providers: [Vec<Provider>; 2],
    turn: usize,
}

struct Record {
    sequence: u64,
    addresses: Addresses,
    until: Moment,
}

struct Provider {
    peer: u32,
    addresses: Addresses,
    until: Moment,
}

/// Where a machine's id lies.
pub(super) fn place_of_peer(index: u32) -> u64 {
    Dice::new(0x0070_6c61_6365, index, Purpose::Layout).next()
}

/// Where what one can be a provider of lies, in a network.
pub(super) fn place_of_topic(topic: Topic, network: &str) -> u64 {
    place_of_text(&format!("{topic:?} of {network}"))
}

fn is_connected(conns: &[Standing], peer: u32) -> bool {
    conns.iter().any(|one| one.peer == peer)
}

const fn bucket_of(own: u64, place: u64) -> u32 {
    (own ^ place).leading_zeros()
}

fn place_of_text(text: &str) -> u64 {
    let mut digest = Digest::default();
    digest.value(text);
    digest.sum() as u64
}

impl Table {
    /// The entries nearest to a place, the nearest first, without one peer.
    fn nearest(&self, target: u64, without: u32) -> SmallVec<[(u32, Addresses); K]> {
        let mut near: SmallVec<[(u64, u32); 128]> = SmallVec::new();
        let wanted = self.entries.iter().zip(0..).filter(|(entry, _)| entry.peer != without);
        near.extend(wanted.map(|(entry, at)| (entry.place ^ target, at)));
        if near.len() > K {
            near.select_nth_unstable(K);
            near.truncate(K);
        }
        near.sort_unstable();
        let entry = |(_, at): &(u64, u32)| &self.entries[*at as usize];
        near.iter().map(entry).map(|entry| (entry.peer, entry.addresses.clone())).collect()
    }

    /// The entries that share so many bits with our own place.
    fn bucket(&self, own: u64, bucket: u32) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| bucket_of(own, entry.place) == bucket)
    }

    /// Of a bucket's entries without a connection, the one that is gone longest.
    fn gone_longest(&self, own: u64, bucket: u32, conns: &[Standing]) -> Option<u32> {
        self.bucket(own, bucket).map(|entry| entry.peer).find(|peer| !is_connected(conns, *peer))
    }

    fn position(&self, peer: u32) -> Option<usize> {
        self.entries.iter().position(|entry| entry.peer == peer)
    }

    fn addresses(&self, peer: u32) -> Option<&Addresses> {
        self.position(peer).map(|at| &self.entries[at].addresses)
    }
}

impl Shelf {
    fn take(&mut self, owner: u32, sequence: u64, addresses: Addresses, now: Moment, room: usize) {
        if self.records.len() >= room && !self.records.contains_key(&owner) {
            self.records.retain(|_, record| record.until > now);
        }
        let newer = self.records.get(&owner).is_none_or(|kept| kept.sequence < sequence || kept.until <= now);
        if newer && (self.records.len() < room || self.records.contains_key(&owner)) {
            self.records.insert(owner, Record { sequence, addresses, until: now + LIFETIME });
        }
    }

    fn take_provider(&mut self, topic: Topic, peer: u32, addresses: Addresses, now: Moment, room: usize) {
        let all = &mut self.providers[topic as usize];
        let new = Provider { peer, addresses, until: now + LIFETIME };
        if let Some(kept) = all.iter_mut().find(|kept| kept.peer == peer) {
            *kept = new;
            return;
        }
        if all.len() >= room {
            all.retain(|provider| provider.until > now);
        }
        if all.len() < room {
            all.push(new);
        }
    }

    /// Twenty of them, others each time.
    fn answer(&mut self, topic: Topic, now: Moment) -> Vec<(u32, Addresses)> {
        let turn = self.turn;
        self.turn = turn.wrapping_add(K);
        let all = &self.providers[topic as usize];
        let count = all.len();
        let from = if count == 0 { 0 } else { turn % count };
        let rotated = all[from..].iter().chain(&all[..from]);
        // A provider without addresses is stored, and never told.
        let told = rotated.filter(|provider| provider.until > now && !provider.addresses.is_empty());
        told.take(K).map(|provider| (provider.peer, provider.addresses.clone())).collect()
    }
}

impl World {
    /// Puts a peer into the routing table, and tells what came of it.
    pub(super) fn route(&mut self, node: u32, command: CommandId, peer: &PeerId, addresses: &[Address]) {
        let refuse = |text: &str| Event::Refused { command, refusal: Refusal::Other(text.to_owned()) };
        let Some(index) = self.index(peer) else {
            return self.say_now(node, refuse("this peer is not part of the simulation"));
        };
        if index == node {
            return self.say_now(node, refuse("a node is not in its own routing table"));
        }
        if addresses.is_empty() {
            return self.say_now(node, refuse("a routing table's entry needs an address"));
        }
        let addresses: Addresses = addresses.iter().take(MAX_PER_PEER).cloned().collect();
        let entry = Entry { place: self.machines[index as usize].place, peer: index, addresses };
        let Machine { table, conns, place: own, .. } = &mut self.machines[node as usize];
        if let Some(at) = table.position(index) {
            table.entries[at].addresses = entry.addresses;
            return self.say_now(node, Event::Routed { peer: *peer, present: true });
        }
        let bucket = bucket_of(*own, entry.place);
        if table.bucket(*own, bucket).count() < K {
            return self.put_in_table(node, entry);
        }
        if let Some(pending) = table.pending.iter_mut().find(|pending| pending.bucket == bucket) {
            if pending.entry.peer == index {
                pending.entry = entry;
                return;
            }
            return self.say_now(node, Event::Refused { command, refusal: Refusal::StoreFull });
        }
        let gone = table.gone_longest(*own, bucket, conns);
        let Some(old) = gone.filter(|_| is_connected(conns, index)) else {
            return self.say_now(node, Event::Refused { command, refusal: Refusal::StoreFull });
        };
        let until = self.now + PENDING;
        table.pending.push(Pending { bucket, entry, old, until });
        self.queue.push(until, node, What::Pending(bucket));
        // Is it still there?
        let addresses = self.machines[node as usize].table.addresses(old).map(|all| all.to_vec()).unwrap_or_default();
        self.hold(node, old, addresses);
    }

    fn put_in_table(&mut self, node: u32, entry: Entry) {
        let peer = peer_id(entry.peer);
        let table = &mut self.machines[node as usize].table;
        table.entries.push(entry);
        if table.entries.len() < K {
            table.lookup_at = Some(self.now + OWN_LOOKUP);
            self.queue.push(self.now + OWN_LOOKUP, node, What::Bootstrap);
        }
        self.say_now(node, Event::Routed { peer, present: true });
    }

    /// Whoever has waited for a place gets it, unless there is none any more.
    pub(super) fn pending_over(&mut self, node: u32, bucket: u32) {
        let Machine { table, conns, place: own, on, .. } = &mut self.machines[node as usize];
        let over = |pending: &Pending| pending.bucket == bucket && pending.until <= self.now;
        let Some(at) = table.pending.iter().position(over).filter(|_| *on) else { return };
        let entry = table.pending.remove(at).entry;
        if table.bucket(*own, bucket).count() >= K {
            let Some(old) = table.gone_longest(*own, bucket, conns) else { return };
            table.entries.retain(|entry| entry.peer != old);
            self.say_now(node, Event::Routed { peer: peer_id(old), present: false });
        }
        self.put_in_table(node, entry);
    }

    /// A peer's first connection stands, or its last one has ended.
    pub(super) fn kademlia_moved(&mut self, node: u32, peer: u32) {
        let Machine { table, conns, .. } = &mut self.machines[node as usize];
        let Some(at) = table.position(peer) else { return };
        let entry = table.entries.remove(at);
        table.entries.push(entry);
        if is_connected(conns, peer) {
            table.pending.retain(|pending| pending.old != peer);
        }
    }

    pub(super) fn unroute(&mut self, node: u32, peer: &PeerId) {
        let Some(index) = self.index(peer) else { return };
        let table = &mut self.machines[node as usize].table;
        table.pending.retain(|pending| pending.entry.peer != index);
        if let Some(at) = table.position(index) {
            table.entries.remove(at);
            self.say_now(node, Event::Routed { peer: *peer, present: false });
        }
    }

    /// Kademlia's own look-ups, which nobody asked for: itself first, then all buckets that are farther than the nearest one
    /// that has an entry.
    pub(super) fn kademlia_bootstrap(&mut self, node: u32) {
        let Machine { table, on, asleep, place, .. } = &mut self.machines[node as usize];
        if !*on || *asleep {
            table.lookup_at = None;
            return;
        }
        if table.looking_up || table.lookup_at.is_none_or(|at| at > self.now) {
            return;
        }
        table.lookup_at = None;
        let place = *place;
        let nearest = table.entries.iter().map(|entry| bucket_of(place, entry.place)).max();
        let mut farther = vec![];
        for bucket in 0..nearest.unwrap_or(0) {
            let bits = self.machines[node as usize].dice.next();
            // The same bits above it, another one at it, any below.
            farther.push(place ^ ((1 << 63 | bits >> 1) >> bucket));
        }
        self.machines[node as usize].table.looking_up = nearest.is_some();
        self.begin(node, None, Kind::Near, place, farther);
    }

    /// Begins what the core asks of the hash table.
    pub(super) fn query(&mut self, node: u32, command: CommandId, question: &Question) {
        self.counts.queries += 1;
        let network = |world: &Self, topic: Topic| {
            let name = &world.machines[node as usize].setup.config.network;
            place_of_topic(topic, name)
        };
        let (kind, target) = match question {
            Question::LookUp { near } => {
                let place = self.index(near).map(|index| self.machines[index as usize].place);
                (Kind::Near, place.unwrap_or_else(|| place_of_text(&near.to_string())))
            }
            Question::LookUpRandom { place } => (Kind::Near, Dice::new(*place, 0, Purpose::Layout).next()),
            Question::Members => (Kind::Providers(Topic::Members), network(self, Topic::Members)),
            Question::Relays => (Kind::Providers(Topic::Relays), network(self, Topic::Relays)),
            Question::Join => (Kind::Provide(Topic::Members), network(self, Topic::Members)),
            Question::OfferRelay => (Kind::Provide(Topic::Relays), network(self, Topic::Relays)),
            Question::Record { peer } => match self.index(peer) {
                Some(index) => (Kind::Record(index), self.machines[index as usize].place),
                None => (Kind::Near, place_of_text(&peer.to_string())),
            },
            Question::Publish { addresses } => {
                let machine = &mut self.machines[node as usize];
                let number = machine.next_record_number(machine.unix_time(self.now, self.unix_time));
                (Kind::Publish(number, addresses.iter().cloned().collect()), machine.place)
            }
        };
        self.begin(node, Some(command), kind, target, vec![]);
    }

    fn begin(&mut self, node: u32, command: Option<CommandId>, kind: Kind, target: u64, farther: Vec<u64>) {
        let machine = &self.machines[node as usize];
        let nobody = machine.table.entries.is_empty();
        let near = machine.table.nearest(target, node);
        let contacts: Vec<Contact> = near
            .iter()
            .map(|(peer, _)| Contact {
                peer: *peer,
                distance: self.machines[*peer as usize].place ^ target,
                state: State::New,
                addresses: None,
            })
            .collect();
        let order = (0..contacts.len() as u16).collect();
        let query = Query {
            node,
            command,
            kind,
            target,
            contacts,
            order,
            successes: 0,
            failures: 0,
            found: false,
            nobody,
            telling: false,
            named: vec![],
            newest: 0,
            farther,
        };
        let key = self.queries.insert(query);
        self.machines[node as usize].queries.push(key);
        self.queue.push(self.now + QUERY_TIMEOUT, node, What::QueryOver(key));
        self.advance(key);
    }

    /// Asks the next ones, or ends.
    fn advance(&mut self, key: Key) {
        loop {
            let Some(query) = self.queries.get(key) else { return };
            let in_flight =
                query.contacts.iter().filter(|one| matches!(one.state, State::Asked | State::Waiting)).count();
            if query.telling {
                return if in_flight == 0 {
                    self.finish(key)
                };
            }
            let alive = query.order.iter().filter(|at| query.contacts[usize::from(**at)].state != State::Failed);
            let next = alive.take(K).find(|at| query.contacts[usize::from(**at)].state == State::New).copied();
            match next {
                Some(at) if in_flight < ALPHA => self.approach(key, at),
                Some(_) => return,
                None if in_flight > 0 => return,
                None => return self.looked_up(key),
            }
        }
    }

    /// Asks one: over a connection, or once there is one.
    fn approach(&mut self, key: Key, at: u16) {
        let Some(query) = self.queries.get_mut(key) else { return };
        let (node, contact) = (query.node, &mut query.contacts[usize::from(at)]);
        let (peer, told) = (contact.peer, contact.addresses.clone());
        contact.state = State::Waiting;
        if let Some(conn) = self.connection_to(node, peer) {
            return self.put(key, at, conn);
        }
        let routed = self.machines[node as usize].table.addresses(peer).cloned();
        let mut addresses: Vec<Address> = routed.map(|all| all.to_vec()).unwrap_or_default();
        for address in told.iter().flat_map(|all| all.iter()) {
            if Self::is_global(address) && !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        if addresses.is_empty() {
            return self.contact_failed(key, at);
        }
        self.queue.push(self.now + PEER_TIMEOUT, node, What::Asked(key, at));
        self.hold(node, peer, addresses);
    }

    /// Wants a connection, which is for the core to grant.
    fn hold(&mut self, node: u32, peer: u32, addresses: Vec<Address>) {
        let machine = &mut self.machines[node as usize];
        if machine.held.iter().any(|held| held.peer == peer && held.probe.is_none()) {
            return;
        }
        machine.last_held += 1;
        let number = machine.last_held;
        let full = machine.held.len() == MAX_HELD;
        let oldest = full.then(|| machine.held.remove(0));
        machine.held.push(Held { number, peer, addresses, probe: None });
        let (held, peer) = (HeldId(number), Some(peer_id(peer)));
        self.say_now(node, Event::DialHeld { held, asker: Behaviour::Kademlia, peer });
        if let Some(oldest) = oldest {
            self.say_now(node, Event::HeldFailed { held: HeldId(oldest.number), error: DialError::Limit });
            self.kademlia_unreachable(node, oldest.peer);
        }
    }

    /// The question goes out; its answer comes a round trip later.
    fn put(&mut self, key: Key, at: u16, conn: Key) {
        let Some(query) = self.queries.get_mut(key) else { return };
        let node = query.node;
        query.contacts[usize::from(at)].state = State::Asked;
        let rtt = self.conns.get(conn).map_or(SECOND, |conn| conn.rtt);
        let late = self.machines[node as usize].dice.below(2 * MILLI);
        self.carry(conn, QUESTION);
        self.queue.push(self.now + rtt + late, node, What::Asked(key, at));
    }

    /// An answer is due, or the wait for a connection is over.
    pub(super) fn contact(&mut self, key: Key, at: u16) {
        let Some(query) = self.queries.get(key) else { return };
        let (node, contact) = (query.node, &query.contacts[usize::from(at)]);
        let peer = contact.peer;
        match contact.state {
            State::Asked => {}
            State::Waiting => return self.contact_failed(key, at),
            State::New | State::Done | State::Failed | State::Told => return,
        }
        let conn = self.connection_to(node, peer);
        let answers = conn.is_some_and(|conn| {
            let side = self.conns.get(conn).map_or(0, |conn| conn.side_of(node));
            self.one_way(conn, side).is_some() && self.one_way(conn, 1 - side).is_some()
        });
        let theirs = &self.machines[peer as usize];
        let names = |index: u32| &self.machines[index as usize].setup.config.protocols.kademlia;
        if !answers || !theirs.on || theirs.asleep || !theirs.server || names(peer) != names(node) {
            return self.contact_failed(key, at);
        }
        let telling = self.queries.get(key).is_some_and(|query| query.telling);
        if telling { self.tell_one(key, at, peer) } else { self.answered(key, at, peer) }
    }

    fn contact_failed(&mut self, key: Key, at: u16) {
        let Some(query) = self.queries.get_mut(key) else { return };
        query.contacts[usize::from(at)].state = State::Failed;
        query.failures += 1;
        self.advance(key);
    }

    /// One of those asked has answered.
    fn answered(&mut self, key: Key, at: u16, peer: u32) {
        let named = self.named_by(peer);
        let conceals = self.conceals(peer);
        let Some(query) = self.queries.get_mut(key) else { return };
        let (node, target) = (query.node, query.target);
        query.contacts[usize::from(at)].state = State::Done;
        query.successes += 1;
        let theirs = &mut self.machines[peer as usize];
        let near = named.unwrap_or_else(|| theirs.table.nearest(target, node));
        let mut news: Vec<(u32, Addresses)> = vec![];
        let mut number = None;
        match query.kind {
            _ if conceals => {}
            Kind::Providers(topic) => {
                let named = theirs.shelf.answer(topic, self.now);
                news.extend(named.iter().filter(|(one, _)| *one != node && !query.named.contains(one)).cloned());
                query.named.extend(news.iter().map(|(one, _)| *one));
                // The library asks those that are named, too.
                self.merge(key, &named);
            }
            Kind::Record(owner) => {
                let kept = theirs.shelf.records.get(&owner).filter(|record| record.until > self.now);
                if let Some(record) = kept.filter(|record| record.sequence > query.newest) {
                    query.newest = record.sequence;
                    number = Some(record.sequence);
                    news.push((owner, record.addresses.clone()));
                }
            }
            Kind::Near | Kind::Provide(_) | Kind::Publish(..) => {}
        }
        self.merge(key, &near);
        self.found(key, &news, number);
        self.advance(key);
    }

    fn merge(&mut self, key: Key, peers: &[(u32, Addresses)]) {
        let Some(query) = self.queries.get_mut(key) else { return };
        for (peer, addresses) in peers.iter().filter(|(peer, _)| *peer != query.node) {
            if let Some(known) = query.contacts.iter_mut().find(|known| known.peer == *peer) {
                known.addresses.get_or_insert_with(|| addresses.clone());
                continue;
            }
            let distance = self.machines[*peer as usize].place ^ query.target;
            let contacts = &query.contacts;
            let at = query.order.partition_point(|other| contacts[usize::from(*other)].distance < distance);
            query.order.insert(at, contacts.len() as u16);
            let addresses = Some(addresses.clone());
            query.contacts.push(Contact { peer: *peer, distance, state: State::New, addresses });
        }
    }

    /// Tells the core of peers, in events of the size that the shell gives them.
    fn found(&mut self, key: Key, peers: &[(u32, Addresses)], record: Option<u64>) {
        let Some(query) = self.queries.get_mut(key) else { return };
        let (Some(command), node) = (query.command, query.node) else { return };
        query.found |= !peers.is_empty();
        let mut batch: Vec<(PeerId, Vec<Address>)> = vec![];
        let (mut size, mut cut) = (0, 0);
        for (peer, addresses) in peers {
            let told: Vec<Address> = addresses.iter().take(MAX_PER_PEER).cloned().collect();
            if batch.len() == MAX_TOLD || size + told.len() > MAX_TOLD {
                let peers = std::mem::take(&mut batch);
                let cut = std::mem::take(&mut cut);
                self.say_now(node, Event::QueryFound { query: command, peers, cut, record });
                size = 0;
            }
            size += told.len();
            cut += (addresses.len() - told.len()) as u32;
            batch.push((peer_id(*peer), told));
        }
        if !batch.is_empty() {
            self.say_now(node, Event::QueryFound { query: command, peers: batch, cut, record });
        }
    }

    /// The nearest are known.
    fn looked_up(&mut self, key: Key) {
        let Some(query) = self.queries.get_mut(key) else { return };
        match query.kind {
            Kind::Near => {
                let none: Addresses = Vec::new().into();
                let done = query.order.iter().map(|at| &query.contacts[usize::from(*at)]);
                let done = done.filter(|one| one.state == State::Done).take(K);
                let peers: Vec<(u32, Addresses)> =
                    done.map(|one| (one.peer, one.addresses.clone().unwrap_or_else(|| none.clone()))).collect();
                self.found(key, &peers, None);
                self.finish(key);
            }
            Kind::Providers(_) | Kind::Record(_) => self.finish(key),
            Kind::Provide(_) | Kind::Publish(..) => {
                query.telling = true;
                let done = query.order.iter().copied();
                let nearest: Vec<u16> =
                    done.filter(|at| query.contacts[usize::from(*at)].state == State::Done).take(K).collect();
                for at in nearest {
                    let Some(query) = self.queries.get_mut(key) else { return };
                    let (node, peer) = (query.node, query.contacts[usize::from(at)].peer);
                    match self.connection_to(node, peer) {
                        Some(conn) => self.put(key, at, conn),
                        None => {
                            if let Some(query) = self.queries.get_mut(key) {
                                query.failures += 1;
                            }
                        }
                    }
                }
                self.advance(key);
            }
        }
    }

    /// One of the nearest keeps what it is told.
    fn tell_one(&mut self, key: Key, at: u16, peer: u32) {
        let Some(query) = self.queries.get_mut(key) else { return };
        query.contacts[usize::from(at)].state = State::Told;
        query.successes += 1;
        let node = query.node;
        let global = |address: &&Address| Self::is_global(address) || address.is_relayed();
        let now = self.now;
        match &query.kind {
            Kind::Publish(sequence, addresses) => {
                let theirs = &mut self.machines[peer as usize];
                let room = theirs.setup.config.lifecycle.max_peers as usize;
                theirs.shelf.take(node, *sequence, addresses.clone(), now, room);
            }
            Kind::Provide(topic) => {
                let topic = *topic;
                let advertised = &self.machines[node as usize].advertised;
                let addresses: Addresses = advertised.iter().filter(global).take(MAX_PER_PEER).cloned().collect();
                let theirs = &mut self.machines[peer as usize];
                let room = theirs.setup.config.lifecycle.max_peers as usize;
                theirs.shelf.take_provider(topic, node, addresses, now, room);
            }
            Kind::Near | Kind::Providers(_) | Kind::Record(_) => {}
        }
        self.advance(key);
    }

    /// It has taken too long.
    pub(super) fn query_over(&mut self, key: Key) {
        self.finish(key);
    }

    fn finish(&mut self, key: Key) {
        let Some(query) = self.queries.remove(key) else { return };
        let Query { node, command, successes, failures, nobody, found, mut farther, .. } = query;
        self.machines[node as usize].queries.retain(|other| *other != key);
        let Some(command) = command else {
            match farther.pop() {
                Some(target) => self.begin(node, None, Kind::Near, target, farther),
                None => {
                    self.machines[node as usize].table.looking_up = false;
                    self.kademlia_bootstrap(node);
                }
            }
            return;
        };
        let event = if nobody && !found && successes == 0 {
            Event::Refused { command, refusal: Refusal::NobodyToAsk }
        } else {
            Event::QueryEnded { query: command, successes, failures }
        };
        self.say_now(node, event);
    }

    pub(super) fn cancel_query(&mut self, node: u32, command: CommandId) {
        let queries = &self.machines[node as usize].queries;
        let found = queries
            .iter()
            .copied()
            .find(|key| self.queries.get(*key).is_some_and(|query| query.command == Some(command)));
        if let Some(key) = found {
            self.queries.remove(key);
            self.machines[node as usize].queries.retain(|other| *other != key);
        }
    }

    /// The core lets a look-up dial.
    pub(super) fn look_up_dials(&mut self, node: u32, id: HeldId, held: &Held) {
        if self.connection_to(node, held.peer).is_some() || self.is_dialling(node, held.peer) {
            // The library dials nobody twice; the look-up waits for the other dial.
            return self.say_now(node, Event::HeldFailed { held: id, error: DialError::Cancelled });
        }
        self.dial(node, Asker::Held(id), Some(peer_id(held.peer)), &held.addresses);
    }

    fn waiting(&self, node: u32, peer: u32) -> Vec<(Key, u16)> {
        let mut waiting = vec![];
        for key in &self.machines[node as usize].queries {
            let Some(query) = self.queries.get(*key) else { continue };
            let place = query.contacts.iter().position(|one| one.peer == peer && one.state == State::Waiting);
            waiting.extend(place.map(|at| (*key, at as u16)));
        }
        waiting
    }

    /// Somebody that a look-up waits for is connected now.
    pub(super) fn kademlia_connected(&mut self, node: u32, conn: Key, side: u8) {
        if self.machines[node as usize].queries.is_empty() {
            return;
        }
        let Some(known) = self.conns.get(conn) else { return };
        let peer = known.ends[usize::from(1 - side)].node;
        for (key, at) in self.waiting(node, peer) {
            self.put(key, at, conn);
        }
    }

    /// Somebody that a look-up waits for can't be reached.
    pub(super) fn kademlia_unreachable(&mut self, node: u32, peer: u32) {
        for (key, at) in self.waiting(node, peer) {
            self.contact_failed(key, at);
        }
    }
}
