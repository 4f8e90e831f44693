//! The SQL of the telemetry.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use unimse_core::id::{Generation, JobId, Rank, Step};
use unimse_core::time::Timestamp;
use unimse_proto::client::{LogEntry, MetricPoint};
use unimse_proto::server::MetricQuery;
use unimse_proto::session::{LogLine, Logs, Steps};

use super::{Write, curve};

/// Bytes kept of one line; the rest of a longer one is cut.
const LONGEST_LINE: usize = 16 << 10;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS names (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
    -- A value that is not a number is stored as NULL.
    CREATE TABLE IF NOT EXISTS metrics (
        job INTEGER NOT NULL, name INTEGER NOT NULL, step INTEGER NOT NULL, value REAL, generation INTEGER NOT NULL, at INTEGER NOT NULL,
        PRIMARY KEY (job, name, step)) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS digests (
        job INTEGER NOT NULL, step INTEGER NOT NULL, digest TEXT NOT NULL, generation INTEGER NOT NULL,
        PRIMARY KEY (job, step)) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS logs (
        place INTEGER PRIMARY KEY, job INTEGER NOT NULL, generation INTEGER NOT NULL, rank INTEGER NOT NULL, number INTEGER NOT NULL,
        at INTEGER NOT NULL, level TEXT NOT NULL, text TEXT NOT NULL, UNIQUE (job, generation, rank, number)) STRICT;
    CREATE INDEX IF NOT EXISTS logs_of_job ON logs (job, place);
";

pub(super) struct Store {
    connection: Connection,
    names: HashMap<String, i64>,
}

impl Store {
    pub(super) fn open(place: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(place)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "wal_autocheckpoint", 4000)?;
        connection.execute_batch(SCHEMA)?;
        let names = connection
            .prepare("SELECT name, id FROM names")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Self { connection, names })
    }

    /// Keeps all of them or none.
    pub(super) fn write<'a>(&mut self, writes: impl Iterator<Item = &'a Write>) -> rusqlite::Result<()> {
        let transaction = Transaction::new(&mut self.connection, TransactionBehavior::Immediate)?;
        let mut named = Vec::new();
        for write in writes {
            match write {
                Write::Steps(steps) => write_steps(&transaction, &self.names, &mut named, steps)?,
                Write::Logs(logs) => write_logs(&transaction, logs)?,
            }
        }
        transaction.commit()?;
        self.names.extend(named);
        Ok(())
    }

    pub(super) fn metrics(&self, job: JobId, query: &MetricQuery) -> rusqlite::Result<Vec<MetricPoint>> {
        let matches = |name: &str| {
            let fits = |wanted: &String| name == wanted || wanted.ends_with('/') && name.starts_with(wanted.as_str());
            query.names.is_empty() || query.names.iter().any(fits)
        };
        let mut names: Vec<(&String, i64)> =
            self.names.iter().filter(|(name, _)| matches(name)).map(|(name, &id)| (name, id)).collect();
        names.sort();
        let mut statement = self.connection.prepare_cached(
            "SELECT step, value, generation, at FROM metrics WHERE job = ?1 AND name = ?2 AND step >= ?3 ORDER BY step",
        )?;
        let mut found = Vec::new();
        for (name, id) in names {
            let rows = statement.query_map(params![job.0, id, query.since.0.cast_signed()], |row| {
                Ok(MetricPoint {
                    name: name.clone(),
                    step: Step(number(row, 0)?),
                    value: row.get::<_, Option<f64>>(1)?.unwrap_or(f64::NAN),
                    generation: Generation(number(row, 2)?),
                    at: Timestamp(number(row, 3)?),
                })
            })?;
            let points = rows.collect::<rusqlite::Result<Vec<_>>>()?;
            match query.max_points {
                Some(most) => found.extend(curve::thin(points, most as usize)),
                None => found.extend(points),
            }
        }
        Ok(found)
    }

    pub(super) fn digests(&self, job: JobId) -> rusqlite::Result<Vec<(Step, String)>> {
        let mut statement =
            self.connection.prepare_cached("SELECT step, digest FROM digests WHERE job = ?1 ORDER BY step")?;
        statement.query_map([job.0], |row| Ok((Step(number(row, 0)?), row.get(1)?)))?.collect()
    }

    pub(super) fn log(
        &self,
        job: JobId,
        rank: Option<Rank>,
        from_offset: u64,
        lines: usize,
        bytes: usize,
    ) -> rusqlite::Result<Vec<LogEntry>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT place, generation, rank, number, at, level, text FROM logs
             WHERE job = ?1 AND place >= ?2 AND (?3 IS NULL OR rank = ?3) ORDER BY place LIMIT ?4",
        )?;
        let from = i64::try_from(from_offset).unwrap_or(i64::MAX);
        let lines = limit(lines);
        let rows = statement.query_map(params![job.0, from, rank.map(|rank| rank.0), lines], entry)?;
        let mut page = Vec::new();
        let mut size = 0;
        for entry in rows {
            let entry = entry?;
            size += entry.line.text.len();
            page.push(entry);
            if size >= bytes {
                break;
            }
        }
        Ok(page)
    }

    pub(super) fn log_end(&self, job: JobId, lines: usize) -> rusqlite::Result<Vec<LogEntry>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT place, generation, rank, number, at, level, text FROM logs WHERE job = ?1 ORDER BY place DESC LIMIT ?2",
        )?;
        let mut end =
            statement.query_map(params![job.0, limit(lines)], entry)?.collect::<rusqlite::Result<Vec<_>>>()?;
        end.reverse();
        Ok(end)
    }

    /// Folds the write-ahead log into the file, so that the folder is tidy when the process is gone.
    pub(super) fn close(self) {
        if let Err((_, error)) = self.connection.close() {
            tracing::warn!(%error, "could not close the telemetry");
        }
    }
}

