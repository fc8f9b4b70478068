use super::*;
use crate::engine::{Purpose, SECOND};

const UDP: Protocol = Protocol::Udp;
const TCP: Protocol = Protocol::Tcp;

struct Rig {
    net: Internet,
    now: Moment,
    homes: u8,
}

impl Rig {
    fn new() -> Self {
        let mut net = Internet::new(Dice::new(1, 0, Purpose::Ports));
        net.links.set_regions(1, vec![5_000_000]);
        Self { net, now: 0, homes: 0 }
    }

    fn site(&mut self) -> SiteId {
        self.net.links.add(Site { isp: 0, region: 0, access: 1_000_000, up: true })
    }

    fn server(&mut self) -> HostId {
        let site = self.site();
        self.homes += 1;
        self.net.add_host(site, INTERNET, Some(Ipv4Addr::new(45, 0, self.homes, 1)), Some(v6(self.homes, 1)))
    }

    fn home(&mut self, kind: NatKind) -> (SegmentId, RouterId, HostId) {
        let site = self.site();
        self.homes += 1;
        let outer = Some(Ipv4Addr::new(46, 0, self.homes, 1));
        let base = (Ipv4Addr::new(192, 168, 1, 0), 24);
        let (lan, router) = self.net.add_network(site, INTERNET, outer, base, kind, FirewallKind::Stateful);
        let host = self.net.add_host(site, lan, None, None);
        (lan, router, host)
    }

    /// A packet from port 4001 goes all the way; where it arrives, and from where it seems to come.
    fn send(&mut self, from: HostId, protocol: Protocol, to: &str) -> Result<(Arrived, SocketAddr), Option<Stuck>> {
        self.send_to(from, protocol, to.parse().unwrap())
    }

    fn send_to(
        &mut self,
        from: HostId,
        protocol: Protocol,
        to: SocketAddr,
    ) -> Result<(Arrived, SocketAddr), Option<Stuck>> {
        let flight = self.net.depart(self.now, from, protocol, 4001, to).map_err(Some)?;
        self.now += flight.delay;
        let arrived = self.net.arrive(self.now, &flight).map_err(|_| None)?;
        Ok((arrived, flight.from))
    }
}

fn v6(home: u8, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2a00, home.into(), 0, 0, 0, 0, 0, host)
}

#[test]
fn a_server_is_reached_and_answers_get_back() {
    let mut rig = Rig::new();
    let server = rig.server();
    let (_, _, home) = rig.home(NatKind::port_restricted());
    let (arrived, from) = rig.send(home, UDP, "45.0.1.1:4001").unwrap();
    assert_eq!((arrived.host, from.to_string().as_str()), (server, "46.0.2.1:4001"), "the NAT shows its own address");
    let (back, _) = rig.send_to(server, UDP, from).unwrap();
    assert_eq!((back.host, back.at.to_string().as_str()), (home, "192.168.1.2:4001"));
    assert!(rig.send(server, UDP, "46.0.2.1:4002").is_err(), "no mapping");
    assert!(rig.now >= 4 * 7_000_000 - 7_000_000, "each way takes its time");
}

#[test]
fn private_addresses_lead_nowhere_outside() {
    let mut rig = Rig::new();
    let server = rig.server();
    let (_, _, one) = rig.home(NatKind::full_cone());
    let (lan, _, other) = rig.home(NatKind::full_cone());
    assert_eq!(rig.send(server, UDP, "192.168.1.2:4001"), Err(Some(Stuck::Silence)));
    assert_eq!(rig.send(one, UDP, "10.0.0.1:1"), Err(Some(Stuck::Silence)));
    assert_eq!(rig.send(one, UDP, "192.168.1.77:1"), Err(Some(Stuck::NobodyThere)), "on our own network");
    // The same address in two homes is two machines.
    let second = rig.net.add_host(rig.net.host(other).site, lan, None, None);
    assert_eq!(rig.send(other, UDP, "192.168.1.3:4001").unwrap().0.host, second);
    assert_eq!(rig.send(one, UDP, "192.168.1.3:4001"), Err(Some(Stuck::NobodyThere)));
}

