//! Whatever happens, in whatever order: the invariants hold after each input.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::*;
use kinfolk_core::{
    Action, Address, Ask, Asker, CloseCause, CommandId, Config, ConnectionId, DialError, Direction, Event, HeldId,
    Identity, Interfaces, ListenError, ListenerId, Mapping, Node, Notice, Origin, PeerAddress, PeerId, PingError,
    Prefix, ProbeVerdict, Query, Reachability, Reason, Refusal, RequestId, Scope, SignalError, SignalPeer,
    SignalServices, Source, StoredAddress, StoredMapping, StoredNat, StoredPeer, Time, Transport, network_of,
    view::State,
};
use proptest::{prelude::*, sample::select};

/// Small settings, so that every limit is reached.
fn tight() -> Config {
    let mut config = Config::desktop();
    config.lifecycle.max_peers = 16;
    config.lifecycle.max_addresses = 6;
    config.lifecycle.max_unproven = 2;
    config.lifecycle.low_water = 3;
    config.lifecycle.high_water = 5;
    config.lifecycle.dial_slots = 6;
    config.nat.max_candidates = 6;
    config.nat.observers = 2;
    config.bootstrap = vec![
        PeerAddress::new(peer(3), global(3)),
        PeerAddress { peer: None, address: Some(global(4)) },
        PeerAddress { peer: None, address: Some(address("/dns4/node.example/tcp/4001")) },
    ];
    config.pinned = vec![kinfolk_core::PinnedPeer { peer: peer(5), addresses: vec![global(5)] }];
    config.signal.servers = vec!["https://a.example/signal".into(), "http://45.9.9.9:4080".into()];
    config
}

fn peers() -> impl Strategy<Value = PeerId> {
    prop_oneof![9 => (1..24u64).prop_map(peer), 1 => Just(peer(LOCAL))]
}

fn addresses() -> impl Strategy<Value = Address> {
    prop_oneof![
        4 => (1..24u64).prop_map(global),
        3 => (1..24u64).prop_map(near),
        1 => select(vec![
            "/ip4/0.0.0.0/tcp/1",
            "/ip4/127.0.0.1/tcp/4001",
            "/ip4/10.0.0.1/tcp/4001",
            "/ip4/45.10.1.1/tcp/0",
            "/ip4/45.10.7.7/tcp/4001",
            "/ip4/192.168.1.2/udp/4001/quic-v1",
            "/ip4/224.0.0.251/udp/4001/quic-v1",
            "/ip6/2a01:4f8::1/udp/4001/quic-v1",
            "/ip6/fe80::1/tcp/4001",
            "/dns4/node.example/tcp/4001",
            "/dnsaddr/node.example",
            "/memory/5",
        ]).prop_map(address),
        1 => (1..24u64).prop_map(|n| Address::relayed(peer(n))),
    ]
}

fn lists() -> impl Strategy<Value = Vec<Address>> {
    prop::collection::vec(addresses(), 0..6)
}

fn sources() -> impl Strategy<Value = Source> {
    select(vec![Source::Mdns, Source::Kademlia, Source::Identify, Source::Manual, Source::Configured])
}

fn errors() -> impl Strategy<Value = DialError> {
    prop_oneof![
        select(vec![
            DialError::ConnectionRefused,
            DialError::TimedOut,
            DialError::Unreachable,
            DialError::OwnIdentity,
            DialError::NoAddresses,
            DialError::Denied,
            DialError::Other("odd".into()),
        ]),
        peers().prop_map(DialError::WrongPeer),
    ]
}

fn asks() -> impl Strategy<Value = Ask> {
    let to = || {
        let parts = (prop::option::of(peers()), prop::option::of(addresses()));
        parts.prop_map(|(peer, address)| PeerAddress { peer, address })
    };
    prop_oneof![
        4 => to().prop_map(Ask::Connect),
        1 => to().prop_map(Ask::Pin),
        1 => to().prop_map(Ask::AddBootstrap),
        1 => to().prop_map(Ask::RemoveBootstrap),
        1 => peers().prop_map(Ask::Disconnect),
        1 => peers().prop_map(Ask::Forget),
        1 => peers().prop_map(Ask::Block),
        1 => peers().prop_map(Ask::Allow),
        1 => peers().prop_map(Ask::Protect),
        1 => peers().prop_map(Ask::Unprotect),
        2 => (peers(), 0..3u32).prop_map(|(peer, pending)| Ask::Sync { peer, position: None, pending }),
    ]
}

