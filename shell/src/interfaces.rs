//! This machine's addresses and default routes.
//!
//! On Linux the kernel says when something about links, addresses or routes changes; elsewhere, and in case it can't be
//! asked, everything is read again every few seconds. Either way the whole list is read, and told when it differs from
//! the one before.

use std::{fs, time::Duration};

use futures::{Stream, stream};
use if_addrs::{IfAddr, IfOperStatus, Interface};
use kinfolk_core::{Event, Interfaces, Prefix, Scope};

/// Addresses that are told at most; a router with more has its first ones told.
const MAX_ADDRESSES: usize = 256;

/// Changes come in bursts: a link, then addresses, then routes.
#[cfg(target_os = "linux")]
const DEBOUNCE: Duration = Duration::from_millis(200);

/// How often everything is read where the kernel says nothing.
const POLL: Duration = Duration::from_secs(5);

/// How often it is read even so: a word of the kernel may be lost when there are very many.
#[cfg(target_os = "linux")]
const RECHECK: Duration = Duration::from_secs(60);

/// What this machine has now. Addresses of links that are down are not among it.
pub fn read() -> Interfaces {
    match if_addrs::get_if_addrs() {
        Ok(found) => of(&found, &Routes::read()),
        Err(error) => {
            tracing::warn!(%error, "can't read this machine's addresses");
            Interfaces::default()
        }
    }
}

/// `Event::Interfaces` whenever the list differs from the one before, the first of which is `known`. Never ends. Needs a
/// tokio runtime.
pub fn changes(known: Interfaces) -> impl Stream<Item = Event> + Send + 'static {
    stream::unfold((Watch::new(), known), |(mut watch, known)| async move {
        loop {
            watch.changed().await;
            let now = read();
            if now != known {
                return Some((Event::Interfaces(now.clone()), (watch, now)));
            }
        }
    })
}

fn of(found: &[Interface], routes: &Routes) -> Interfaces {
    let is_up = |interface: &Interface| interface.oper_status == IfOperStatus::Up;
    let prefix = |interface: &Interface| match &interface.addr {
        IfAddr::V4(own) => Prefix { ip: own.ip.into(), len: own.prefixlen.min(32) },
        IfAddr::V6(own) => Prefix { ip: own.ip.into(), len: own.prefixlen.min(128) },
    };
    let mut addresses: Vec<Prefix> = found.iter().filter(|interface| is_up(interface)).map(prefix).collect();
    addresses.sort();
    addresses.dedup();
    if addresses.len() > MAX_ADDRESSES {
        tracing::debug!(cut = addresses.len() - MAX_ADDRESSES, "this machine has too many addresses");
        addresses.truncate(MAX_ADDRESSES);
    }
    // A route through a link that has no carrier stays in the table and leads nowhere.
    let leads_on = |name: &String| {
        let mut same = found.iter().filter(|interface| interface.name == *name).peekable();
        same.peek().is_none() || same.any(is_up)
    };
    let reaches_out =
        |own: &Prefix| !matches!(Scope::of(own.ip), Scope::Loopback | Scope::LinkLocal | Scope::Unspecified);
    let any = |v4: bool| addresses.iter().any(|own| own.ip.is_ipv4() == v4 && reaches_out(own));
    Interfaces {
        default_v4: routes.v4.as_ref().map_or_else(|| any(true), |names| names.iter().any(leads_on)),
        default_v6: routes.v6.as_ref().map_or_else(|| any(false), |names| names.iter().any(leads_on)),
        addresses,
    }
}

/// The links that default routes lead through. `None`: the system does not tell; then an address that reaches beyond the
/// link counts as a way out.
#[derive(Default)]
struct Routes {
    v4: Option<Vec<String>>,
    v6: Option<Vec<String>>,
}

/// Usable (`RTF_UP`), and not one that refuses (`RTF_REJECT`).
fn leads(flags: &str) -> bool {
    u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 != 0 && flags & 0x200 == 0)
}

impl Routes {
    fn read() -> Self {
        Self {
            v4: fs::read_to_string("/proc/net/route").ok().map(|table| Self::v4(&table)),
            // Absent where IPv6 is switched off, which leaves no way out; elsewhere than on Linux both are absent.
            v6: match fs::read_to_string("/proc/net/ipv6_route") {
                Ok(table) => Some(Self::v6(&table)),
                Err(_) if cfg!(target_os = "linux") => Some(vec![]),
                Err(_) => None,
            },
        }
    }

    fn v4(table: &str) -> Vec<String> {
        let default = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            match fields[..] {
                [name, "00000000", _, flags, _, _, _, "00000000", ..] if leads(flags) => Some(name.to_owned()),
                _ => None,
            }
        };
        table.lines().skip(1).filter_map(default).collect()
    }

    fn v6(table: &str) -> Vec<String> {
        let default = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            match fields[..] {
                ["00000000000000000000000000000000", "00", _, _, _, _, _, _, flags, name]
                    if leads(flags) && name != "lo" =>
                {
                    Some(name.to_owned())
                }
                _ => None,
            }
        };
        table.lines().filter_map(default).collect()
    }
}

#[cfg(target_os = "linux")]
use kernel::Watch;

#[cfg(target_os = "linux")]
mod kernel {
    use std::io;

