//! What must be known before anything is launched: subnets, types, and the images that parameters name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_ec2::types::{Filter, InstanceType, MemoryInfo, VCpuInfo};
use aws_sdk_ssm::operation::get_parameters::GetParametersOutput;
use muster_core::ImageId;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::budget::Budgets;
use super::catalog::{Catalog, Size};
use super::clients::Clients;
use super::error;
use super::settings::{Ec2Pool, Ec2Settings, ImageSource};
use crate::backoff::Backoff;
use crate::compute::PoolImages;

/// How often subnets and types are read.
const CATALOG: Duration = Duration::from_secs(60 * 60);
/// Waits after a failure.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Parameters in one call, as SSM limits them
/// (<https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameters.html>).
const PARAMETERS: usize = 10;
/// Values of one filter, as EC2 limits them.
const VALUES: usize = 200;

/// What is known. Old knowledge is kept while new can't be had.
#[derive(Clone, Debug, Default)]
pub(super) struct Knowledge {
    pub(super) catalog: Option<Arc<Catalog>>,
    /// Image of each parameter.
    pub(super) images: BTreeMap<String, String>,
    /// Why subnets and types could not be learnt, if so.
    trouble: Option<String>,
    /// Parameters whose image could not be learnt, with the reason.
    troubles: BTreeMap<String, String>,
}

impl Knowledge {
    /// Why nothing of this image can be launched yet; none if it can.
    pub(super) fn lacks(&self, image: Option<&ImageSource>) -> Option<String> {
        let (waits, trouble) = match image {
            _ if self.catalog.is_none() => (
                "EC2 has not yet said which subnets and types there are",
                self.trouble.as_ref(),
            ),
            Some(ImageSource::Parameter(name)) if !self.images.contains_key(name) => (
                "SSM has not yet said which image the pool launches",
                self.troubles.get(name),
            ),
            _ => return None,
        };
        Some(trouble.map_or_else(|| waits.to_owned(), |why| format!("{waits}: {why}")))
    }

    /// The images of a pool; none while its own is not known.
    pub(super) fn images_of(&self, pool: &Ec2Pool) -> Option<PoolImages> {
        let image = |source: &ImageSource| match source {
            ImageSource::Template => None,
            ImageSource::Id(id) => Some(ImageId::new(id)),
            ImageSource::Parameter(name) => self.images.get(name).map(ImageId::new),
        };
        let own = image(&pool.image);
        (own.is_some() || pool.image == ImageSource::Template).then(|| PoolImages {
            own,
            seen: None,
            canary: pool.canary.as_ref().and_then(image),
        })
    }

    /// All that could not be learnt.
    fn all_trouble(&self) -> Option<String> {
        let all: BTreeSet<&str> = self
            .trouble
            .iter()
            .chain(self.troubles.values())
            .map(String::as_str)
            .collect();
        (!all.is_empty()).then(|| Vec::from_iter(all).join("; "))
    }
}

/// Who learns it.
#[derive(Debug)]
pub(super) struct Learner {
    pub(super) settings: Arc<Ec2Settings>,
    pub(super) clients: Clients,
    pub(super) budgets: Arc<Budgets>,
    pub(super) known: watch::Sender<Knowledge>,
    /// How often parameters are read.
    pub(super) every: Duration,
}

impl Learner {
    /// Learns, and keeps learning until it is told to stop.
    pub(super) async fn run(self, stop: CancellationToken) {
        let _ = stop.run_until_cancelled(self.learn()).await;
    }

    async fn learn(&self) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut catalog_at: Option<Instant> = None;
        let mut told = None;
        loop {
            if catalog_at.is_none_or(|at| at.elapsed() >= CATALOG) && self.learn_catalog().await {
                catalog_at = Some(Instant::now());
            }
            self.learn_images().await;
            let trouble = self.known.borrow().all_trouble();
            let wait = if trouble.is_some() {
                backoff.wait().min(self.every)
            } else {
                backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
                self.every
            };
            if trouble != told {
                self.tell(trouble.as_deref());
                told = trouble;
            }
            tokio::time::sleep(wait).await;
        }
    }

    fn tell(&self, trouble: Option<&str>) {
        let account = self.settings.name.as_str();
        let region = self.settings.region.as_str();
        match trouble {
            Some(reason) => tracing::warn!(
                account,
                region,
                reason,
                "AWS can't be asked what may be launched"
            ),
            None => tracing::info!(account, region, "AWS says again what may be launched"),
        }
    }

    /// Learns subnets and types; false if that is to be tried again.
    async fn learn_catalog(&self) -> bool {
        let settings = &self.settings;
        let catalog = match catalog(settings, &self.clients, &self.budgets).await {
            Ok(catalog) => catalog,
            Err(trouble) => {
                self.known
                    .send_modify(|known| known.trouble = Some(trouble));
                return false;
            }
        };
        let pools = settings.pools.values();
        let lacking = catalog.lacking(
            pools.clone().flat_map(|pool| &pool.subnets),
            pools.flat_map(|pool| &pool.types),
        );
        if !lacking.is_empty() {
            tracing::warn!(
                account = settings.name.as_str(),
                region = settings.region,
                lacking = ?lacking,
                "EC2 doesn't have all that the pools name"
            );
        }
        self.known.send_modify(|known| {
            known.catalog = Some(Arc::new(catalog));
            known.trouble = None;
        });
        true
    }

    /// Learns the images of those parameters that have one.
    async fn learn_images(&self) {
        let Read {
            images,
            troubles,
            gone,
        } = read_images(&self.settings, &self.clients).await;
        let pools = self.settings.pools.values();
        let needed: BTreeSet<&String> = pools.filter_map(|pool| pool.image.parameter()).collect();
        self.known.send_if_modified(|known| {
            let mut changed = known.troubles != troubles;
            known.troubles = troubles;
            // Without its parameter a canary is over; a pool goes on with the last image that it had.
            for parameter in gone.iter().filter(|name| !needed.contains(name)) {
                if known.images.remove(parameter).is_some() {
                    let account = self.settings.name.as_str();
                    tracing::info!(account, parameter, "a canary's parameter is gone");
                    changed = true;
                }
            }
            for (parameter, image) in images {
                if known.images.get(&parameter) != Some(&image) {
                    let account = self.settings.name.as_str();
                    tracing::info!(account, parameter, image, "image");
                    known.images.insert(parameter, image);
                    changed = true;
                }
            }
            changed
        });
    }
}

