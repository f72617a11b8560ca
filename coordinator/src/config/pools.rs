//! `[[pool]]` and `[accounts.*]`: the fleet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster_core::{
    AccountName, FleetSpec, Market, PoolName, PoolSpec, RerunPolicy, Scope, SizeRules, TimeLimits,
};

use super::Ec2Account;
use super::document::{Section, Value, all};
use super::ec2::{self, Whole};
use super::values::{duration, is_word};
use crate::compute::ec2::Ec2Pool;

/// Most instances of a pool.
const MAX_INSTANCES: u32 = 10_000;
/// Most instances of an account.
const MAX_ACCOUNT_INSTANCES: u32 = 100_000;
/// Most characters of a label; GitHub takes no more.
const MAX_LABEL: usize = 256;
/// A job on a self-hosted runner ends after five days
/// (<https://docs.github.com/en/actions/reference/limits>).
const MAX_LIFETIME: Duration = Duration::from_secs(5 * 86_400);

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

/// The one account that this version can launch in.
pub(super) const LOCAL: &str = "local";

/// Reads accounts and pools, and checks them against each other.
/// The fleet, and the accounts of it that are AWS's.
pub(super) fn fleet(
    root: &mut Section<'_>,
    heartbeat: Option<Duration>,
    whole: &Whole<'_>,
) -> Option<(FleetSpec, Vec<Ec2Account>)> {
    let accounts = accounts(&root.section("accounts"), whole);
    let Some(list) = root.value("pool") else {
        root.refuse("no [[pool]] is there; at least one is needed");
        return None;
    };
    let mut names = BTreeSet::new();
    let mut beside = Beside {
        accounts: accounts.as_ref().map(|(most, _)| most),
        idle: BTreeMap::new(),
        heartbeat,
    };
    let pools = all(&list.list()?, |value| {
        let mut section = value.section();
        let pool = pool(&mut section, &mut names, &mut beside);
        section.finish();
        pool
    });
    let pools = pools?;
    if pools.is_empty() {
        list.report("no pool is there; at least one is needed");
        return None;
    }
    let (accounts, mut ec2) = accounts?;
    let mut specs = Vec::new();
    for (spec, on_ec2) in pools {
        let account = ec2.iter_mut().find(|one| one.settings.name == spec.account);
        if let (Some(account), Some(on_ec2)) = (account, on_ec2) {
            account.settings.pools.insert(spec.name.clone(), on_ec2);
        }
        specs.push(spec);
    }
    let spec = FleetSpec {
        pools: specs,
        accounts,
    };
    Some((spec, ec2))
}

type Accounts = (BTreeMap<AccountName, u32>, Vec<Ec2Account>);

fn accounts(section: &Section<'_>, whole: &Whole<'_>) -> Option<Accounts> {
    let mut accounts: Option<Accounts> = Some((BTreeMap::new(), Vec::new()));
    let mut taken = BTreeSet::new();
    for (name, _, value) in section.entries() {
        if !is_word(name, 32, |c| {
            c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
        }) {
            value.report("the name of an account is made of 1 to 32 of a-z, 0-9 and -");
            accounts = None;
            continue;
        }
        let mut account = value.section();
        account.rename(format!("[accounts.{name}]"));
        let most = account.required("max_instances", |value| {
            value.integer(1, MAX_ACCOUNT_INSTANCES)
        });
        let on_ec2 = if name == LOCAL {
            Some(None)
        } else {
            ec2::account(&mut account, name, whole, &mut taken).map(Some)
        };
        account.finish();
        if let (Some(Some(one)), Some((_, all))) = (&on_ec2, &accounts)
            && let Some(first) = all.first()
            && first.settings.endpoint != one.settings.endpoint
        {
            let first = &first.settings.name;
            account.refuse(format_args!(
                "endpoint_url is another than account {first}'s; it stands for STS too, which all share"
            ));
        }
        match (most, on_ec2, &mut accounts) {
            (Some(most), Some(on_ec2), Some((accounts, all))) => {
                accounts.insert(AccountName::from(name), most);
                all.extend(on_ec2);
            }
            _ => accounts = None,
        }
    }
    accounts
}

