//! The situations of the whole-system tests with real NATs (`nats_allow_what_they_allow` there), simulated: the same
//! outcome in each of them, and within the time that the tests there allow.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::atomic::AtomicBool;

use kinfolk_sim::{
    run::{self, Report},
    scenario::parse,
};

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

/// What both lines carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Through {
    Both,
    OnlyTcp,
}

use Side::{DoubleNat, FullCone, PortRestricted, Public, Symmetric, UdpBlocked};
use Through::{Both, OnlyTcp};

const DIRECT: bool = true;
const RELAYED: bool = false;
const ALL: [Side; 6] = [Public, FullCone, PortRestricted, Symmetric, DoubleNat, UdpBlocked];

/// The tables of the tests with real NATs, cell by cell: each kind with those from its own on.
const fn table(through: Through) -> [(Side, &'static [bool]); 6] {
    match through {
        Both => [
            (Public, &[DIRECT, DIRECT, DIRECT, DIRECT, DIRECT, DIRECT]),
            (FullCone, &[DIRECT, DIRECT, DIRECT, DIRECT, DIRECT]),
            (PortRestricted, &[DIRECT, RELAYED, DIRECT, DIRECT]),
            (Symmetric, &[RELAYED, RELAYED, RELAYED]),
            (DoubleNat, &[DIRECT, DIRECT]),
            (UdpBlocked, &[DIRECT]),
        ],
        OnlyTcp => [
            (Public, &[DIRECT, DIRECT, DIRECT, DIRECT, DIRECT]),
            (FullCone, &[DIRECT, DIRECT, RELAYED, DIRECT]),
            (PortRestricted, &[DIRECT, RELAYED, DIRECT]),
            (Symmetric, &[RELAYED, RELAYED]),
            (DoubleNat, &[DIRECT]),
            (UdpBlocked, &[]),
        ],
    }
}

/// The real nodes must be direct within this, in milliseconds, or the tests there fail; the simulated ones, too.
const WITHIN: u64 = 60_000;
const SEEDS: u64 = 10;
/// The links of the tests with real NATs: one machine.
const LAB: &str = "[[region]]\nname = \"lab\"\nwithin = \"0.0001\"\n[[isp]]\nname = \"plain\"\naccess = \"0.0002\"\n";
const LAB_SIX: &str =
    "[[region]]\nname = \"lab\"\nwithin = \"0.0001\"\n[[isp]]\nname = \"six\"\naccess = \"0.0002\"\nipv6 = true\n";

/// The links of the benchmark with real NATs: 25 ms each way on each node's line, and none on the relay's.
const LAB_OF_THE_BENCHMARK: &str =
    "[[region]]\nname = \"lab\"\nwithin = \"0.0001\"\n[[isp]]\nname = \"plain\"\naccess = \"0.025\"\n";

/// From the relayed connection to the direct one, in milliseconds, as measured there (the README's table through NATs):
/// between the medians of five runs of each.
const MEASURED: [(Side, Side, u64); 3] =
    [(PortRestricted, PortRestricted, 214), (PortRestricted, DoubleNat, 212), (PortRestricted, FullCone, 212)];
/// How far off the simulated ones may be, in hundredths.
const BAND: std::ops::RangeInclusive<u64> = 70..=130;

fn side(name: &str, side: Side, through: Through) -> String {
    let blocks = match through {
        Both => "",
        OnlyTcp => "blocks = \"udp\"\n",
    };
    let common = format!("family = \"pair\"\nbootstrap = [\"server\"]\nrelays = [\"server\"]\n{blocks}");
    let home =
        |isp: &str, nat: &str| format!("[[home]]\nname = \"{name}\"\nisp = \"{isp}\"\nnat = \"{nat}\"\n{common}");
    match side {
        Public => format!("[[server]]\nname = \"{name}\"\nrole = \"family\"\nipv6 = false\n{common}"),
        // By TCP, Linux makes none.
        FullCone if through == OnlyTcp => home("plain", "full-cone-udp"),
        FullCone => home("plain", "full-cone"),
        PortRestricted => home("plain", "port-restricted"),
        Symmetric => home("plain", "symmetric"),
        // Each behind a provider's NAT of its own.
        DoubleNat => format!(
            "[[isp]]\nname = \"of-{name}\"\naccess = \"0.0002\"\nnat = \"port-restricted\"\n{}",
            home(&format!("of-{name}"), "port-restricted")
        ),
        UdpBlocked => home("plain", "udp-blocked"),
    }
}

fn scenario(through: Through, one: Side, other: Side) -> String {
    pair(LAB, &format!("{}{}", side("one", one, through), side("other", other, through)))
}

fn pair(lab: &str, sides: &str) -> String {
    format!("name = \"pair\"\nduration = \"3m\"\nstart-within = \"0.1\"\n{lab}[[server]]\nname = \"server\"\n{sides}")
}

/// Homes whose IPv6 firewalls are open or not, and whose NATs for IPv4 allow nothing.
fn by_ipv6(open: [bool; 2]) -> String {
    let home = |(name, open): (&str, bool)| {
        format!(
            "[[home]]\nname = \"{name}\"\nisp = \"six\"\nnat = \"symmetric\"\nopen-ipv6 = {open}\nfamily = \"pair\"\n\
             bootstrap = [\"server\"]\nrelays = [\"server\"]\n"
        )
    };
    let homes: String = ["one", "other"].into_iter().zip(open).map(home).collect();
    pair(LAB_SIX, &homes)
}

fn runs(text: &str) -> Vec<Report> {
    let scenario = parse("pair.toml", text).unwrap();
    (0..SEEDS).map(|seed| run::run(&scenario, seed, &NEVER)).collect()
}

/// What is wrong with a situation, over all seeds.
fn look(text: &str, direct: bool) -> Vec<String> {
    let mut wrong = vec![];
    for report in runs(text) {
        let pairs = &report.pairs;
        let (met, was_direct) = (pairs.met == 1, pairs.were_direct == 1);
        let in_time = pairs.directs.iter().chain(&pairs.firsts).all(|time| *time <= WITHIN);
        if !report.is_good() || !met || was_direct != direct || (pairs.may_be_direct == 1) != direct || !in_time {
            wrong.push(format!("seed {}: {pairs:?} {:?}", report.seed, report.findings));
        }
    }
    wrong
}

/// All cells of a table.
fn every_kind_with_every_other(through: Through) {
    let mut all_wrong = vec![];
    let mut situations = 0;
    for (row, (one, cells)) in table(through).iter().enumerate() {
        for (other, direct) in ALL[row..].iter().zip(*cells) {
            situations += 1;
            let wrong = look(&scenario(through, *one, *other), *direct);
            if let Some(first) = wrong.first() {
                all_wrong.push(format!("{one:?} and {other:?}, direct: {direct}: {} of {SEEDS}: {first}", wrong.len()));
            }
        }
    }
    assert_eq!(situations, if through == Both { 21 } else { 15 });
    assert!(all_wrong.is_empty(), "{}", all_wrong.join("\n"));
}

#[test]
fn every_kind_with_every_other_comes_to_the_same() {
    every_kind_with_every_other(Both);
}

#[test]
fn by_tcp_alone() {
    every_kind_with_every_other(OnlyTcp);
}

#[test]
fn a_punch_takes_as_long_as_with_real_nats() {
    for (one, other, measured) in MEASURED {
        let sides = format!("{}{}", side("one", one, Both), side("other", other, Both)).replace("0.0002", "0.025");
        let reports = runs(&pair(LAB_OF_THE_BENCHMARK, &sides));
        let took = |report: &Report| Some(report.pairs.directs.first()? - report.pairs.firsts.first()?);
        let mut times: Vec<u64> = reports.iter().map(|report| took(report).unwrap()).collect();
        times.sort_unstable();
        let median = times[times.len() / 2];
        assert!(BAND.contains(&(100 * median / measured)), "{one:?} and {other:?}: {times:?} ms, measured {measured}");
    }
}

/// As there: a firewall without NAT lets in whoever was sent to, so all pairs can.
#[test]
fn by_ipv6_firewalls_on_no_side_one_and_both() {
    for open in [[true, true], [true, false], [false, false]] {
        let wrong = look(&by_ipv6(open), true);
        assert!(wrong.is_empty(), "{open:?}: {}", wrong.join("\n"));
    }
}
