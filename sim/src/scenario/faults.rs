//! What happens to a world while it runs: starts, faults, and their ends.

use std::net::Ipv4Addr;

use kinfolk_core::{Ask, PeerAddress, Scope};

use super::{
    build::{Place, Plan, nanos},
    file::FaultKind,
};
use crate::{
    engine::{Dice, Moment, SECOND},
    internet::{HostId, SiteId},
    swarm::{End, Trouble, peer_id},
    words,
};

/// One thing that happens.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Start(HostId),
    /// A node's user asks for another, or for somebody whom nobody knows.
    Ask(HostId, Option<HostId>),
    /// Whether everybody is where they should be by now.
    Judge,
    Fault {
        kind: FaultKind,
        who: Target,
        to: Target,
        lasts: Option<u64>,
    },
    Undo(Undo),
}

/// What ends a fault.
#[derive(Clone, Debug)]
pub(super) enum Undo {
    RouterOn(usize),
    UplinkUp(SiteId),
    IspUp(usize),
    MendRegions(u16, u16),
    MendSites(SiteId, SiteId),
    Start(HostId),
    Power(HostId),
    Wake(HostId),
    Plug(HostId),
    DnsUp,
    Unmute(usize),
    Splurge(HostId),
    FastDisk(HostId),
    Trouble(usize, Trouble),
}

/// To whom something happens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Target {
    Nobody,
    Region(u16),
    Isp(usize),
    /// Places, and of each of them one node, or all.
    Places(Vec<usize>, Option<usize>),
}

/// A fault that was drawn at random, as a fixed one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Drawn {
    /// When.
    pub at: Moment,
    /// What.
    pub kind: FaultKind,
    /// To whom.
    pub who: String,
    /// How long, in nanoseconds.
    pub lasts: u64,
}

const REBOOT: u64 = 30 * SECOND;
/// A number that no machine has.
const NOBODY: HostId = 0xffff_fff0;

impl Step {
    /// When it is over, if ever: what lasts is how things are from then on.
    fn over(&self, at: Moment) -> Moment {
        match self {
            Self::Fault { kind: FaultKind::RouterReboot, lasts: None, .. } => at + REBOOT,
            Self::Fault { lasts, .. } => at.saturating_add(lasts.unwrap_or(0)),
            Self::Start(_) | Self::Ask(..) | Self::Judge | Self::Undo(_) => at,
        }
    }
}

impl Plan {
    /// Writes down everything that will happen.
    pub(super) fn lay_out(&mut self, dice: &mut Dice) {
        let within = nanos(self.scenario.start_within);
        let mut steps = vec![];
        for place in &self.places {
            for node in &place.nodes {
                // Servers are there first.
                let at = if place.router.is_none() { dice.below(within / 10 + 1) } else { dice.below(within + 1) };
                steps.push((at, Step::Start(*node)));
            }
        }
        for fault in &self.scenario.faults {
            let target = |name: &Option<toml::Spanned<String>>| {
                name.as_ref().map_or(Target::Nobody, |name| self.target(name.get_ref()))
            };
            let (who, to, kind) = (target(&fault.who), target(&fault.to), *fault.what.get_ref());
            steps.push((nanos(fault.at), Step::Fault { kind, who, to, lasts: fault.lasts.map(nanos) }));
        }
        for fault in &self.scenario.random_faults {
            let until = fault.until.map_or(self.end / 10 * 8, nanos);
            let Target::Places(places, node) = self.target(fault.who.get_ref()) else { continue };
            for place in places {
                let mut at = 0u64;
                loop {
                    at = at.saturating_add(spread(dice, nanos(fault.every)));
                    let lasts = spread(dice, nanos(fault.lasts)).max(SECOND / 2);
                    if at.saturating_add(lasts) >= until {
                        break;
                    }
                    let who = Target::Places(vec![place], node);
                    let kind = *fault.what.get_ref();
                    let name = &self.places[place].name;
                    let name = node.map_or(name.clone(), |node| format!("{name}/{}", node + 1));
                    self.drawn.push(Drawn { at, kind, who: name, lasts });
                    steps.push((at, Step::Fault { kind, who, to: Target::Nobody, lasts: Some(lasts) }));
                    at += lasts;
                }
            }
        }
        let healed = steps.iter().map(|(at, step)| step.over(*at)).max().unwrap_or(0);
        for ask in &self.scenario.asks {
            let who = self.one(ask.who.get_ref());
            let to = ask.to.as_ref().and_then(|to| self.one(to.get_ref()));
            steps.extend(who.map(|who| (nanos(ask.at), Step::Ask(who, to))));
        }
        if let Some(within) = self.scenario.expect.within {
            let at = healed.saturating_add(nanos(within));
            if at < self.end {
                steps.push((at, Step::Judge));
            }
        }
        // Ties are broken by the order in the file.
        steps.sort_by_key(|(at, _)| *at);
        for (number, (at, _)) in steps.iter().enumerate() {
            self.world.plan(*at, number as u32);
        }
        self.steps = steps;
    }

