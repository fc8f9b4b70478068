use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How far an IP address reaches, by the IANA special-purpose registries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Scope {
    /// No address at all: `0.0.0.0/8`, `::`.
    Unspecified,
    /// This machine: `127.0.0.0/8`, `::1`.
    Loopback,
    /// This link: `169.254.0.0/16`, `fe80::/10`.
    LinkLocal,
    /// A home or company network (RFC 1918).
    Private,
    /// The same for IPv6: `fc00::/7` (RFC 4193).
    UniqueLocal,
    /// Between a provider and its customers, carrier-grade NAT: `100.64.0.0/10` (RFC 6598).
    Shared,
    /// An IPv4 address behind a NAT64: `64:ff9b::/96`, `64:ff9b:1::/48`.
    Nat64,
    /// Test networks: `198.18.0.0/15`, `2001:2::/48`.
    Benchmarking,
    /// Examples in documents: `192.0.2.0/24`, `2001:db8::/32` and the like.
    Documentation,
    /// Groups and broadcast.
    Multicast,
    /// Reserved for a future that may not come: `240.0.0.0/4` and the like.
    Reserved,
    /// The internet.
    Global,
}

impl Scope {
    /// The scope of an address. An IPv4 address mapped into IPv6 has the scope of the IPv4 address.
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::of_v4(ip),
            IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or_else(|| Self::of_v6(ip), Self::of_v4),
        }
    }

    /// Whether the address means the same everywhere on the internet.
    pub const fn is_global(self) -> bool {
        matches!(self, Self::Global)
    }

    /// Whether the address never leaves this machine.
    pub const fn is_loopback(self) -> bool {
        matches!(self, Self::Loopback)
    }

    /// Whether anything can be dialled there at all.
    pub const fn is_dialable(self) -> bool {
        !matches!(self, Self::Unspecified | Self::Multicast | Self::Reserved)
    }

    fn of_v4(ip: Ipv4Addr) -> Self {
        match ip.octets() {
            [0, ..] => Self::Unspecified,
            [127, ..] => Self::Loopback,
            [169, 254, ..] => Self::LinkLocal,
            [10, ..] | [192, 168, ..] => Self::Private,
            [172, b, ..] if b & 0xf0 == 16 => Self::Private,
            [100, b, ..] if b & 0xc0 == 64 => Self::Shared,
            [198, 18 | 19, ..] => Self::Benchmarking,
            [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Self::Documentation,
            [192, 0, 0, _] => Self::Reserved,
            [a, ..] if a & 0xf0 == 224 => Self::Multicast,
            [255, 255, 255, 255] => Self::Multicast,
            [a, ..] if a >= 240 => Self::Reserved,
            _ => Self::Global,
        }
    }

    fn of_v6(ip: Ipv6Addr) -> Self {
        match ip.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0] => Self::Unspecified,
            [0, 0, 0, 0, 0, 0, 0, 1] => Self::Loopback,
            [a, ..] if a & 0xffc0 == 0xfe80 => Self::LinkLocal,
            [a, ..] if a & 0xfe00 == 0xfc00 => Self::UniqueLocal,
            [a, ..] if a & 0xff00 == 0xff00 => Self::Multicast,
            [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] => Self::Nat64,
            [0x2001, 2, 0, ..] => Self::Benchmarking,
            [0x2001, 0xdb8, ..] => Self::Documentation,
            [0x3fff, b, ..] if b < 0x1000 => Self::Documentation,
            [a, ..] if a & 0xe000 == 0x2000 => Self::Global,
            _ => Self::Reserved,
        }
    }
}

/// The network that an address is counted under when limits are per network: its /24 or, for IPv6, its /48.
pub fn network_of(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            IpAddr::V4(Ipv4Addr::new(a, b, c, 0))
        }
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => network_of(IpAddr::V4(ip)),
            None => {
                let [a, b, c, ..] = ip.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_special_range_has_its_scope() {
        let table = [
            ("0.0.0.0", Scope::Unspecified),
            ("0.1.2.3", Scope::Unspecified),
            ("::", Scope::Unspecified),
            ("127.0.0.1", Scope::Loopback),
            ("127.255.0.1", Scope::Loopback),
            ("::1", Scope::Loopback),
            ("169.254.1.1", Scope::LinkLocal),
            ("fe80::1", Scope::LinkLocal),
            ("febf::1", Scope::LinkLocal),
            ("10.0.0.1", Scope::Private),
            ("172.16.0.1", Scope::Private),
            ("172.31.255.1", Scope::Private),
            ("172.32.0.1", Scope::Global),
            ("192.168.1.1", Scope::Private),
            ("fd00::1", Scope::UniqueLocal),
            ("fc00::1", Scope::UniqueLocal),
            ("100.64.0.1", Scope::Shared),
            ("100.127.255.1", Scope::Shared),
            ("100.128.0.1", Scope::Global),
            ("64:ff9b::1.2.3.4", Scope::Nat64),
            ("64:ff9b:1::1", Scope::Nat64),
            ("198.18.0.1", Scope::Benchmarking),
            ("198.19.255.1", Scope::Benchmarking),
            ("198.20.0.1", Scope::Global),
            ("2001:2::1", Scope::Benchmarking),
            ("192.0.2.1", Scope::Documentation),
            ("198.51.100.7", Scope::Documentation),
            ("203.0.113.9", Scope::Documentation),
            ("2001:db8::1", Scope::Documentation),
            ("3fff::1", Scope::Documentation),
            ("3fff:1000::1", Scope::Global),
            ("224.0.0.251", Scope::Multicast),
            ("239.1.1.1", Scope::Multicast),
            ("255.255.255.255", Scope::Multicast),
            ("ff02::fb", Scope::Multicast),
            ("240.0.0.1", Scope::Reserved),
            ("192.0.0.8", Scope::Reserved),
            ("4000::1", Scope::Reserved),
            ("::ffff:192.168.1.1", Scope::Private),
            ("::ffff:8.8.8.8", Scope::Global),
            ("45.10.20.1", Scope::Global),
            ("2a01:4f8::1", Scope::Global),
        ];
        for (ip, scope) in table {
            assert_eq!(Scope::of(ip.parse().unwrap()), scope, "{ip}");
        }
    }

    #[test]
    fn networks_are_24_and_48_bits() {
        let network = |ip: &str| network_of(ip.parse().unwrap());
        assert_eq!(network("45.10.20.7"), network("45.10.20.200"));
        assert_ne!(network("45.10.20.7"), network("45.10.21.7"));
        assert_eq!(network("2a01:4f8:1:2::3"), network("2a01:4f8:1:ffff::9"));
        assert_ne!(network("2a01:4f8:1::"), network("2a01:4f8:2::"));
        assert_eq!(network("::ffff:45.10.20.7"), network("45.10.20.9"));
    }
}
