//! Reading the timeline.

use jiff::Timestamp;
use muster_core::{JobId, LaunchId, PoolName, RunnerName, TimelineEntry};
use sqlx::FromRow;

use super::codec::timestamp;
use super::database::{Readers, Statement, Value, built, statement};
use super::{StoreError, StoredEntry, TimelineQuery};

#[derive(FromRow)]
struct Row {
    sequence: i64,
    at: i64,
    what: String,
    detail: String,
    pool: Option<String>,
    launch: Option<String>,
    runner: Option<String>,
    job: Option<i64>,
}

impl Row {
    fn read(self) -> Result<StoredEntry, StoreError> {
        Ok(StoredEntry {
            sequence: self.sequence,
            entry: TimelineEntry {
                at: timestamp(self.at, "timeline entry", self.sequence)?,
                what: self.what,
                detail: self.detail,
                pool: self.pool.map(PoolName::new),
                launch: self.launch.map(LaunchId::new),
                runner: self.runner.map(RunnerName::new),
                job: self.job.map(JobId),
            },
        })
    }
}

pub(super) async fn read(
    db: &Readers,
    query: &TimelineQuery,
) -> Result<Vec<StoredEntry>, StoreError> {
    let mut db = db.acquire().await?;
    let rows: Vec<Row> = select(query).all(&mut db).await?;
    let mut entries = rows
        .into_iter()
        .map(Row::read)
        .collect::<Result<Vec<_>, _>>()?;
    if query.after.is_none() {
        entries.reverse();
    }
    Ok(entries)
}

/// When the newest entry was made.
pub(super) async fn newest_at(db: &Readers) -> Result<Option<Timestamp>, StoreError> {
    let mut db = db.acquire().await?;
    let row: Option<(Option<i64>,)> = statement("SELECT max(at) FROM timeline")
        .first(&mut db)
        .await?;
    row.and_then(|(at,)| at)
        .map(|at| timestamp(at, "timeline entry", "of the newest time"))
        .transpose()
}

fn select(query: &TimelineQuery) -> Statement {
    let mut sql = Text {
        sql:
            "SELECT sequence, at, what, detail, pool, launch, runner, job FROM timeline WHERE TRUE"
                .to_owned(),
        values: Vec::new(),
    };
    match (query.job, &query.launch) {
        (None, None) => {}
        (Some(job), None) => sql.push(" AND job = ", job.0),
        (None, Some(launch)) => sql.push(" AND launch = ", launch.as_str()),
        // Two index look-ups; with OR the planner might read the whole table backwards.
        (Some(job), Some(launch)) => {
            sql.push(
                " AND sequence IN (SELECT sequence FROM timeline WHERE job = ",
                job.0,
            );
            sql.push(
                " UNION SELECT sequence FROM timeline WHERE launch = ",
                launch.as_str(),
            );
            sql.sql.push(')');
        }
    }
    if let Some(pool) = &query.pool {
        sql.push(" AND pool = ", pool.as_str());
    }
    if let Some(after) = query.after {
        sql.push(" AND sequence > ", after);
        sql.sql.push_str(" ORDER BY sequence ASC");
    } else {
        sql.sql.push_str(" ORDER BY sequence DESC");
    }
    sql.push(" LIMIT ", query.limit);
    let statement = built(sql.sql);
    sql.values.into_iter().fold(statement, Statement::bind)
}

/// A statement that is being put together.
struct Text {
    sql: String,
    values: Vec<Value>,
}

impl Text {
    /// Adds text, and a parameter after it.
    fn push(&mut self, text: &'static str, value: impl Into<Value>) {
        self.values.push(value.into());
        self.sql.push_str(text);
        self.sql.push_str(&format!("${}", self.values.len()));
    }
}
