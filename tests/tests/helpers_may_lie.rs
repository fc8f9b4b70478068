//! Those who help a node may lie to it: about where it is, whether others reach it, and that they relay for it. What it
//! holds for true stays true, what it spends on them is bounded, and its figures say what they did.

use std::time::Duration;

use kinfolk_core::{Action, PeerId, Reachability};
use kinfolk_shell::api::types::PathKind;
use kinfolk_tests::{Foreign, Node, NodeBuilder, Side, World};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
const A_WHILE: Duration = Duration::from_secs(10);

fn id(foreign: &Foreign) -> PeerId {
    foreign.peer().parse().unwrap()
}

/// How often a liar was asked for that.
fn asked(liar: &Foreign, what: &str) -> usize {
    liar.events("asked").iter().filter(|event| event["for"] == *what).count()
}

/// An honest server, and liars in a network of their own.
struct Lab {
    world: World,
    honest: Node,
    liars: Vec<Foreign>,
}

impl Lab {
    async fn new(lies: &[Value]) -> Self {
        let world = World::new().await;
        let device = world.public("centre", 20).await.device("honest").await;
        let honest = world.node("honest", &device).set("role", "\"server\"").with_figures().start().await;
        let site = world.public("liars", 50).await;
        let mut liars = Vec::new();
        for (number, lie) in lies.iter().enumerate() {
            liars.push(Foreign::hostile(&site.device(&format!("liar{number}")).await, lie.clone()).await);
        }
        Self { world, honest, liars }
    }

    /// One that knows all of them.
    async fn node(&self, name: &str, side: Side, number: u8, set: impl FnOnce(NodeBuilder) -> NodeBuilder) -> Node {
        let device = self.world.side(&format!("{name}-net"), side, number).await.device(name).await;
        let liars = self.liars.iter().map(|liar| liar.address("/ip4/45."));
        let known: Vec<String> = self.honest.addresses().into_iter().chain(liars).collect();
        set(self.world.node(name, &device).bootstrap(&known).with_figures()).start().await
    }

    /// One that is told by its settings to use the first liar's relay.
    async fn relayed(&self, name: &str, number: u8, relays: u8) -> Node {
        let relay = [self.liars[0].address("/ip4/45.")];
        let set = |builder: NodeBuilder| {
            builder.set("nat.relays", format!("{relay:?}")).set("nat.want_relays", relays.to_string())
        };
        self.node(name, Side::Symmetric, number, set).await
    }

    async fn becomes(&self, node: &Node, reachability: Reachability) {
        let is = async || (node.status().await.reachability == reachability).then_some(());
        self.world.eventually(&format!("it is {reachability:?}"), SOON, is).await;
    }

    async fn held(&self, node: &Node, relay: PeerId) {
        let held = async || {
            let relays = node.status().await.relays;
            relays.iter().any(|known| known.relay == relay && known.held_for_s.is_some()).then_some(())
        };
        self.world.eventually("the relay keeps a place for it", SOON, held).await;
    }
}

/// How often the node has asked that relay for a place.
async fn reserved(node: &Node, relay: PeerId) -> usize {
    let trace = node.trace().await;
    let asks = |action: &Action| matches!(action, Action::Reserve { relay: asked, .. } if *asked == relay);
    trace.commands().filter(|(_, command)| asks(&command.action)).count()
}

/// Debug programs are large, and so is what a trace keeps ready; a leak is larger.
fn holds(node: &Node, before_kb: u64) {
    let now = node.memory_kb();
    assert!(now <= before_kb + 16_384, "{}: {before_kb} kB before, {now} kB now", node.name());
}

#[tokio::test]
async fn observers_that_see_us_elsewhere() {
    let world_is = |ip: &str| json!({ "observed": format!("/ip4/{ip}/tcp/4001") });
    // The first address of the first network: the honest server's.
    let lies = ["45.10.20.2", "45.10.20.2", "45.99.9.9", "45.99.9.9", "45.99.9.9"];
    let lab = Lab::new(&lies.map(world_is)).await;
    let honest = lab.honest.device().ip().to_string();
    assert_eq!(lies[0], honest);
    let node = lab.node("node", Side::Symmetric, 30, |builder| builder).await;
    let before = node.memory_kb();
    for liar in &lab.liars {
        liar.event_within(SOON, "asked", |event| event["for"] == "introduction").await;
    }
    // They keep nobody from asking the honest one, whose word stands.
    lab.becomes(&node, Reachability::Private).await;
    let unmoved = async || {
        let status = node.status().await;
        let told = |ip: &str| {
            status
                .advertised
                .iter()
                .any(|told| told.to_string().starts_with(&format!("/ip4/{ip}/tcp/4001")) && !told.is_relayed())
        };
        status.reachability == Reachability::Private && !lies.iter().any(|lie| told(lie))
    };
    lab.world.always("it stays so, and says nothing of it to others", A_WHILE, unmoved).await;
    assert!(lab.honest.figures().await.counted("probes.asked") > 0);
    // Nobody was asked whether a lie can be reached more than a few times.
    let probes =
        node.trace().await.commands().filter(|(_, command)| matches!(command.action, Action::Probe { .. })).count();
    assert!(probes <= 20, "{probes} probes");
    holds(&node, before);
    lab.world.finish().await;
}

