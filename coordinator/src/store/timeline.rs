//! Reading the timeline.

use muster_core::{JobId, LaunchId, PoolName, RunnerName, TimelineEntry};
use sqlx::sqlite::SqlitePool;
use sqlx::{FromRow, QueryBuilder, Sqlite};

use super::codec::timestamp;
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
    db: &SqlitePool,
    query: &TimelineQuery,
) -> Result<Vec<StoredEntry>, StoreError> {
    let rows: Vec<Row> = statement(query).build_query_as().fetch_all(db).await?;
    let mut entries = rows
        .into_iter()
        .map(Row::read)
        .collect::<Result<Vec<_>, _>>()?;
    if query.after.is_none() {
        entries.reverse();
    }
    Ok(entries)
}

fn statement(query: &TimelineQuery) -> QueryBuilder<Sqlite> {
    let mut sql = QueryBuilder::new(
        "SELECT sequence, at, what, detail, pool, launch, runner, job FROM timeline WHERE 1",
    );
    match (query.job, &query.launch) {
        (None, None) => {}
        (Some(job), None) => {
            sql.push(" AND job = ").push_bind(job.0);
        }
        (None, Some(launch)) => {
            sql.push(" AND launch = ")
                .push_bind(launch.as_str().to_owned());
        }
        // Two index look-ups; with OR the planner might read the whole table backwards.
        (Some(job), Some(launch)) => {
            sql.push(" AND sequence IN (SELECT sequence FROM timeline WHERE job = ")
                .push_bind(job.0)
                .push(" UNION SELECT sequence FROM timeline WHERE launch = ")
                .push_bind(launch.as_str().to_owned())
                .push(")");
        }
    }
    if let Some(pool) = &query.pool {
        sql.push(" AND pool = ").push_bind(pool.as_str().to_owned());
    }
    if let Some(after) = query.after {
        sql.push(" AND sequence > ")
            .push_bind(after)
            .push(" ORDER BY sequence ASC");
    } else {
        sql.push(" ORDER BY sequence DESC");
    }
    sql.push(" LIMIT ").push_bind(query.limit);
    sql
}