fn write_steps(
    transaction: &Transaction<'_>,
    names: &HashMap<String, i64>,
    named: &mut Vec<(String, i64)>,
    steps: &Steps,
) -> rusqlite::Result<()> {
    let (job, generation) = (steps.job.0, steps.generation.0.cast_signed());
    let mut metric = transaction.prepare_cached(
        "INSERT INTO metrics (job, name, step, value, generation, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO UPDATE SET value = excluded.value, generation = excluded.generation, at = excluded.at
         WHERE excluded.generation >= metrics.generation",
    )?;
    let mut digest = transaction.prepare_cached(
        "INSERT INTO digests (job, step, digest, generation) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET digest = excluded.digest, generation = excluded.generation
         WHERE excluded.generation >= digests.generation",
    )?;
    for record in &steps.records {
        let step = record.step.0.cast_signed();
        if !record.digest.is_empty() {
            digest.execute(params![job, step, record.digest, generation])?;
        }
        for (name, value) in &record.values {
            let known =
                names.get(name).or_else(|| named.iter().find(|(new, _)| new == name).map(|(_, id)| id)).copied();
            let id = if let Some(id) = known {
                id
            } else {
                let id = intern(transaction, name)?;
                named.push((name.clone(), id));
                id
            };
            metric.execute(params![job, id, step, value, generation, record.at.0.cast_signed()])?;
        }
    }
    Ok(())
}

fn intern(transaction: &Transaction<'_>, name: &str) -> rusqlite::Result<i64> {
    let known = transaction.query_row("SELECT id FROM names WHERE name = ?1", [name], |row| row.get(0)).optional()?;
    if let Some(id) = known {
        return Ok(id);
    }
    transaction.execute("INSERT INTO names (name) VALUES (?1)", [name])?;
    Ok(transaction.last_insert_rowid())
}

fn write_logs(transaction: &Transaction<'_>, logs: &Logs) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare_cached(
        "INSERT INTO logs (job, generation, rank, number, at, level, text) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT DO NOTHING",
    )?;
    let (job, generation, rank) = (logs.job.0, logs.generation.0.cast_signed(), logs.rank.0);
    for line in &logs.lines {
        let end = line.text.floor_char_boundary(LONGEST_LINE);
        let (number, at) = (line.number.cast_signed(), line.at.0.cast_signed());
        insert.execute(params![job, generation, rank, number, at, line.level, &line.text[..end]])?;
    }
    Ok(())
}

fn limit(lines: usize) -> i64 {
    i64::try_from(lines).unwrap_or(i64::MAX)
}

fn entry(row: &rusqlite::Row<'_>) -> rusqlite::Result<LogEntry> {
    let line =
        LogLine { number: number(row, 3)?, at: Timestamp(number(row, 4)?), level: row.get(5)?, text: row.get(6)? };
    Ok(LogEntry { offset: number(row, 0)?, generation: Generation(number(row, 1)?), rank: Rank(row.get(2)?), line })
}

fn number(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)?.cast_unsigned())
}

#[cfg(test)]
mod tests;
