//! What is in the peer store's file, and how it is written.

use std::{collections::BTreeMap, path::Path};

use kinfolk_core::{PeerId, Source, StoredAddress, StoredNat, StoredPeer};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde::{Deserialize, de::value::StrDeserializer};

use super::{Remembered, StoreError, file::open_file};

/// One entry per version of the schema: what leads to it from the one before.
pub(super) const MIGRATIONS: [&str; 4] = [
    "
    CREATE TABLE peers (
        peer BLOB NOT NULL PRIMARY KEY,
        pinned INTEGER NOT NULL,
        blocked INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE addresses (
        peer BLOB NOT NULL REFERENCES peers ON DELETE CASCADE,
        place INTEGER NOT NULL,
        address TEXT NOT NULL,
        source TEXT NOT NULL,
        proven INTEGER NOT NULL,
        PRIMARY KEY (peer, place)
    ) STRICT, WITHOUT ROWID;
",
    "ALTER TABLE peers ADD COLUMN relay INTEGER NOT NULL DEFAULT 0",
    "CREATE TABLE node (name TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    "
    ALTER TABLE peers ADD COLUMN record INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE addresses ADD COLUMN last_success INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE found (name TEXT NOT NULL PRIMARY KEY, json TEXT NOT NULL) STRICT, WITHOUT ROWID;
",
];

/// Opens the file, and reads all that is in it: that, and the last number of our own records.
pub(super) fn open(path: &Path) -> Result<(Connection, Remembered, u64), StoreError> {
    const WHAT: &str = "the peer store";
    let connection = open_file(path, WHAT, &MIGRATIONS, |connection| {
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        // Of 1 KiB each: little memory is enough for so small a store.
        connection.pragma_update(None, "cache_size", -512)?;
        connection.pragma_update(None, "journal_size_limit", 1 << 20)
    })?;
    let read = || -> rusqlite::Result<_> {
        let remembered = Remembered { peers: load(&connection)?, nat: load_nat(&connection)? };
        Ok((remembered, load_number(&connection)?))
    };
    let (remembered, number) =
        read().map_err(|source| StoreError::Sql { what: WHAT, path: path.to_path_buf(), source })?;
    Ok((connection, remembered, number))
}

pub(super) fn replace(transaction: &Transaction<'_>, stored: &StoredPeer) -> rusqlite::Result<()> {
    remove(transaction, &stored.peer)?;
    let id = stored.peer.as_bytes();
    transaction
        .prepare_cached("INSERT INTO peers (peer, pinned, blocked, relay, record) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![id, stored.pinned, stored.blocked, stored.relay, stored.record.cast_signed()])?;
    let mut insert = transaction.prepare_cached(
        "INSERT INTO addresses (peer, place, address, source, proven, last_success) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for (place, known) in (0_i64..).zip(&stored.addresses) {
        let (address, source) = (known.address.to_string(), source_name(known.source));
        insert.execute(params![id, place, address, source, known.proven, known.last_success])?;
    }
    Ok(())
}

pub(super) fn remove(transaction: &Transaction<'_>, peer: &PeerId) -> rusqlite::Result<()> {
    transaction.prepare_cached("DELETE FROM peers WHERE peer = ?1")?.execute(params![peer.as_bytes()])?;
    Ok(())
}

fn load(connection: &Connection) -> rusqlite::Result<Vec<StoredPeer>> {
    let mut all: BTreeMap<Vec<u8>, StoredPeer> = BTreeMap::new();
    let mut unread = 0_u32;
    let mut peers = connection.prepare("SELECT peer, pinned, blocked, relay, record FROM peers")?;
    let mut rows = peers.query([])?;
    while let Some(row) = rows.next()? {
        let id: Vec<u8> = row.get(0)?;
        let (pinned, blocked, relay) = (row.get(1)?, row.get(2)?, row.get(3)?);
        let record = row.get::<_, i64>(4)?.cast_unsigned();
        match PeerId::from_bytes(&id) {
            Ok(peer) => {
                all.insert(id, StoredPeer { peer, pinned, blocked, relay, record, addresses: vec![] });
            }
            Err(_) => unread += 1,
        }
    }
    let mut addresses =
        connection.prepare("SELECT peer, address, source, proven, last_success FROM addresses ORDER BY peer, place")?;
    let mut rows = addresses.query([])?;
    while let Some(row) = rows.next()? {
        let (id, address, source): (Vec<u8>, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        match (all.get_mut(&id), address.parse(), source_of(&source)) {
            (Some(stored), Ok(address), Some(source)) => {
                stored.addresses.push(StoredAddress {
                    address,
                    source,
                    proven: row.get(3)?,
                    last_success: row.get(4)?,
                });
            }
            _ => unread += 1,
        }
    }
    if unread > 0 {
        tracing::warn!(unread, "rows of the peer store make no sense and are passed over");
    }
    Ok(all.into_values().collect())
}

/// Keeps the highest number.
pub(super) fn keep_number(transaction: &Transaction<'_>, number: u64) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO node (name, value) VALUES ('record', ?1)
             ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
        )?
        .execute(params![i64::try_from(number).unwrap_or(i64::MAX)])?;
    Ok(())
}

pub(super) fn keep_nat(transaction: &Transaction<'_>, nat: &StoredNat) -> rusqlite::Result<()> {
    let json = serde_json::to_string(nat).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    transaction
        .prepare_cached("INSERT OR REPLACE INTO found (name, json) VALUES ('nat', ?1)")?
        .execute(params![json])?;
    Ok(())
}

/// A guess: what can't be read is none.
fn load_nat(connection: &Connection) -> rusqlite::Result<Option<StoredNat>> {
    let json = connection.query_row("SELECT json FROM found WHERE name = 'nat'", [], |row| row.get::<_, String>(0));
    Ok(json.optional()?.and_then(|json| serde_json::from_str(&json).ok()))
}

fn load_number(connection: &Connection) -> rusqlite::Result<u64> {
    let number = connection.query_row("SELECT value FROM node WHERE name = 'record'", [], |row| row.get::<_, i64>(0));
    Ok(number.optional()?.and_then(|number| u64::try_from(number).ok()).unwrap_or(0))
}

pub(super) fn source_name(source: Source) -> &'static str {
    match source {
        Source::Mdns => "mdns",
        Source::Kademlia => "kademlia",
        Source::Signal => "signal",
        Source::Manual => "manual",
        Source::Configured => "configured",
        Source::Identify => "identify",
        Source::Store => "store",
        Source::Inbound => "inbound",
    }
}

/// The names are those of the traces.
pub(super) fn source_of(name: &str) -> Option<Source> {
    Source::deserialize(StrDeserializer::<serde::de::value::Error>::new(name)).ok()
}
