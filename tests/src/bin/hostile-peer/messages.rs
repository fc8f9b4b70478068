//! The messages of the protocols that are abused, as far as they matter here, by their specifications' numbers.

/// What a peer says of itself.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Identify {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) public_key: Vec<u8>,
    #[prost(string, repeated, tag = "3")]
    pub(super) protocols: Vec<String>,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) observed: Vec<u8>,
    #[prost(string, tag = "5")]
    pub(super) version: String,
    #[prost(string, tag = "6")]
    pub(super) agent: String,
}

/// To and from a relay.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Hop {
    /// 0: asks for a place; 1: asks for a circuit; 2: an answer.
    #[prost(int32, required, tag = "1")]
    pub(super) kind: i32,
    #[prost(message, tag = "3")]
    pub(super) reservation: Option<Reservation>,
    #[prost(int32, optional, tag = "5")]
    pub(super) status: Option<i32>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Reservation {
    /// Seconds since 1970.
    #[prost(uint64, required, tag = "1")]
    pub(super) expire: u64,
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub(super) addresses: Vec<Vec<u8>>,
}

/// To and from a server of AutoNAT v2.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Probe {
    #[prost(message, tag = "1")]
    pub(super) request: Option<DialRequest>,
    #[prost(message, tag = "2")]
    pub(super) response: Option<DialResponse>,
    #[prost(message, tag = "4")]
    pub(super) data: Option<DialData>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DialRequest {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub(super) addresses: Vec<Vec<u8>>,
    #[prost(fixed64, tag = "2")]
    pub(super) nonce: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DialResponse {
    #[prost(int32, tag = "1")]
    pub(super) status: i32,
    #[prost(int32, tag = "3")]
    pub(super) dial_status: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DialData {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) data: Vec<u8>,
}

/// To and from a server of AutoNAT v1.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct OldProbe {
    /// 0: asks; 1: an answer.
    #[prost(int32, optional, tag = "1")]
    pub(super) kind: Option<i32>,
    #[prost(message, tag = "2")]
    pub(super) dial: Option<OldDial>,
    #[prost(message, tag = "3")]
    pub(super) response: Option<OldResponse>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct OldDial {
    #[prost(message, tag = "1")]
    pub(super) peer: Option<OldPeer>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct OldPeer {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) id: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub(super) addresses: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct OldResponse {
    #[prost(int32, tag = "1")]
    pub(super) status: i32,
}