#[test]
fn holes_are_punched_when_packets_cross() {
    for (one, other, works) in [
        (NatKind::port_restricted(), NatKind::port_restricted(), true),
        (NatKind::address_restricted(), NatKind::port_restricted(), true),
        (NatKind::symmetric(), NatKind::full_cone(), true),
        (NatKind::symmetric(), NatKind::address_restricted(), true),
        (NatKind::symmetric(), NatKind::port_restricted(), false),
        (NatKind::symmetric(), NatKind::symmetric(), false),
    ] {
        let mut rig = Rig::new();
        rig.server();
        let (_, _, a) = rig.home(one.clone());
        let (_, _, b) = rig.home(other.clone());
        let (_, a_seen) = rig.send(a, UDP, "45.0.1.1:4001").unwrap();
        let (_, b_seen) = rig.send(b, UDP, "45.0.1.1:4001").unwrap();
        // Both send to where the server has seen the other; later, each answers what it hears.
        let there = rig.net.depart(rig.now, a, UDP, 4001, b_seen).unwrap();
        let back = rig.net.depart(rig.now, b, UDP, 4001, a_seen).unwrap();
        let soon = rig.now + 8_000_000;
        let heard = [rig.net.arrive(soon, &there), rig.net.arrive(soon, &back)];
        assert_eq!(heard.iter().any(Result::is_ok), works, "{one:?} and {other:?}");
        let said = rig.net.reach(a, b, false);
        assert_eq!(said > Reach::Never, works, "the oracle, {one:?} and {other:?}");
    }
}

#[test]
fn hairpins_are_for_those_who_have_them() {
    for hairpin in [true, false] {
        let mut rig = Rig::new();
        rig.server();
        let (lan, _, one) = rig.home(NatKind { hairpin, ..NatKind::full_cone() });
        let other = rig.net.add_host(rig.net.host(one).site, lan, None, None);
        let (_, seen) = rig.send(other, UDP, "45.0.1.1:4001").unwrap();
        let result = rig.send_to(one, UDP, seen);
        assert_eq!(result.is_ok(), hairpin);
        if let Ok((arrived, from)) = result {
            // RFC 4787, REQ-9: it comes from the outer address.
            assert_eq!((arrived.host, from.ip().to_string().as_str()), (other, "46.0.2.1"));
        }
    }
}

#[test]
fn two_nats_in_a_row_translate_twice() {
    let mut rig = Rig::new();
    let server = rig.server();
    let site = rig.site();
    let base = (Ipv4Addr::new(100, 64, 0, 0), 10);
    let outer = Some(Ipv4Addr::new(47, 0, 0, 1));
    let carrier = NatKind::carrier_grade();
    let (isp, _) = rig.net.add_network(site, INTERNET, outer, base, carrier, FirewallKind::Open);
    let home = (Ipv4Addr::new(192, 168, 1, 0), 24);
    let add = |rig: &mut Rig| {
        let site = rig.site();
        let (lan, router) =
            rig.net.add_network(site, isp, None, home, NatKind::port_restricted(), FirewallKind::Stateful);
        (router, rig.net.add_host(site, lan, None, None))
    };
    let (router, one) = add(&mut rig);
    let (_, other) = add(&mut rig);
    assert_eq!(rig.net.outer_address(router).unwrap().to_string(), "100.64.0.2");
    let (_, seen) = rig.send(one, UDP, "45.0.1.1:4001").unwrap();
    assert_eq!(seen.ip().to_string(), "47.0.0.1");
    assert_ne!(seen.port(), 4001, "the provider chooses ports at random");
    assert_eq!(rig.send_to(server, UDP, seen).unwrap().0.host, one);
    // Behind the same provider: by its outer addresses, since it hairpins.
    let (_, other_seen) = rig.send(other, UDP, "45.0.1.1:4001").unwrap();
    let there = rig.net.depart(rig.now, one, UDP, 4001, other_seen).unwrap();
    let back = rig.net.depart(rig.now, other, UDP, 4001, seen).unwrap();
    let heard = [rig.net.arrive(rig.now, &there), rig.net.arrive(rig.now, &back)];
    assert!(heard.iter().any(Result::is_ok), "{heard:?}");
    assert_eq!(rig.net.reach(one, other, false), Reach::Punched);
    assert_eq!(rig.net.reach(one, server, false), Reach::Dialled);
}