fn pool(
    section: &mut Section<'_>,
    names: &mut BTreeSet<String>,
    beside: &mut Beside<'_>,
) -> Option<(PoolSpec, Option<Ec2Pool>)> {
    section.rename("[[pool]]".to_owned());
    let name = section.required("name", |value| pool_name(value, names));
    if let Some(name) = &name {
        section.rename(format!("pool \"{name}\""));
    }
    let scope = section.required("scope", scope);
    let runner_group = section.default("runner_group", "Default".to_owned(), runner_group);
    let labels = section.required("labels", labels);
    let account = section.required("account", |value| value.text().map(AccountName::from));
    let min_idle = section.default("min_idle", 0, |value| value.integer(0, MAX_INSTANCES));
    let max = section.required("max", |value| value.integer(1, MAX_INSTANCES));
    let public = section.default("public_repositories", false, Value::boolean);
    let sizes = section.default("allow", SizeRules::default(), sizes);
    let limits = section.default("limits", TimeLimits::default(), limits);
    let rerun = section.optional("rerun_interrupted", rerun);
    let on_ec2 = section.optional("ec2", |value| ec2::pool(value.section()));
    let (on_ec2, canary) = match on_ec2 {
        Some(Some((on_ec2, canary))) => (Some(Some(on_ec2)), canary),
        Some(None) => (Some(None), None),
        None => (None, None),
    };
    if let (Some(account), Some(on_ec2)) = (&account, &on_ec2) {
        match (account.as_str() == LOCAL, on_ec2) {
            (true, Some(_)) => section.refuse("ec2 is of no use in the account \"local\""),
            (false, None) => section.refuse("ec2 is missing: what is to be launched"),
            _ => {}
        }
    }
    if let (Some(sizes), Some(Some(on_ec2))) = (&sizes, &on_ec2) {
        for name in sizes
            .instance_types
            .difference(&on_ec2.types.iter().cloned().collect())
        {
            section.refuse(format_args!("allow: type {name} is not one of ec2: types"));
        }
    }
    check(
        section,
        (min_idle, max),
        limits.as_ref(),
        account.as_ref(),
        beside,
    );
    let spec = PoolSpec {
        name: name?,
        scope: scope?,
        runner_group: runner_group?,
        labels: labels?,
        sizes: sizes?,
        public_repositories: public?,
        account: account?,
        min_idle: min_idle?,
        max: max?,
        limits: limits?,
        rerun: rerun?,
        canary,
    };
    Some((spec, on_ec2?))
}

fn pool_name(value: &Value<'_>, names: &mut BTreeSet<String>) -> Option<PoolName> {
    let text = value.text()?;
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !is_word(text, 32, allowed) {
        return value.refused("is not made of 1 to 32 of a-z, 0-9 and -");
    }
    if !names.insert(text.to_owned()) {
        return value.refused("is the name of another pool too");
    }
    Some(PoolName::from(text))
}

fn scope(value: &Value<'_>) -> Option<Scope> {
    let mut section = value.section();
    if !section.exists() {
        return None;
    }
    let organization = section.optional("organization", |value| {
        login(value).map(Scope::Organization)
    });
    let enterprise = section.optional("enterprise", |value| login(value).map(Scope::Enterprise));
    let repository = section.optional("repository", repository);
    section.finish();
    let mut given = [organization?, repository?, enterprise?]
        .into_iter()
        .flatten();
    let scope = given.next();
    if scope.is_none() || given.next().is_some() {
        section.refuse("one of organization, repository and enterprise is needed");
        return None;
    }
    scope
}

fn login(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    if is_word(text, 100, |c| c.is_ascii_alphanumeric() || "-_".contains(c)) {
        return Some(text.to_owned());
    }
    value.refused("is not a name at GitHub")
}

fn repository(value: &Value<'_>) -> Option<Scope> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match value.text()?.split_once('/') {
        Some((owner, name)) if is_word(owner, 100, allowed) && is_word(name, 100, allowed) => {
            Some(Scope::Repository {
                owner: owner.to_owned(),
                name: name.to_owned(),
            })
        }
        _ => value.refused("is not a repository such as \"octo-org/octo-repo\""),
    }
}

fn runner_group(value: &Value<'_>) -> Option<String> {
    match value.text()? {
        "" => value.refused("is not the name of a runner group"),
        text => Some(text.to_owned()),
    }
}

fn labels(value: &Value<'_>) -> Option<BTreeSet<String>> {
    let mut labels = BTreeSet::new();
    let read = all(&value.list()?, |value| {
        let text = value.text()?;
        let label = text.to_lowercase();
        if !is_word(text, MAX_LABEL, |c| !c.is_control() && c != ',') || text.trim() != text {
            return value.refused("is not a label of 1 to 256 characters without a comma");
        }
        if label.starts_with("muster/") {
            return value.refused("starts with muster/; what jobs may ask for goes in `allow`");
        }
        if !labels.insert(label) {
            return value.refused("is there twice; case makes no difference");
        }
        Some(())
    });
    read?;
    if labels.is_empty() {
        return value.refused("has no label; at least one is needed");
    }
    Some(labels)
}

