//! What must be known before anything is launched: subnets, types, and the images that parameters name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_ec2::types::{Filter, InstanceType, MemoryInfo, VCpuInfo};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::budget::Budgets;
use super::catalog::{Catalog, Size};
use super::clients::Clients;
use super::error;
use super::settings::{Ec2Settings, ImageSource};
use crate::backoff::Backoff;

/// How often parameters are read: a new image is launched from a minute after it is published.
const IMAGES: Duration = Duration::from_secs(60);
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
    /// Why something could not be learnt, if so.
    pub(super) trouble: Option<String>,
}

/// Learns, and keeps learning until it is told to stop.
pub(super) async fn learn(
    settings: Arc<Ec2Settings>,
    clients: Clients,
    budgets: Arc<Budgets>,
    known: watch::Sender<Knowledge>,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    let mut catalog_at = None;
    loop {
        let due = catalog_at.is_none_or(|at: tokio::time::Instant| at.elapsed() >= CATALOG);
        let learnt = stop
            .run_until_cancelled(learn_once(&settings, &clients, &budgets, &known, due))
            .await;
        let wait = match learnt {
            None => return,
            Some(Ok(())) => {
                if due {
                    catalog_at = Some(tokio::time::Instant::now());
                }
                backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
                known.send_modify(|known| known.trouble = None);
                IMAGES
            }
            Some(Err(trouble)) => {
                tracing::warn!(
                    account = settings.name.as_str(),
                    region = settings.region,
                    reason = trouble,
                    "AWS can't be asked what may be launched"
                );
                known.send_modify(|known| known.trouble = Some(trouble));
                backoff.wait()
            }
        };
        if stop
            .run_until_cancelled(tokio::time::sleep(wait))
            .await
            .is_none()
        {
            return;
        }
    }
}

async fn learn_once(
    settings: &Ec2Settings,
    clients: &Clients,
    budgets: &Budgets,
    known: &watch::Sender<Knowledge>,
    catalog_due: bool,
) -> Result<(), String> {
    if catalog_due {
        let catalog = catalog(settings, clients, budgets).await?;
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
        known.send_modify(|known| known.catalog = Some(Arc::new(catalog)));
    }
    let images = images(settings, clients).await?;
    known.send_if_modified(|known| {
        let mut changed = false;
        for (parameter, image) in images {
            if known.images.get(&parameter) != Some(&image) {
                tracing::info!(account = settings.name.as_str(), parameter, image, "image");
                known.images.insert(parameter, image);
                changed = true;
            }
        }
        changed
    });
    Ok(())
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

async fn images(
    settings: &Ec2Settings,
    clients: &Clients,
) -> Result<BTreeMap<String, String>, String> {
    let parameters: BTreeSet<&String> = settings
        .pools
        .values()
        .filter_map(|pool| match &pool.image {
            ImageSource::Parameter(name) => Some(name),
            ImageSource::Template | ImageSource::Id(_) => None,
        })
        .collect();
    let mut images = BTreeMap::new();
    let mut bad = Vec::new();
    for some in Vec::from_iter(parameters).chunks(PARAMETERS) {
        let names = some.iter().map(|name| (*name).clone()).collect();
        let output = clients
            .ssm
            .get_parameters()
            .set_names(Some(names))
            .send()
            .await
            .map_err(|error| error::of_call("GetParameters", &error).text)?;
        for name in output.invalid_parameters() {
            bad.push(format!("SSM has no parameter {name}"));
        }
        for parameter in output.parameters() {
            match (parameter.name(), parameter.value()) {
                (Some(name), Some(value)) if value.starts_with("ami-") => {
                    images.insert(name.to_owned(), value.to_owned());
                }
                (name, value) => bad.push(format!(
                    "parameter {} names no image: {:?}",
                    name.unwrap_or_default(),
                    error::shortened(value.unwrap_or_default())
                )),
            }
        }
    }
    if bad.is_empty() {
        Ok(images)
    } else {
        Err(bad.join("; "))
    }
}

fn filter<'a>(name: &str, values: impl IntoIterator<Item = &'a String>) -> Filter {
    Filter::builder()
        .name(name)
        .set_values(Some(values.into_iter().cloned().collect()))
        .build()
}