fn identities() -> impl Strategy<Value = Identity> {
    (any::<bool>(), any::<bool>(), any::<bool>(), lists(), prop::option::of(addresses()), 0..3u32).prop_map(
        |(ours, server, prober, addresses, observed, cut)| {
            let mut identity = if ours { kinfolk() } else { Identity::default() };
            if server {
                identity.protocols.push("/elohim/kad/1.0.0".into());
            }
            if prober {
                identity.protocols.push("/libp2p/autonat/2/dial-request".into());
            }
            Identity { addresses, observed, cut, ..identity }
        },
    )
}

fn interfaces() -> impl Strategy<Value = Interfaces> {
    let other = Interfaces {
        addresses: vec![Prefix { ip: "10.0.0.9".parse().unwrap(), len: 8 }],
        default_v4: true,
        default_v6: true,
    };
    select(vec![home(), other, Interfaces::default()])
}

fn transports() -> impl Strategy<Value = Transport> {
    select(vec![Transport::Tcp, Transport::Quic])
}

fn probe_verdicts() -> impl Strategy<Value = ProbeVerdict> {
    select(vec![
        ProbeVerdict::Reachable,
        ProbeVerdict::DialFailed,
        ProbeVerdict::DialBackFailed,
        ProbeVerdict::Unproven,
        ProbeVerdict::Refused,
        ProbeVerdict::NotConnected,
    ])
}

fn signalled() -> impl Strategy<Value = SignalPeer> {
    let services = (any::<bool>(), any::<bool>()).prop_map(|(relay, bootstrap)| SignalServices { relay, bootstrap });
    (peers(), prop::option::of(0..5u64), lists(), services).prop_map(|(peer, seq, addresses, services)| SignalPeer {
        peer,
        seq,
        addresses,
        services,
    })
}