#[tokio::test]
async fn a_server_that_always_says_yes() {
    let lab = Lab::new(&[json!({ "probes": "yes" })]).await;
    let node = lab.node("node", Side::Symmetric, 30, |builder| builder).await;
    let before = node.memory_kb();
    lab.liars[0].event_within(SOON, "asked", |event| event["for"] == "probe").await;
    lab.becomes(&node, Reachability::Private).await;
    let unmoved = async || node.status().await.reachability == Reachability::Private;
    lab.world.always("it stays so", A_WHILE, unmoved).await;
    let figures = node.figures().await;
    assert_eq!(figures.get("kinfolk_probes_total{verdict=\"reachable\"}"), 0);
    // A liar is asked once in an hour, or for what was under way.
    let unproven = figures.get("kinfolk_probes_total{verdict=\"unproven\"}");
    assert!((1..=2).contains(&unproven), "{unproven}");
    assert_eq!(asked(&lab.liars[0], "probe") as u64, unproven);
    holds(&node, before);
    lab.world.finish().await;
}

#[tokio::test]
async fn a_server_that_always_says_no() {
    let lab = Lab::new(&[json!({ "probes": "no" })]).await;
    let node = lab.node("node", Side::Public, 30, |builder| builder).await;
    let before = node.memory_kb();
    lab.liars[0].event_within(SOON, "asked", |event| event["for"] == "probe").await;
    lab.becomes(&node, Reachability::Public).await;
    let failed = async || {
        let figures = node.figures().await;
        (figures.get("kinfolk_probes_total{verdict=\"dial_failed\"}") >= 2).then_some(())
    };
    lab.world.eventually("it has said so more than once", SOON, failed).await;
    let ip = node.device().ip().to_string();
    let unmoved = async || {
        let status = node.status().await;
        status.reachability == Reachability::Public
            && status.advertised.iter().any(|told| told.to_string().starts_with(&format!("/ip4/{ip}/")))
    };
    lab.world.always("it holds itself reachable, and says so", A_WHILE, unmoved).await;
    let figures = node.figures().await;
    assert!(figures.get("kinfolk_probes_total{verdict=\"reachable\"}") >= 2);
    assert_eq!(figures.get("kinfolk_reachability{state=\"public\"}"), 1);
    holds(&node, before);
    lab.world.finish().await;
}

/// Two that can meet only through a relay have a place on the liar's and on the honest one.
async fn meet_in_spite_of(relay: &str) {
    let lab = Lab::new(&[json!({ "relay": relay })]).await;
    let (a, b) = (lab.relayed("a", 30, 2).await, lab.relayed("b", 40, 2).await);
    let before = [a.memory_kb(), b.memory_kb()];
    let liar = id(&lab.liars[0]);
    for node in [&a, &b] {
        lab.held(node, liar).await;
    }
    let honest = lab.honest.peer_id();
    let through = async || {
        for (node, other) in [(&a, &b), (&b, &a)] {
            let path = node.connected(other).await?.path?;
            (path.kind == PathKind::Relayed && path.relay == Some(honest)).then_some(())?;
        }
        Some(())
    };
    lab.world.eventually("they meet through the honest one", SOON, through).await;
    // However good the liar's place looks, who can be reached only there is not lost by it.
    let [_, address] = [0, 1].map(|_| lab.liars[0].address("/ip4/45."));
    let circuit = format!("{address}/p2p-circuit/p2p/{}", b.peer_id());
    let _ = a.cli(&["connect", &circuit]).await;
    lab.world.always("they stay connected", A_WHILE, async || through().await.is_some()).await;
    let circuits = asked(&lab.liars[0], "circuit");
    assert!(circuits <= 12, "{circuits} times a circuit was asked for");
    for (node, before) in [&a, &b].into_iter().zip(before) {
        holds(node, before);
    }
    lab.world.finish().await;
}

#[tokio::test]
async fn a_relay_that_accepts_and_drops_each_circuit() {
    meet_in_spite_of("drops").await;
}

#[tokio::test]
async fn a_relay_that_forgets_the_place_it_gave() {
    meet_in_spite_of("forgets").await;
}

#[tokio::test]
async fn a_relay_that_gives_a_place_and_hangs_up() {
    let lab = Lab::new(&[json!({ "relay": "hangs up" })]).await;
    let node = lab.relayed("node", 30, 2).await;
    let before = node.memory_kb();
    lab.liars[0].event_within(SOON, "asked", |event| event["for"] == "place").await;
    lab.held(&node, lab.honest.peer_id()).await;
    let lost = async || {
        let lost = node.figures().await.get("kinfolk_reservations_total{result=\"connection_lost\"}");
        (lost >= 2).then_some(())
    };
    lab.world.eventually("it was lost twice", SOON, lost).await;
    let calm = async || node.status().await.relays.iter().any(|known| known.held_for_s.is_some());
    lab.world.always("the honest one is held", A_WHILE, calm).await;
    let times = reserved(&node, id(&lab.liars[0])).await;
    assert!(times <= 8, "asked for a place {times} times");
    holds(&node, before);
    lab.world.finish().await;
}

#[tokio::test]
async fn a_relay_that_answers_a_minute_late() {
    let lab = Lab::new(&[json!({ "relay": "forgets", "late": 65 })]).await;
    // It wants one relay, and asks for that of its settings first.
    let node = lab.relayed("node", 30, 1).await;
    let before = node.memory_kb();
    lab.liars[0].event_within(SOON, "asked", |event| event["for"] == "place").await;
    lab.held(&node, lab.honest.peer_id()).await;
    lab.liars[0].event_within(2 * SOON, "told_late", |_| true).await;
    let calm = async || node.status().await.relays.iter().any(|known| known.held_for_s.is_some());
    lab.world.always("it lives, and holds the honest one", Duration::from_secs(3), calm).await;
    let figures = node.figures().await;
    assert!(figures.get("kinfolk_reservations_total{result=\"timed_out\"}") >= 1);
    assert_eq!(figures.get("kinfolk_relays_held"), 1);
    holds(&node, before);
    lab.world.finish().await;
}
