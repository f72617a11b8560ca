use rustls_pki_types::CertificateDer;

use super::*;
use crate::identity::ca::fixtures::Pair;
use crate::identity::ca::{AGENT_TTL, MAX_OPERATOR_TTL};
use crate::identity::spiffe::{OperatorId, TrustDomain};
use rustls_pki_types::pem::PemObject as _;

fn serving(pair: &Pair) -> Serving {
    let names = vec!["localhost".into()];
    Serving::new(pair.with(&[]), names, Timestamp::now()).unwrap()
}

/// The chain that an operator of this authority shows.
fn chain(authority: &Authority) -> [CertificateDer<'static>; 1] {
    let domain = TrustDomain::new("muster.test").unwrap();
    let id = OperatorId::new(&domain, "alice").unwrap();
    let issued = authority.operator(&id, MAX_OPERATOR_TTL, Timestamp::now());
    let pem = issued.unwrap().certificate_pem;
    [CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()]
}

#[test]
fn each_step_of_a_rotation_is_taken_up_by_all_listeners_and_by_who_issues() {
    let (old, new) = (Pair::new(), Pair::new());
    let mut serving = serving(&old);
    let authority = serving.authority();
    let (first, now) = (chain(&authority.get()), Timestamp::now());
    let takes = |serving: &Serving, chain: &[CertificateDer<'static>]| {
        let all = [serving.agents(), serving.operators()];
        let all = all.map(|tls| tls.borrow().would_take(chain));
        assert_eq!(all[0], all[1]);
        assert!(serving.enroll().borrow().would_take(&[]), "nobody is asked");
        all[0]
    };
    let trusts_on =
        |serving: &Serving, before: &Tls| serving.agents().borrow().trusts_all_of(before);
    assert!(takes(&serving, &first));
    assert!(!takes(&serving, &[]));

    let before = Arc::clone(&serving.agents().borrow());
    serving
        .take_up(&old.bundle(&[&new]), &old.key, now)
        .unwrap();
    assert_eq!(authority.get().trust_anchors().len(), 2);
    assert!(takes(&serving, &first) && trusts_on(&serving, &before));

    let before = Arc::clone(&serving.agents().borrow());
    serving
        .take_up(&old.bundle(&[&new]), &new.key, now)
        .unwrap();
    let second = chain(&authority.get());
    assert_eq!(authority.get().certificate(), new.with(&[]).certificate());
    assert!(takes(&serving, &first) && takes(&serving, &second));
    assert!(trusts_on(&serving, &before));

    let before = Arc::clone(&serving.agents().borrow());
    serving.take_up(&new.certificate, &new.key, now).unwrap();
    assert!(!takes(&serving, &first) && takes(&serving, &second));
    assert!(!trusts_on(&serving, &before));
}

#[test]
fn what_can_not_be_used_changes_nothing() {
    let (old, new) = (Pair::new(), Pair::new());
    let mut serving = serving(&old);
    let (authority, mut agents) = (serving.authority(), serving.agents());
    let before = authority.get();
    agents.mark_unchanged();
    for (certificates, key) in [
        (old.certificate.as_str(), &new.key),
        (new.certificate.as_str(), &old.key),
        ("", &old.key),
    ] {
        serving
            .take_up(certificates, key, Timestamp::now())
            .unwrap_err();
        assert!(Arc::ptr_eq(&before, &authority.get()));
        assert!(!agents.has_changed().unwrap());
    }
    serving
        .take_up(&new.certificate, &new.key, Timestamp::now())
        .unwrap();
    assert!(agents.has_changed().unwrap());
}

#[test]
fn a_new_authority_issues_to_agents_for_as_long_as_the_last() {
    let (old, new) = (Pair::new(), Pair::new());
    let short = AGENT_TTL / 2;
    let authority = old.with(&[]).with_agent_ttl(short);
    let mut serving = Serving::new(authority, Vec::new(), Timestamp::now()).unwrap();
    serving
        .take_up(&new.certificate, &new.key, Timestamp::now())
        .unwrap();
    assert_eq!(serving.authority().get().agent_ttl(), short);
}

#[test]
fn the_coordinators_certificate_is_made_anew_at_half_of_its_life() {
    let now = Timestamp::now();
    let days = |days: i64| now + jiff::SignedDuration::from_hours(24 * days);
    let pair = Pair::new();
    let mut serving = serving(&pair);
    let mut agents = serving.agents();
    let tls = Arc::clone(&agents.borrow_and_update());
    serving.renew_if_due(days(44));
    assert!(!agents.has_changed().unwrap());
    serving.renew_if_due(days(46));
    assert!(agents.has_changed().unwrap());
    assert!(
        agents.borrow_and_update().trusts_all_of(&tls),
        "nobody is looked at again"
    );
    serving.renew_if_due(days(46 + 44));
    assert!(!agents.has_changed().unwrap());
    serving.renew_if_due(days(46 + 46));
    assert!(agents.has_changed().unwrap());
}

#[test]
fn an_authority_near_its_end_is_used_to_the_last_and_then_said_to_be_over() {
    let now = Timestamp::now();
    let pair = Pair::new();
    let short = pair.again(now, Duration::from_secs(1_000));
    let authority = Authority::of(&short, &pair.key, now).unwrap();
    let end = authority.not_after();
    let mut serving = Serving::new(authority, Vec::new(), now).unwrap();
    assert!(serving.renew_at <= now + Duration::from_secs(501));
    let mut tls = serving.enroll();
    tls.mark_unchanged();
    serving.renew_if_due(end);
    assert!(!tls.has_changed().unwrap(), "it has expired");
    assert_eq!(serving.renew_at, end + RETRY);
}

#[test]
fn the_figures_tell_until_when_the_certificates_in_use_are_good() {
    let now = Timestamp::now();
    let days = |days: i64| now + jiff::SignedDuration::from_hours(24 * days);
    let (old, new) = (Pair::new(), Pair::new());
    let metrics = Metrics::new().unwrap();
    let told = |certificate: &str| {
        let text = metrics.render();
        let series = format!(
            "muster_certificate_expiry_timestamp_seconds{{certificate=\"{certificate}\"}} "
        );
        let line = text.lines().find_map(|line| line.strip_prefix(&series));
        line.map(|value| value.parse::<i64>().unwrap())
    };
    assert_eq!(told("authority"), None);
    let mut serving = Serving::new(old.with(&[]), vec!["localhost".into()], now)
        .unwrap()
        .told_to(metrics.clone());
    let authority = serving.authority();
    assert_eq!(
        told("authority"),
        Some(authority.get().not_after().as_second())
    );
    let first = told("serving").unwrap();
    assert!((first - days(90).as_second()).abs() <= 60);

    serving.renew_if_due(days(44));
    assert_eq!(told("serving"), Some(first), "it is not due");
    serving.renew_if_due(days(46));
    assert!(told("serving").unwrap() - first >= 45 * 86_400);

    serving
        .take_up(&new.certificate, &new.key, days(46))
        .unwrap();
    assert_eq!(
        told("authority"),
        Some(authority.get().not_after().as_second())
    );
}
