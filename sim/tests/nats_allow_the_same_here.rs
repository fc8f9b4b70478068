//! The situations of the whole-system tests with real NATs (`nats_allow_what_they_allow` there), simulated: the same
//! outcome in each of them, and in a time that real nodes take, too.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::atomic::AtomicBool;

use kinfolk_sim::{run, scenario::parse};

static NEVER: AtomicBool = AtomicBool::new(false);

/// What stands before a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Public,
    FullCone,
    PortRestricted,
    Symmetric,
    DoubleNat,
    UdpBlocked,
}

use Side::{DoubleNat, FullCone, PortRestricted, Public, Symmetric, UdpBlocked};

const DIRECT: bool = true;
const RELAYED: bool = false;

/// The table of the tests with real NATs, cell by cell: each kind with those from its own on.
const TABLE: [(Side, &[bool]); 6] = [
    (Public, &[DIRECT, DIRECT, DIRECT, DIRECT, DIRECT, DIRECT]),
    (FullCone, &[DIRECT, DIRECT, DIRECT, DIRECT, DIRECT]),
    (PortRestricted, &[DIRECT, RELAYED, DIRECT, DIRECT]),
    (Symmetric, &[RELAYED, RELAYED, RELAYED]),
    (DoubleNat, &[DIRECT, DIRECT]),
    (UdpBlocked, &[DIRECT]),
];
const ALL: [Side; 6] = [Public, FullCone, PortRestricted, Symmetric, DoubleNat, UdpBlocked];

/// The real nodes must be direct within this, in milliseconds, or the tests there fail; the simulated ones, too.
const WITHIN: u64 = 60_000;
/// Nobody is faster than mDNS, a look-up or a server's word allows: two round trips of the link that the tests have.
const NOT_BEFORE: u64 = 20;
const SEEDS: u64 = 10;

fn side(name: &str, side: Side) -> String {
    let common = "family = \"pair\"\nbootstrap = [\"server\"]\nrelays = [\"server\"]\n";
    let home =
        |isp: &str, nat: &str| format!("[[home]]\nname = \"{name}\"\nisp = \"{isp}\"\nnat = \"{nat}\"\n{common}");
    match side {
        Public => format!("[[server]]\nname = \"{name}\"\nrole = \"family\"\nipv6 = false\n{common}"),
        FullCone => home("plain", "full-cone"),
        PortRestricted => home("plain", "port-restricted"),
        Symmetric => home("plain", "symmetric"),
        // Each behind a provider's NAT of its own.
        DoubleNat => format!(
            "[[isp]]\nname = \"of-{name}\"\nnat = \"port-restricted\"\n{}",
            home(&format!("of-{name}"), "port-restricted")
        ),
        UdpBlocked => home("plain", "udp-blocked"),
    }
}

fn scenario(one: Side, other: Side) -> String {
    format!(
        "name = \"pair\"\nduration = \"3m\"\n[[isp]]\nname = \"plain\"\n[[server]]\nname = \"server\"\nipv6 = false\n{}{}",
        side("one", one),
        side("other", other)
    )
}

/// What is wrong with a situation, over all seeds; and how often it was as it should be.
fn look(text: &str, direct: bool) -> (u64, Vec<String>) {
    let scenario = parse("pair.toml", text).unwrap();
    let (mut well, mut wrong) = (0, vec![]);
    for seed in 0..SEEDS {
        let report = run::run(&scenario, seed, &NEVER);
        let pairs = &report.pairs;
        let (met, was_direct) = (pairs.met == 1, pairs.were_direct == 1);
        let in_time = pairs.directs.iter().chain(&pairs.firsts).all(|time| (NOT_BEFORE..=WITHIN).contains(time));
        if !report.is_good() || !met || was_direct != direct || (pairs.may_be_direct == 1) != direct || !in_time {
            wrong.push(format!("seed {seed}: {pairs:?} {:?}", report.findings));
        } else {
            well += 1;
        }
    }
    (well, wrong)
}

#[test]
fn every_kind_with_every_other_comes_to_the_same() {
    let mut all_wrong = vec![];
    let mut situations = 0;
    for (row, (one, cells)) in TABLE.iter().enumerate() {
        for (other, direct) in ALL[row..].iter().zip(*cells) {
            situations += 1;
            let (_, wrong) = look(&scenario(*one, *other), *direct);
            if !wrong.is_empty() {
                all_wrong.push(format!(
                    "{one:?} and {other:?}, direct: {direct}: {} of {SEEDS}: {}",
                    wrong.len(),
                    wrong[0]
                ));
            }
        }
    }
    assert_eq!(situations, 21);
    assert!(all_wrong.is_empty(), "{}", all_wrong.join("\n"));
}

/// As there: a firewall without NAT lets in whoever was sent to, so all pairs can.
#[test]
fn by_ipv6_firewalls_on_no_side_one_and_both() {
    for open in [[true, true], [true, false], [false, false]] {
        let homes: String = ["one", "other"]
            .iter()
            .zip(open)
            .map(|(name, open)| {
                format!(
                    "[[home]]\nname = \"{name}\"\nisp = \"six\"\nnat = \"symmetric\"\nopen-ipv6 = {open}\nfamily = \"pair\"\n\
                     bootstrap = [\"server\"]\nrelays = [\"server\"]\n"
                )
            })
            .collect();
        let text = format!(
            "name = \"pair\"\nduration = \"3m\"\n[[isp]]\nname = \"six\"\nipv6 = true\n[[server]]\nname = \"server\"\n{homes}"
        );
        let (well, wrong) = look(&text, true);
        assert_eq!(well, SEEDS, "{open:?}: {}", wrong.join("\n"));
    }
}