    /// Runs to `until`, or until something is found. Says whether it came that far.
    pub fn run_until(&mut self, until: Moment) -> bool {
        loop {
            if self.world.run_until(until) {
                return true;
            }
            if !self.world.findings().is_empty() {
                return false;
            }
            while let Some(number) = self.world.take_planned() {
                if let Some((_, step)) = self.steps.get(number as usize).cloned() {
                    self.apply(&step);
                }
            }
        }
    }

    /// Runs to the end, and looks whether everybody is where they should be.
    pub fn run(&mut self) -> bool {
        let done = self.run_until(self.end);
        if done {
            self.judge();
        }
        self.world.findings().is_empty()
    }

    fn target(&self, name: &str) -> Target {
        if let Some(region) = self.regions.iter().position(|known| known == name) {
            return Target::Region(region as u16);
        }
        if let Some(isp) = self.isps.iter().position(|known| known == name) {
            return Target::Isp(isp);
        }
        let (site, node) = name.split_once('/').map_or((name, None), |(site, node)| (site, node.parse::<usize>().ok()));
        let fits = |place: &Place| place.name == site || place.base == site;
        let places = self.places.iter().zip(0..).filter(|(place, _)| fits(place)).map(|(_, at)| at).collect();
        Target::Places(places, node.map(|node| node - 1))
    }

    /// The first node of a name.
    fn one(&self, name: &str) -> Option<HostId> {
        let Target::Places(places, node) = self.target(name) else { return None };
        self.places.get(*places.first()?)?.nodes.get(node.unwrap_or(0)).copied()
    }

    /// The first node of a name, if there is one.
    pub fn node(&self, name: &str) -> Option<HostId> {
        self.one(name)
    }

    /// What the scenario did to these nodes by now, in words: when, and what.
    pub fn troubles(&self, nodes: &[HostId]) -> Vec<(Moment, String)> {
        let concerns = |target: &Target| match target {
            Target::Nobody => false,
            Target::Region(_) | Target::Isp(_) => true,
            Target::Places(places, node) => places.iter().any(|at| {
                let of = &self.places[*at].nodes;
                let picked = node.and_then(|node| of.get(node));
                picked.map_or(of.iter().any(|one| nodes.contains(one)), |one| nodes.contains(one))
                    // Servers concern everyone.
                    || self.places[*at].router.is_none()
            }),
        };
        let mut told = vec![];
        for (at, step) in self.steps.iter().filter(|(at, _)| *at <= self.world.now()) {
            let Step::Fault { kind, who, to, lasts } = step else { continue };
            if !concerns(who) && !concerns(to) && *kind != FaultKind::DnsDown {
                continue;
            }
            let mut text = kind.name();
            if *who != Target::Nobody {
                text = format!("{text} {}", self.said(who));
            }
            if *to != Target::Nobody {
                text = format!("{text} to {}", self.said(to));
            }
            if let Some(lasts) = lasts {
                text = format!("{text}, for {}", words::span(std::time::Duration::from_nanos(*lasts)));
            }
            told.push((*at, text));
        }
        told.sort();
        told
    }

