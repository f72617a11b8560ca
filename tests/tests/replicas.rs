//! Two coordinators on one PostgreSQL: both take webhooks, one leads, the other goes on when it is killed.

use std::time::Duration;

use muster_tests::fakes::github::{JobSpec, Status};
use muster_tests::postgres::Server;
use muster_tests::world::{Compute, Options, World, wait_for};
use tokio::time::Instant;

const PATIENCE: Duration = Duration::from_secs(60);

fn job(name: &str, step: &str) -> JobSpec {
    JobSpec::new("octo-org/hello", name, &["self-hosted", "linux"]).step(step)
}

#[tokio::test]
async fn a_follower_takes_webhooks_and_leads_once_the_leader_is_killed() {
    let postgres = Server::start(&[]);
    // A leader that gets no processor for a second and a half loses a lease of two, and ends.
    let tables = format!(
        "[store]\nurl = \"{}\"\nlease_ttl = \"15s\"\n",
        postgres.url()
    );
    let options = Options {
        compute: Compute::Ec2,
        secrets_in_ssm: true,
        tables,
        ..Options::default()
    };
    let mut world = World::start(options).await.unwrap();
    let follower = world.coordinator.replica().await.unwrap();
    let readyz = format!("http://{}/readyz", follower.addresses().web);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    wait_for("the follower", PATIENCE, || async {
        let answer = client.get(&readyz).send().await;
        Ok(answer
            .is_ok_and(|it| it.status().is_success())
            .then_some(()))
    })
    .await
    .unwrap();

    // What the follower takes, the leader reads.
    world.github.set_webhook_url(&follower.webhook_url());
    let first = world.github.queue_job(job("first", "true"));
    let done = world.github.wait_job(first, Status::Completed, PATIENCE);
    done.await.unwrap();

    // It tells so, and no figure of the leader's.
    let told = |name: &'static str, least: i64| {
        let follower = &follower;
        wait_for(name, PATIENCE, move || async move {
            let figures = follower.figures()?;
            let mut values = figures.iter().filter_map(|line| line[name].as_i64());
            Ok(values.any(|value| value >= least).then_some(figures))
        })
    };
    told("WebhooksAccepted", 1).await.unwrap();
    let figures = told("Ready", 1).await.unwrap();
    for line in &figures {
        assert_eq!(line["Leading"], 0, "{line}");
        assert!(line.get("Pool").is_none() && line.get("AgentsConnected").is_none());
    }
    let year = 365 * 24 * 60 * 60;
    told("CertificateExpiryAuthority", year).await.unwrap();

    let running = world.github.queue_job(job("running", "sleep 3"));
    let started = world.github.wait_job(running, Status::InProgress, PATIENCE);
    started.await.unwrap();
    world.coordinator.kill_nine();
    let killed = Instant::now();
    let queued = world.github.queue_job(job("queued", "true"));
    follower.is_up(PATIENCE).await.unwrap();
    println!("a new leader after {} ms", killed.elapsed().as_millis());
    wait_for("figures of who leads", PATIENCE, || async {
        let figures = follower.figures()?;
        let leads = figures.iter().any(|line| line["Leading"] == 1);
        let agents = figures.iter().any(|line| line["AgentsConnected"].is_i64());
        Ok((leads && agents).then_some(()))
    })
    .await
    .unwrap();
    world.coordinator = follower;
    for job in [running, queued] {
        let done = world.github.wait_job(job, Status::Completed, PATIENCE);
        done.await.unwrap();
    }
    let aws = &world.cloud.as_ref().unwrap().aws;
    assert_eq!(aws.instances().len(), 3, "one for each job");
    let left = world.wind_down(PATIENCE).await.unwrap();
    assert!(left.is_nothing(), "{left:#?}");
}
