//! Whom this node relays and probes for, and who counts as a member.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

mod common;

use common::*;
use kinfolk_core::{
    Action, Ask, Audience, Config, Event, PeerAddress, PinnedPeer, RequestId, Role, Service, StoredPeer,
    view::ServiceView,
};

fn services(rig: &Rig) -> ServiceView {
    rig.node.view().unwrap().node().services
}

#[test]
fn each_setting_has_its_audience() {
    use Audience::{Anyone, Members, Nobody};
    // The role, the setting, for whom before and after the node is known to be reachable.
    for (role, service, before, after) in [
        (Role::Family, Service::Auto, Nobody, Members),
        (Role::Desktop, Service::Auto, Nobody, Members),
        (Role::Server, Service::Auto, Anyone, Anyone),
        (Role::Server, Service::Off, Nobody, Nobody),
        (Role::Family, Service::Off, Nobody, Nobody),
        (Role::Family, Service::Members, Members, Members),
        (Role::Family, Service::Anyone, Anyone, Anyone),
    ] {
        let mut config = Config::of(role);
        config.nat.relay_service = service;
        let mut rig = Rig::new(config);
        let audience = |rig: &Rig| services(rig).relay;
        assert_eq!(audience(&rig), before, "{role:?} {service:?}");
        rig.inbound(1, global(1));
        rig.inbound(2, global(2));
        rig.pass(secs(20));
        assert_eq!(audience(&rig), after, "{role:?} {service:?}");
        let told = rig.commands.iter().rev().find_map(|command| match &command.action {
            Action::SetServices { relay, .. } => Some(*relay),
            _ => None,
        });
        assert_eq!(told.unwrap_or_default(), after, "the shell knows: {role:?} {service:?}");
    }
}

#[test]
fn members_are_the_pinned_peers() {
    let config = Config { pinned: vec![PinnedPeer { peer: peer(1), addresses: vec![] }], ..Config::desktop() };
    let mut rig = Rig::new(config.clone());
    let said = |rig: &mut Rig| {
        let member = |action: Action| match action {
            Action::SetMember { peer, member } => Some((number(&peer), member)),
            _ => None,
        };
        rig.take().into_iter().filter_map(|command| member(command.action)).collect::<Vec<_>>()
    };
    assert_eq!(said(&mut rig), [(1, true)]);
    let ask = |rig: &mut Rig, n: u64, ask: Ask| rig.tell(Event::Asked { request: RequestId(n), ask });
    ask(&mut rig, 1, Ask::Pin(PeerAddress::new(peer(2), global(2))));
    assert_eq!(said(&mut rig), [(2, true)]);
    ask(&mut rig, 2, Ask::Pin(PeerAddress::new(peer(2), global(2))));
    assert_eq!(said(&mut rig), []);
    ask(&mut rig, 3, Ask::Forget(peer(2)));
    assert_eq!(said(&mut rig), [(2, false)]);
    let stored = StoredPeer { peer: peer(3), pinned: true, blocked: false, relay: false, record: 0, addresses: vec![] };
    rig.tell(Event::StoreLoaded { peers: vec![stored], nat: None, last: true });
    assert_eq!(said(&mut rig), [(3, true)]);
    rig.tell(Event::Configured(Box::new(Config { pinned: vec![], ..config }.validate().unwrap())));
    assert_eq!(said(&mut rig), [(1, false)]);
}

#[test]
fn what_is_relayed_is_counted_and_bounded() {
    let mut rig = Rig::new(Config::server());
    rig.inbound(1, global(1));
    rig.tell(Event::Serving { peer: peer(1), reserved: true, circuits: 1 });
    rig.tell(Event::Serving { peer: peer(2), reserved: false, circuits: 1 });
    assert_eq!((services(&rig).reservations, services(&rig).circuits), (1, 1));
    assert!(rig.view(1).unwrap().served);
    rig.tell(Event::Serving { peer: peer(1), reserved: false, circuits: 0 });
    rig.tell(Event::Serving { peer: peer(2), reserved: false, circuits: 0 });
    assert_eq!((services(&rig).reservations, services(&rig).circuits), (0, 0));
    assert!(!rig.view(1).unwrap().served);
    for n in 0..10_000 {
        rig.tell(Event::Serving { peer: peer(n), reserved: true, circuits: u32::MAX });
    }
    assert_eq!(services(&rig).reservations, 4_096);
    assert_eq!(services(&rig).circuits, u32::MAX);
}