fn sizes(value: &Value<'_>) -> Option<SizeRules> {
    let mut section = value.section();
    let cpus = section.default("cpu", BTreeSet::new(), |value| numbers(value, 1_024));
    let memory = section.default("mem", BTreeSet::new(), |value| numbers(value, 65_536));
    let types = section.default("type", BTreeSet::new(), instance_types);
    let spot = section.default("spot", false, Value::boolean);
    let on_demand = section.default("on_demand", false, Value::boolean);
    section.finish();
    Some(SizeRules {
        cpus: cpus?,
        memory_gib: memory?,
        instance_types: types?,
        spot: spot?,
        on_demand: on_demand?,
    })
}

fn numbers(value: &Value<'_>, most: u32) -> Option<BTreeSet<u32>> {
    let numbers = all(&value.list()?, |value| value.integer(1, most))?;
    Some(numbers.into_iter().collect())
}

fn instance_types(value: &Value<'_>) -> Option<BTreeSet<String>> {
    let types = all(&value.list()?, ec2::instance_type)?;
    Some(types.into_iter().collect())
}

fn limits(value: &Value<'_>) -> Option<TimeLimits> {
    let default = TimeLimits::default();
    let mut section = value.section();
    let boot = section.default("boot", default.boot, duration(SECOND, HOUR));
    let start = section.default("start", default.start, duration(SECOND, HOUR));
    let idle = section.default("idle", default.idle, duration(Duration::ZERO, MAX_LIFETIME));
    let lifetime = section.default("lifetime", default.lifetime, duration(SECOND, MAX_LIFETIME));
    let silence = section.default("silence", default.silence, duration(SECOND, HOUR));
    let silence_busy = section.default(
        "silence_busy",
        default.silence_busy,
        duration(SECOND, 6 * HOUR),
    );
    section.finish();
    let limits = TimeLimits {
        boot: boot?,
        start: start?,
        idle: idle?,
        lifetime: lifetime?,
        silence: silence?,
        silence_busy: silence_busy?,
    };
    if limits.boot + limits.start >= limits.lifetime {
        section.refuse("lifetime leaves no time after boot and start");
    }
    if limits.silence_busy < limits.silence {
        section.refuse("silence_busy is less than silence");
    }
    Some(limits)
}

/// Most times that one job of a run is run again.
const MAX_RERUNS: u32 = 5;

fn rerun(value: &Value<'_>) -> Option<RerunPolicy> {
    let mut section = value.section();
    if !section.exists() {
        return None;
    }
    let attempts = section.default("attempts", 1, |value| value.integer(1, MAX_RERUNS));
    let market = section.default("market", Some(Market::OnDemand), |value| {
        match value.text()? {
            "on-demand" => Some(Some(Market::OnDemand)),
            "spot" => Some(Some(Market::Spot)),
            "same" => Some(None),
            _ => value.refused("is not \"on-demand\", \"spot\" or \"same\""),
        }
    });
    section.finish();
    Some(RerunPolicy {
        attempts: attempts?,
        market: market?,
    })
}

/// What a pool is checked against beside itself.
struct Beside<'a> {
    /// None if they are wrong themselves.
    accounts: Option<&'a BTreeMap<AccountName, u32>>,
    /// The sum of the idle floors so far.
    idle: BTreeMap<AccountName, u32>,
    heartbeat: Option<Duration>,
}

/// What the values of a pool must be to each other and to the rest, as far as each could be read.
fn check(
    section: &Section<'_>,
    (min_idle, max): (Option<u32>, Option<u32>),
    limits: Option<&TimeLimits>,
    account: Option<&AccountName>,
    beside: &mut Beside<'_>,
) {
    if let (Some(min_idle), Some(max)) = (min_idle, max)
        && min_idle > max
    {
        section.refuse(format_args!("min_idle {min_idle} is more than max {max}"));
    }
    if let (Some(heartbeat), Some(limits)) = (beside.heartbeat, limits)
        && limits.silence < 2 * heartbeat
    {
        section.refuse("limits: silence is less than twice heartbeat_interval of [coordinator]");
    }
    let (Some(accounts), Some(account)) = (beside.accounts, account) else {
        return;
    };
    let Some(most) = accounts.get(account) else {
        section.refuse(format_args!("account: there is no [accounts.{account}]"));
        return;
    };
    let sum = beside.idle.entry(account.clone()).or_default();
    *sum += min_idle.unwrap_or(0);
    if *sum > *most {
        section.refuse(format_args!(
            "with this pool min_idle comes to {sum} in the account \"{account}\", \
             whose max_instances is {most}"
        ));
    }
}
