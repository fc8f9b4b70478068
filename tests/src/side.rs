use patchbay::{Firewall, FirewallConfig, IpSupport, Lab, Nat, RouterPreset};

use crate::{Side, Site};

impl Side {
    /// A home of that kind, or the provider's own network.
    pub(crate) async fn build(self, lab: &Lab, name: &str, provider: Site, number: u8) -> Site {
        let home = |nat: Nat| Router { nat, ip: IpSupport::V4Only, firewall: Firewall::None, network: None };
        match self {
            Self::Public => provider,
            Self::FullCone => home(Nat::Open).build(lab, name, &provider).await,
            Self::PortRestricted => home(Nat::Moderate).build(lab, name, &provider).await,
            Self::Symmetric => home(Nat::Strict).build(lab, name, &provider).await,
            Self::UdpBlocked => {
                let firewall = Firewall::Custom(FirewallConfig::builder().block_udp().build());
                Router { firewall, ..home(Nat::Moderate) }.build(lab, name, &provider).await
            }
            Self::DoubleNat => {
                let carrier = Router { network: Some(format!("100.64.{number}.0/24")), ..home(Nat::Moderate) };
                let carrier = carrier.build(lab, &format!("{name}-cgn"), &provider).await;
                home(Nat::Moderate).build(lab, name, &carrier).await
            }
        }
    }
}

/// A home with IPv6, too, whose addresses are of no use outside.
pub(crate) async fn home(lab: &Lab, name: &str, provider: &Site) -> Site {
    let router =
        Router { nat: Nat::Moderate, ip: IpSupport::DualStack, firewall: Firewall::BlockInbound, network: None };
    router.build(lab, name, provider).await
}

/// A router with NAT.
struct Router {
    nat: Nat,
    ip: IpSupport,
    /// The preset's would shut the full cone; what each NAT lets in by IPv4 is its own filter's matter.
    firewall: Firewall,
    /// Its inner network, where it is not any private one.
    network: Option<String>,
}

impl Router {
    async fn build(self, lab: &Lab, name: &str, upstream: &Site) -> Site {
        let mut router = lab
            .add_router(name)
            .preset(RouterPreset::Home)
            .ip_support(self.ip)
            .nat(self.nat)
            .upstream(upstream.router().id())
            .firewall(self.firewall);
        if let Some(network) = self.network {
            router = router.downstream_cidr(network.parse().expect("a network"));
        }
        let router = router.build().await.unwrap_or_else(|error| panic!("{name}: {error:#}"));
        let site = Site::new(lab, router);
        // A NAT must not answer a connection from outside that nobody inside has asked for (RFC 5382, REQ-4): it may be
        // one half of a simultaneous open. Linux alone would reset it.
        site.run(
            "nft add table ip unasked && \
             nft 'add chain ip unasked input { type filter hook input priority 0; policy accept; }' && \
             nft add rule ip unasked input iifname '{ ix, wan }' tcp flags syn / syn,ack drop",
        );
        site
    }
}
