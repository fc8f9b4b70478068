//! `kinfolk doctor`: what does my network allow?
//!
//! Works with no node running and beside a running one. A temporary node in this process looks around as the settings
//! say (`looking`), each known server is tried by each transport (`servers`), and the node that runs on the data folder,
//! if one does, is asked for what it has learnt. What was seen ([`facts::Facts`]) becomes findings by pure functions
//! (`findings`).

mod facts;
mod findings;
mod looking;
mod report;
mod servers;
#[cfg(test)]
mod tests;

use std::time::Duration;

use super::{failure::Failure, node::Node, out::Out};
use crate::config::Settings;

/// Looks, tells, and fails with exit code 1 if there is a problem.
pub(super) async fn doctor(settings: Settings, limit: Duration, out: Out) -> Result<(), Failure> {
    let node = Node::of(&settings.host);
    let facts = looking::look(&settings, &node, limit).await?;
    let report = report::Report::of(&facts);
    out.either(&report, || report.text(out.size().map(|(width, _)| width)))?;
    if report.ok { Ok(()) } else { Err(Failure::Found) }
}
