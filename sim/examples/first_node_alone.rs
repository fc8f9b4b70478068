//! Records `tests/traces/first-node-alone.jsonl`: the first node of a network, at home, for ten minutes.
//!
//! ```text
//! cargo run -p kinfolk-sim --example first_node_alone -- tests/traces/first-node-alone.jsonl
//! ```
//!
//! Needed only when the run itself should be another one; a change of what the core commands is blessed.

use std::{error::Error, path::PathBuf};

use kinfolk_core::{
    Action, Address, Command, Config, Event, Interfaces, ListenerId, PeerId, Prefix, Started, Time,
    trace::SegmentReason,
};
use kinfolk_sim::record::Recording;

const UNIX_TIME: u64 = 1_790_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    let file: PathBuf = std::env::args_os().nth(1).ok_or("name the file to write")?.into();
    let started = Started {
        config: Config::family_node().validate().map_err(|errors| errors[0].to_string())?,
        local: PeerId::from_bytes(&[&[0x00, 0x24, 0x08, 0x01, 0x12, 0x20][..], &[7; 32][..]].concat())
            .map_err(|error| error.to_string())?,
        seed: 1,
        unix_time: UNIX_TIME,
        interfaces: Interfaces {
            addresses: vec![prefix("127.0.0.1", 8)?, prefix("192.168.1.7", 24)?, prefix("fd00:1::7", 64)?],
            default_v4: true,
            default_v6: false,
        },
    };
    let (mut node, commands) = Recording::start(started);
    for (listener, command) in (1..).zip(&commands) {
        for event in listening(ListenerId(listener), command) {
            node.tell(Time::from_nanos(2_000_000), event)?;
        }
    }
    node.tell(Time::from_nanos(3_000_000), Event::StoreLoaded { peers: vec![], nat: None, last: true })?;
    node.tell(Time::from_nanos(5_000_000), Event::WallClock { unix_time: UNIX_TIME, synced: true })?;
    node.rest_until(Time::from_secs(300))?;
    node.segment(SegmentReason::Rotation, 0);
    node.tell(Time::from_secs(600), Event::WallClock { unix_time: UNIX_TIME + 600, synced: true })?;
    node.save(&file)?;
    Ok(())
}

/// What a shell says when it listens where it was told: an event for each own address of the family.
fn listening(listener: ListenerId, command: &Command) -> Vec<Event> {
    let Action::Listen { address } = &command.action else { return vec![] };
    let (Some(host), Some(port), Some(transport)) = (address.host_ip(), address.port(), address.transport()) else {
        return vec![];
    };
    let own = ["127.0.0.1", "192.168.1.7", "::1", "fd00:1::7"].iter().filter_map(|ip| ip.parse().ok());
    own.filter(|ip: &std::net::IpAddr| ip.is_ipv4() == host.is_ipv4())
        .map(|ip| Event::Listening { listener, command: command.id, address: Address::ip(ip, port, transport) })
        .collect()
}

fn prefix(ip: &str, len: u8) -> Result<Prefix, std::net::AddrParseError> {
    Ok(Prefix { ip: ip.parse()?, len })
}
