//! Lines that fail, with and without the computer noticing.

use std::time::{Duration, Instant};

use kinfolk_core::Health;
use kinfolk_tests::{Node, Site, World};

struct Pair {
    world: World,
    near: Site,
    a: Node,
    b: Node,
}

impl Pair {
    /// `b` is pinned by `a`, so that `a` knows where to find it.
    async fn new() -> Self {
        let world = World::new().await;
        let near = world.public("near", 20).await;
        let far = world.public("far", 30).await;
        let b = world.node("b", &far.device("b").await).start().await;
        let a = world.node("a", &near.device("a").await).start().await;
        a.cli(&["pin", &b.address()]).await.unwrap();
        world.all_connected(&[&a, &b], Duration::from_secs(20)).await;
        Self { world, near, a, b }
    }

    async fn parted(&self, within: Duration) {
        let parted = async || {
            let parted = self.a.connected(&self.b).await.is_none() && self.b.connected(&self.a).await.is_none();
            parted.then_some(())
        };
        self.world.eventually("both notice that they are parted", within, parted).await;
    }
}

#[tokio::test]
async fn a_silent_cut_of_a_minute_is_noticed_and_healed_without_a_storm() {
    let pair = Pair::new().await;
    pair.near.cut();
    let cut = Instant::now();
    pair.parted(Duration::from_secs(90)).await;
    let isolated = async || (pair.a.status().await.health == Health::Isolated).then_some(());
    pair.world.eventually("a says that it is isolated", Duration::from_secs(20), isolated).await;
    let rest = Duration::from_secs(60).saturating_sub(cut.elapsed());
    let still = async || pair.a.connected(&pair.b).await.is_none();
    pair.world.always("nothing passes", rest, still).await;
    pair.near.heal();
    // The longest wait of an isolated node is 30 s.
    pair.world.all_connected(&[&pair.a, &pair.b], Duration::from_secs(60)).await;

    for node in [&pair.a, &pair.b] {
        let trace = node.trace().await;
        let most = trace.most_dials_within(Duration::from_secs(30));
        assert!(most <= 12, "{} dials in 30 s by {}\n{}", most, node.name(), pair.world.report().await);
    }
    let why = pair.a.why_text(&pair.b.peer_id()).await;
    assert!(why.contains("pinned"), "{why}");
    pair.world.finish_with_golden(&[(&pair.a, "line-cut-and-healed")]).await;
}

#[tokio::test]
async fn a_pulled_cable_means_offline_and_plugged_in_again_means_back_at_once() {
    let pair = Pair::new().await;
    pair.a.device().unplug();
    let offline = async || (pair.a.status().await.health == Health::Offline).then_some(());
    pair.world.eventually("a says that it is offline", Duration::from_secs(60), offline).await;
    let before = pair.a.trace().await.dials().len();
    pair.parted(Duration::from_secs(90)).await;
    let after = pair.a.trace().await.dials().len();
    assert!(after <= before + 2, "dialled {} times with no network", after - before);
    pair.a.device().plug();
    pair.world.all_connected(&[&pair.a, &pair.b], Duration::from_secs(20)).await;
    pair.world.finish_with_golden(&[(&pair.a, "cable-pulled")]).await;
}
