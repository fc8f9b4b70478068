//! A network of a hundred who don't know each other: once they have gathered, look-ups are rare, and few connections are
//! made only to be trimmed.
#![allow(clippy::unwrap_used, reason = "a test")]

use kinfolk_sim::{
    engine::SECOND,
    scenario::{Plan, parse},
};

const CROWD: &str = r#"
name = "crowd"
duration = "20m"
start-within = "1m"

[[isp]]
name = "cable"
ipv6 = true

[[isp]]
name = "plain"

[[server]]
name = "server"
count = 4
bootstrap = ["server"]

[[home]]
name = "cabled"
count = 28
nodes = 2
isp = "cable"
nat = { port-restricted = 6, full-cone = 3, symmetric = 1 }
bootstrap = ["server"]

[[home]]
name = "plainly"
count = 20
nodes = 2
isp = "plain"
nat = { port-restricted = 6, full-cone = 3, symmetric = 1 }
bootstrap = ["server"]
"#;

#[test]
fn a_crowd_comes_to_rest() {
    let scenario = parse("crowd.toml", CROWD).unwrap();
    let mut plan = Plan::new(&scenario, 1);
    plan.run_until(600 * SECOND);
    let before = plan.world.counts().clone();
    plan.run_until(1_200 * SECOND);
    let after = plan.world.counts();
    assert_eq!(plan.world.findings(), []);
    let node_minutes = scenario.nodes() as f64 * 10.0;
    let each = |count: u64, before: u64| (count - before) as f64 / node_minutes;
    let queries = each(after.queries, before.queries);
    let connections = each(after.dials_won, before.dials_won);
    assert!(queries < 1.2, "{queries:.2} look-ups for each node and minute");
    assert!(connections < 10.0, "{connections:.2} connections for each node and minute");
}
