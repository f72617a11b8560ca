//! A statement and its values, for either database.

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments, AssertSqlSafe, FromRow, SqlSafeStr as _, SqlStr};

use super::{Connection, Link, bounded};
use crate::store::StoreError;

/// A value of a column: the three kinds that the schema has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::store) enum Value {
    /// Numbers, times and flags.
    Integer(Option<i64>),
    /// Words and records.
    Text(Option<String>),
    /// Hashes and bodies.
    Bytes(Vec<u8>),
    /// Many at once, for PostgreSQL.
    Integers(Vec<Option<i64>>),
    /// Many at once, for PostgreSQL.
    Texts(Vec<Option<String>>),
    /// Many at once, for PostgreSQL.
    Blobs(Vec<Vec<u8>>),
}

impl Value {
    /// An array of this kind, with nothing in it.
    pub(super) fn array(&self) -> Self {
        match self {
            Self::Integer(_) | Self::Integers(_) => Self::Integers(Vec::new()),
            Self::Text(_) | Self::Texts(_) => Self::Texts(Vec::new()),
            Self::Bytes(_) | Self::Blobs(_) => Self::Blobs(Vec::new()),
        }
    }

    /// Adds a value to an array of its kind.
    pub(super) fn push(&mut self, value: Self) -> Result<(), StoreError> {
        match (self, value) {
            (Self::Integers(all), Self::Integer(one)) => all.push(one),
            (Self::Texts(all), Self::Text(one)) => all.push(one),
            (Self::Blobs(all), Self::Bytes(one)) => all.push(one),
            _ => {
                let error = sqlx::Error::Encode("a column has values of two kinds".into());
                return Err(error.into());
            }
        }
        Ok(())
    }
}

/// What a row of either database can be read into. Derived by `#[derive(FromRow)]`; tuples have it.
pub(in crate::store) trait Row:
    for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{
}

impl<T> Row for T where T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{}

/// One statement. Parameters are `$1`, `$2`, …: both databases take them.
#[derive(Debug)]
pub(in crate::store) struct Statement {
    sql: SqlStr,
    values: Vec<Value>,
}

/// A statement of this text.
pub(in crate::store) fn statement(sql: &'static str) -> Statement {
    Statement {
        sql: sql.into_sql_str(),
        values: Vec::new(),
    }
}

/// A statement that was put together. No value may be part of its text.
pub(in crate::store) fn built(sql: String) -> Statement {
    Statement {
        sql: AssertSqlSafe(sql).into_sql_str(),
        values: Vec::new(),
    }
}

impl Statement {
    /// Gives the next parameter its value.
    pub(in crate::store) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Runs it; returns how many rows it changed.
    pub(in crate::store) async fn execute(self, on: &mut Connection) -> Result<u64, StoreError> {
        let Self { sql, values } = self;
        let (link, limit) = on.parts();
        let work = async {
            match link {
                Link::Sqlite(db) => {
                    let query = sqlx::query_with(sql, of_sqlite(values)?);
                    Ok(query.execute(&mut **db).await?.rows_affected())
                }
                Link::Postgres(db) => {
                    let query = sqlx::query_with(sql, of_postgres(values)?);
                    Ok(query.execute(&mut **db).await?.rows_affected())
                }
            }
        };
        let done = bounded(limit, work).await;
        on.after(done)
    }

    /// Runs it; returns the rows.
    pub(in crate::store) async fn all<T: Row>(
        self,
        on: &mut Connection,
    ) -> Result<Vec<T>, StoreError> {
        let Self { sql, values } = self;
        let (link, limit) = on.parts();
        let work = async {
            match link {
                Link::Sqlite(db) => {
                    let query = sqlx::query_as_with(sql, of_sqlite(values)?);
                    query.fetch_all(&mut **db).await
                }
                Link::Postgres(db) => {
                    let query = sqlx::query_as_with(sql, of_postgres(values)?);
                    query.fetch_all(&mut **db).await
                }
            }
        };
        let done = bounded(limit, work).await;
        on.after(done)
    }

    /// Runs it; returns the first row, if there is one.
    pub(in crate::store) async fn first<T: Row>(
        self,
        on: &mut Connection,
    ) -> Result<Option<T>, StoreError> {
        Ok(self.all(on).await?.into_iter().next())
    }

    /// Runs it; returns the one row that it must have.
    pub(in crate::store) async fn one<T: Row>(self, on: &mut Connection) -> Result<T, StoreError> {
        let first = self.first(on).await?;
        first.ok_or(StoreError::Database(sqlx::Error::RowNotFound))
    }
}

fn of_sqlite(values: Vec<Value>) -> Result<SqliteArguments, sqlx::Error> {
    let mut arguments = SqliteArguments::default();
    for value in values {
        match value {
            Value::Integer(number) => arguments.add(number),
            Value::Text(text) => arguments.add(text),
            Value::Bytes(bytes) => arguments.add(bytes),
            Value::Integers(_) | Value::Texts(_) | Value::Blobs(_) => {
                Err("SQLite has no arrays".into())
            }
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

fn of_postgres(values: Vec<Value>) -> Result<PgArguments, sqlx::Error> {
    let mut arguments = PgArguments::default();
    for value in values {
        match value {
            Value::Integer(number) => arguments.add(number),
            Value::Text(text) => arguments.add(text),
            Value::Bytes(bytes) => arguments.add(bytes),
            Value::Integers(numbers) => arguments.add(numbers),
            Value::Texts(texts) => arguments.add(texts),
            Value::Blobs(blobs) => arguments.add(blobs),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

/// A text as both databases keep it: PostgreSQL's has no zero byte
/// (<https://www.postgresql.org/docs/15/datatype-character.html>), and GitHub's and an agent's may.
pub(in crate::store) fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(Some(number))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Integer(Some(number.into()))
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Integer(Some(flag.into()))
    }
}

impl From<Option<i64>> for Value {
    fn from(number: Option<i64>) -> Self {
        Self::Integer(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(Some(storable(text)))
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<Option<&str>> for Value {
    fn from(text: Option<&str>) -> Self {
        Self::Text(text.map(storable))
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}
