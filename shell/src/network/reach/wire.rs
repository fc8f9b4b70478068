//! The messages of AutoNAT v2, by its specification's numbers.

/// What is sent over a stream of [`super::DIAL_REQUEST`], either way.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Message {
    #[prost(oneof = "Content", tags = "1, 2, 3, 4")]
    pub(super) content: Option<Content>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Content {
    #[prost(message, tag = "1")]
    Request(DialRequest),
    #[prost(message, tag = "2")]
    Response(DialResponse),
    #[prost(message, tag = "3")]
    DataRequest(DialDataRequest),
    #[prost(message, tag = "4")]
    Data(DialDataResponse),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DialRequest {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub(super) addresses: Vec<Vec<u8>>,
    #[prost(fixed64, tag = "2")]
    pub(super) nonce: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DialDataRequest {
    #[prost(uint32, tag = "1")]
    pub(super) index: u32,
    #[prost(uint64, tag = "2")]
    pub(super) bytes: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DialResponse {
    #[prost(int32, tag = "1")]
    pub(super) status: i32,
    #[prost(uint32, tag = "2")]
    pub(super) index: u32,
    #[prost(int32, tag = "3")]
    pub(super) dial_status: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DialDataResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) data: Vec<u8>,
}

/// What a server sends over a stream of [`super::DIAL_BACK`].
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DialBack {
    #[prost(fixed64, tag = "1")]
    pub(super) nonce: u64,
}

/// What it is answered: 0 is "taken", and there is nothing else.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DialBackResponse {
    #[prost(int32, tag = "1")]
    pub(super) status: i32,
}
