//! A real router's port mapping (miniupnpd), and ours: what it offers is found, what it gives lets strangers in, what is
//! given back does not.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures::StreamExt;
use kinfolk_core::{Action, Address, Command, CommandId, Config, Event, Reason, Transport};
use kinfolk_shell::{
    driver::{Happened, World as _},
    network::{Network, NetworkSettings},
};
use kinfolk_tests::{Device, Site, World};
use libp2p::{identity::Keypair, swarm::dummy};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    time::timeout,
};

const PORT: u16 = 4001;
/// Nothing here takes this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a router offers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Offer {
    upnp: bool,
    nat_pmp: bool,
    pcp: bool,
}

/// miniupnpd in a home's router, until this is dropped.
struct Daemon {
    router: Site,
    folder: tempfile::TempDir,
}

impl Daemon {
    fn start(router: &Site, offer: Offer) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let yes_if = |on| if on { "yes" } else { "no" };
        let at = folder.path().display();
        let wan = router.run("ip -4 route show default | sed -n 's/.*dev \\([^ ]*\\).*/\\1/p'");
        let lan = router.run("ip -o link show type bridge | sed -n 's/^[0-9]*: \\([^:@]*\\).*/\\1/p'");
        let config = format!(
            "ext_ifname={}\nlistening_ip={}\nenable_natpmp={}\nenable_upnp={}\nsecure_mode=yes\n\
             uuid=00000000-0000-4000-8000-000000000001\nupnp_table_name=mini\nupnp_nat_table_name=mini\n\
             allow 1024-65535 0.0.0.0/0 1024-65535\n",
            wan.trim(),
            lan.trim(),
            yes_if(offer.nat_pmp || offer.pcp),
            yes_if(offer.upnp),
        );
        std::fs::write(folder.path().join("conf"), config).unwrap();
        router.run(
            "nft -f - <<'END'
             table inet mini {
                 chain miniupnpd { }
                 chain prerouting_miniupnpd { }
                 chain postrouting_miniupnpd { }
                 chain forward { type filter hook forward priority -10; jump miniupnpd; }
                 chain prerouting { type nat hook prerouting priority -110; jump prerouting_miniupnpd; }
                 chain postrouting { type nat hook postrouting priority 90; jump postrouting_miniupnpd; }
                 chain input { type filter hook input priority -10; }
             }
END
             nft insert rule ip filter forward ct status dnat accept
             nft insert rule inet fw forward ct status dnat accept",
        );
        // It speaks both or none; they differ in the first byte.
        for (version, spoken) in [(0, offer.nat_pmp), (2, offer.pcp)] {
            if !spoken {
                router.run(&format!("nft add rule inet mini input udp dport 5351 @th,64,8 {version} drop"));
            }
        }
        router.run(&format!("miniupnpd -f {at}/conf -P {at}/pid >{at}/log 2>&1"));
        Self { router: router.clone(), folder }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.router.run(&format!("kill $(cat {}/pid)", self.folder.path().display()));
    }
}

/// A network in a device.
struct Ours {
    network: Network<dummy::Behaviour>,
    commands: u64,
}

impl Ours {
    fn new() -> Self {
        let config = Config { mdns: false, ..Config::desktop() }.validate().unwrap();
        let settings = NetworkSettings::new(config, "test");
        let spawn = |task| drop(tokio::spawn(task));
        let network = Network::new(Keypair::generate_ed25519(), settings, spawn, dummy::Behaviour).unwrap();
        Self { network, commands: 0 }
    }

    fn run(&mut self, action: Action) {
        self.commands += 1;
        self.network.execute(&Command { id: CommandId(self.commands), action, reason: Reason::BehindNat });
    }

    async fn next(&mut self) -> Event {
        match timeout(PATIENCE, self.network.next()).await.expect("an event in time").unwrap() {
            Happened::Core(event) => event,
            Happened::App(never) => match never {},
        }
    }

    /// Asks for a port until the router gives one: it is looked for and asked in short time, which a busy machine may
    /// not have. What it offers, and what it gives.
    async fn map(&mut self, transport: Transport) -> (Offer, Address) {
        for _ in 0..5 {
            self.run(Action::MapPort { transport, port: PORT });
            let mut offer = None;
            while let Ok(Some(Happened::Core(event))) = timeout(Duration::from_secs(6), self.network.next()).await {
                match (event, offer) {
                    (Event::Gateway { upnp, nat_pmp, pcp }, None) => offer = Some(Offer { upnp, nat_pmp, pcp }),
                    (Event::PortMapped { transport: of, external }, Some(offer)) if of == transport => {
                        return (offer, external);
                    }
                    (other, _) => panic!("{other:?}"),
                }
            }
        }
        panic!("no port is given")
    }
}

