//! Logs over the local API: shapes, and answers.

use std::collections::{BTreeMap, VecDeque};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{Query, State, rejection::BytesRejection},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::{Stream, StreamExt, stream};
use kinfolk_core::{Audience, LogHead, LogId, PeerId};
use serde::{Deserialize, Serialize};

use super::types::{Problem, ProblemKind};
use crate::{
    feed::Feed,
    handle::{Control, NodeGone},
    sync::{Logs, MAX_READ, PutError, ReadError, log::Entry},
};

/// The longest body of `POST /v1/put/lines`.
pub const MAX_LINES: usize = 1 << 20;

const TOO_LONG: &str = "an entry has at most 65536 bytes, and the lines of one request at most 1 MiB";

/// The answer to `POST /v1/put` and `POST /v1/put/lines`: how far the own log goes now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Put {
    /// This node.
    pub author: PeerId,
    /// How often it has begun anew; 0 at first.
    pub epoch: u64,
    /// The last entry's number.
    pub position: u64,
}

/// Parameters of `GET /v1/log`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogQuery {
    /// Only this log.
    pub author: Option<PeerId>,
    /// Only so many entries of each log, the last ones.
    pub last: Option<u64>,
    /// Go on with what is new.
    pub follow: bool,
}

/// One line of `GET /v1/log`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogEntry {
    /// Who says it.
    pub author: PeerId,
    /// How often the author's log has begun anew.
    pub epoch: u64,
    /// The entry's number.
    pub position: u64,
    /// What it says. `null`: it is no text.
    pub text: Option<String>,
    /// Its bytes in hexadecimal, where they are no text.
    pub hex: Option<String>,
}

/// `GET /v1/sync`: who has what.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sync {
    /// With whom logs are exchanged: `nobody`, `members` or `anyone`.
    pub with: Audience,
    /// Connected peers with which logs are exchanged.
    pub partners: u32,
    /// Ranges under way.
    pub fetching: u32,
    /// For how long no new ranges are asked for, because the store can't follow.
    pub paused_for_s: Option<u64>,
    /// Logs, by author and epoch.
    pub logs: Vec<SyncLog>,
    /// Peers with which logs are, or were, exchanged, by id.
    pub peers: Vec<SyncPeer>,
}

/// A log, and how far it goes here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SyncLog {
    /// Whose.
    pub author: PeerId,
    /// How often it has begun anew.
    pub epoch: u64,
    /// The last entry's number here.
    pub position: u64,
    /// Entries that some connected peer has beyond that.
    pub missing: u64,
    /// Who is being asked for some.
    pub fetching_from: Option<PeerId>,
    /// Where somebody has another entry than we have, signed by the author as well.
    pub forked_at: Option<u64>,
}

/// A peer, and how far its logs and ours are apart.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SyncPeer {
    /// Who.
    pub peer: PeerId,
    /// Entries that it says it has, of all logs.
    pub position: u64,
    /// Entries that it has and we have not.
    pub missing_here: u64,
    /// Entries that we have and it has not.
    pub missing_there: u64,
    /// Exchanges and ranges under way.
    pub pending: u32,
    /// How long ago positions were compared.
    pub compared_s: Option<u64>,
    /// For how long it is left alone, after something came to nothing.
    pub rests_for_s: Option<u64>,
    /// What last came to nothing, in words.
    pub last_error: Option<String>,
}

impl LogEntry {
    /// The line for an entry.
    pub fn of(log: LogId, entry: Entry) -> Self {
        let (text, hex) = match String::from_utf8(entry.data) {
            Ok(text) => (Some(text), None),
            Err(error) => (None, Some(error.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect())),
        };
        Self { author: log.author, epoch: log.epoch, position: entry.position, text, hex }
    }
}

pub(super) async fn put(
    State(node): State<Control>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Put>, Problem> {
    put_all(&node, vec![whole(body)?.to_vec()]).await
}

/// A body that is not too long.
fn whole(body: Result<Bytes, BytesRejection>) -> Result<Bytes, Problem> {
    body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(ProblemKind::TooLarge, TOO_LONG),
        _ => Problem::new(ProblemKind::BadRequest, rejection.body_text()),
    })
}