#[test]
fn a_router_that_restarts_with_another_address_is_another_place() {
    let mut rig = Rig::new();
    let server = rig.server();
    let (_, router, home) = rig.home(NatKind::full_cone());
    let (_, before) = rig.send(home, UDP, "45.0.1.1:4001").unwrap();
    rig.net.router(router).nat.reboot();
    assert!(rig.send_to(server, UDP, before).is_err(), "the mapping is gone");
    rig.net.readdress(router, Ipv4Addr::new(46, 0, 99, 1));
    let (_, after) = rig.send(home, UDP, "45.0.1.1:4001").unwrap();
    assert_eq!(after.to_string(), "46.0.99.1:4001");
    assert!(rig.send_to(server, UDP, before).is_err());
    assert_eq!(rig.send_to(server, UDP, after).unwrap().0.host, home);
}

#[test]
fn ipv6_is_not_translated_but_guarded() {
    let mut rig = Rig::new();
    let server = rig.server();
    let (lan, router, home) = rig.home(NatKind::port_restricted());
    rig.net.plug(home, lan, Some(v6(9, 1)));
    let address = SocketAddr::new(rig.net.host(home).v6.unwrap().into(), 4001);
    assert!(rig.send_to(server, TCP, address).is_err(), "nobody has asked it in");
    let (_, from) = rig.send(home, TCP, "[2a00:1::1]:4001").unwrap();
    assert_eq!(from, address);
    assert_eq!(rig.send_to(server, TCP, address).unwrap().0.host, home);
    let (lan, _, other) = rig.home(NatKind::symmetric());
    rig.net.plug(other, lan, Some(v6(8, 1)));
    assert_eq!(rig.net.reach(home, other, false), Reach::Punched, "their IPv4 NATs would not allow it");
    assert_eq!(rig.net.reach(home, server, false), Reach::Dialled);
    rig.net.router(router).firewall = Firewall::new(FirewallKind::Open);
    assert!(rig.send_to(server, UDP, address).is_ok());
    assert_eq!(rig.net.reach(home, other, false), Reach::Dialled);
}

#[test]
fn resets_come_from_routers_that_send_them() {
    let mut rig = Rig::new();
    let server = rig.server();
    rig.home(NatKind { resets: true, ..NatKind::full_cone() });
    for (protocol, expected) in [(TCP, NotArrived::Reset), (UDP, NotArrived::Silence)] {
        let flight = rig.net.depart(0, server, protocol, 4001, "46.0.2.1:4001".parse().unwrap()).unwrap();
        assert_eq!(rig.net.arrive(0, &flight), Err(expected));
    }
}

#[test]
fn an_unplugged_host_has_no_way_and_is_not_there() {
    let mut rig = Rig::new();
    let server = rig.server();
    let (_, _, home) = rig.home(NatKind::full_cone());
    let (_, seen) = rig.send(home, UDP, "45.0.1.1:4001").unwrap();
    rig.net.set_plugged(home, false);
    assert_eq!(rig.send(home, UDP, "45.0.1.1:4001"), Err(Some(Stuck::NoRoute)));
    assert_eq!(rig.send_to(server, UDP, seen), Err(None));
    let interfaces = rig.net.interfaces(home);
    assert!(!interfaces.default_v4 && interfaces.addresses.iter().all(|own| own.ip.is_loopback()));
    rig.now += SECOND;
    rig.net.set_plugged(home, true);
    assert!(rig.send(home, UDP, "45.0.1.1:4001").is_ok());
    let interfaces = rig.net.interfaces(home);
    assert!(interfaces.default_v4 && !interfaces.default_v6);
}

#[test]
fn port_mapping_makes_a_home_dialable_unless_a_provider_translates_again() {
    let mut rig = Rig::new();
    let server = rig.server();
    let giving = NatKind { gives_ports: true, ..NatKind::port_restricted() };
    let (_, router, home) = rig.home(giving);
    let (_, _, hard) = rig.home(NatKind::symmetric());
    assert_eq!(rig.net.reach(home, hard, false), Reach::Never);
    assert_eq!(rig.net.reach(home, hard, true), Reach::Dialled);
    let inside = "192.168.1.2:4001".parse().unwrap();
    rig.net.router(router).nat.lease(0, UDP, inside, 4001, SECOND).unwrap();
    assert_eq!(rig.send(server, UDP, "46.0.2.1:4001").unwrap().0.host, home);
}
