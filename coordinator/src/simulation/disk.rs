//! A store that keeps what was synced, whatever happens, and nothing else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use muster_core::{Effect, Job, JobId, LaunchId, PoolName, PoolState, Runner, Stored};
use tokio::sync::watch;

use super::plan::Planted;
use super::world::{Fate, Service, World};
use crate::store::{Accepted, Batch, BatchId, Delivery, Ledger, StoreError, StoredEntry};

/// What is stored.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    pub(super) jobs: BTreeMap<JobId, Job>,
    pub(super) runners: BTreeMap<LaunchId, Runner>,
    forgotten_jobs: BTreeSet<JobId>,
    forgotten_runners: BTreeSet<LaunchId>,
    pools: BTreeMap<PoolName, PoolState>,
    /// By key, with the place in line.
    outbox: BTreeMap<String, (u64, Effect)>,
    places: u64,
    /// All guids, and of which the body is not processed yet.
    pub(super) deliveries: BTreeSet<String>,
    waiting: VecDeque<Delivery>,
    notes: BTreeMap<String, String>,
    entries: i64,
    last: Option<(BatchId, i64)>,
}

/// The disk.
#[derive(Debug, Default)]
pub(super) struct Disk {
    pub(super) tables: Tables,
    /// What a crash leaves, where it is less: only a planted fault makes it so.
    synced: Option<Box<Tables>>,
    unsynced: u32,
}

impl Disk {
    /// What was not synced is gone.
    pub(super) fn crash(&mut self) {
        if let Some(synced) = self.synced.take() {
            self.tables = *synced;
        }
    }

    pub(super) fn wants(&self, key: &str) -> bool {
        self.tables.outbox.contains_key(key)
    }

    pub(super) fn outbox(&self) -> impl Iterator<Item = &String> {
        self.tables.outbox.keys()
    }

    /// A transaction; synced, unless a planted fault leaves that for later.
    fn write<T>(&mut self, planted: Option<Planted>, write: impl FnOnce(&mut Tables) -> T) -> T {
        if planted == Some(Planted::NoSync) {
            self.unsynced += 1;
            if self.synced.is_none() || self.unsynced > 20 {
                self.synced = Some(Box::new(self.tables.clone()));
                self.unsynced = 0;
            }
        }
        write(&mut self.tables)
    }
}

impl Tables {
    fn commit(&mut self, batch: Batch) -> Vec<StoredEntry> {
        let first = match &self.last {
            Some((id, first)) if *id == batch.id => *first,
            _ => {
                let first = self.entries;
                self.last = Some((batch.id.clone(), first));
                self.entries += i64::try_from(batch.timeline.len()).unwrap_or(i64::MAX);
                self.apply(&batch);
                first
            }
        };
        let numbered = batch.timeline.into_iter().zip(first + 1..);
        numbered
            .map(|(entry, sequence)| StoredEntry { sequence, entry })
            .collect()
    }

    fn apply(&mut self, batch: &Batch) {
        let jobs = batch.jobs.iter().map(|job| (job.id(), job.clone()));
        self.jobs.extend(jobs);
        let runners = batch.runners.iter();
        self.runners
            .extend(runners.map(|runner| (runner.launch.clone(), runner.clone())));
        self.pools.extend(batch.pools.iter().cloned());
        self.forgotten_jobs.extend(&batch.forgotten_jobs);
        self.forgotten_runners
            .extend(batch.forgotten_runners.iter().cloned());
        for job in &batch.jobs {
            self.forgotten_jobs.remove(&job.id());
        }
        for key in &batch.finished_effects {
            self.outbox.remove(key);
        }
        for effect in &batch.effects {
            let key = effect.key();
            let place = self
                .outbox
                .get(&key)
                .map_or(self.places, |(place, _)| *place);
            self.places += 1;
            self.outbox.insert(key, (place, effect.clone()));
        }
        let processed: BTreeSet<&String> = batch.processed_deliveries.iter().collect();
        self.waiting
            .retain(|delivery| !processed.contains(&delivery.guid));
    }

    fn load(&self) -> Stored {
        let jobs = self.jobs.values();
        let runners = self.runners.values();
        Stored {
            jobs: jobs
                .filter(|job| !self.forgotten_jobs.contains(&job.id()))
                .cloned()
                .collect(),
            runners: runners
                .filter(|runner| !self.forgotten_runners.contains(&runner.launch))
                .cloned()
                .collect(),
            pools: self.pools.clone(),
            ..Stored::default()
        }
    }

