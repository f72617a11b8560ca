use super::*;

const TEN: Duration = Duration::from_secs(10);

fn reached(name: &str, pushed: i64) -> ReachedRepository {
    ReachedRepository {
        repository: Repository {
            owner: "acme".to_owned(),
            name: name.to_owned(),
            public: false,
            enterprise: None,
        },
        pushed_at: Timestamp::from_second(pushed).ok(),
    }
}

fn place(count: i64) -> Place {
    let mut place = Place::default();
    let list = (0..count)
        .map(|n| reached(&format!("r{n:03}"), n))
        .collect();
    place.set_repositories(list, &HashSet::new(), Instant::now());
    place
}

/// How often each repository is looked at in so many seconds, with one look in 400 ms.
async fn looks(place: &mut Place, seconds: u64) -> HashMap<Key, usize> {
    let mut looks = HashMap::new();
    let until = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < until {
        let load = place.sort_by_heat(5.0, TEN);
        let intervals = Intervals::of(load, 5.0, TEN);
        let Some((look, due)) = place.next(&intervals, Instant::now()) else {
            break;
        };
        tokio::time::sleep_until(due).await;
        place.looked(&look, Instant::now());
        if let Look::Repository(key) = look {
            *looks.entry(key).or_default() += 1;
        }
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    looks
}

#[tokio::test(start_paused = true)]
async fn few_repositories_are_all_looked_at_in_each_interval() {
    let looks = looks(&mut place(10), 100).await;
    assert_eq!(looks.len(), 10);
    assert!(
        looks.values().all(|count| (9..=11).contains(count)),
        "{looks:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn lively_ones_are_looked_at_more_often_and_no_other_is_left_out() {
    let looks = looks(&mut place(200), 300).await;
    assert_eq!(looks.len(), 200, "each had its turn");
    let liveliest = looks["acme/r199"];
    // One more where it is the first of all and the last.
    assert!((20..=31).contains(&liveliest), "{liveliest}");
    assert!(looks["acme/r000"] <= 4, "{}", looks["acme/r000"]);
}

#[tokio::test(start_paused = true)]
async fn a_new_repository_has_its_turn_among_those_that_are_overdue() {
    let (mut place, intervals) = (place(10), Intervals::of(Load::default(), 5.0, TEN));
    let mut looks = 0;
    let mut look = |place: &mut Place| {
        let next = place.next(&intervals, Instant::now());
        let (look, _) = next.unwrap();
        place.looked(&look, Instant::now());
        looks += 1;
        (look, looks)
    };
    // Calls take longer than anybody thought: each look is late.
    for _ in 0..20 {
        look(&mut place);
        tokio::time::sleep(TEN).await;
    }
    place.add(reached("new", 1).repository, None, Instant::now());
    let new = Look::Repository("acme/new".to_owned());
    loop {
        tokio::time::sleep(TEN).await;
        let (look, looks) = look(&mut place);
        if look == new {
            break;
        }
        assert!(looks <= 20 + 11, "it starves");
    }
}

#[tokio::test(start_paused = true)]
async fn new_runs_go_first_in_turn_with_what_is_due() {
    let (mut place, intervals) = (place(3), Intervals::of(Load::default(), 5.0, TEN));
    let of = "acme/r000".to_owned();
    tokio::time::sleep(TEN).await;
    set_runs(&mut place, &of, "queued", (1..=4).collect());
    let known = place.runs.values_mut().zip(0..);
    known.for_each(|(run, lot)| run.lot = lot);
    let mut order = Vec::new();
    while let Some((look, due)) = place.next(&intervals, Instant::now())
        && due <= Instant::now()
    {
        place.looked(&look, Instant::now());
        order.push(match look {
            Look::Run(id) => id.to_string(),
            Look::Repository(_) => "-".to_owned(),
        });
    }
    assert_eq!(order.join(" "), "1 - 2 - 3 - 4");
}

fn set_runs(place: &mut Place, of: &Key, status: &'static str, runs: Vec<i64>) -> Vec<i64> {
    let etag = Some("tag".to_owned());
    place.set_runs(of, status, runs, etag, Instant::now())
}

/// The runs that were found and not looked at yet.
fn found(place: &Place) -> Vec<i64> {
    let found = place.runs.iter().filter(|(_, run)| run.looked_at.is_none());
    found.map(|(id, _)| *id).collect()
}

#[tokio::test(start_paused = true)]
async fn repositories_come_and_go_and_those_with_open_jobs_stay() {
    let mut place = place(3);
    set_runs(&mut place, &"acme/r000".to_owned(), "queued", vec![7]);
    set_runs(&mut place, &"acme/r001".to_owned(), "queued", vec![8]);
    let open = HashSet::from(["acme/r001".to_owned()]);
    let list = vec![reached("R002", 5), reached("new", 9)];
    place.set_repositories(list, &open, Instant::now());
    let keys: Vec<_> = place.repositories.keys().cloned().collect();
    assert_eq!(keys, ["acme/new", "acme/r001", "acme/r002"]);
    assert_eq!(place.runs.keys().copied().collect::<Vec<_>>(), [8]);
}

#[test]
fn runs_are_new_once_and_gone_once() {
    let (mut place, now) = (place(1), Instant::now());
    let of = "acme/r000".to_owned();
    set_runs(&mut place, &of, "queued", vec![1, 2]);
    assert_eq!(found(&place), [1, 2]);
    for run in [1, 2] {
        place.looked(&Look::Run(run), now);
    }
    set_runs(&mut place, &of, "queued", vec![2]);
    set_runs(&mut place, &of, "in_progress", vec![1]);
    place.look_at_ended(&of, now);
    assert_eq!(found(&place), [0; 0]);
    set_runs(&mut place, &of, "in_progress", Vec::new());
    place.look_at_ended(&of, now);
    assert_eq!(found(&place), [1]);
    place.looked(&Look::Run(1), now);
    place.look_at_ended(&of, now);
    assert_eq!(found(&place), [0; 0]);
    place.settle(2);
    assert_eq!(place.runs.len(), 2, "one is open, the other not settled");
    place.settle(1);
    assert_eq!(place.runs.keys().copied().collect::<Vec<_>>(), [2]);
}

#[test]
fn memory_is_bounded_and_what_it_has_no_room_for_is_read_in_turn() {
    let mut place = place(10_500);
    assert_eq!(place.repositories.len(), MAX_REPOSITORIES);
    assert!(
        !place.repositories.contains_key("acme/r000"),
        "the coldest are left out"
    );
    place.add(reached("one-more", 1).repository, None, Instant::now());
    assert_eq!(place.repositories.len(), MAX_REPOSITORIES);
    let of = "acme/r9999".to_owned();
    let runs: Vec<i64> = (0..5_025).collect();
    let mut read = HashSet::new();
    for _ in 0..3 {
        let some = set_runs(&mut place, &of, "queued", runs.clone());
        assert_eq!(some.len(), UNWATCHED_AT_ONCE);
        read.extend(some);
        assert!(place.repositories[&of].etags.is_empty(), "it is read whole");
    }
    assert_eq!(place.runs.len(), MAX_RUNS);
    assert_eq!(read, (5_000..5_025).collect());
    set_runs(&mut place, &of, "queued", (0..10).collect());
    assert_eq!(place.repositories[&of].etags["queued"], "tag");
}

/// Who is killed before it has looked at all would else never come to the last ones.
#[tokio::test(start_paused = true)]
async fn each_start_looks_at_others_first() {
    let firsts = || {
        let mut place = place(50);
        let intervals = Intervals::of(Load::default(), 5.0, TEN);
        let first = place.next(&intervals, Instant::now()).unwrap().0;
        let runs = (1..=50).collect();
        let of = "acme/r000".to_owned();
        place.set_runs(&of, "queued", runs, None, Instant::now());
        let run = place.next(&intervals, Instant::now()).unwrap().0;
        (first, run)
    };
    let starts: Vec<_> = (0..20).map(|_| firsts()).collect();
    let repositories: HashSet<_> = starts
        .iter()
        .map(|(first, _)| format!("{first:?}"))
        .collect();
    let runs: HashSet<_> = starts.iter().map(|(_, run)| format!("{run:?}")).collect();
    assert!(repositories.len() > 5, "{repositories:?}");
    assert!(runs.len() > 5, "{runs:?}");
}
