//! The signal server's protocol: what nodes and doorways say to each other over HTTP.
//!
//! A doorway keeps **signed peer records**: who a peer is and where, said by the peer itself ([`record`]). It can withhold
//! records, but not make any up. [`types`] has the bodies of requests and answers, each with its path; [`key`] reads the
//! peer that a path names; [`address`] says which addresses may be published at all; [`numbers`] counts our own records;
//! [`client`] asks and publishes.
//!
//! Records are taken by sequence number: a newer one replaces an older one, an equal one changes nothing (an answer was
//! lost, and it is asked again), an older one is refused. The refusal tells the number that is to be exceeded, so that a
//! node whose clock was wrong once finds its way back. A record without addresses withdraws what was there.

pub mod address;
pub mod client;
pub mod key;
pub mod numbers;
pub mod record;
pub mod types;
