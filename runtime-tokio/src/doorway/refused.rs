//! Problems as HTTP answers.

use std::time::Duration;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use kinfolk_shell::signal::{
    record::BadRecord,
    types::{Problem, ProblemKind},
};

use super::store::Down;

/// When to try again where nothing better is known.
const SOON: Duration = Duration::from_secs(5);

/// The same, where somebody else's records have to end first.
const LATER: Duration = Duration::from_secs(60);

/// An answer that refuses. Its kind stands in the answer's extensions, to be counted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Refused(Problem);

impl Refused {
    pub(super) fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self(Problem::new(kind, detail))
    }

    pub(super) fn stale(seq: u64) -> Self {
        let detail =
            format!("a record with the sequence number {seq} was there already; publish one with a higher number");
        Self(Problem { seq: Some(seq), ..Problem::new(ProblemKind::Stale, detail) })
    }

    pub(super) fn too_often(wait: Duration) -> Self {
        let detail = "too many requests from this network within a minute";
        Self(Problem::new(ProblemKind::TooManyRequests, detail)).after(wait)
    }

    pub(super) fn crowded() -> Self {
        let detail = "there are too many live records from this network";
        Self(Problem::new(ProblemKind::TooManyRecords, detail)).after(LATER)
    }

    pub(super) fn full() -> Self {
        Self(Problem::new(ProblemKind::Full, "there is no room for more records in this network")).after(LATER)
    }

    fn after(self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Self(Problem { retry_after_s: Some(seconds.max(1)), ..self.0 })
    }
}

impl From<Down> for Refused {
    /// What exactly is wrong is in the log: it may name what clients need not know.
    fn from(_: Down) -> Self {
        Self(Problem::new(ProblemKind::StoreDown, "the store of this doorway does not answer")).after(SOON)
    }
}

impl From<BadRecord> for Refused {
    fn from(bad: BadRecord) -> Self {
        let kind = match bad {
            BadRecord::Size => ProblemKind::TooLarge,
            BadRecord::Key | BadRecord::Signature => ProblemKind::BadSignature,
        };
        Self::new(kind, format!("the record is not taken: {bad}"))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self(problem) = self;
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let (kind, wait) = (problem.kind, problem.retry_after_s);
        let mut response = (status, Json(problem)).into_response();
        response.extensions_mut().insert(kind);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(wait) = wait {
            headers.insert(header::RETRY_AFTER, wait.into());
        }
        if kind == ProblemKind::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
