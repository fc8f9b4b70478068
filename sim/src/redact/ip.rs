//! Which bits of an IP address must stay, so that its scope does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use kinfolk_core::{Scope, network_of};

use super::bits::Fixed;

/// A block of addresses: its first bits, left-aligned in 128, and how many these are.
struct Block {
    bits: u128,
    len: usize,
}

const fn v4(a: u8, b: u8, c: u8, d: u8, len: usize) -> Block {
    Block { bits: (Ipv4Addr::new(a, b, c, d).to_bits() as u128) << 96, len }
}

const fn v6(a: u16, b: u16, c: u16, len: usize) -> Block {
    Block { bits: Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).to_bits(), len }
}

/// The blocks of IPv4 in which scopes change (`Scope::of`).
const V4: [Block; 15] = [
    v4(0, 0, 0, 0, 8),
    v4(10, 0, 0, 0, 8),
    v4(100, 64, 0, 0, 10),
    v4(127, 0, 0, 0, 8),
    v4(169, 254, 0, 0, 16),
    v4(172, 16, 0, 0, 12),
    v4(192, 0, 0, 0, 24),
    v4(192, 0, 2, 0, 24),
    v4(192, 168, 0, 0, 16),
    v4(198, 18, 0, 0, 15),
    v4(198, 51, 100, 0, 24),
    v4(203, 0, 113, 0, 24),
    v4(224, 0, 0, 0, 4),
    v4(240, 0, 0, 0, 4),
    v4(255, 255, 255, 255, 32),
];

/// The same for IPv6. Addresses that hold one of IPv4 are not looked up here.
const V6: [Block; 13] = [
    Block { bits: 0, len: 128 },
    Block { bits: 1, len: 128 },
    Block { bits: 0xffff << 32, len: 96 },
    v6(0x64, 0xff9b, 0, 96),
    v6(0x64, 0xff9b, 1, 48),
    v6(0x2000, 0, 0, 3),
    v6(0x2001, 2, 0, 48),
    v6(0x2001, 0xdb8, 0, 32),
    v6(0x3fff, 0, 0, 20),
    v6(0xfc00, 0, 0, 7),
    // Link-local networks are all the same one: only the last 64 bits tell anything.
    v6(0xfe80, 0, 0, 64),
    v6(0xfe80, 0, 0, 10),
    v6(0xff00, 0, 0, 8),
];

/// How many of an address's first bits stay: the smallest block around it in which all have its scope. All bits, where
/// the address says nothing about anybody: none, loopback, groups.
fn fixed_bits(ip: IpAddr) -> usize {
    let (bits, all, blocks) = match ip {
        IpAddr::V4(ip) => (u128::from(ip.to_bits()) << 96, 32, V4.as_slice()),
        IpAddr::V6(ip) => (ip.to_bits(), 128, V6.as_slice()),
    };
    match Scope::of(ip) {
        Scope::Unspecified | Scope::Loopback | Scope::Multicast => all,
        Scope::LinkLocal
        | Scope::Private
        | Scope::UniqueLocal
        | Scope::Shared
        | Scope::Nat64
        | Scope::Benchmarking
        | Scope::Documentation
        | Scope::Reserved
        | Scope::Global => (0..all).find(|len| !blocks.iter().any(|block| block.is_within(bits, *len))).unwrap_or(all),
    }
}

/// Which bits of an address stay: for the scope's sake, and behind the name of a network ([`network_of`]), so that it
/// is one again.
pub(super) fn fixed(ip: IpAddr) -> Fixed {
    let network = network_bytes(if ip.is_ipv4() { 4 } else { 16 });
    Fixed { head: fixed_bits(ip), tail: (network_of(ip) == ip).then_some(network * 8) }
}

/// How many bytes of an address of `len` bytes say in which network it is ([`network_of`]).
pub(super) fn network_bytes(len: usize) -> usize {
    if len == 4 { 3 } else { 6 }
}

