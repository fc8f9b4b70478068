//! The situations of the whole-system tests with real NATs (`nats_allow_what_they_allow` there), simulated: the same
//! outcome in each of them, and within the time that the tests there allow.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::sync::atomic::AtomicBool;

#[allow(unreachable_pub, dead_code, reason = "a module of the whole-system tests")]
#[path = "../../tests/src/allowed.rs"]
mod allowed;

use allowed::{
    Side::{self, DoubleNat, FullCone, PortRestricted, Public, Symmetric, UdpBlocked},
    Through::{self, Both, OnlyQuic, OnlyTcp},
    situations,
};
use kinfolk_sim::{
    run::{self, Report},
    scenario::parse,
};

static NEVER: AtomicBool = AtomicBool::new(false);

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
        OnlyQuic => "blocks = \"tcp\"\n",
        OnlyTcp => "blocks = \"udp\"\n",
    };
    let common = format!("family = \"pair\"\nbootstrap = [\"server\"]\nrelays = [\"server\"]\n{blocks}");
    let home =
        |isp: &str, nat: &str| format!("[[home]]\nname = \"{name}\"\nisp = \"{isp}\"\nnat = \"{nat}\"\n{common}");
    match side {
        Public => format!("[[server]]\nname = \"{name}\"\nrole = \"family\"\nipv6 = false\n{common}"),
        // By TCP, Linux makes none.
        FullCone => home("plain", "full-cone-udp"),
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
    for (one, other, direct) in situations(through) {
        let wrong = look(&scenario(through, one, other), direct);
        if let Some(first) = wrong.first() {
            all_wrong.push(format!("{one} and {other}, direct: {direct}: {} of {SEEDS}: {first}", wrong.len()));
        }
    }
    assert!(all_wrong.is_empty(), "{}", all_wrong.join("\n"));
}

#[test]
fn every_kind_with_every_other_comes_to_the_same() {
    every_kind_with_every_other(Both);
}

#[test]
fn by_quic_alone() {
    every_kind_with_every_other(OnlyQuic);
}

#[test]
fn by_tcp_alone() {
    every_kind_with_every_other(OnlyTcp);
}

/// Of all holes in all situations, as many in 1 000 must be made by the first try.
const AT_FIRST: u64 = 970;

/// All situations, 20 seeds of each, with lines of this length and in this weather: what they can have, they have in time,
/// and nearly all holes are made by the first try.
fn holes_are_made_by_the_first_try(access: &str, weather: &str) {
    let (mut holes, mut at_first, mut late) = (0, 0, vec![]);
    for through in Through::ALL {
        for (one, other, direct) in situations(through) {
            let text = scenario(through, one, other).replace("0.0002", access) + weather;
            let scenario = parse("pair.toml", &text).unwrap();
            for seed in 0..20 {
                let report = run::run(&scenario, seed, &NEVER);
                assert!(report.is_good(), "{one} and {other} {through}, seed {seed}: {:?}", report.findings);
                holes += report.counts.holes;
                at_first += report.counts.holes_at_first;
                let times = if direct { &report.pairs.directs } else { &report.pairs.firsts };
                if times.first().is_none_or(|time| *time > WITHIN) {
                    late.push(format!("{one} and {other} {through}, seed {seed}: {:?}", report.pairs));
                }
            }
        }
    }
    println!("{at_first} of {holes} by the first try, {} late", late.len());
    assert!(late.is_empty(), "{}", late.join("\n"));
    assert!(holes > 500 && 1_000 * at_first >= AT_FIRST * holes, "{at_first} of {holes}");
}

#[test]
fn holes_are_made_by_the_first_try_in_the_lab() {
    holes_are_made_by_the_first_try("0.0002", "");
}

#[test]
fn holes_are_made_by_the_first_try_in_bad_weather() {
    holes_are_made_by_the_first_try("0.025", "[weather]\nloss = 10000\njitter = \"5ms\"\nwake-slack = \"20ms\"\n");
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
