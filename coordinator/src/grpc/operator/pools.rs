//! Pools, with what they hold and lack.

use muster_core::{Fleet, PoolName, Stage};
use muster_proto::v1;
use tonic::Status;

use super::{Shared, convert, near, now};

impl Shared {
    pub(super) async fn list_pools(&self) -> Result<v1::ListPoolsResponse, Status> {
        let now = now();
        let mut pools: Vec<v1::Pool> = self
            .query(move |fleet| {
                let specs = fleet.pools().iter();
                specs
                    .filter_map(|spec| shown(fleet, &spec.name, now))
                    .collect()
            })
            .await?;
        for pool in &mut pools {
            pool.images = self.images(&pool.name);
        }
        let surveys = self.known.surveys.all();
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
        let not_found = || near::not_found("pool", name.as_str(), known.unwrap_or_default());
        let mut found = found.ok_or_else(not_found)?;
        found.images = self.images(&found.name);
        Ok(found)
    }

    fn images(&self, pool: &str) -> Vec<v1::PoolImage> {
        let images = self.known.versions.of(&PoolName::new(pool));
        images.iter().map(convert::image).collect()
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
    let mut figures = fleet.figures(name, now);
    figures.limited_by = figures.limited_by.or_else(|| held_up(fleet, name));
    Some(convert::pool(spec, &fleet.pool_state(name), &figures))
}

/// What the provider says of the launch that has waited longest for its instance, if it waits for
/// something.
fn held_up(fleet: &Fleet, pool: &PoolName) -> Option<String> {
    let launching = fleet
        .runners()
        .filter(|runner| runner.pool == *pool && runner.stage() == Stage::Launching);
    let told = launching.filter(|runner| runner.held_up.is_some());
    let first = told.min_by_key(|runner| runner.marks.created_at)?;
    let reason = first.held_up.as_deref().unwrap_or_default();
    Some(format!("launches wait: {reason}"))
}

fn pool_names(fleet: &Fleet) -> Vec<String> {
    let names = fleet.pools().iter().map(|spec| spec.name.to_string());
    names.collect()
}