    fn effects(&self) -> Vec<Effect> {
        let mut effects: Vec<_> = self.outbox.values().collect();
        effects.sort_by_key(|(place, _)| *place);
        effects
            .into_iter()
            .map(|(_, effect)| effect.clone())
            .collect()
    }
}

/// The way of one process to the disk.
#[derive(Debug)]
pub(super) struct Shelf {
    pub(super) world: World,
    pub(super) life: u64,
}

fn gone() -> StoreError {
    StoreError::TooSlow(std::time::Duration::from_secs(1))
}

impl Shelf {
    async fn read<T>(&self, read: impl FnOnce(&Tables) -> T) -> Result<T, StoreError> {
        self.world.pause(self.life, "as it reads").await;
        if self.world.fate(Service::Store) == Fate::Failed {
            return Err(gone());
        }
        let found = read(&self.world.lock().disk.tables);
        self.world.pause(self.life, "as it has read").await;
        Ok(found)
    }

    async fn write<T>(&self, write: impl FnOnce(&mut Tables) -> T) -> Result<T, StoreError> {
        self.world.pause(self.life, "before a commit").await;
        let fate = self.world.fate(Service::Store);
        if fate == Fate::Failed {
            return Err(gone());
        }
        let written = {
            let mut state = self.world.lock();
            let planted = state.plan.planted;
            state.disk.write(planted, write)
        };
        self.world.pause(self.life, "after a commit").await;
        if fate == Fate::Unanswered {
            return Err(StoreError::Unknown(Box::new(gone())));
        }
        Ok(written)
    }

    async fn accept(&self, delivery: Delivery) -> Result<Accepted, StoreError> {
        let early = self.world.lock().plan.planted == Some(Planted::EarlyThanks);
        let store = move |tables: &mut Tables| {
            if tables.deliveries.insert(delivery.guid.clone()) {
                tables.waiting.push_back(delivery);
                Accepted::New
            } else {
                Accepted::Duplicate
            }
        };
        if !early {
            return self.write(store).await;
        }
        let late = Self {
            world: self.world.clone(),
            life: self.life,
        };
        tokio::spawn(async move {
            late.world.rest(50, 500).await;
            drop(late.write(store).await);
        });
        Ok(Accepted::New)
    }
}

impl Ledger for Shelf {
    fn writable(&self) -> watch::Receiver<bool> {
        watch::channel(true).1
    }

    fn accept_delivery(&self, delivery: Delivery) -> BoxFuture<'_, Result<Accepted, StoreError>> {
        self.accept(delivery).boxed()
    }

    fn pending_deliveries(&self, limit: u32) -> BoxFuture<'_, Result<Vec<Delivery>, StoreError>> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        self.read(move |tables| tables.waiting.iter().take(limit).cloned().collect())
            .boxed()
    }

    fn load(&self) -> BoxFuture<'_, Result<Stored, StoreError>> {
        self.read(Tables::load).boxed()
    }

    fn pending_effects(&self) -> BoxFuture<'_, Result<Vec<Effect>, StoreError>> {
        self.read(Tables::effects).boxed()
    }

    fn commit(&self, mut batch: Batch) -> BoxFuture<'_, Result<Vec<StoredEntry>, StoreError>> {
        let write = async move {
            if self.world.lock().plan.planted == Some(Planted::EarlyDone) {
                // Begun and done are one to it.
                let launches = |effect: &Effect| matches!(effect, Effect::Launch { .. });
                batch.effects.retain(|effect| !launches(effect));
            }
            let entries = self.write(move |tables| tables.commit(batch)).await?;
            for stored in &entries {
                let entry = &stored.entry;
                self.world.tell(format!(
                    "life {} {} {} {} {}",
                    self.life,
                    entry.what,
                    entry.runner.as_ref().map_or("", |name| name.as_str()),
                    entry.job.map_or(0, |job| job.0),
                    entry.detail
                ));
            }
            Ok(entries)
        };
        write.boxed()
    }

    fn runner<'a>(&'a self, text: &'a str) -> BoxFuture<'a, Result<Option<Runner>, StoreError>> {
        self.read(move |tables| {
            let mut runners = tables.runners.values();
            runners
                .find(|runner| runner.name.as_str() == text || runner.launch.as_str() == text)
                .cloned()
        })
        .boxed()
    }

    fn note<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
        self.read(move |tables| tables.notes.get(name).cloned())
            .boxed()
    }

    fn set_note<'a>(
        &'a self,
        name: &'a str,
        value: &'a str,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        self.write(move |tables| {
            tables.notes.insert(name.to_owned(), value.to_owned());
        })
        .boxed()
    }

    fn confirm_lead(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write(|_| ()).boxed()
    }
}
