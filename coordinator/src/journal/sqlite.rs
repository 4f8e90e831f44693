//! The journal in SQLite: write-ahead log, `synchronous=FULL`, one transaction a turn.
//!
//! What happens when the disk does:
//! - **full** at a commit: the transaction is rolled back, [`Error::Full`]. The caller forgets the turn and goes on.
//! - **any other error** at a commit, a failed fsync above all: [`Error::Failed`]. What the kernel could not write it may have dropped
//!   from its cache, so trying again could report as durable what is lost. The caller exits; the next start reads what is really there.
//! - **a changed bit**: every row carries a BLAKE3 value over its number, time and content, and numbers have no gaps. What does not match
//!   is refused at the start, [`Error::Damaged`].

use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params};
use unimse_core::machine::{Event, State};
use unimse_core::time::Timestamp;

use super::{Error, Identity, Journal, Loaded, Turn};

/// Stored as `user_version`; a program refuses what is newer than itself.
const VERSION: i64 = 1;
/// `UMSE`: tells our files from other people's.
const APPLICATION: i64 = 0x554d_5345;
/// Bytes that [`Journal::probe`] wants to be able to write.
const ROOM: i64 = 256 << 10;

const SCHEMA: &str = "
    CREATE TABLE identity (id INTEGER PRIMARY KEY CHECK (id = 1), cluster TEXT NOT NULL, epoch INTEGER NOT NULL) STRICT;
    CREATE TABLE turns (seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, events BLOB NOT NULL, digest BLOB NOT NULL) STRICT;
    CREATE TABLE snapshot (id INTEGER PRIMARY KEY CHECK (id = 1), seq INTEGER NOT NULL, state BLOB NOT NULL, digest BLOB NOT NULL) STRICT;
    CREATE TABLE probe (id INTEGER PRIMARY KEY CHECK (id = 1), room BLOB NOT NULL) STRICT;
";

/// A journal in a file.
#[derive(Debug)]
pub struct SqliteJournal {
    connection: Connection,
    place: PathBuf,
    /// Number of the last turn.
    seq: i64,
}

impl SqliteJournal {
    /// Opens a journal, or makes one. Whoever calls holds the lock of the state folder.
    pub fn open(place: &Path) -> Result<Self, Error> {
        let failed = |action| move |source| explain(action, place, source);
        let connection = Connection::open(place).map_err(failed("open"))?;
        connection.busy_timeout(std::time::Duration::from_secs(5)).map_err(failed("open"))?;
        for (setting, wanted, found) in
            [("journal_mode", "wal", "WAL"), ("synchronous", "2", "FULL"), ("foreign_keys", "1", "ON")]
        {
            connection.pragma_update(None, setting, found).map_err(failed("configure"))?;
            assert_setting(&connection, place, setting, wanted)?;
        }
        // Reading back a large log at each start would cost more than it saves.
        connection.pragma_update(None, "wal_autocheckpoint", 4000).map_err(failed("configure"))?;
        let mut journal = Self { connection, place: place.to_owned(), seq: 0 };
        journal.prepare_schema()?;
        Ok(journal)
    }

    fn prepare_schema(&mut self) -> Result<(), Error> {
        let place = self.place.clone();
        let failed = |action| move |source| explain(action, &place, source);
        let version: i64 = self
            .connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(failed.clone()("read"))?;
        if version > VERSION {
            return Err(Error::Newer { place: self.named(), found: version, known: VERSION });
        }
        if version == 0 {
            let write = self.write("create")?;
            let made = write
                .execute_batch(SCHEMA)
                .and_then(|()| write.pragma_update(None, "application_id", APPLICATION))
                .and_then(|()| write.pragma_update(None, "user_version", VERSION))
                .and_then(|()| write.commit());
            made.map_err(failed.clone()("create"))?;
        }
        let read = "SELECT max(coalesce((SELECT max(seq) FROM turns), 0), coalesce((SELECT seq FROM snapshot), 0))";
        self.seq = self.connection.query_row(read, [], |row| row.get(0)).map_err(failed("read"))?;
        Ok(())
    }

    fn write(&mut self, action: &'static str) -> Result<Transaction<'_>, Error> {
        let place = &self.place;
        Transaction::new(&mut self.connection, TransactionBehavior::Immediate)
            .map_err(|source| explain(action, place, source))
    }

    fn named(&self) -> String {
        self.place.display().to_string()
    }

    fn damaged(&self, what: impl Into<String>) -> Error {
        Error::Damaged { place: self.named(), what: what.into() }
    }

    /// Runs statements in one durable transaction.
    fn commit(
        &mut self,
        action: &'static str,
        statements: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), Error> {
        let place = self.place.clone();
        let write = self.write(action)?;
        // Dropping the transaction after an error rolls it back.
        let done = statements(&write).and_then(|()| write.commit());
        done.map_err(|source| explain(action, &place, source))
    }
}

impl Journal for SqliteJournal {
    fn claim(&mut self, cluster: &str) -> Result<Identity, Error> {
        self.commit("claim", |write| {
            write.execute(
                "INSERT INTO identity (id, cluster, epoch) VALUES (1, ?1, 0) ON CONFLICT DO NOTHING",
                [cluster],
            )?;
            write.execute("UPDATE identity SET epoch = epoch + 1", [])?;
            Ok(())
        })?;
        let read =
            self.connection.query_row("SELECT cluster, epoch FROM identity", [], |row| Ok((row.get(0)?, row.get(1)?)));
        let (cluster, epoch): (String, i64) = read.map_err(|source| explain("read", &self.place, source))?;
        Ok(Identity { cluster, epoch: epoch.cast_unsigned() })
    }

