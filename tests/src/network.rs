use std::{
    net::{IpAddr, SocketAddr},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use patchbay::{Lab, Router, RouterPreset};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::UdpSocket,
    process::Child,
    time::timeout,
};

use crate::program;

/// A network that devices are plugged into: a data centre, a provider's customers, a home.
#[derive(Clone)]
pub struct Site {
    lab: Lab,
    router: Router,
    /// The third byte of the IPv4 network and third word of the IPv6 one, where the addresses are public.
    number: Option<u8>,
}

/// A computer with one network cable.
#[derive(Clone)]
pub struct Device {
    device: patchbay::Device,
    ip: IpAddr,
    ip6: Option<IpAddr>,
    /// Routers, for IPv4 and IPv6; empty where there is none.
    gateways: [String; 2],
    /// What makes its line longer.
    line: Arc<Mutex<Option<Child>>>,
}

/// Finds the router's bridge, where its devices are plugged in.
const BRIDGE: &str = "bridge=$(ip -o link show type bridge | sed -n 's/^[0-9]*: \\([^:@]*\\).*/\\1/p')";

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Site").field("name", &self.router.name()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("name", &self.device.name()).field("ip", &self.ip).finish_non_exhaustive()
    }
}

impl Site {
    /// Public addresses, no NAT, no firewall: `45.10.NUMBER.0/24` and `2a0e:b107:NUMBER::/64`.
    ///
    /// The lab's own ranges are those for benchmarks and documents, which nothing on the internet may use; a node is
    /// right not to trust them.
    pub(crate) async fn public(lab: &Lab, name: &str, number: u8) -> Self {
        let cidr = format!("45.10.{number}.0/24").parse().expect("a network");
        let router = lab
            .add_router(name)
            .preset(RouterPreset::Public)
            .downstream_cidr(cidr)
            .build()
            .await
            .expect("a public network");
        let mut site = Self::new(lab, router);
        site.number = Some(number);
        let uplink = site.router.uplink_ip_v6().expect("a public router has IPv6");
        site.run(&format!("{BRIDGE} && ip -6 addr add 2a0e:b107:{number}::1/64 dev $bridge nodad"));
        let route = format!("ip -6 route add 2a0e:b107:{number}::/64 via {uplink}");
        shell(&route, |command| lab.ix().spawn_command_sync(command));
        site
    }

    pub(crate) fn new(lab: &Lab, router: Router) -> Self {
        let site = Self { lab: lab.clone(), router, number: None };
        site.pin_bridge();
        site
    }

    pub(crate) fn router(&self) -> &Router {
        &self.router
    }

    /// The same for the bridge between all routers.
    pub(crate) fn pin_exchange(lab: &Lab) {
        let line = format!("{BRIDGE} && ip link set dev $bridge address 02:00:00:00:00:01");
        shell(&line, |command| lab.ix().spawn_command_sync(command));
    }

    /// A bridge takes the lowest of its ports' hardware addresses for its own, so each new device may change it, and
    /// those that know the router by the old one talk to nobody for half a minute. A real router's does not change.
    fn pin_bridge(&self) {
        self.run(&format!("{BRIDGE} && ip link set dev $bridge address 02:00:00:00:00:01"));
    }

    /// A computer in this network.
    pub async fn device(&self, name: &str) -> Device {
        let device = self
            .lab
            .add_device(name)
            .iface("eth0", self.router.id())
            .build()
            .await
            .unwrap_or_else(|error| panic!("device {name}: {error:#}"));
        // Linux drops IPv6 addresses when a link goes down; a computer that gets them from its router has them back at
        // once, one of a lab never.
        run_in(&device, "echo 1 > /proc/sys/net/ipv6/conf/eth0/keep_addr_on_down");
        let ip = device.ip().expect("every network here has IPv4");
        let mut ip6 = device.ip6().map(IpAddr::V6);
        if let (Some(number), Some(lab_ip6)) = (self.number, device.ip6()) {
            let [.., host] = ip.octets();
            let own = format!("2a0e:b107:{number}::{host:x}");
            run_in(
                &device,
                &format!(
                    "ip -6 addr add {own}/64 dev eth0 nodad && ip -6 addr del {lab_ip6}/64 dev eth0 && \
                     ip -6 route replace default via 2a0e:b107:{number}::1 dev eth0"
                ),
            );
            ip6 = Some(own.parse().expect("an address"));
        }
        let gateways = ["-4", "-6"].map(|family| {
            run_in(&device, &format!("ip {family} route show default | sed -n 's/.*via \\([^ ]*\\).*/\\1/p'"))
                .trim()
                .to_owned()
        });
        Device { device, ip: IpAddr::V4(ip), ip6, gateways, line: Arc::default() }
    }