/// Whether a stranger reaches the device by TCP within a second.
async fn lets_in_tcp(stranger: &Device, home: &Device, at: SocketAddr) -> bool {
    let listener = home.with(async { TcpListener::bind(("0.0.0.0", PORT)).await.unwrap() }).await;
    let accept = home.with(async move {
        let Ok(met) = timeout(Duration::from_secs(1), listener.accept()).await else { return false };
        met.unwrap().0.write_all(b"!").await.is_ok()
    });
    let dial = stranger.with(async move {
        let dialled = timeout(Duration::from_secs(1), TcpStream::connect(at)).await;
        match dialled {
            Ok(Ok(mut stream)) => stream.read(&mut [0]).await.is_ok_and(|length| length == 1),
            Ok(Err(_)) | Err(_) => false,
        }
    });
    let (accepted, dialled) = tokio::join!(accept, dial);
    accepted && dialled
}

/// The same by UDP.
async fn lets_in_udp(stranger: &Device, home: &Device, at: SocketAddr) -> bool {
    let socket = home.with(async { UdpSocket::bind(("0.0.0.0", PORT)).await.unwrap() }).await;
    stranger
        .with(async move {
            let socket = UdpSocket::bind("0.0.0.0:0").await.unwrap();
            socket.send_to(b"!", at).await.unwrap();
        })
        .await;
    home.with(async move { timeout(Duration::from_secs(1), socket.recv_from(&mut [0])).await.is_ok() }).await
}

fn endpoint(address: &Address) -> SocketAddr {
    SocketAddr::new(address.host_ip().unwrap(), address.port().unwrap())
}

/// Both ports are mapped by what the router offers, lead in from outside, and are given back.
async fn ports_lead_in(offer: Offer) {
    let world = World::new().await;
    let isp = world.public("isp", 20).await;
    let stranger = isp.device("stranger").await;
    let home = world.home("home", &isp).await;
    let pi = home.device("pi").await;
    let wan: IpAddr = home
        .run("ip -4 -o addr show dev wan | sed -n 's/.*inet \\([0-9.]*\\).*/\\1/p'")
        .trim()
        .parse()
        .expect("the router's outer address");
    let _daemon = Daemon::start(&home, offer);

    let mapped = pi
        .with(async move {
            let mut ours = Ours::new();
            let mut mapped = vec![];
            for transport in [Transport::Tcp, Transport::Quic] {
                let (found, external) = ours.map(transport).await;
                assert_eq!(found, offer);
                mapped.push(external);
            }
            (ours, mapped)
        })
        .await;
    let (mut ours, mapped) = mapped;
    let [tcp, quic] = &mapped[..] else { panic!("{mapped:?}") };
    assert_eq!((tcp.host_ip(), quic.host_ip()), (Some(wan), Some(wan)));
    assert_eq!((tcp.transport(), quic.transport()), (Some(Transport::Tcp), Some(Transport::Quic)));
    let (tcp, quic) = (endpoint(tcp), endpoint(quic));
    assert!(lets_in_tcp(&stranger, &pi, tcp).await, "TCP at {tcp}");
    assert!(lets_in_udp(&stranger, &pi, quic).await, "UDP at {quic}");

    // Asked again, the old one is given back first.
    let (mut ours, tcp) = pi
        .with(async move {
            ours.run(Action::MapPort { transport: Transport::Tcp, port: PORT });
            assert_eq!(ours.next().await, Event::PortUnmapped { transport: Transport::Tcp });
            let (_, external) = ours.map(Transport::Tcp).await;
            (ours, endpoint(&external))
        })
        .await;
    assert!(lets_in_tcp(&stranger, &pi, tcp).await, "TCP again at {tcp}");
    assert!(lets_in_udp(&stranger, &pi, quic).await, "UDP was not meant, at {quic}");

    pi.with(async move {
        ours.run(Action::UnmapPort { transport: Transport::Tcp });
        assert!(ours.network.standing() > 0);
        ours.network.farewell();
        let rest = async {
            while ours.network.standing() > 0 {
                drop(ours.network.next().await)
            }
        };
        drop(timeout(Duration::from_millis(500), rest).await);
    })
    .await;
    assert!(!lets_in_tcp(&stranger, &pi, tcp).await, "TCP after it was given back");
    assert!(!lets_in_udp(&stranger, &pi, quic).await, "UDP after the farewell");
}

#[tokio::test]
async fn by_upnp() {
    ports_lead_in(Offer { upnp: true, nat_pmp: false, pcp: false }).await;
}

#[tokio::test]
async fn by_nat_pmp() {
    ports_lead_in(Offer { upnp: false, nat_pmp: true, pcp: false }).await;
}

#[tokio::test]
async fn by_pcp() {
    ports_lead_in(Offer { upnp: false, nat_pmp: false, pcp: true }).await;
}

#[tokio::test]
async fn by_any_of_them() {
    ports_lead_in(Offer { upnp: true, nat_pmp: true, pcp: true }).await;
}

#[tokio::test]
async fn a_router_without_any_is_said_to_have_none() {
    let world = World::new().await;
    let isp = world.public("isp", 20).await;
    let home = world.home("home", &isp).await;
    let pi = home.device("pi").await;
    pi.with(async {
        let mut ours = Ours::new();
        ours.run(Action::MapPort { transport: Transport::Tcp, port: PORT });
        assert_eq!(ours.next().await, Event::Gateway { upnp: false, nat_pmp: false, pcp: false });
        assert_eq!(ours.network.standing(), 0);
    })
    .await;
}