pub(super) async fn put_lines(
    State(node): State<Control>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Put>, Problem> {
    let body = whole(body)?;
    let lines = body.strip_suffix(b"\n").unwrap_or(&body);
    put_all(&node, lines.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()).await
}

async fn put_all(node: &Control, entries: Vec<Vec<u8>>) -> Result<Json<Put>, Problem> {
    let logs = logs(node)?;
    let LogHead { log, head } = logs.put(entries).await?;
    Ok(Json(Put { author: log.author, epoch: log.epoch, position: head.position }))
}

pub(super) async fn sync(State(node): State<Control>) -> Result<Json<Sync>, Problem> {
    Ok(Json(node.sync_view().await?))
}

pub(super) async fn log(
    State(node): State<Control>,
    query: Result<Query<LogQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|error| Problem::new(ProblemKind::BadRequest, error.body_text()))?;
    let logs = logs(&node)?.clone();
    // Before the heads are read, so that nothing is missed.
    let grown = query.follow.then(|| logs.grown());
    let mut heads = logs.all_heads().await?;
    heads.retain(|head| query.author.is_none_or(|author| author == head.log.author));
    heads.sort_by_key(|head| head.log);
    let lines = lines(Reading::new(logs, &query, heads, grown)).map(|line| {
        let mut text = serde_json::to_vec(&line?).map_err(|error| error.to_string())?;
        text.push(b'\n');
        Ok::<_, String>(text)
    });
    let ndjson = HeaderValue::from_static("application/x-ndjson");
    Ok(([(header::CONTENT_TYPE, ndjson)], Body::from_stream(lines)).into_response())
}

fn logs(node: &Control) -> Result<&Logs, Problem> {
    node.logs().ok_or_else(|| NodeGone.into())
}

/// Where a reader of logs stands: it holds one page in memory, however long they are.
struct Reading {
    logs: Logs,
    author: Option<PeerId>,
    /// What is to be read, and up to where.
    todo: VecDeque<LogHead>,
    /// Up to where each was read.
    read: BTreeMap<LogId, u64>,
    page: std::vec::IntoIter<LogEntry>,
    grown: Option<Feed<LogHead>>,
}

impl Reading {
    fn new(logs: Logs, query: &LogQuery, heads: Vec<LogHead>, grown: Option<Feed<LogHead>>) -> Self {
        let skip = |LogHead { log, head }: &LogHead| {
            let skipped = query.last.map_or(0, |last| head.position.saturating_sub(last));
            (*log, skipped)
        };
        let read = heads.iter().map(skip).collect();
        Self { logs, author: query.author, todo: heads.into(), read, page: vec![].into_iter(), grown }
    }

    /// The next entry; `None`: there are none, and no more will come.
    async fn next(&mut self) -> Result<Option<LogEntry>, ReadError> {
        loop {
            if let Some(entry) = self.page.next() {
                return Ok(Some(entry));
            }
            if let Some(LogHead { log, head }) = self.todo.front().copied() {
                let read = self.read.entry(log).or_default();
                if *read >= head.position {
                    self.todo.pop_front();
                    continue;
                }
                let entries = self.logs.entries(log, *read, MAX_READ).await?;
                match entries.last() {
                    Some(last) => *read = last.position,
                    None => drop(self.todo.pop_front()),
                }
                let line = |entry| LogEntry::of(log, entry);
                self.page = entries.into_iter().map(line).collect::<Vec<_>>().into_iter();
                continue;
            }
            let Some(grown) = &mut self.grown else { return Ok(None) };
            match grown.next().await {
                None => return Ok(None),
                Some(crate::feed::Fed::Item(head)) => self.todo.push_back(head),
                // Some news was lost, but nothing in the store.
                Some(crate::feed::Fed::Lost(_)) => self.todo.extend(self.logs.heads()),
            }
            let author = self.author;
            self.todo.retain(|head| author.is_none_or(|author| author == head.log.author));
        }
    }
}

fn lines(reading: Reading) -> impl Stream<Item = Result<LogEntry, String>> + Send + 'static {
    stream::unfold(Some(reading), |reading| async {
        let mut reading = reading?;
        match reading.next().await {
            Ok(entry) => Some((Ok(entry?), Some(reading))),
            Err(error) => Some((Err(error.to_string()), None)),
        }
    })
}

impl From<PutError> for Problem {
    fn from(error: PutError) -> Self {
        let kind = match &error {
            PutError::TooLong(_) | PutError::TooMuch => ProblemKind::TooLarge,
            PutError::Log(_) => ProblemKind::Internal,
            PutError::Gone(_) => ProblemKind::ShuttingDown,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        let kind = match &error {
            ReadError::Log(_) => ProblemKind::Internal,
            ReadError::Gone(_) => ProblemKind::ShuttingDown,
        };
        Self::new(kind, error.to_string())
    }
}