    fn said(&self, target: &Target) -> String {
        match target {
            Target::Nobody => String::new(),
            Target::Region(at) => self.regions[usize::from(*at)].clone(),
            Target::Isp(at) => self.isps[*at].clone(),
            Target::Places(places, node) => {
                let first = places.first().map_or("", |at| &self.places[*at].name);
                let all = places.first().map_or("", |at| &self.places[*at].base);
                let name = if places.len() == 1 { first } else { all };
                node.map_or(name.to_owned(), |node| format!("{name}/{}", node + 1))
            }
        }
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Ask(who, to) => {
                let peer = peer_id(to.unwrap_or(NOBODY));
                self.world.ask(*who, Ask::Connect(PeerAddress { peer: Some(peer), address: None }));
            }
            Step::Judge => self.judge(),
            Step::Start(node) => self.world.start(*node),
            Step::Undo(undo) => self.undo(undo),
            Step::Fault { kind, who, to, lasts } => self.fault(*kind, who, to, *lasts),
        }
    }

    fn fault(&mut self, kind: FaultKind, who: &Target, to: &Target, lasts: Option<u64>) {
        match (kind, who) {
            (FaultKind::DnsDown, _) => {
                self.world.net_mut().dns = false;
                self.later(lasts, Undo::DnsUp);
            }
            (FaultKind::IspDown, Target::Isp(isp)) => {
                self.world.net_mut().links.set_isp_up(*isp as u16, false);
                self.later(lasts, Undo::IspUp(*isp));
            }
            (FaultKind::Cut | FaultKind::Partition, _) => {
                self.cut(who, to, lasts);
                if kind == FaultKind::Partition {
                    self.cut(to, who, lasts);
                }
            }
            (_, Target::Places(places, node)) => {
                for place in places.clone() {
                    self.fault_at(kind, place, *node, lasts);
                }
            }
            (_, Target::Nobody | Target::Region(_) | Target::Isp(_)) => {}
        }
    }

    fn cut(&mut self, from: &Target, to: &Target, lasts: Option<u64>) {
        match (from, to) {
            (Target::Region(from), Target::Region(to)) => {
                self.world.net_mut().links.cut(*from, *to);
                self.later(lasts, Undo::MendRegions(*from, *to));
            }
            (Target::Places(from, _), Target::Places(to, _)) => {
                for one in from {
                    for other in to {
                        let (one, other) = (self.places[*one].site, self.places[*other].site);
                        self.world.net_mut().links.cut_sites(one, other);
                        self.later(lasts, Undo::MendSites(one, other));
                    }
                }
            }
            (Target::Nobody | Target::Region(_) | Target::Isp(_) | Target::Places(..), _) => {}
        }
    }

    fn fault_at(&mut self, kind: FaultKind, at: usize, node: Option<usize>, lasts: Option<u64>) {
        let place = self.places[at].clone();
        if let Some(doorway) = place.doorway.filter(|_| kind != FaultKind::UplinkDown) {
            return self.doorway_fault(kind, doorway, lasts);
        }
        let nodes: Vec<HostId> = match node {
            Some(node) => place.nodes.get(node).copied().into_iter().collect(),
            None => place.nodes.clone(),
        };
        match kind {
            FaultKind::RouterReboot => {
                let Some(router) = place.router else { return };
                let known = self.world.net_mut().router(router);
                known.nat.reboot();
                known.firewall.reboot();
                known.on = false;
                self.later(Some(lasts.unwrap_or(REBOOT)), Undo::RouterOn(at));
            }
            FaultKind::NewAddress => self.new_address(&place),
            FaultKind::UplinkDown => {
                self.world.net_mut().links.set_up(place.site, false);
                self.later(lasts, Undo::UplinkUp(place.site));
            }
            FaultKind::Mute => {
                self.world.mute(place.segment, true);
                self.later(lasts, Undo::Unmute(at));
            }
            FaultKind::Kill | FaultKind::Stop | FaultKind::Lose | FaultKind::PowerOff => {
                for node in nodes {
                    let end = if kind == FaultKind::Stop {
                        End::Farewell
                    } else if kind == FaultKind::PowerOff {
                        End::Power
                    } else {
                        End::Killed
                    };
                    self.world.stop(node, end);
                    if kind == FaultKind::Lose {
                        self.world.wipe(node);
                    }
                    let undo = if kind == FaultKind::PowerOff { Undo::Power(node) } else { Undo::Start(node) };
                    self.later(lasts, undo);
                }
            }
            FaultKind::Sleep => {
                for node in nodes {
                    self.world.suspend(node);
                    self.later(lasts, Undo::Wake(node));
                }
            }
            FaultKind::Unplug => {
                for node in nodes {
                    self.world.cable(node, false);
                    self.later(lasts, Undo::Plug(node));
                }
            }
            FaultKind::Thrift => {
                for node in nodes {
                    self.world.change_settings(node, true);
                    self.later(lasts, Undo::Splurge(node));
                }
            }
            FaultKind::SlowDisk => {
                for node in nodes {
                    self.world.press_logs(node, true);
                    self.later(lasts, Undo::FastDisk(node));
                }
            }
            FaultKind::IspDown
            | FaultKind::Cut
            | FaultKind::Partition
            | FaultKind::DnsDown
            | FaultKind::Slow
            | FaultKind::Lie => {}
        }
    }

    fn doorway_fault(&mut self, kind: FaultKind, doorway: usize, lasts: Option<u64>) {
        let trouble = match kind {
            FaultKind::Kill | FaultKind::Stop | FaultKind::Lose => Trouble::Down,
            FaultKind::PowerOff => Trouble::Dark,
            FaultKind::Slow => Trouble::Slow,
            FaultKind::Lie => Trouble::Lying,
            FaultKind::RouterReboot
            | FaultKind::NewAddress
            | FaultKind::UplinkDown
            | FaultKind::IspDown
            | FaultKind::Cut
            | FaultKind::Partition
            | FaultKind::Sleep
            | FaultKind::Unplug
            | FaultKind::DnsDown
            | FaultKind::Mute
            | FaultKind::Thrift
            | FaultKind::SlowDisk => return,
        };
        if kind == FaultKind::Lose {
            self.world.empty_doorway(doorway);
        }
        self.world.trouble(doorway, trouble, true);
        self.later(lasts, Undo::Trouble(doorway, trouble));
    }

    fn new_address(&mut self, place: &Place) {
        let Some(router) = place.router else { return };
        // Behind a provider's NAT nobody outside sees it.
        let outer = self.world.net().outer_address(router);
        let public = outer.is_some_and(|ip| Scope::of(ip.into()).is_global());
        if public {
            self.new_addresses += 1;
            let outer = Ipv4Addr::from(0x3000_0000 + ((place.isp as u32) << 18) + self.new_addresses);
            self.world.net_mut().readdress(router, outer);
        }
    }

    fn later(&mut self, lasts: Option<u64>, undo: Undo) {
        if let Some(lasts) = lasts {
            let at = self.world.now() + lasts;
            let number = self.steps.len() as u32;
            self.steps.push((at, Step::Undo(undo)));
            self.world.plan(at, number);
        } else {
            self.undone.push(undo);
        }
    }

    fn undo(&mut self, undo: &Undo) {
        match undo {
            Undo::RouterOn(at) => {
                if let Some(router) = self.places[*at].router {
                    self.world.net_mut().router(router).on = true;
                }
            }
            Undo::UplinkUp(site) => self.world.net_mut().links.set_up(*site, true),
            Undo::IspUp(isp) => self.world.net_mut().links.set_isp_up(*isp as u16, true),
            Undo::MendRegions(from, to) => self.world.net_mut().links.mend(*from, *to),
            Undo::MendSites(from, to) => self.world.net_mut().links.mend_sites(*from, *to),
            Undo::Start(node) => self.world.start(*node),
            Undo::Power(node) => {
                self.world.power(*node);
                self.world.start(*node);
            }
            Undo::Wake(node) => self.world.resume(*node),
            Undo::Splurge(node) => self.world.change_settings(*node, false),
            Undo::FastDisk(node) => self.world.press_logs(*node, false),
            Undo::Plug(node) => {
                self.world.cable(*node, true);
            }
            Undo::Trouble(doorway, trouble) => self.world.trouble(*doorway, *trouble, false),
            Undo::DnsUp => self.world.net_mut().dns = true,
            Undo::Unmute(at) => {
                let segment = self.places[*at].segment;
                self.world.mute(segment, false);
            }
        }
    }
}

/// From nothing to twice the mean.
const fn spread(dice: &mut Dice, mean: u64) -> u64 {
    dice.below(mean.saturating_mul(2)).saturating_add(1)
}
