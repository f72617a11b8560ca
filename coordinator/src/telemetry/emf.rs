//! Figures as CloudWatch's embedded metric format: JSON lines on standard output that the log driver
//! carries, which CloudWatch turns into metrics
//! (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>).
//!
//! The series are those of [`Metrics`], named after them: `muster_job_events_total{state="queued"}` is
//! `JobEventsQueued`. The only dimension is `Pool`. Gauges are told as they are, counters as what was
//! added since the last time, times as the seconds until then, waits one by one.
//!
//! Of several coordinators all tell into the same metrics. So those that don't lead tell only `OF_ALL`: what adds
//! up (webhooks), and gauges of which the least or the greatest of all coordinators means something. A gauge
//! of the leader's, such as the agents that are connected, would be spoilt by their zeros.

mod output;

use std::collections::{BTreeMap, HashMap, VecDeque};

use jiff::Timestamp;
use muster_core::PoolName;
use prometheus::proto::{MetricFamily, MetricType};
use serde_json::{Map, Value, json};

pub use output::run;

use super::Metrics;

/// Metrics in one directive, at most; also values of one metric in one line.
const MOST: usize = 100;

/// How the names of families end that hold times.
const TIME: &str = "_timestamp_seconds";

/// Name of the series of waits, and of the Prometheus histogram it stands for.
const WAIT: &str = "JobWait";

/// The families that every coordinator tells; all others the one that leads.
const OF_ALL: [&str; 6] = [
    "muster_ready",
    "muster_leading",
    "muster_webhooks_total",
    "muster_certificate_expiry_timestamp_seconds",
    // Of one that has not asked GitHub anything, there are none.
    "muster_github_rate_limit_remaining",
    "muster_github_rate_limit_remaining_ratio",
];

/// Turns figures into lines, and remembers what counters were told.
#[derive(Debug)]
pub struct Emitter {
    metrics: Metrics,
    namespace: String,
    /// What each counter was when it was told last, by pool and name.
    told: HashMap<(Option<String>, String), f64>,
}

/// One metric of one line.
struct Figure {
    name: String,
    unit: &'static str,
    value: Value,
}

impl Emitter {
    /// An emitter that has told nothing yet. The namespace must be checked.
    #[must_use]
    pub fn new(metrics: Metrics, namespace: String) -> Self {
        Self {
            metrics,
            namespace,
            told: HashMap::new(),
        }
    }

    /// The lines for all figures at this time, without line ends.
    pub fn lines(&mut self, now: Timestamp) -> Vec<String> {
        let mut by_pool: BTreeMap<Option<String>, Vec<Figure>> = BTreeMap::new();
        let leads = self.metrics.leads();
        for family in self.metrics.gather() {
            if leads || OF_ALL.contains(&family.name()) {
                self.read_family(&family, now, &mut by_pool);
            }
        }
        let mut lines = Vec::new();
        for (pool, figures) in &by_pool {
            for figures in figures.chunks(MOST) {
                lines.push(self.line(pool.as_deref(), figures, now));
            }
        }
        if leads {
            for (pool, waits) in self.metrics.take_waits() {
                lines.extend(self.wait_lines(&pool, waits, now));
            }
        }
        lines
    }

    fn read_family(
        &mut self,
        family: &MetricFamily,
        now: Timestamp,
        by_pool: &mut BTreeMap<Option<String>, Vec<Figure>>,
    ) {
        let kind = family.get_field_type();
        for metric in family.get_metric() {
            let mut name = base_name(family.name());
            let mut pool = None;
            for label in metric.get_label() {
                match label.name() {
                    "pool" => pool = Some(label.value().to_owned()),
                    _ => name.push_str(&camel(label.value())),
                }
            }
            let value = match kind {
                MetricType::GAUGE => {
                    let value = metric.get_gauge().get_value();
                    if family.name().ends_with(TIME) {
                        seconds_until(value, now)
                    } else {
                        value
                    }
                }
                MetricType::COUNTER => self.added(&pool, &name, metric.get_counter().get_value()),
                // Waits are told one by one.
                _ => continue,
            };
            by_pool.entry(pool).or_default().push(Figure {
                name,
                unit: unit(family.name()),
                value: number(value),
            });
        }
    }

    /// What was added to a counter since it was told last.
    fn added(&mut self, pool: &Option<String>, name: &str, value: f64) -> f64 {
        let key = (pool.clone(), name.to_owned());
        let before = self.told.insert(key, value).unwrap_or(0.0);
        value - before
    }

    fn wait_lines(&self, pool: &PoolName, mut waits: VecDeque<f64>, now: Timestamp) -> Vec<String> {
        let waits = waits.make_contiguous().chunks(MOST);
        waits
            .map(|values| {
                let figure = Figure {
                    name: WAIT.to_owned(),
                    unit: "Seconds",
                    value: values.iter().copied().map(number).collect(),
                };
                self.line(Some(pool.as_str()), &[figure], now)
            })
            .collect()
    }

    fn line(&self, pool: Option<&str>, figures: &[Figure], now: Timestamp) -> String {
        let dimensions = match pool {
            Some(_) => json!([["Pool"]]),
            None => json!([[]]),
        };
        let definitions: Vec<Value> = figures
            .iter()
            .map(|figure| json!({ "Name": figure.name, "Unit": figure.unit }))
            .collect();
        let mut root = Map::new();
        root.insert(
            "_aws".to_owned(),
            json!({
                "Timestamp": now.as_millisecond(),
                "CloudWatchMetrics": [{
                    "Namespace": self.namespace,
                    "Dimensions": dimensions,
                    "Metrics": definitions,
                }],
            }),
        );
        if let Some(pool) = pool {
            root.insert("Pool".to_owned(), json!(pool));
        }
        for figure in figures {
            root.insert(figure.name.clone(), figure.value.clone());
        }
        Value::Object(root).to_string()
    }
}

/// The unit of a family, by the end of its name.
fn unit(family: &str) -> &'static str {
    if family.ends_with("_seconds") {
        "Seconds"
    } else if family.ends_with("_ratio") {
        "None"
    } else {
        "Count"
    }
}

/// How long it is from now to a time; negative once it has passed.
fn seconds_until(unix: f64, now: Timestamp) -> f64 {
    // To the second, as the time is.
    unix - now.as_duration().as_secs_f64().floor()
}

/// `muster_job_events_total` is `JobEvents`: the prefix is the namespace, the unit has its own field.
fn base_name(family: &str) -> String {
    let name = family.strip_prefix("muster_").unwrap_or(family);
    let name = name.strip_suffix("_total").unwrap_or(name);
    camel(name.strip_suffix(TIME).unwrap_or(name))
}

fn camel(words: &str) -> String {
    let mut camel = String::with_capacity(words.len());
    for word in words.split('_') {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}

/// A number, without a fraction if it has none. Microseconds are fine enough for any figure here.
fn number(value: f64) -> Value {
    let rounded = (value * 1e6).round() / 1e6;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "2^53 bounds it, and it has no fraction"
    )]
    if rounded.fract() == 0.0 && rounded.abs() < 9_007_199_254_740_992.0 {
        json!(rounded as i64)
    } else {
        json!(rounded)
    }
}

#[cfg(test)]
mod tests;
