//! What comes of probes, ours and others', in the core's words and counts.

use kinfolk_core::Event;
use libp2p::{
    autonat::{
        v1::{self, InboundProbeError, InboundProbeEvent, ResponseError},
        v2,
    },
    swarm::NetworkBehaviour,
};

use super::{super::Network, Told, serving::Served};

impl<A: NetworkBehaviour> Network<A> {
    pub(in crate::network) fn on_probe(&mut self, told: Told) {
        match told {
            Told::Probed { probe, verdict, paid } => {
                self.counters.add("probes.paid_bytes", paid);
                self.tell(Event::Probed { probe, verdict });
            }
            Told::Stray => self.counters.count("probes.strays"),
        }
    }

    pub(in crate::network) fn on_served_v2(&mut self, served: &Served<v2::server::Event>) {
        match served {
            Served::Own(event) => {
                self.counters.add("probes.bytes", event.data_amount as u64);
                self.counters.count(if event.result.is_ok() { "probes.served" } else { "probes.failed" });
            }
            Served::Count(name) => self.counters.count(name),
        }
    }

    pub(in crate::network) fn on_served_v1(&mut self, served: &Served<v1::Event>) {
        match served {
            Served::Own(v1::Event::InboundProbe(event)) => match event {
                // Counted as it was asked.
                InboundProbeEvent::Request { .. } => {}
                InboundProbeEvent::Response { .. } => self.counters.count("probes.served"),
                InboundProbeEvent::Error { error, .. } => self.counters.count(match error {
                    InboundProbeError::Response(ResponseError::DialError) => "probes.served",
                    InboundProbeError::Response(
                        ResponseError::DialRefused | ResponseError::BadRequest | ResponseError::InternalError,
                    ) => "probes.refused",
                    InboundProbeError::InboundRequest(_) => "probes.failed",
                }),
            },
            // Its client does nothing.
            Served::Own(v1::Event::OutboundProbe(_) | v1::Event::StatusChanged { .. }) => {
                self.counters.count("unknown");
            }
            Served::Count(name) => self.counters.count(name),
        }
    }
}