fn signal_errors() -> impl Strategy<Value = SignalError> {
    prop_oneof![
        (0..9u64).prop_map(|seq| SignalError::Stale { seq }),
        prop::option::of(0..100_000u64)
            .prop_map(|n| SignalError::Refused { reason: "no".into(), retry_after: n.map(secs) }),
        Just(SignalError::Unsupported),
        Just(SignalError::Failed("connection refused".into())),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Tell(Event),
    /// Answers the latest dial, query or held dial in some way.
    Answer(u8, u64),
    Pass(u64),
}

/// Of the network where this machine is, and of others.
fn nats() -> impl Strategy<Value = StoredNat> {
    let reachability = select(vec![Reachability::Unknown, Reachability::Public, Reachability::Private]);
    let mapping = select(vec![Mapping::Unknown, Mapping::None, Mapping::Independent, Mapping::PerDestination]);
    let mapping = (any::<bool>(), transports(), mapping).prop_map(|(ipv6, transport, mapping)| StoredMapping {
        ipv6,
        transport,
        mapping,
    });
    (prop::option::of(interfaces()), reachability, prop::collection::vec(mapping, 0..12)).prop_map(
        |(interfaces, reachability, mappings)| {
            let addresses = interfaces.map(|interfaces| interfaces.addresses).unwrap_or_default();
            StoredNat { addresses, reachability, mappings }
        },
    )
}

fn events() -> impl Strategy<Value = Event> {
    let connection = || (1..40u64).prop_map(ConnectionId);
    let command = || (1..400u64).prop_map(CommandId);
    let held = || (1..40u64).prop_map(HeldId);
    let askers = || select(vec![Asker::Kademlia, Asker::Application, Asker::Identify]);
    let discovery = prop_oneof![
        6 => (sources(), peers(), lists(), 0..3u32)
            .prop_map(|(source, peer, addresses, cut)| Event::Found { source, peer, addresses, cut }),
        2 => (sources(), peers(), lists())
            .prop_map(|(source, peer, addresses)| Event::Lost { source, peer, addresses }),
        1 => addresses().prop_map(|address| Event::OwnIdentitySeen { address }),
        1 => (peers(), any::<bool>(), any::<bool>(), 0..4u64, lists(), prop::option::of(nats())).prop_map(
            |(peer, pinned, blocked, record, addresses, nat)| {
                let source = Source::Store;
                let addresses =
                    addresses.into_iter().map(|address| StoredAddress { address, source, proven: true, last_success: 0 }).collect();
                let stored = StoredPeer { peer, pinned, blocked, relay: false, record, addresses };
                Event::StoreLoaded { peers: vec![stored], nat, last: true }
            }
        ),
    ];
    let connections = prop_oneof![
        6 => (connection(), peers(), addresses(), any::<bool>(), command()).prop_map(
            |(connection, peer, address, inbound, dial)| Event::Connected {
                connection,
                peer,
                direction: if inbound { Direction::Inbound } else { Direction::Outbound },
                address,
                origin: if inbound { Origin::Inbound } else { Origin::Dial(dial) },
                took: secs(0),
            }
        ),
        4 => (connection(), peers(), select(vec![CloseCause::Remote, CloseCause::Ours, CloseCause::Idle]))
            .prop_map(|(connection, peer, cause)| Event::Disconnected { connection, peer, cause }),
        2 => (command(), prop::collection::vec((addresses(), errors()), 0..3), errors())
            .prop_map(|(dial, failures, error)| Event::DialFailed { dial, failures, error }),
        1 => (held(), askers(), prop::option::of(peers()))
            .prop_map(|(held, asker, peer)| Event::DialHeld { held, asker, peer }),
        1 => (held(), errors()).prop_map(|(held, error)| Event::HeldFailed { held, error }),
        4 => (connection(), peers(), identities()).prop_map(|(connection, peer, identity)| {
            Event::Identified { connection, peer, identity: Box::new(identity) }
        }),
        4 => (connection(), peers(), prop_oneof![
            3 => Just(Ok(secs(0))),
            1 => select(vec![Err(PingError::TimedOut), Err(PingError::Unsupported)]),
        ]).prop_map(|(connection, peer, result)| Event::Pinged { connection, peer, result }),
    ];
    let own = prop_oneof![
        1 => (1..5u64, command(), addresses())
            .prop_map(|(id, command, address)| Event::Listening { listener: ListenerId(id), command, address }),
        1 => (command(), select(vec![ListenError::PortTaken, ListenError::NoSuchAddress, ListenError::Closed]))
            .prop_map(|(command, error)| Event::ListenFailed { command, error }),
        1 => (askers(), addresses()).prop_map(|(asker, address)| Event::Candidate { asker, address }),
        1 => (askers(), addresses()).prop_map(|(asker, address)| Event::Confirmed { asker, address }),
        1 => (askers(), addresses()).prop_map(|(asker, address)| Event::Unconfirmed { asker, address }),
        1 => interfaces().prop_map(Event::Interfaces),
        1 => (1..200u64).prop_map(|n| Event::Resumed { asleep: secs(n) }),
        2 => (command(), probe_verdicts()).prop_map(|(probe, verdict)| Event::Probed { probe, verdict }),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(upnp, pcp)| Event::Gateway { upnp, nat_pmp: false, pcp }),
        1 => (transports(), addresses())
            .prop_map(|(transport, external)| Event::PortMapped { transport, external }),
        1 => transports().prop_map(|transport| Event::PortUnmapped { transport }),
        1 => (peers(), any::<bool>(), 0..3u32)
            .prop_map(|(peer, reserved, circuits)| Event::Serving { peer, reserved, circuits }),
    ];
    let rest = prop_oneof![
        3 => (1..1_000u64, asks()).prop_map(|(n, ask)| Event::Asked { request: RequestId(n), ask }),
        1 => (peers(), any::<bool>()).prop_map(|(peer, present)| Event::Routed { peer, present }),
        1 => (command(), prop::collection::vec((peers(), lists()), 0..4), prop::option::of(0..4u64))
            .prop_map(|(query, peers, record)| Event::QueryFound { query, peers, cut: 0, record }),
        1 => (command(), 0..3u32).prop_map(|(query, successes)| Event::QueryEnded { query, successes, failures: 1 }),
        2 => (command(), prop::collection::vec(signalled(), 0..4))
            .prop_map(|(query, peers)| Event::SignalFound { query, peers, cut: 0, backing: None }),
        1 => (command(), 0..100_000u64)
            .prop_map(|(publish, n)| Event::SignalPublished { publish, expires_in: secs(n), backing: None }),
        1 => (command(), signal_errors()).prop_map(|(command, error)| Event::SignalFailed { command, error }),
        1 => command().prop_map(|command| Event::Refused { command, refusal: Refusal::Gone }),
        1 => Just(Event::Wake),
    ];
    prop_oneof![4 => discovery, 6 => connections, 2 => own, 3 => rest]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        10 => events().prop_map(Step::Tell),
        5 => (0..6u8, 1..24u64).prop_map(|(how, n)| Step::Answer(how, n)),
        3 => prop_oneof![0..3u64, 3..40u64, 40..400u64, 400..10_000u64].prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..120)
}

