//! Who is called what in the redacted trace.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use kinfolk_core::{Address, PeerId, network_of};

use super::{
    bits::{Coins, Fixed, rename},
    ip::{embed_v4, embedded_v4, fixed, network_bytes},
    text::{Found, rewrite},
};

/// How often other names are tried until no network keeps its own, and those addresses that are compared as text keep
/// their order. With many of them that is hopeless, and rarely matters: the replay tells.
const TRIES: u32 = 32;

/// Nothing of it changes.
const WHOLE: Fixed = Fixed { head: usize::MAX, tail: None };

/// Everything in a trace that names somebody.
#[derive(Debug, Default)]
pub(super) struct Seen {
    peers: BTreeSet<PeerId>,
    ips: BTreeSet<IpAddr>,
    names: BTreeSet<String>,
    /// Addresses that the core does not take apart.
    texts: BTreeSet<String>,
}

/// Their new names.
#[derive(Debug, Default)]
pub(super) struct Names {
    peers: BTreeMap<PeerId, PeerId>,
    v4: BTreeMap<Ipv4Addr, Ipv4Addr>,
    v6: BTreeMap<Ipv6Addr, Ipv6Addr>,
    names: BTreeMap<String, String>,
    /// By lower case, for sentences, and only what can't be anything else there.
    words: BTreeMap<String, String>,
}

impl Seen {
    /// Notes all that is found in a text.
    pub(super) fn note(&mut self, text: &str) {
        rewrite(text, |found| {
            match found {
                Found::Peer(peer) => drop(self.peers.insert(peer)),
                Found::Ip(ip) => drop(self.ips.insert(ip)),
                Found::Name(name) => {
                    if !self.names.contains(name) {
                        self.names.insert(name.to_string());
                    }
                }
                Found::Word(_) => {}
            }
            None
        });
        if text.starts_with('/') && matches!(text.parse(), Ok(Address::Other(_))) {
            self.texts.insert(text.to_string());
        }
    }

    /// How many peers, addresses and names there are.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        (self.peers.len(), self.ips.len(), self.names.len())
    }

    /// New names for all; if possible such that those addresses that are compared as text keep their order too.
    pub(super) fn rename(&self, coins: &mut Coins) -> Names {
        let mut names = self.try_rename(coins);
        for _ in 0..TRIES {
            if self.texts_keep_order(&names) {
                break;
            }
            names = self.try_rename(coins);
        }
        names
    }

    fn try_rename(&self, coins: &mut Coins) -> Names {
        let ids: Vec<Vec<u8>> = self.peers.iter().map(|peer| peer.as_bytes().to_vec()).collect();
        // What kind of key it is stays, so that the new one looks like an id too.
        let header = |id: &[u8]| Fixed { head: if id.first() == Some(&0) { 48 } else { 16 }, tail: None };
        let new = rename(&ids, header, coins).into_iter().map(|id| PeerId::from_bytes(&id));
        let peers = self.peers.iter().copied().zip(new).filter_map(|(old, new)| Some((old, new.ok()?))).collect();

        let (mut old_v4, mut old_v6) = (BTreeSet::new(), BTreeSet::new());
        // The core may count by networks, and name them.
        for ip in self.ips.iter().flat_map(|ip| [*ip, network_of(*ip)]) {
            match ip {
                IpAddr::V4(ip) => drop(old_v4.insert(ip)),
                IpAddr::V6(ip) => match embedded_v4(ip) {
                    Some(ip) => drop(old_v4.insert(ip)),
                    None => drop(old_v6.insert(ip)),
                },
            }
        }
        let keys: Vec<Vec<u8>> = old_v4.iter().map(|ip| ip.octets().to_vec()).collect();
        let of = |ip: &[u8]| <[u8; 4]>::try_from(ip).map_or(WHOLE, |ip| fixed(IpAddr::from(ip)));
        let new = rename_networks(&keys, of, coins).into_iter().map(<[u8; 4]>::try_from);
        let v4 = old_v4.into_iter().zip(new).filter_map(|(old, new)| Some((old, new.ok()?.into()))).collect();

        let keys: Vec<Vec<u8>> = old_v6.iter().map(|ip| ip.octets().to_vec()).collect();
        let of = |ip: &[u8]| <[u8; 16]>::try_from(ip).map_or(WHOLE, |ip| fixed(IpAddr::from(ip)));
        let new = rename_networks(&keys, of, coins).into_iter().map(<[u8; 16]>::try_from);
        let v6 = old_v6.into_iter().zip(new).filter_map(|(old, new)| Some((old, new.ok()?.into()))).collect();

        let width = self.names.len().to_string().len();
        let name = |(at, name): (usize, &String)| {
            let end = if name.to_ascii_lowercase().ends_with(".local") { "local" } else { "example" };
            (name.clone(), format!("n{at:0width$}.redacted.{end}"))
        };
        let names: BTreeMap<String, String> = self.names.iter().enumerate().map(name).collect();
        let words = names.iter().map(|(old, new)| (old.to_ascii_lowercase(), new.clone())).collect();
        Names { peers, v4, v6, names, words }
    }

    fn texts_keep_order(&self, names: &Names) -> bool {
        let mut before = None;
        self.texts.iter().all(|text| {
            let now = names.rewrite(text);
            let after = before < now;
            before = now;
            after
        })
    }
}