    /// The line to the internet goes dead: nothing passes, and nobody is told.
    pub fn cut(&self) {
        self.run(
            "nft add table inet cut && \
             nft 'add chain inet cut forward { type filter hook forward priority -300; policy drop; }'",
        );
    }

    /// The line works again.
    pub fn heal(&self) {
        self.run("nft delete table inet cut");
    }

    /// Nothing of a protocol (`tcp`, `udp`) passes between here and the internet.
    pub fn forbid(&self, protocol: &str) {
        self.run(&format!(
            "nft add table inet forbidden && \
             nft 'add chain inet forbidden forward {{ type filter hook forward priority -200; policy accept; }}' && \
             nft add rule inet forbidden forward meta l4proto {protocol} drop"
        ));
    }

    /// Nothing of IPv4 passes.
    pub fn only_ipv6(&self) {
        self.run(
            "nft add table inet six && \
             nft 'add chain inet six forward { type filter hook forward priority -200; policy accept; }' && \
             nft add rule inet six forward meta nfproto ipv4 drop",
        );
    }

    /// A public network gets a firewall, as homes with IPv6 have: nothing comes in that was not asked for.
    pub fn shut(&self) {
        self.run(
            "nft add table inet shut && \
             nft 'add chain inet shut forward { type filter hook forward priority 10; policy accept; }' && \
             nft add rule inet shut forward ct state established,related accept && \
             nft add rule inet shut forward iifname ix drop",
        );
    }

    /// The line to the internet loses so many of a hundred packets, each way.
    pub fn lose(&self, percent: u32) {
        self.run(&format!(
            "nft add table inet loss && \
             nft 'add chain inet loss forward {{ type filter hook forward priority -250; policy accept; }}' && \
             nft add rule inet loss forward numgen random mod 100 '<' {percent} drop"
        ));
    }

    /// Counts what passes between here and the internet from now on, for `passed`.
    pub fn count(&self) {
        self.run(
            "nft add table inet count && nft add counter inet count passed && \
             nft 'add chain inet count forward { type filter hook forward priority 300; policy accept; }' && \
             nft add rule inet count forward counter name passed",
        );
    }

    /// Bytes that passed since `count`.
    pub fn passed(&self) -> u64 {
        let text = self.run("nft list counter inet count passed");
        let bytes = text.split("bytes ").nth(1).and_then(|rest| rest.split_whitespace().next());
        bytes.and_then(|bytes| bytes.parse().ok()).unwrap_or_else(|| panic!("no counter: {text}"))
    }

    /// A home's router is switched off and on: it has forgotten all mappings, and its provider has given it another
    /// public address, the one that ends in `host`.
    pub fn reboot(&self, host: u8) {
        let old = self.router.uplink_ip().expect("a home has a provider");
        let [a, b, c, _] = old.octets();
        self.run(&format!(
            "ip addr show dev wan | grep -q 'inet {old}/' && gw=$(ip route show default | sed -n 's/.*via \\([^ ]*\\).*/\\1/p') && \
             ip addr del {old}/24 dev wan && ip addr add {a}.{b}.{c}.{host}/24 dev wan && \
             ip route replace default via $gw dev wan && \
             h=$(nft -a list chain ip nat postrouting | sed -n 's/.*snat to {old} # handle \\([0-9]*\\)/\\1/p') && \
             nft replace rule ip nat postrouting handle $h oif wan snat to {a}.{b}.{c}.{host} && \
             nft flush map ip nat fullcone && conntrack -F"
        ));
    }

    /// Runs a line of shell in the router.
    pub fn run(&self, line: &str) -> String {
        shell(line, |command| self.router.spawn_command_sync(command))
    }
}

impl Device {
    /// Its name.
    pub fn name(&self) -> &str {
        self.device.name()
    }

    /// Its IPv4 address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Its IPv6 address: public in a public network, unique-local in a home.
    ///
    /// # Panics
    /// If it has none.
    pub fn ip6(&self) -> IpAddr {
        self.ip6.expect("the network has IPv6")
    }

    /// Pulls the network cable: the computer sees it at once.
    pub fn unplug(&self) {
        self.run("ip link set eth0 down");
    }

    /// Puts the network cable back. Linux has dropped the routes by then, as a computer's DHCP client would put them back.
    pub fn plug(&self) {
        self.run("ip link set eth0 up");
        self.route();
    }

