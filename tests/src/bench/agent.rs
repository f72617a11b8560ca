//! The agent beside two programs that read the same figures at the same cadence.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::process::{Memory, cpu_time, memory};
use crate::scripted::coordinator::{Coordinator, Session};
use crate::scripted::host::{Host, unique_instance_id};

/// The cadence of all three.
const CADENCE: Duration = Duration::from_secs(5);
/// Between the start of a program and its first measurement.
const WARM_UP: Duration = Duration::from_secs(10);
const EXPORTER: &str = "/usr/bin/prometheus-node-exporter";
const COLLECTD: &str = "/usr/sbin/collectd";

/// The names of the two processes of a host.
const OF_A_HOST: [&str; 2] = ["muster-agent run (front)", "muster-agent supervise"];
/// What the figures are held against, and what stands between.
const GATES: &str = "\
gates (aims) of a host: memory 8 (3) MB, processor 0.05 (0.01) %, binary 6 (2.5) MB, start to enrolled 50 (10) ms
a host has two processes of one binary: the sum of their pss is what it pays, the sum of rss counts shared pages twice
between binary and aim: the code of rustls with ring, h2 and tonic, tracing-subscriber, and url with its IDNA tables
";

/// What is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The agent's binary.
    pub agent: PathBuf,
    /// For how long.
    pub measured: Duration,
    /// How many starts.
    pub starts: u32,
}

/// A program's figures.
struct Figures {
    name: &'static str,
    binary: u64,
    memory: Memory,
    /// Share of one core.
    cpu: f64,
}

/// Measures all, and gives out a report.
///
/// # Errors
/// When a program can't be started or read.
pub async fn measure(plan: &Plan) -> anyhow::Result<String> {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    let host = Host::new(&coordinator, "");
    let alone = start(&plan.agent, "run", &host.config).await?;
    // Enrolled and streaming from here on; heartbeats are read as they come.
    let sessions = tokio::spawn(drain(coordinator.session().await));

    let mut coordinator_of_two = Coordinator::start(&unique_instance_id()).await;
    let two = Host::new(&coordinator_of_two, "");
    let supervisor = start(&plan.agent, "supervise", &two.supervisor_config()).await?;
    let front = start(&plan.agent, "run", &two.front_config()).await?;
    let sessions_of_two = tokio::spawn(drain(coordinator_of_two.session().await));

    let exporter = exporter()?;
    let dir = tempfile::tempdir()?;
    let collectd = collectd(dir.path())?;
    let scraper = tokio::spawn(scrape());
    sleep(WARM_UP).await;
    let programs: [(&str, &Child, &Path); 5] = [
        ("muster-agent run (one process)", &alone, &plan.agent),
        (OF_A_HOST[0], &front, &plan.agent),
        (OF_A_HOST[1], &supervisor, &plan.agent),
        ("prometheus-node-exporter", &exporter, Path::new(EXPORTER)),
        ("collectd", &collectd, Path::new(COLLECTD)),
    ];
    let all = watch(&programs, plan.measured).await?;
    for task in [scraper, sessions, sessions_of_two] {
        task.abort();
    }
    drop((alone, front, supervisor, exporter, collectd));

    let mut report = table(&all, plan.measured);
    report.push_str(&sum_of_host(&all));
    report.push_str(&starts(plan).await?);
    report.push_str(GATES);
    Ok(report)
}

/// The sum of both processes.
fn sum_of_host(all: &[Figures]) -> String {
    let both = || all.iter().filter(|it| OF_A_HOST.contains(&it.name));
    let resident: u64 = both().map(|it| it.memory.resident).sum();
    let proportional: u64 = both().map(|it| it.memory.proportional).sum();
    let anonymous: u64 = both().map(|it| it.memory.anonymous).sum();
    let cpu: f64 = both().map(|it| it.cpu * 100.0).sum();
    format!("a host: rss {resident}, pss {proportional}, anon {anonymous}, cpu {cpu:.4} %\n")
}