    fn load(&mut self) -> Result<Loaded, Error> {
        let place = self.named();
        let failed = |source| explain("read", &self.place, source);
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, Vec<u8>>(2)?));
        let snapshot = self.connection.query_row("SELECT seq, state, digest FROM snapshot", [], read).optional();
        let mut loaded = Loaded::default();
        let mut last: i64 = 0;
        if let Some((seq, state, digest)) = snapshot.map_err(failed)? {
            if digest != row_digest(seq, Timestamp(0), &state) {
                return Err(self.damaged(format!("the snapshot after turn {seq} does not match its digest")));
            }
            loaded.state = read_state(&place, &state)?;
            last = seq;
        }
        let mut rows = self
            .connection
            .prepare("SELECT seq, at, events, digest FROM turns WHERE seq > ?1 ORDER BY seq")
            .map_err(failed)?;
        let mut rows = rows.query([last]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let read =
                || Ok::<_, rusqlite::Error>((row.get(0)?, row.get::<_, i64>(1)?, row.get_ref(2)?, row.get_ref(3)?));
            let (seq, at, lines, digest) = read().map_err(failed)?;
            let at = Timestamp(at.cast_unsigned());
            if seq != last + 1 {
                return Err(self.damaged(format!("turn {} is missing", last + 1)));
            }
            let (Ok(lines), Ok(digest)) = (lines.as_blob(), digest.as_blob()) else {
                return Err(self.damaged(format!("turn {seq} is not of the right type")));
            };
            if digest != row_digest(seq, at, lines) {
                return Err(self.damaged(format!("turn {seq} does not match its digest")));
            }
            loaded.turns.push((at, read_events(&place, lines)?));
            last = seq;
        }
        Ok(loaded)
    }

    fn append(&mut self, turn: &Turn) -> Result<(), Error> {
        let (seq, lines) = (self.seq + 1, turn.lines());
        let digest = row_digest(seq, turn.at, &lines);
        self.commit("append to", |write| {
            write
                .prepare_cached("INSERT INTO turns (seq, at, events, digest) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![seq, turn.at.0.cast_signed(), lines, digest])?;
            Ok(())
        })?;
        self.seq = seq;
        Ok(())
    }

    fn snapshot(&mut self, state: &[u8]) -> Result<(), Error> {
        let seq = self.seq;
        let digest = row_digest(seq, Timestamp(0), state);
        self.commit("write a snapshot to", |write| {
            write.execute(
                "INSERT INTO snapshot (id, seq, state, digest) VALUES (1, ?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET seq = excluded.seq, state = excluded.state, digest = excluded.digest",
                params![seq, state, digest],
            )?;
            write.execute("DELETE FROM turns WHERE seq <= ?1", [seq])?;
            Ok(())
        })
    }

    fn probe(&mut self) -> Result<(), Error> {
        self.commit("write to", |write| {
            let statement =
                "INSERT INTO probe (id, room) VALUES (1, zeroblob(?1)) ON CONFLICT DO UPDATE SET room = excluded.room";
            write.execute(statement, [ROOM]).map(drop)
        })?;
        self.commit("write to", |write| write.execute("DELETE FROM probe", []).map(drop))
    }
}

fn assert_setting(
    connection: &Connection,
    place: &Path,
    setting: &'static str,
    wanted: &'static str,
) -> Result<(), Error> {
    let read = connection.pragma_query_value(None, setting, |row| row.get::<_, rusqlite::types::Value>(0));
    let found = match read.map_err(|source| explain("read", place, source))? {
        rusqlite::types::Value::Text(text) => text,
        rusqlite::types::Value::Integer(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    if found != wanted {
        return Err(Error::Setting { place: place.display().to_string(), setting, found, wanted });
    }
    Ok(())
}

fn explain(action: &'static str, place: &Path, source: rusqlite::Error) -> Error {
    match source.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Error::Full(format!("{} ({source})", place.display())),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            Error::Damaged { place: place.display().to_string(), what: source.to_string() }
        }
        _ => Error::Failed { action, place: place.to_owned(), source },
    }
}

fn row_digest(seq: i64, at: Timestamp, content: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seq.to_le_bytes()).update(&at.0.to_le_bytes()).update(content);
    hasher.finalize().into()
}

pub(super) fn read_state(place: &str, state: &[u8]) -> Result<State, Error> {
    let what = |error| format!("its snapshot does not read as a state: {error}");
    serde_json::from_slice(state).map_err(|error| Error::Damaged { place: place.to_owned(), what: what(error) })
}

pub(super) fn read_events(place: &str, lines: &[u8]) -> Result<Vec<Event>, Error> {
    let what = |error| format!("a turn does not read as events: {error}");
    let events = lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).map(serde_json::from_slice);
    events.collect::<Result<_, _>>().map_err(|error| Error::Damaged { place: place.to_owned(), what: what(error) })
}