    fn route(&self) {
        for (family, gateway) in ["-4", "-6"].into_iter().zip(&self.gateways) {
            if !gateway.is_empty() {
                self.run(&format!("ip {family} route replace default via {gateway} dev eth0"));
            }
        }
    }

    /// Makes its line to the router longer: every packet takes so much more, each way. `round_trip` says whether it does.
    ///
    /// # Panics
    /// If the line does not come up.
    pub async fn delay(&self, by: Duration) {
        // What was `eth0` becomes the far end; a new `eth0` with the same addresses has the line in between. The ingress
        // hooks keep the kernel from taking the frames, too; packet sockets see them before.
        self.run(&format!(
            "mac=$(ip -o link show dev eth0 | sed 's/.*link.ether \\([^ ]*\\).*/\\1/') && \
             ip link set eth0 down && ip addr flush dev eth0 && ip link set eth0 name line && \
             ip link set line address 02:00:00:00:00:02 && \
             ip link add eth0 address $mac type veth peer name inner && \
             for i in line inner; do \
                 echo 1 > /proc/sys/net/ipv6/conf/$i/disable_ipv6; \
                 nft add table netdev $i; \
                 nft \"add chain netdev $i ingress {{ type filter hook ingress device $i priority 0; policy drop; }}\"; \
                 ip link set $i up; \
             done && \
             ip addr add {}/24 dev eth0 && ip link set eth0 up",
            self.ip
        ));
        if let Some(ip6) = self.ip6 {
            self.run(&format!(
                "echo 1 > /proc/sys/net/ipv6/conf/eth0/keep_addr_on_down; ip -6 addr add {ip6}/64 dev eth0 nodad"
            ));
        }
        self.route();
        let mut command = tokio::process::Command::new(program("delay-line"));
        command.args(["line", "inner", &by.as_millis().to_string()]).stdout(Stdio::piped()).kill_on_drop(true);
        let mut line = self.spawn(command);
        let mut said = BufReader::new(line.stdout.take().expect("a pipe")).lines();
        assert_eq!(said.next_line().await.expect("text").as_deref(), Some("ready"), "the line does not come up");
        *self.line.lock().expect("no panic under the lock") = Some(line);
    }

    /// The shortest of five round trips by UDP to another device, and `None` if a packet does not come back in a second.
    /// The first one, which also finds the way, does not count.
    pub async fn round_trip(&self, to: &Self) -> Option<Duration> {
        let socket = to.with(async { UdpSocket::bind("0.0.0.0:0").await.expect("a free port") }).await;
        let there = SocketAddr::new(to.ip, socket.local_addr().expect("a bound socket").port());
        let echo = tokio::spawn(async move {
            let mut buffer = [0; 16];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let _ = socket.send_to(&buffer[..length], from).await;
            }
        });
        let least = self.with(async move {
            let socket = UdpSocket::bind("0.0.0.0:0").await.expect("a free port");
            let mut least = None;
            for round in 0..6_u8 {
                let sent = Instant::now();
                socket.send_to(&[round], there).await.ok()?;
                let mut answer = [0; 16];
                timeout(Duration::from_secs(1), socket.recv_from(&mut answer)).await.ok()?.ok()?;
                if round > 0 {
                    least = least.into_iter().chain([sent.elapsed()]).min();
                }
            }
            least
        });
        let least = least.await;
        echo.abort();
        least
    }

    /// Runs a line of shell here and gives what it printed.
    ///
    /// # Panics
    /// If it fails.
    pub fn run(&self, line: &str) -> String {
        run_in(&self.device, line)
    }

    /// Starts a program here.
    pub(crate) fn spawn(&self, command: tokio::process::Command) -> tokio::process::Child {
        let program = command.as_std().get_program().to_owned();
        self.device.spawn_command(command).unwrap_or_else(|error| panic!("{}: {error:#}", program.display()))
    }

    /// Runs a future in this device's network, on a thread of its own.
    pub async fn with<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        self.device.spawn(|_| work).expect("a thread in the device").await.expect("work that ends")
    }
}

fn run_in(device: &patchbay::Device, line: &str) -> String {
    shell(line, |command| device.spawn_command_sync(command))
}

fn shell<E: std::fmt::Display>(line: &str, spawn: impl FnOnce(Command) -> Result<std::process::Child, E>) -> String {
    let mut command = Command::new("sh");
    command
        .args(["-c", line])
        .env_remove("KINFOLK_BLESS")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let child = spawn(command).unwrap_or_else(|error| panic!("{line}: {error:#}"));
    let output = child.wait_with_output().expect("a process that can be waited for");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{line}\n{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}