/// Follows what the node does and knows what it must not do.
struct Watch {
    rig: Rig,
    connections: u64,
    dialing: BTreeMap<CommandId, Time>,
    unproven: BTreeMap<std::net::IpAddr, Vec<Time>>,
    asked: BTreeMap<RequestId, Time>,
    answered: BTreeSet<RequestId>,
    open: Vec<(CommandId, Action)>,
    /// Questions to signal servers that are under way.
    questions: BTreeMap<CommandId, Time>,
    /// Those of all times that were for peers.
    queried: BTreeSet<CommandId>,
    told: u32,
    /// Failed probes that were answered, and when the last one that came in was.
    failed_probes: u32,
}

impl Watch {
    fn new() -> Self {
        let mut watch = Self {
            rig: Rig::new(tight()),
            connections: 100,
            dialing: BTreeMap::new(),
            unproven: BTreeMap::new(),
            asked: BTreeMap::new(),
            answered: BTreeSet::new(),
            open: vec![],
            questions: BTreeMap::new(),
            queried: BTreeSet::new(),
            told: 0,
            failed_probes: 0,
        };
        watch.check();
        watch
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Tell(event) => self.tell(event.clone()),
            Step::Answer(how, n) => self.answer(*how, *n),
            Step::Pass(n) => {
                let until = self.rig.now + secs(*n);
                while let Some(deadline) = self.rig.node.next_deadline().filter(|deadline| deadline.at <= until) {
                    self.rig.now = deadline.at;
                    self.tell(Event::Wake);
                }
                self.rig.now = until;
            }
        }
    }

    fn tell(&mut self, event: Event) {
        if let Event::Asked { request, .. } = &event
            && !self.asked.contains_key(request)
        {
            self.asked.insert(*request, self.rig.now);
        } else if matches!(event, Event::Asked { .. }) {
            return;
        }
        match &event {
            Event::Connected { origin: Origin::Dial(dial), .. } | Event::DialFailed { dial, .. } => {
                self.dialing.remove(dial);
            }
            Event::Refused { command, .. } => {
                self.dialing.remove(command);
                self.questions.remove(command);
            }
            // One that answers another kind of question answers none.
            Event::SignalFound { query, .. } if self.asks(query, true) => drop(self.questions.remove(query)),
            Event::SignalPublished { publish, .. } if self.asks(publish, false) => {
                self.questions.remove(publish);
            }
            Event::SignalFailed { command, .. } => drop(self.questions.remove(command)),
            _ => {}
        }
        if let Event::Probed { verdict, .. } = &event {
            self.failed_probes += u32::from(*verdict == ProbeVerdict::DialFailed);
        }
        // An early wake changes nothing (looked at now and then: it writes the whole node out).
        self.told += 1;
        if self.told.is_multiple_of(16)
            && self.rig.node.next_deadline().is_none_or(|deadline| deadline.at > self.rig.now)
        {
            let before = all_but_the_clock(&self.rig.node);
            self.rig.tell(Event::Wake);
            assert!(self.rig.commands.is_empty(), "an early wake does something: {:?}", self.rig.commands);
            assert!(before == all_but_the_clock(&self.rig.node), "an early wake changes something");
        }
        self.rig.tell(event);
        self.check();
    }

    /// Whether a question to a signal server is one for peers.
    fn asks(&self, command: &CommandId, peers: bool) -> bool {
        self.queried.contains(command) == peers
    }

    fn answer(&mut self, how: u8, n: u64) {
        let Some((id, action)) = self.open.pop() else { return };
        match action {
            Action::Dial { peer: to, addresses } if how < 3 => {
                self.connections += 1;
                self.tell(Event::Connected {
                    connection: ConnectionId(self.connections),
                    peer: to.unwrap_or(peer(n)),
                    direction: Direction::Outbound,
                    address: addresses[0].clone(),
                    origin: Origin::Dial(id),
                    took: secs(0),
                });
                if how < 2 {
                    let (connection, peer) = (ConnectionId(self.connections), to.unwrap_or(peer(n)));
                    let mut identity = Box::new(server_at(number(&peer)));
                    identity.protocols.push("/libp2p/autonat/2/dial-request".into());
                    identity.observed = Some(address("/ip4/91.1.1.1/udp/4001/quic-v1"));
                    self.tell(Event::Identified { connection, peer, identity });
                    self.tell(Event::Routed { peer, present: true });
                }
            }
            Action::Dial { addresses, .. } => {
                let error = if how == 3 { DialError::TimedOut } else { DialError::ConnectionRefused };
                let failures = addresses.into_iter().map(|address| (address, error.clone())).collect();
                self.tell(Event::DialFailed { dial: id, failures, error });
            }
            Action::Close { connection, peer } => {
                self.tell(Event::Disconnected { connection, peer, cause: CloseCause::Ours });
            }
            Action::Query(_) => {
                let peers = vec![(peer(n), vec![global(n)])];
                self.tell(Event::QueryFound { query: id, peers, cut: 0, record: None });
                self.tell(Event::QueryEnded { query: id, successes: u32::from(how > 1), failures: 1 });
            }
            Action::SignalQuery { .. } if how < 3 => {
                let (seq, addresses) = (Some(n), vec![global(n), global(n + 1)]);
                let services = SignalServices { relay: how == 0, bootstrap: false };
                let peers = vec![SignalPeer { peer: peer(n), seq, addresses, services }];
                self.tell(Event::SignalFound { query: id, peers, cut: 0, backing: None });
            }
            Action::SignalPublish { .. } if how < 3 => {
                self.tell(Event::SignalPublished { publish: id, expires_in: secs(n * 100), backing: None });
            }
            Action::SignalQuery { .. } | Action::SignalPublish { .. } => {
                let error = if how == 3 { SignalError::Stale { seq: n } } else { SignalError::Failed("no".into()) };
                self.tell(Event::SignalFailed { command: id, error });
            }
            Action::Probe { .. } => {
                let verdict = [ProbeVerdict::Reachable, ProbeVerdict::DialFailed, ProbeVerdict::Unproven];
                self.tell(Event::Probed { probe: id, verdict: verdict[usize::from(how) % 3].clone() });
            }
            Action::MapPort { transport, .. } => {
                self.tell(Event::Gateway { upnp: how > 1, nat_pmp: false, pcp: false });
                let external = address(&format!("/ip4/91.1.1.{n}/udp/41540/quic-v1"));
                self.tell(Event::PortMapped { transport, external });
            }
            _ => {}
        }
    }

    fn check(&mut self) {
        let commands = self.rig.take();
        let now = self.rig.now;
        let view = self.rig.node.view().unwrap();
        let node = view.node();
        self.dialing.retain(|_, since| *since + secs(60) > now);
        for command in commands {
            match &command.action {
                Action::Dial { peer: to, addresses } => {
                    assert!(!addresses.is_empty() && addresses.len() <= 8);
                    assert_ne!(*to, Some(peer(LOCAL)), "dials itself");
                    let blocked = |peer: &PeerId| view.peer(peer).is_some_and(|peer| peer.blocked);
                    assert!(!to.as_ref().is_some_and(blocked), "dials the blocked");
                    for address in addresses {
                        assert!(!node.listening.contains(&address), "dials its own {address}");
                        assert!(address.scope().is_none_or(Scope::is_dialable), "dials {address}");
                        assert_ne!(address.port(), Some(0));
                    }
                    self.dialing.insert(command.id, now);
                    assert!(self.dialing.len() <= 6, "too many dials: {:?}", self.dialing);
                    if matches!(command.reason, Reason::Member | Reason::FoundBy(Source::Kademlia)) {
                        for ip in addresses.iter().filter_map(Address::host_ip) {
                            let dials = self.unproven.entry(network_of(ip)).or_default();
                            dials.retain(|at| *at + secs(60) > now);
                            dials.push(now);
                            assert!(dials.len() <= 8, "storms {ip}");
                        }
                    }
                }
                Action::Close { peer, .. } if matches!(command.reason, Reason::OverBudget { .. }) => {
                    let peer = view.peer(peer).unwrap();
                    assert!(!peer.pinned && peer.state != State::Syncing, "trims {peer:?}");
                }
                Action::Advertise { address } => {
                    assert!(address.is_relayed() || address.scope() == Some(Scope::Global), "advertises {address}");
                }
                Action::Probe { server, address } => {
                    assert_eq!(address.scope(), Some(Scope::Global), "has {address} probed");
                    assert_ne!(view.peer(server).and_then(|server| server.path), None, "asks {server}, who is gone");
                }
                Action::SignalQuery { .. } => {
                    self.queried.insert(command.id);
                    self.questions.insert(command.id, now);
                }
                Action::SignalPublish { addresses, .. } => {
                    self.questions.insert(command.id, now);
                    assert!((1..=16).contains(&addresses.len()));
                    assert!(addresses.iter().all(|address| address.scope() == Some(Scope::Global)), "{addresses:?}");
                }
                Action::SignalCancel { command } => {
                    self.questions.remove(command);
                }
                Action::Query(Query::Publish { addresses }) => {
                    assert!(addresses.iter().all(|address| address.scope() == Some(Scope::Global)));
                }
                Action::Route { addresses, .. } => {
                    assert!(!addresses.is_empty());
                    assert!(addresses.iter().all(|address| address.scope() == Some(Scope::Global)));
                }
                Action::Tell(Notice::ReachabilityChanged { reachability: Reachability::Private }) => {
                    assert!(self.failed_probes >= 2, "private after {} failed probes", self.failed_probes);
                    self.failed_probes = 0;
                }
                Action::Answer { request, .. } => {
                    assert!(self.answered.insert(*request), "{request} is answered twice");
                }
                _ => {}
            }
            self.open.push((command.id, command.action));
        }

        assert!(node.peers <= 16);
        assert!(node.candidates.len() + node.advertised.len() <= 6 + 10);
        for peer in view.peers() {
            assert!(peer.addresses.len() <= 6, "{peer:?}");
            assert!(!peer.blocked || peer.connections.is_empty(), "keeps a connection to the blocked: {peer:?}");
        }
        let deadline = self.rig.node.next_deadline().expect("a deadline");
        assert!(deadline.at > now);
        if node.peers > 0 {
            assert!(deadline.at <= now + secs(7_200), "nobody looks after {} peers before {deadline:?}", node.peers);
        }
        // One question of each kind to each of two servers, and none for ever.
        assert!(self.questions.len() <= 4, "{:?}", self.questions);
        assert!(self.questions.values().all(|since| *since + secs(20) > now), "{:?} at {now}", self.questions);
        assert_eq!(node.signal.len(), 2);
        for (request, since) in &self.asked {
            let late = *since + secs(60) <= now;
            assert!(!late || self.answered.contains(request), "{request} of {since} is not answered at {now}");
        }
    }
}

fn all_but_the_clock(node: &Node) -> String {
    let text = serde_json::to_string(node).unwrap();
    text[text.find("running").unwrap()..].to_owned()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(150),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn invariants_hold(steps in steps()) {
        let mut watch = Watch::new();
        for step in &steps {
            watch.step(step);
        }
        watch.step(&Step::Pass(61));
    }

    #[test]
    fn the_same_inputs_give_the_same_commands_also_from_a_checkpoint(steps in steps(), at in 0..120usize) {
        let mut first = Watch::new();
        let mut second = Watch::new();
        for (n, step) in steps.iter().enumerate() {
            if n == at {
                let checkpoint = serde_json::to_string(&second.rig.node).unwrap();
                let restored: Node = serde_json::from_str(&checkpoint).unwrap();
                prop_assert_eq!(serde_json::to_string(&restored).unwrap(), checkpoint);
                second.rig.node = restored;
            }
            first.step(step);
            second.step(step);
            prop_assert_eq!(&first.open, &second.open);
            prop_assert_eq!(first.rig.node.next_deadline(), second.rig.node.next_deadline());
        }
    }
}