/// The address of IPv4 that is written in one of IPv6: mapped ones, and what a NAT64 translates.
pub(super) fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let holds = matches!([a, b, c, d, e, f], [0, 0, 0, 0, 0, 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0]);
    holds.then(|| Ipv4Addr::from_bits(u32::from(g) << 16 | u32::from(h)))
}

/// `ip` with another address of IPv4 in it.
pub(super) fn embed_v4(ip: Ipv6Addr, v4: Ipv4Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(ip.to_bits() >> 32 << 32 | u128::from(v4.to_bits()))
}

impl Block {
    /// Whether this block is a part, and not the whole, of that of the first `len` of `bits`.
    fn is_within(&self, bits: u128, len: usize) -> bool {
        let outside = |bits: u128| bits.checked_shr(128 - len as u32).unwrap_or(0);
        self.len > len && outside(self.bits) == outside(bits)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bits(ip: &str) -> usize {
        fixed_bits(ip.parse().unwrap())
    }

    #[test]
    fn the_smallest_block_of_one_scope_is_kept() {
        for (ip, len) in [
            ("10.1.2.3", 8),
            ("192.168.1.1", 16),
            ("172.20.0.1", 12),
            ("100.100.1.1", 10),
            ("45.10.20.1", 3),
            ("8.8.8.8", 7),
            ("192.0.3.1", 24),
            ("169.254.3.4", 16),
            ("127.0.0.1", 32),
            ("0.0.0.0", 32),
            ("255.255.255.255", 32),
            ("224.0.0.251", 32),
            ("2a01:4f8::1", 5),
            ("2001:db8::1", 32),
            ("fe80::1", 64),
            ("fd00::1", 7),
            ("::1", 128),
            ("::", 128),
        ] {
            assert_eq!(bits(ip), len, "{ip}");
        }
    }

    /// Addresses near the borders of blocks, where a table is wrong if it is.
    fn near_borders() -> impl Strategy<Value = IpAddr> {
        let v4 = (0..V4.len(), any::<u32>(), 0_u32..=32, any::<bool>()).prop_map(|(block, noise, shift, below)| {
            let bits = (V4[block].bits >> 96) as u32 ^ noise.checked_shr(shift).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(bits.wrapping_sub(u32::from(below))))
        });
        let v6 = (0..V6.len(), any::<u128>(), 0_u32..=128, any::<bool>()).prop_map(|(block, noise, shift, below)| {
            let bits = V6[block].bits ^ noise.checked_shr(shift).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(bits.wrapping_sub(u128::from(below))))
        });
        prop_oneof![v4, v6]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]
        #[test]
        fn nothing_that_is_free_changes_the_scope(ip in near_borders(), noise in any::<u128>()) {
            let len = fixed_bits(ip) as u32;
            let changed = match ip {
                IpAddr::V4(ip) => {
                    IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() ^ (noise as u32).checked_shr(len).unwrap_or(0)))
                }
                IpAddr::V6(ip) if embedded_v4(ip).is_some() => return Ok(()),
                IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() ^ noise.checked_shr(len).unwrap_or(0))),
            };
            prop_assert_eq!(Scope::of(ip), Scope::of(changed), "{} and {} with {} bits", ip, changed, len);
        }
    }

    #[test]
    fn addresses_within_addresses_are_found() {
        let inner = |ip: &str| embedded_v4(ip.parse().unwrap()).map(|ip| ip.to_string());
        assert_eq!(inner("::ffff:192.168.1.1").as_deref(), Some("192.168.1.1"));
        assert_eq!(inner("64:ff9b::8.8.8.8").as_deref(), Some("8.8.8.8"));
        assert_eq!(inner("2a01::1"), None);
        let other = embed_v4("64:ff9b::8.8.8.8".parse().unwrap(), "1.2.3.4".parse().unwrap());
        assert_eq!(other, "64:ff9b::1.2.3.4".parse::<Ipv6Addr>().unwrap());
    }
}