async fn catalog(
    settings: &Ec2Settings,
    clients: &Clients,
    budgets: &Budgets,
) -> Result<Catalog, String> {
    let mut catalog = Catalog::default();
    // Filters leave out what doesn't exist; ids would fail the whole call.
    let pools = settings.pools.values();
    let subnets: BTreeSet<&String> = pools.clone().flat_map(|pool| &pool.subnets).collect();
    for some in Vec::from_iter(subnets).chunks(VALUES) {
        budgets.describe.spend().await;
        let filter = filter("subnet-id", some.iter().copied());
        let mut pages = clients
            .ec2
            .describe_subnets()
            .filters(filter)
            .into_paginator()
            .send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| error::of_call("DescribeSubnets", &error).text)?;
            for subnet in page.subnets() {
                if let (Some(id), Some(zone)) = (subnet.subnet_id(), subnet.availability_zone()) {
                    catalog.zones.insert(id.to_owned(), zone.to_owned());
                }
            }
        }
    }
    let types: BTreeSet<&String> = pools.flat_map(|pool| &pool.types).collect();
    for some in Vec::from_iter(types).chunks(VALUES) {
        budgets.describe.spend().await;
        let filter = filter("instance-type", some.iter().copied());
        let mut pages = clients
            .ec2
            .describe_instance_types()
            .filters(filter)
            .into_paginator()
            .send();
        while let Some(page) = pages.next().await {
            let page =
                page.map_err(|error| error::of_call("DescribeInstanceTypes", &error).text)?;
            for found in page.instance_types() {
                let cpus = found.v_cpu_info().and_then(VCpuInfo::default_v_cpus);
                let memory = found.memory_info().and_then(MemoryInfo::size_in_mib);
                if let (Some(name), Some(cpus), Some(memory)) =
                    (found.instance_type(), cpus, memory)
                {
                    let size = Size {
                        cpus: u32::try_from(cpus).unwrap_or(0),
                        memory_mib: u64::try_from(memory).unwrap_or(0),
                    };
                    catalog
                        .sizes
                        .insert(InstanceType::as_str(name).to_owned(), size);
                }
            }
        }
    }
    Ok(catalog)
}

/// What was read of parameters.
#[derive(Debug, Default)]
struct Read {
    images: BTreeMap<String, String>,
    /// Why the others have none.
    troubles: BTreeMap<String, String>,
    /// Those that SSM doesn't have.
    gone: Vec<String>,
}

async fn read_images(settings: &Ec2Settings, clients: &Clients) -> Read {
    let parameters: BTreeSet<&String> = settings
        .pools
        .values()
        .flat_map(|pool| std::iter::once(&pool.image).chain(&pool.canary))
        .filter_map(ImageSource::parameter)
        .collect();
    let parameters = Vec::from_iter(parameters);
    let mut asks: Vec<&[&String]> = parameters.chunks(PARAMETERS).collect();
    let mut read = Read::default();
    while let Some(names) = asks.pop() {
        let asked = names.iter().map(|name| (*name).clone()).collect();
        let output = clients.ssm.get_parameters().set_names(Some(asked));
        match output.send().await {
            Ok(output) => read.take(&output),
            Err(error) => {
                let error = error::of_call("GetParameters", &error);
                // One that we may not read fails the call for all.
                if names.len() > 1 && error.kind.refuses() {
                    asks.extend(names.chunks(1));
                    continue;
                }
                let troubled = names.iter().map(|name| (*name).clone());
                read.troubles
                    .extend(troubled.map(|name| (name, error.text.clone())));
            }
        }
    }
    read
}

impl Read {
    fn take(&mut self, output: &GetParametersOutput) {
        for name in output.invalid_parameters() {
            let trouble = format!("SSM has no parameter {name}");
            self.troubles.insert(name.clone(), trouble);
            self.gone.push(name.clone());
        }
        for parameter in output.parameters() {
            let name = parameter.name().unwrap_or_default();
            let name = format!("{name}{}", parameter.selector().unwrap_or_default());
            let value = parameter.value().unwrap_or_default();
            if value.starts_with("ami-") {
                self.images.insert(name, value.to_owned());
            } else {
                let value = error::shortened(value);
                let trouble = format!("parameter {name} names no image: {value:?}");
                self.troubles.insert(name, trouble);
            }
        }
    }
}

pub(super) fn filter<'a>(name: &str, values: impl IntoIterator<Item = &'a String>) -> Filter {
    Filter::builder()
        .name(name)
        .set_values(Some(values.into_iter().cloned().collect()))
        .build()
}