    use futures::future::{Either, select};
    use futures_timer::Delay;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink, socket_with};
    use tokio::net::UnixDatagram;

    use super::{DEBOUNCE, POLL, RECHECK};

    /// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_IFADDR`, `RTMGRP_IPV6_ROUTE` of rtnetlink(7).
    const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

    /// The kernel's word that something has changed. What it says is not read: everything is read anew anyway.
    pub(super) struct Watch(Option<UnixDatagram>);

    impl Watch {
        pub(super) fn new() -> Self {
            let socket = open();
            if let Err(error) = &socket {
                tracing::info!(%error, "the kernel can't be asked for changes of the network; looking every few seconds");
            }
            Self(socket.ok())
        }

        /// Something may have changed.
        pub(super) async fn changed(&mut self) {
            let Some(socket) = &self.0 else { return Delay::new(POLL).await };
            let readable = select(Box::pin(socket.readable()), Delay::new(RECHECK)).await;
            let broken = match &readable {
                Either::Left((ready, _)) => ready.is_err(),
                Either::Right(_) => return,
            };
            drop(readable);
            if broken {
                self.0 = None;
                return;
            }
            Delay::new(DEBOUNCE).await;
            let mut buffer = [0; 8 * 1024];
            // Ends when there is no more, or with an error: words were lost, and what came of it is read anyway.
            while socket.try_recv(&mut buffer).is_ok() {}
        }
    }

    /// Tokio has no netlink sockets; to receive from one is the same as from any other that keeps messages apart.
    fn open() -> io::Result<UnixDatagram> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        UnixDatagram::from_std(socket.into())
    }
}

/// Elsewhere the system is not asked for its word.
#[cfg(not(target_os = "linux"))]
struct Watch;

#[cfg(not(target_os = "linux"))]
impl Watch {
    fn new() -> Self {
        Self
    }

    async fn changed(&mut self) {
        futures_timer::Delay::new(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use if_addrs::{Ifv4Addr, Ifv6Addr};

    use super::*;

    fn interface(name: &str, ip: &str, prefixlen: u8, up: bool) -> Interface {
        let addr = match ip.parse().unwrap() {
            IpAddr::V4(ip) => {
                IfAddr::V4(Ifv4Addr { ip, netmask: [255, 255, 255, 0].into(), prefixlen, broadcast: None })
            }
            IpAddr::V6(ip) => IfAddr::V6(Ifv6Addr { ip, netmask: ip, prefixlen, broadcast: None }),
        };
        let oper_status = if up { IfOperStatus::Up } else { IfOperStatus::Unknown };
        Interface { name: name.into(), addr, index: None, oper_status, is_p2p: false }
    }

    const V4: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth1\t00000000\t0101A8C0\t0202\t0\t0\t100\t00000000\t0\t0\t0
eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0
";

    const V6: &str = "\
20010db8000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001 eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00450003 eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200 lo
";

    fn routes() -> Routes {
        Routes { v4: Some(Routes::v4(V4)), v6: Some(Routes::v6(V6)) }
    }

    #[test]
    fn default_routes_are_found_in_the_kernels_tables() {
        assert_eq!(Routes::v4(V4), ["eth0"]);
        assert_eq!(Routes::v6(V6), ["eth0"]);
        assert_eq!(Routes::v4("nonsense\n\u{0}\n"), [""; 0]);
        assert_eq!(Routes::v6("nonsense"), [""; 0]);
    }

    #[test]
    fn addresses_are_told_in_order_and_with_their_networks() {
        let found = [
            interface("eth0", "2001:db8::7", 64, true),
            interface("eth0", "192.168.1.7", 24, true),
            interface("lo", "127.0.0.1", 8, true),
            interface("eth0", "192.168.1.7", 24, true),
        ];
        let interfaces = of(&found, &routes());
        let text: Vec<String> =
            interfaces.addresses.iter().map(|prefix| format!("{}/{}", prefix.ip, prefix.len)).collect();
        assert_eq!(text, ["127.0.0.1/8", "192.168.1.7/24", "2001:db8::7/64"]);
        assert!(interfaces.default_v4 && interfaces.default_v6);
    }

    #[test]
    fn a_link_that_is_down_has_neither_addresses_nor_routes() {
        let found = [interface("eth0", "192.168.1.7", 24, false), interface("lo", "127.0.0.1", 8, true)];
        let interfaces = of(&found, &routes());
        assert_eq!(interfaces.addresses.len(), 1);
        assert!(!interfaces.default_v4 && !interfaces.default_v6);
    }

    #[test]
    fn where_routes_are_not_told_an_address_is_taken_for_a_way_out() {
        let with = |ip| of(&[interface("en0", ip, 24, true)], &Routes::default());
        assert!(with("192.168.1.7").default_v4 && !with("192.168.1.7").default_v6);
        assert!(with("2001:db8::7").default_v6);
        assert!(!with("127.0.0.1").default_v4 && !with("169.254.3.4").default_v4 && !with("fe80::1").default_v6);
    }

    #[test]
    fn this_machine_can_be_read() {
        let interfaces = read();
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        assert!(interfaces.addresses.contains(&Prefix { ip: loopback, len: 8 }), "{interfaces:?}");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_kernel_can_be_asked() {
        use futures::FutureExt;

        let mut changes = Box::pin(changes(read()));
        assert!(futures::StreamExt::next(&mut changes).now_or_never().is_none(), "nothing has changed");
    }
}
