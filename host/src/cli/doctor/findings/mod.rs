//! From what was seen to what it means. Pure functions.

mod here;
mod internet;
mod nat;

use super::{
    facts::Facts,
    report::{Finding, Verdict},
};

/// All findings, from this machine outwards.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut all = vec![here::node(facts), here::network(facts), here::clock(facts), here::mdns(facts)];
    all.extend(internet::servers(facts));
    all.extend(internet::signal(facts));
    all.extend([internet::ipv4(facts), internet::ipv6(facts), internet::tcp(facts), internet::udp(facts)]);
    all.extend(nat::mappings(facts));
    all.extend([nat::filtering(facts), nat::kind(facts), nat::port_mapping(facts), nat::reachable(facts)]);
    all.extend(nat::relays(facts));
    all.extend(nat::firewall(facts));
    all
}
