use std::{net::IpAddr, process::Command};

use patchbay::{Lab, Nat, Router, RouterPreset};

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
    /// Routers, for IPv4 and IPv6.
    gateways: [String; 2],
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
        let site = Self { lab: lab.clone(), router, number: Some(number) };
        site.pin_bridge();
        let uplink = site.router.uplink_ip_v6().expect("a public router has IPv6");
        site.run(&format!("{BRIDGE} && ip -6 addr add 2a0e:b107:{number}::1/64 dev $bridge nodad"));
        let route = format!("ip -6 route add 2a0e:b107:{number}::/64 via {uplink}");
        shell(&route, |command| lab.ix().spawn_command_sync(command));
        site
    }

    /// A home behind a NAT as most routers have it: endpoint-independent mapping, address- and port-dependent filter.
    pub(crate) async fn home(lab: &Lab, name: &str, upstream: &Self) -> Self {
        let router = lab
            .add_router(name)
            .preset(RouterPreset::Home)
            .nat(Nat::Moderate)
            .upstream(upstream.router.id())
            .build()
            .await
            .expect("a home");
        let site = Self { lab: lab.clone(), router, number: None };
        site.pin_bridge();
        site
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
        Device { device, ip: IpAddr::V4(ip), ip6, gateways }
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
        let [v4, v6] = &self.gateways;
        self.run(&format!(
            "ip link set eth0 up && ip route replace default via {v4} dev eth0 && \
             ip -6 route replace default via {v6} dev eth0"
        ));
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
    command.args(["-c", line]).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let child = spawn(command).unwrap_or_else(|error| panic!("{line}: {error:#}"));
    let output = child.wait_with_output().expect("a process that can be waited for");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{line}\n{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}
