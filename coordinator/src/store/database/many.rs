//! Many rows at once: by one statement on a server, where each is a way there and back, and by one for each
//! row in SQLite, which has no arrays and is no way off.

use std::collections::HashMap;

use super::{Connection, Value, built};
use crate::store::StoreError;

/// Rows in one statement, at most: what it holds in memory, and how long it takes, stays bounded.
const AT_ONCE: usize = 1_000;

/// How rows get into a table.
pub(in crate::store) struct Insert {
    pub(in crate::store) into: &'static str,
    /// The first one is the key, if there is one.
    pub(in crate::store) columns: &'static [&'static str],
    /// What is done where the key is there already.
    pub(in crate::store) on_conflict: &'static str,
}

impl Insert {
    /// Writes rows. Of those with one key the last counts, in the place of the first: a statement may
    /// touch a row once only.
    pub(in crate::store) async fn write(
        &self,
        db: &mut Connection,
        rows: Vec<Vec<Value>>,
    ) -> Result<(), StoreError> {
        let rows = last_of_each_key(rows);
        if !db.is_postgres() {
            let text = self.of_one();
            for row in rows {
                let statement = row
                    .into_iter()
                    .fold(built(text.clone()), super::Statement::bind);
                statement.execute(db).await?;
            }
            return Ok(());
        }
        for some in chunks(rows) {
            let text = self.of_many();
            let columns = columns(some)?;
            let statement = columns
                .into_iter()
                .fold(built(text), super::Statement::bind);
            statement.execute(db).await?;
        }
        Ok(())
    }

    /// Writes rows that have no key; returns what the database numbers them with, in their order.
    pub(in crate::store) async fn append(
        &self,
        db: &mut Connection,
        number: &'static str,
        rows: Vec<Vec<Value>>,
    ) -> Result<Vec<i64>, StoreError> {
        let mut numbers = Vec::with_capacity(rows.len());
        if !db.is_postgres() {
            let text = format!("{} RETURNING {number}", self.of_one());
            for row in rows {
                let statement = row
                    .into_iter()
                    .fold(built(text.clone()), super::Statement::bind);
                let (one,): (i64,) = statement.one(db).await?;
                numbers.push(one);
            }
            return Ok(numbers);
        }
        for some in chunks(rows) {
            let text = format!("{} RETURNING {number}", self.of_many());
            let columns = columns(some)?;
            let statement = columns
                .into_iter()
                .fold(built(text), super::Statement::bind);
            let mut given: Vec<(i64,)> = statement.all(db).await?;
            // Given in the order of the rows; in which order they are told is open.
            given.sort_unstable();
            numbers.extend(given.into_iter().map(|(one,)| one));
        }
        Ok(numbers)
    }

    fn of_one(&self) -> String {
        let values = parameters(self.columns.len());
        let (columns, table) = (self.columns.join(", "), self.into);
        let on_conflict = self.on_conflict;
        format!("INSERT INTO {table} ({columns}) VALUES ({values}) {on_conflict}")
    }

    fn of_many(&self) -> String {
        let values = parameters(self.columns.len());
        let (columns, table) = (self.columns.join(", "), self.into);
        let on_conflict = self.on_conflict;
        format!(
            "INSERT INTO {table} ({columns}) SELECT {columns} FROM UNNEST({values})
             WITH ORDINALITY AS sent ({columns}, place) ORDER BY place {on_conflict}"
        )
    }
}

/// Runs a statement for each key. Its text ends with the column that the key is in.
pub(in crate::store) async fn for_keys(
    db: &mut Connection,
    text: &'static str,
    keys: Vec<Value>,
) -> Result<(), StoreError> {
    if !db.is_postgres() {
        for key in keys {
            built(format!("{text} = $1")).bind(key).execute(db).await?;
        }
        return Ok(());
    }
    for some in chunks(keys.into_iter().map(|key| vec![key]).collect()) {
        let columns = columns(some)?;
        let statement = built(format!("{text} = ANY($1)"));
        let statement = columns.into_iter().fold(statement, super::Statement::bind);
        statement.execute(db).await?;
    }
    Ok(())
}

fn parameters(count: usize) -> String {
    let all: Vec<_> = (1..=count).map(|number| format!("${number}")).collect();
    all.join(", ")
}

fn last_of_each_key(rows: Vec<Vec<Value>>) -> Vec<Vec<Value>> {
    let mut places = HashMap::with_capacity(rows.len());
    let mut kept: Vec<Vec<Value>> = Vec::with_capacity(rows.len());
    for row in rows {
        match places.get(&row[0]) {
            Some(place) => kept[*place] = row,
            None => {
                places.insert(row[0].clone(), kept.len());
                kept.push(row);
            }
        }
    }
    kept
}

fn chunks(rows: Vec<Vec<Value>>) -> impl Iterator<Item = Vec<Vec<Value>>> {
    let mut rows = rows.into_iter();
    std::iter::from_fn(move || {
        let some: Vec<_> = rows.by_ref().take(AT_ONCE).collect();
        (!some.is_empty()).then_some(some)
    })
}

/// The rows as an array for each column.
fn columns(rows: Vec<Vec<Value>>) -> Result<Vec<Value>, StoreError> {
    let mut columns = Vec::new();
    for row in rows {
        if columns.is_empty() {
            columns = row.iter().map(Value::array).collect();
        }
        for (column, value) in columns.iter_mut().zip(row) {
            column.push(value)?;
        }
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_rows_with_one_key_the_last_counts_in_the_place_of_the_first() {
        let row = |key: i64, text: &str| vec![Value::from(key), Value::from(text)];
        let rows = vec![row(1, "a"), row(2, "b"), row(1, "c"), row(3, "d")];
        let expected = [row(1, "c"), row(2, "b"), row(3, "d")];
        assert_eq!(last_of_each_key(rows), expected);
    }

    #[test]
    fn no_row_is_lost_between_two_statements() {
        let rows: Vec<_> = (0..2_001_i64).map(|one| vec![Value::from(one)]).collect();
        let lengths: Vec<_> = chunks(rows.clone()).map(|some| some.len()).collect();
        assert_eq!(lengths, [1_000, 1_000, 1]);
        assert_eq!(chunks(rows.clone()).flatten().collect::<Vec<_>>(), rows);
    }

    #[test]
    fn a_column_has_one_kind_of_value_and_may_have_none_of_it() {
        let rows = vec![
            vec![Value::Text(None), Value::from(1_i64)],
            vec![Value::from("a"), Value::Integer(None)],
        ];
        let expected = [
            Value::Texts(vec![None, Some("a".to_owned())]),
            Value::Integers(vec![Some(1), None]),
        ];
        assert_eq!(columns(rows).unwrap(), expected);
        let mixed = vec![vec![Value::from("a")], vec![Value::from(1_i64)]];
        assert!(columns(mixed).is_err());
    }
}
