//! How old the runners in the pools' images are: by the images' tags, and by GitHub's releases.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use muster_coordinator::compute::ec2::ImageSource;
use muster_coordinator::github::{GithubClient, Settings};
use muster_coordinator::runner_versions::{RunnerVersions, VersionParts, watch};
use muster_coordinator::telemetry::Metrics;
use muster_core::{PoolName, Scope};
use muster_tests::fakes::aws::{Effect, Fault, Image, ParameterKind};
use muster_tests::fakes::github::{self, FakeGithub, RunnerRelease};
use tokio_util::sync::CancellationToken;

use crate::kit::{Home, id};

/// An image whose tag says which runner is in it.
pub(crate) fn add_image(home: &Home, image: &str, runner: &str) {
    let tags = BTreeMap::from([("muster:runner-version".to_owned(), runner.to_owned())]);
    let image = Image {
        id: image.to_owned(),
        architecture: "x86_64".to_owned(),
        tags,
    };
    home.aws.add_image(&home.place, image);
}

pub(crate) fn put_parameter(home: &Home, name: &str, image: &str) {
    home.aws
        .put_parameter(&home.place, name, ParameterKind::Image, image);
}

pub(crate) fn client(github: &FakeGithub) -> GithubClient {
    GithubClient::new(Settings::new(
        github.url.parse().unwrap(),
        github.app_id().to_string(),
        github.app_private_key_pem.clone().into(),
    ))
    .unwrap()
}

fn release(github: &FakeGithub, tag: &str, days_ago: i64, prerelease: bool) {
    github.release_runner(RunnerRelease {
        tag: tag.to_owned(),
        published_at: Timestamp::now() - SignedDuration::from_hours(24 * days_ago),
        prerelease,
    });
}

const OLD: &str = "ami-0123456789abcde01";
const NEW: &str = "ami-0123456789abcde02";

#[tokio::test]
async fn the_age_of_each_pools_runner_is_told() {
    let github = FakeGithub::start(github::Options::default()).await.unwrap();
    release(&github, "v2.335.0", 60, false);
    release(&github, "v2.336.0", 22, false);
    release(&github, "v2.337.0", 3, false);
    release(&github, "v2.338.0", 1, true);
    let home = Home::of_pools(|settings| {
        let pool = settings.pools[&"linux".into()].clone();
        let mut by_parameter = pool.clone();
        by_parameter.image = ImageSource::Parameter("/muster/ami/linux".to_owned());
        by_parameter.canary = Some(ImageSource::Parameter("/muster/ami/next".to_owned()));
        settings.pools.insert("both".into(), by_parameter);
        settings.pools.insert("template".into(), pool);
    })
    .await;
    let own = home.aws.image(&home.place, "x86_64").unwrap();
    add_image(&home, OLD, "2.335.0");
    add_image(&home, NEW, "2.337.0");
    put_parameter(&home, "/muster/ami/linux", OLD);
    put_parameter(&home, "/muster/ami/next", NEW);

    let (versions, metrics) = (RunnerVersions::default(), Metrics::new().unwrap());
    let parts = VersionParts {
        client: client(&github),
        scopes: vec![Scope::Organization("acme".to_owned())],
        providers: vec![home.provider.clone()],
        versions: versions.clone(),
        metrics: metrics.clone(),
    };
    let stop = CancellationToken::new();
    let watching = tokio::spawn(watch(parts, stop.clone()));
    let told = |pool: &str| {
        let images = versions.of(&PoolName::from(pool)).into_iter();
        let shown = images.map(|it| {
            let days = it.age.map(|age| age.behind.as_secs() / 86_400);
            let version = it.version.map(|version| version.to_string());
            (it.image.to_string(), it.canary, version, days)
        });
        shown.collect::<Vec<_>>()
    };
    let version = |text: &str| Some(text.to_owned());
    let both = [
        (OLD.to_owned(), false, version("2.335.0"), Some(22)),
        (NEW.to_owned(), true, version("2.337.0"), Some(0)),
    ];
    eventually(|| told("both") == both).await;
    let text = metrics.render();
    let canary = "muster_runner_version_age_days{image=\"canary\",pool=\"both\"} 0\n";
    assert!(text.contains(canary), "{text}");

    // What a launch template has is known by what was launched from it.
    assert_eq!(told("template"), []);
    let mut order = crate::kit::order("l-1", muster_core::Shape::default());
    order.pool = "template".into();
    id(&home.provider.launch(order).await);
    home.provider.list().await.unwrap();
    let untagged = [(own, false, None, None)];
    eventually(|| told("template") == untagged).await;

    // A new image is looked at as it is published.
    add_image(&home, "ami-0123456789abcde03", "2.336.0");
    put_parameter(&home, "/muster/ami/linux", "ami-0123456789abcde03");
    let moved = (
        "ami-0123456789abcde03".to_owned(),
        false,
        version("2.336.0"),
        Some(3),
    );
    eventually(|| told("both").first() == Some(&moved)).await;
    assert_eq!(github.served("GET /repos/{owner}/{repo}/releases"), 1);
    assert_eq!(github.violations(), [""; 0]);
    stop.cancel();
    watching.await.unwrap();
    home.no_violations();
}

#[tokio::test]
async fn launches_dont_wait_for_what_is_in_an_image() {
    let home = Home::start().await;
    let denied = Effect::Error {
        status: 403,
        code: "UnauthorizedOperation".to_owned(),
        message: "You are not authorized to perform this operation.".to_owned(),
    };
    home.aws
        .inject(Fault::times("DescribeImages", u32::MAX, denied));
    id(&home.launch("l-1").await);
    home.provider.list().await.unwrap();
    home.until("the images to be looked at", || {
        home.aws.calls_of("DescribeImages").len() > 1
    })
    .await;
    id(&home.launch("l-2").await);
    home.no_violations();
}

/// Waits until something holds.
pub(crate) async fn eventually(holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(crate::kit::PATIENCE, waiting)
        .await
        .unwrap();
}
