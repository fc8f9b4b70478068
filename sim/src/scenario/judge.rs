//! Whether everybody who can be together is: invariant 12.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    build::{Place, Plan},
    file::Meet,
};
use crate::internet::{HostId, INTERNET, Reach};

impl Plan {
    /// Looks at all pairs that belong together, and at everyone's loneliness, as the scenario expects it.
    pub(super) fn judge(&mut self) {
        let expect = self.scenario.expect;
        let mut found = vec![];
        let pairs: Vec<(HostId, HostId)> = self.world.pairs().iter().map(|pair| pair.nodes).collect();
        for (a, b) in pairs {
            if expect.families == Meet::Anyhow || !self.may_meet(a, b) {
                continue;
            }
            let (direct, relayed) = self.world.paths(a, b);
            let reach = self.world.net().reach(a, b, true);
            let wrong = match expect.families {
                Meet::Anyhow => None,
                Meet::WhereDialled if reach >= Reach::Dialled && !direct => {
                    Some("are not directly connected, and could be")
                }
                Meet::Connected | Meet::Best if !direct && !relayed => Some("are not connected"),
                Meet::Best if !direct && reach > Reach::Never => Some("are relayed, and could be direct"),
                Meet::WhereDialled | Meet::Connected | Meet::Best => None,
            };
            if let Some(wrong) = wrong {
                found.push(format!("{} and {} {wrong} ({reach:?})", self.node_name(a), self.node_name(b)));
            }
        }
        if expect.nobody_alone {
            for (node, machine) in (0..).zip(self.world.machines()) {
                let alone = machine.core.view().is_some_and(|view| view.node().connected == 0);
                if machine.malice.is_none() && alone && self.may_have_company(node) {
                    found.push(format!("{} has no connection", self.node_name(node)));
                }
            }
        }
        // Before the end somebody may still be writing.
        if expect.same_logs && self.world.now() >= self.end {
            found.extend(self.unlike_logs());
        }
        for what in found {
            self.world.find(None, 12, what);
        }
    }

    /// Which running nodes lack entries that another one has.
    fn unlike_logs(&self) -> Vec<String> {
        let machines = || (0..).zip(self.world.machines()).filter(|(_, machine)| machine.on && !machine.asleep);
        let mut most = BTreeMap::new();
        for (node, _) in machines() {
            for (log, head) in self.world.heads(node) {
                let known = most.entry(*log).or_insert(*head);
                if head.position > known.position {
                    *known = *head;
                }
            }
        }
        let mut found = vec![];
        for (node, _) in machines() {
            let here = self.world.heads(node);
            let lacks = most.iter().filter(|(log, head)| here.get(*log) != Some(*head)).count();
            if lacks > 0 {
                found.push(format!("{} lacks entries of {lacks} of {} logs", self.node_name(node), most.len()));
            }
        }
        found
    }

    /// Whether two nodes can come to know each other and be connected, directly or through a server, as things stand: both
    /// run, and a multicast or a server that both know gets through. Said in closed form, without a packet.
    pub(super) fn may_meet(&self, a: HostId, b: HostId) -> bool {
        if !self.is_there(a) || !self.is_there(b) {
            return false;
        }
        let [one, other] = [a, b].map(|node| self.place_of(node));
        if let (Some(one), Some(other)) = (one, other) {
            if one.segment == other.segment && one.segment != INTERNET && !self.is_mute(one) {
                return true;
            }
            // Through a server that both reach, or two that reach each other.
            let [mine, theirs] = [(one, a), (other, b)].map(|(place, node)| self.servers_of(place, node));
            let linked = |mine: &HostId, theirs: &HostId| {
                mine == theirs || (self.are_linked(*mine, *theirs) && self.name_each_other(*mine, *theirs))
            };
            return mine.iter().any(|mine| theirs.iter().any(|theirs| linked(mine, theirs)));
        }
        false
    }

    fn may_have_company(&self, node: HostId) -> bool {
        let Some(place) = self.place_of(node).filter(|_| self.is_there(node)) else { return false };
        let named = !self.servers_of(place, node).is_empty();
        // A server has company as soon as somebody names it who gets through.
        let nodes = self.places.iter().flat_map(|place| place.nodes.iter().map(move |other| (place, *other)));
        let mut others = nodes.filter(|(_, other)| *other != node && self.is_there(*other));
        named
            || others.any(|(other, at)| {
                let near = other.segment == place.segment && place.segment != INTERNET && !self.is_mute(place);
                near || self.servers_of(other, at).contains(&node)
            })
    }

    fn place_of(&self, node: HostId) -> Option<&Place> {
        self.places.iter().find(|place| place.nodes.contains(&node))
    }

    /// Whether a node runs, and is plugged in.
    fn is_there(&self, node: HostId) -> bool {
        let machine = &self.world.machines()[node as usize];
        machine.on && !machine.asleep && self.world.net().host(node).plugged
    }

    fn is_mute(&self, place: &Place) -> bool {
        self.world.is_mute(place.segment)
    }

    /// The servers that a node gets through to, and knows by its settings or by a signal server that both ask.
    fn servers_of(&self, place: &Place, node: HostId) -> BTreeSet<HostId> {
        let config = &self.world.machines()[node as usize].setup.config;
        let by_name = self.world.net().dns.then_some(&config.bootstrap).into_iter().flatten();
        let named = by_name.chain(&config.nat.relays).filter_map(|known| crate::swarm::peer_index(&known.peer?));
        let told = self.places.iter().filter(|other| other.router.is_none()).flat_map(|other| &other.nodes).copied();
        let told = told.filter(|other| *other != node && self.share_doorway(node, *other));
        let named: BTreeSet<HostId> = named.chain(told).collect();
        let router_is_on = place.router.is_none_or(|router| self.world.net().router_is_on(router));
        named
            .into_iter()
            .filter(|server| router_is_on && self.is_there(*server) && self.are_linked(node, *server))
            .filter(|server| self.world.machines()[*server as usize].malice.is_none())
            .collect()
    }

    /// Whether a signal server that both ask gets through to both, and is honest.
    fn share_doorway(&self, a: HostId, b: HostId) -> bool {
        let net = self.world.net();
        let [one, other] = [a, b].map(|node| &self.world.machines()[node as usize].setup.config.signal.servers);
        let mut doorways = self.places.iter().filter_map(|place| Some((place, place.doorway?)));
        net.dns
            && !one.is_empty()
            && doorways.any(|(place, doorway)| {
                let url = format!("https://{}.example/signal", place.name);
                let site = |node: HostId| net.host(node).site;
                let open = |site| net.links.is_open(site, place.site) && net.links.is_open(place.site, site);
                let asked = one.contains(&url) && other.contains(&url);
                asked && self.world.is_honest(doorway) && open(site(a)) && open(site(b))
            })
    }

    fn are_linked(&self, a: HostId, b: HostId) -> bool {
        let net = self.world.net();
        let (one, other) = (net.host(a).site, net.host(b).site);
        net.links.is_open(one, other) && net.links.is_open(other, one)
    }

    fn name_each_other(&self, a: HostId, b: HostId) -> bool {
        let names = |a: HostId, b: HostId| {
            let known = &self.world.machines()[a as usize].setup.config.bootstrap;
            known.iter().any(|known| known.peer == Some(crate::swarm::peer_id(b)))
        };
        names(a, b) || names(b, a)
    }
}