async fn watch(
    programs: &[(&'static str, &Child, &Path)],
    measured: Duration,
) -> anyhow::Result<Vec<Figures>> {
    let ids = programs.iter().map(|(name, child, _)| {
        child
            .id()
            .with_context(|| format!("{name} has ended; is a port taken?"))
    });
    let ids = ids.collect::<anyhow::Result<Vec<_>>>()?;
    let before = ids.iter().map(|id| cpu_time(*id));
    let before = before.collect::<anyhow::Result<Vec<_>>>()?;
    let began = Instant::now();
    sleep(measured).await;
    let mut all = Vec::new();
    for (index, (name, _, binary)) in programs.iter().enumerate() {
        let spent = cpu_time(ids[index])?.saturating_sub(before[index]);
        all.push(Figures {
            name,
            binary: std::fs::metadata(binary)?.len(),
            memory: memory(ids[index])?,
            cpu: spent.as_secs_f64() / began.elapsed().as_secs_f64(),
        });
    }
    Ok(all)
}

fn table(all: &[Figures], measured: Duration) -> String {
    let mut text = format!(
        "at a cadence of {CADENCE:?}, over {measured:?}, after {WARM_UP:?}; memory in KiB\n\
         {:<32} {:>8} {:>8} {:>8} {:>9} {:>9}\n",
        "program", "rss", "pss", "anon", "cpu", "binary"
    );
    for figures in all {
        let Memory {
            resident,
            proportional,
            anonymous,
        } = figures.memory;
        let cpu = format!("{:.4} %", figures.cpu * 100.0);
        let binary = figures.binary / 1024;
        let name = figures.name;
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "{name:<32} {resident:>8} {proportional:>8} {anonymous:>8} {cpu:>9} {binary:>9}"
        );
    }
    text
}

/// From the start of the process to its open stream: later than enrolled, by one connection.
async fn starts(plan: &Plan) -> anyhow::Result<String> {
    let mut times = Vec::new();
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    for _ in 0..plan.starts {
        // A launch runs once, so each has a directory of its own.
        let host = Host::new(&coordinator, "");
        let began = Instant::now();
        let agent = start(&plan.agent, "run", &host.config).await?;
        let session = coordinator.session().await;
        times.push(began.elapsed());
        drop((agent, session));
    }
    times.sort_unstable();
    let at = |share: f64| {
        let last = times.len().saturating_sub(1);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index below the number of starts"
        )]
        let index = (last as f64 * share).round() as usize;
        times[index].as_secs_f64() * 1000.0
    };
    Ok(format!(
        "start of the process to enrolled and streaming, {} starts: p50 {:.1} ms, p99 {:.1} ms, worst {:.1} ms\n",
        plan.starts,
        at(0.5),
        at(0.99),
        at(1.0)
    ))
}

async fn start(binary: &Path, command: &str, config: &serde_json::Value) -> anyhow::Result<Child> {
    let mut child = Command::new(binary)
        .args([command, "--config", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start {}", binary.display()))?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    stdin.write_all(config.to_string().as_bytes()).await?;
    Ok(child)
}

/// Reads what the agent says for as long as it says something.
async fn drain(mut session: Session) {
    while session.said().await {}
}

fn exporter() -> anyhow::Result<Child> {
    Command::new(EXPORTER)
        .arg(format!("--web.listen-address={EXPORTER_ADDRESS}"))
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("start prometheus-node-exporter")
}

/// Where the exporter listens.
const EXPORTER_ADDRESS: &str = "127.0.0.1:19100";

/// As Prometheus would.
async fn scrape() {
    let mut ticks = interval(CADENCE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Ok(mut stream) = TcpStream::connect(EXPORTER_ADDRESS).await else {
            continue;
        };
        let request = "GET /metrics HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n";
        let mut answer = Vec::new();
        if stream.write_all(request.as_bytes()).await.is_ok() {
            // What it says is not of interest, that it says it is.
            let _ = stream.read_to_end(&mut answer).await;
        }
    }
}

/// The same readings, sent to where nobody listens.
fn collectd(dir: &Path) -> anyhow::Result<Child> {
    let config = format!(
        "BaseDir \"{0}\"\nPIDFile \"{0}/pid\"\nInterval {1}\nHostname \"bench\"\nFQDNLookup false\n\
         LoadPlugin cpu\nLoadPlugin memory\nLoadPlugin load\nLoadPlugin swap\nLoadPlugin disk\n\
         LoadPlugin interface\nLoadPlugin df\nLoadPlugin network\n\
         <Plugin network>\n  Server \"127.0.0.1\" \"19101\"\n</Plugin>\n",
        dir.display(),
        CADENCE.as_secs()
    );
    let file = dir.join("collectd.conf");
    std::fs::write(&file, config)?;
    Command::new(COLLECTD)
        .arg("-f")
        .arg("-C")
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("start collectd")
}
