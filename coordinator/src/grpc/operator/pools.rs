//! Pools, with what they hold and lack.

use muster_core::{Fleet, PoolName};
use muster_proto::v1;
use tonic::Status;

use super::{Shared, convert, near, now};

impl Shared {
    pub(super) async fn list_pools(&self) -> Result<v1::ListPoolsResponse, Status> {
        let now = now();
        let pools = self
            .query(move |fleet| {
                let specs = fleet.pools().iter();
                specs
                    .filter_map(|spec| shown(fleet, &spec.name, now))
                    .collect()
            })
            .await?;
        let surveys = self.surveys.all();
        Ok(v1::ListPoolsResponse {
            pools,
            surveys: surveys.into_iter().map(convert::survey).collect(),
        })
    }

    /// One pool as it is now.
    pub(super) async fn pool(&self, name: &PoolName) -> Result<v1::Pool, Status> {
        let now = now();
        let wanted = name.clone();
        let (found, known) = self
            .query(move |fleet| {
                let found = shown(fleet, &wanted, now);
                let known = found.is_none().then(|| pool_names(fleet));
                (found, known)
            })
            .await?;
        found.ok_or_else(|| near::not_found("pool", name.as_str(), known.unwrap_or_default()))
    }

    pub(super) async fn pool_names(&self) -> Result<Vec<String>, Status> {
        self.query(pool_names).await
    }
}

/// The pool that a filter names; none for an empty filter.
///
/// # Errors
/// The names of all pools, if there is none of this name.
pub(super) fn filter(fleet: &Fleet, name: &str) -> Result<Option<PoolName>, Vec<String>> {
    if name.is_empty() {
        return Ok(None);
    }
    let name = PoolName::new(name);
    match fleet.pool(&name) {
        Some(_) => Ok(Some(name)),
        None => Err(pool_names(fleet)),
    }
}

fn shown(fleet: &Fleet, name: &PoolName, now: jiff::Timestamp) -> Option<v1::Pool> {
    let spec = fleet.pool(name)?;
    Some(convert::pool(
        spec,
        &fleet.pool_state(name),
        &fleet.figures(name, now),
    ))
}

fn pool_names(fleet: &Fleet) -> Vec<String> {
    let names = fleet.pools().iter().map(|spec| spec.name.to_string());
    names.collect()
}
