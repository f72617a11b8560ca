//! Figures as CloudWatch's embedded metric format: JSON lines on standard output that the log driver
//! carries, which CloudWatch turns into metrics
//! (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>).
//!
//! The series are those of [`Metrics`], named after them: `muster_job_events_total{state="queued"}` is
//! `JobEventsQueued`. The only dimension is `Pool`. Gauges are told as they are, counters as what was
//! added since the last time, waits one by one.

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

/// Name of the series of waits, and of the Prometheus histogram it stands for.
const WAIT: &str = "JobWait";

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
        for family in self.metrics.gather() {
            self.read_family(&family, &mut by_pool);
        }
        let mut lines = Vec::new();
        for (pool, figures) in &by_pool {
            for figures in figures.chunks(MOST) {
                lines.push(self.line(pool.as_deref(), figures, now));
            }
        }
        for (pool, waits) in self.metrics.take_waits() {
            lines.extend(self.wait_lines(&pool, waits, now));
        }
        lines
    }

    fn read_family(
        &mut self,
        family: &MetricFamily,
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
                MetricType::GAUGE => metric.get_gauge().get_value(),
                MetricType::COUNTER => self.added(&pool, &name, metric.get_counter().get_value()),
                // Waits are told one by one.
                _ => continue,
            };
            by_pool.entry(pool).or_default().push(Figure {
                name,
                unit: "Count",
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

/// `muster_job_events_total` is `JobEvents`: the prefix is the namespace, the unit has its own field.
fn base_name(family: &str) -> String {
    let name = family.strip_prefix("muster_").unwrap_or(family);
    camel(name.strip_suffix("_total").unwrap_or(name))
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
mod tests {
    use std::time::Duration;

    use muster_core::{JobStatus, LaunchFailure, PoolFigures};

    use super::super::WebhookAnswer;
    use super::*;

    const UNITS: [&str; 2] = ["Count", "Seconds"];

    /// Checks a line against the rules of the specification that it could break.
    fn check(line: &str) -> Value {
        assert!(line.len() < 16 << 10, "log drivers split lines of 16 KiB");
        let root: Value = serde_json::from_str(line).unwrap();
        let aws = &root["_aws"];
        let now = Timestamp::now().as_millisecond();
        let at = aws["Timestamp"].as_i64().unwrap();
        assert!(at > now - 14 * 86_400_000 && at < now + 7_200_000);
        for directive in aws["CloudWatchMetrics"].as_array().unwrap() {
            let namespace = directive["Namespace"].as_str().unwrap();
            assert!(!namespace.is_empty() && namespace.len() <= 256);
            let sets = directive["Dimensions"].as_array().unwrap();
            assert!(!sets.is_empty());
            for name in sets.iter().flat_map(|set| set.as_array().unwrap()) {
                assert_eq!(name, "Pool", "the only dimension");
                let value = root["Pool"].as_str().unwrap();
                assert!(!value.is_empty() && value.len() <= 1024 && value.is_ascii());
            }
            let metrics = directive["Metrics"].as_array().unwrap();
            assert!(!metrics.is_empty() && metrics.len() <= 100);
            let mut names = std::collections::BTreeSet::new();
            for metric in metrics {
                let name = metric["Name"].as_str().unwrap();
                assert!(name.chars().all(|c| c.is_ascii_alphanumeric()), "{name}");
                assert!(name.starts_with(|c: char| c.is_ascii_uppercase()), "{name}");
                assert!(names.insert(name.to_owned()), "{name} twice");
                assert!(UNITS.contains(&metric["Unit"].as_str().unwrap()));
                match &root[name] {
                    Value::Number(_) => {}
                    Value::Array(values) => {
                        assert!(!values.is_empty() && values.len() <= 100);
                        assert!(values.iter().all(Value::is_number));
                    }
                    other => panic!("{name} is {other}"),
                }
            }
            let members = root.as_object().unwrap().len();
            let pool = usize::from(root.get("Pool").is_some());
            assert_eq!(members, 1 + pool + names.len(), "nothing beside");
        }
        root
    }

    fn busy() -> (Metrics, PoolName) {
        let metrics = Metrics::new().unwrap();
        let pool = PoolName::from("linux");
        metrics.job_event(JobStatus::InProgress);
        metrics.webhook(WebhookAnswer::Accepted);
        metrics.github_request(Some(404));
        metrics.launch(Err(LaunchFailure::Throttled));
        metrics.set_pool(
            &pool,
            &PoolFigures {
                queued_jobs: 7,
                idle: 2,
                ..PoolFigures::default()
            },
        );
        metrics.observe_wait(&pool, Duration::from_millis(1_234));
        (metrics, pool)
    }

    fn lines(emitter: &mut Emitter) -> Vec<Value> {
        let lines = emitter.lines(Timestamp::now());
        lines.iter().map(|line| check(line)).collect()
    }

    #[test]
    fn every_line_obeys_the_specification_and_has_its_figures() {
        let (metrics, _) = busy();
        metrics.set_agents(1);
        let lines = lines(&mut Emitter::new(metrics, "Muster".to_owned()));
        assert_eq!(lines.len(), 3);
        let [global, pool, waits] = &lines[..] else {
            panic!()
        };
        assert_eq!(
            global["_aws"]["CloudWatchMetrics"][0]["Dimensions"],
            json!([[]])
        );
        assert_eq!(global["JobEventsInProgress"], 1);
        assert_eq!(global["JobEventsQueued"], 0);
        assert_eq!(global["WebhooksAccepted"], 1);
        assert_eq!(global["GithubRequests4xx"], 1);
        assert_eq!(global["LaunchesThrottled"], 1);
        assert_eq!(global["AgentsConnected"], 1);
        assert_eq!(pool["Pool"], "linux");
        assert_eq!(pool["JobsQueued"], 7);
        assert_eq!(pool["RunnersIdle"], 2);
        assert_eq!(waits["JobWait"], json!([1.234]));
    }

    #[test]
    fn every_series_of_prometheus_is_told() {
        let (metrics, _) = busy();
        let families: Vec<String> = metrics
            .gather()
            .iter()
            .map(|family| base_name(family.name()).replace("Seconds", ""))
            .collect();
        let lines = lines(&mut Emitter::new(metrics, "Muster".to_owned()));
        let told: Vec<&String> = lines
            .iter()
            .flat_map(|line| line.as_object().unwrap().keys())
            .collect();
        for family in families {
            assert!(
                told.iter().any(|name| name.starts_with(&family)),
                "{family}"
            );
        }
    }

    #[test]
    fn counters_are_told_as_what_was_added() {
        let (metrics, pool) = busy();
        let mut emitter = Emitter::new(metrics.clone(), "Muster".to_owned());
        lines(&mut emitter);
        metrics.webhook(WebhookAnswer::Accepted);
        metrics.webhook(WebhookAnswer::Accepted);
        let second = lines(&mut emitter);
        assert_eq!(second.len(), 2, "no waits, no line");
        assert_eq!(second[0]["WebhooksAccepted"], 2);
        assert_eq!(second[0]["JobEventsInProgress"], 0);
        assert_eq!(second[1]["JobsQueued"], 7, "gauges stay");
        metrics.observe_wait(&pool, Duration::from_secs(9));
        assert_eq!(lines(&mut emitter)[2]["JobWait"], json!([9]));
    }

    #[test]
    fn many_pools_and_waits_take_many_lines() {
        let metrics = Metrics::new().unwrap();
        for n in 0..50 {
            let pool = PoolName::new(format!("pool-{n}"));
            metrics.set_pool(&pool, &PoolFigures::default());
            for wait in 0..250 {
                metrics.observe_wait(&pool, Duration::from_micros(wait * 1_234_567));
            }
        }
        let lines = lines(&mut Emitter::new(metrics, "Muster".to_owned()));
        let waits: usize = lines
            .iter()
            .filter_map(|line| line.get("JobWait"))
            .map(|waits| waits.as_array().unwrap().len())
            .sum();
        assert_eq!(waits, 50 * 250);
        assert_eq!(lines.len(), 1 + 50 + 50 * 3);
    }
}
