use jiff::SignedDuration;
use serde_json::json;

use super::*;
use crate::compute::PoolImages;
use crate::github::fake::{Fake, Reply, reply};

fn published() -> Timestamp {
    "2026-11-01T00:00:00Z".parse().unwrap()
}

fn after(days: i64) -> Timestamp {
    published() + SignedDuration::from_hours(24 * days)
}

/// 2.337.0 came out on the first of the month, 2.336.0 a month before.
fn releases() -> Reply {
    let release = |tag: &str, at: Timestamp| json!({ "tag_name": tag, "published_at": at.to_string(), "draft": false, "prerelease": false });
    let list = json!([
        release("v2.337.0", published()),
        release("v2.336.0", after(-30))
    ]);
    reply(200, list)
}

fn images(canary: Option<&str>) -> Images {
    let runner = |version: &str| Some(version.to_owned());
    Images {
        pools: [(
            "linux".into(),
            PoolImages {
                own: Some("ami-old".into()),
                seen: None,
                canary: canary.map(ImageId::from),
            },
        )]
        .into(),
        runners: [
            ("ami-old".into(), runner("2.336.0")),
            ("ami-new".into(), runner("2.337.0")),
            ("ami-untagged".into(), None),
        ]
        .into(),
    }
}

fn watching(github: &Fake, images: Images) -> (Watch, watch::Sender<Images>) {
    let (tell, told) = watch::channel(images);
    let parts = VersionParts {
        client: github.client(),
        scopes: vec![Scope::Organization("acme".to_owned())],
        providers: Vec::new(),
        versions: RunnerVersions::default(),
        metrics: Metrics::new().unwrap(),
    };
    let watch = Watch {
        parts,
        images: vec![told],
        releases: Vec::new(),
        etag: None,
        told: BTreeSet::new(),
        warned: BTreeSet::new(),
    };
    (watch, tell)
}

fn series(watch: &Watch) -> Vec<String> {
    let text = watch.parts.metrics.render();
    let lines = text.lines();
    lines
        .filter_map(|line| line.strip_prefix("muster_runner_version_age_days"))
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn each_image_in_use_has_its_age_for_as_long_as_it_is() {
    let github = Fake::answering("/releases", vec![releases()]).await;
    let (mut watch, tell) = watching(&github, images(Some("ami-new")));
    watch.tell(after(21));
    assert_eq!(series(&watch), [""; 0], "no release is known");
    let shown = watch.parts.versions.of(&"linux".into());
    assert_eq!(
        (shown[0].version, shown[0].age),
        (RunnerVersion::parse("2.336.0"), None)
    );

    watch.ask(0).await.unwrap();
    watch.tell(after(21));
    let expected = [
        "{image=\"canary\",pool=\"linux\"} 0",
        "{image=\"own\",pool=\"linux\"} 21",
    ];
    assert_eq!(series(&watch), expected);
    assert_eq!(watch.warned, [("linux".into(), "ami-old".into())].into());

    tell.send_replace(images(None));
    watch.tell(after(26));
    assert_eq!(series(&watch), ["{image=\"own\",pool=\"linux\"} 26"]);
    let shown = watch.parts.versions.of(&"linux".into());
    assert_eq!(shown.len(), 1);
    assert!(shown[0].age.unwrap().is_alarm());
}

#[tokio::test]
async fn an_image_that_does_not_say_its_runner_has_no_age() {
    let github = Fake::answering("/releases", vec![releases()]).await;
    let (mut watch, _tell) = watching(&github, images(Some("ami-untagged")));
    watch.ask(0).await.unwrap();
    watch.tell(after(3));
    assert_eq!(series(&watch), ["{image=\"own\",pool=\"linux\"} 3"]);
    let shown = watch.parts.versions.of(&"linux".into());
    assert_eq!((shown[1].canary, shown[1].version), (true, None));
}

/// What becomes the pool's own image is no canary of its own.
#[tokio::test]
async fn an_image_is_shown_once() {
    let github = Fake::answering("/releases", vec![releases()]).await;
    let (mut watch, _tell) = watching(&github, images(Some("ami-old")));
    watch.tell(after(3));
    assert_eq!(watch.parts.versions.of(&"linux".into()).len(), 1);
}

#[tokio::test]
async fn what_is_known_stays_while_the_releases_cant_be_read() {
    let answers = vec![releases(), reply(500, json!({}))];
    let github = Fake::answering("/releases", answers).await;
    let (mut watch, _tell) = watching(&github, images(None));
    watch.ask(0).await.unwrap();
    assert!(watch.ask(1).await.is_err());
    watch.tell(after(4));
    assert_eq!(series(&watch), ["{image=\"own\",pool=\"linux\"} 4"]);
}