/// New names for IP addresses, such that each network has another one if that can be: with few free bits the coins may
/// well give it its own, and who finds it in the redacted trace has reason to distrust the rest.
fn rename_networks(keys: &[Vec<u8>], fixed: impl Fn(&[u8]) -> Fixed, coins: &mut Coins) -> Vec<Vec<u8>> {
    let kept = |(old, new): (&Vec<u8>, &Vec<u8>)| {
        let (Fixed { head, tail }, network) = (fixed(old), network_bytes(old.len()));
        let part = if head < network * 8 || tail.is_some() { network } else { old.len() };
        head < part * 8 && old[..part] == new[..part]
    };
    let mut new = rename(keys, &fixed, coins);
    for _ in 0..TRIES {
        if !keys.iter().zip(&new).any(kept) {
            break;
        }
        new = rename(keys, &fixed, coins);
    }
    new
}

impl Names {
    /// A text with everybody called by the new name. `None`: somebody in it was never seen before.
    pub(super) fn rewrite(&self, text: &str) -> Option<String> {
        let mut all_known = true;
        let new = rewrite(text, |found| {
            let new = match found {
                Found::Peer(peer) => self.peers.get(&peer).map(PeerId::to_string),
                Found::Ip(ip) => self.ip(ip).map(|ip| ip.to_string()),
                Found::Name(name) => self.names.get(name).cloned(),
                Found::Word(word) => return self.words.get(&word.to_ascii_lowercase()).cloned(),
            };
            all_known &= new.is_some();
            new
        });
        all_known.then_some(new)
    }

    /// The same, but for one address.
    #[cfg(test)]
    pub(super) fn with_v4(mut self, old: Ipv4Addr, new: Ipv4Addr) -> Self {
        self.v4.insert(old, new);
        self
    }

    fn ip(&self, ip: IpAddr) -> Option<IpAddr> {
        match ip {
            IpAddr::V4(ip) => self.v4.get(&ip).copied().map(IpAddr::V4),
            IpAddr::V6(ip) => match embedded_v4(ip) {
                Some(v4) => self.v4.get(&v4).map(|v4| IpAddr::V6(embed_v4(ip, *v4))),
                None => self.v6.get(&ip).copied().map(IpAddr::V6),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_network_keeps_its_name() {
        // Seven of the third number's bits are free, and none of those of fe80::.
        let ips = ["192.168.0.9", "192.168.1.7", "10.11.12.13", "2a01:4f8:12:34::7", "fe80::6", "fe80::7"];
        let seen = Seen { ips: ips.map(|ip| ip.parse().unwrap()).into(), ..Seen::default() };
        for _ in 0..1_000 {
            let names = seen.rename(&mut Coins::new());
            assert!(names.v4.iter().all(|(old, new)| old.octets()[..3] != new.octets()[..3]), "{:?}", names.v4);
            assert!(
                names.v6.iter().all(|(old, new)| old.octets()[..6] != new.octets()[..6] || old.segments()[0] == 0xfe80)
            );
            assert!(names.v6.iter().all(|(old, new)| old != new || old.octets()[8..] == [0; 8]), "{:?}", names.v6);
        }
    }
}
