use std::os::unix::fs::PermissionsExt as _;

use rcgen::string::Ia5String;
use rstest::rstest;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use super::fixtures::Pair;
use super::*;
use crate::identity::spiffe::TrustDomain;

fn authority() -> (tempfile::TempDir, Authority) {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::load_or_create(directory.path(), Timestamp::now()).unwrap();
    (directory, authority)
}

fn agent_id() -> AgentId {
    let domain = TrustDomain::new("muster.test").unwrap();
    AgentId::new(&domain, "linux", "local", "local", "i-0123456789abcdef0").unwrap()
}

fn uris<'a>(certificate: &'a X509Certificate<'_>) -> Vec<&'a str> {
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    names
        .value
        .general_names
        .iter()
        .map(|name| match name {
            GeneralName::URI(uri) => *uri,
            other => panic!("a name that is no URI: {other}"),
        })
        .collect()
}

#[test]
fn the_second_start_finds_the_authority_of_the_first() {
    let (directory, first) = authority();
    let second = Authority::load_or_create(directory.path(), Timestamp::now()).unwrap();
    assert_eq!(first.certificate(), second.certificate());
    let (_, key) = Authority::files_in(directory.path());
    let mode = fs::metadata(key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_key_without_certificate_is_a_first_start_that_was_cut_short() {
    let (directory, first) = authority();
    let (certificate, _) = Authority::files_in(directory.path());
    fs::remove_file(certificate).unwrap();
    let second = Authority::load_or_create(directory.path(), Timestamp::now()).unwrap();
    assert_ne!(first.certificate(), second.certificate());
}

#[test]
fn a_missing_or_foreign_key_is_refused_and_nothing_is_replaced() {
    let (directory, first) = authority();
    let (certificate, key) = Authority::files_in(directory.path());
    fs::remove_file(&key).unwrap();
    let now = Timestamp::now();
    assert!(matches!(
        Authority::load_or_create(directory.path(), now),
        Err(CaError::File { .. })
    ));
    fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let refused = Authority::load_or_create(directory.path(), now).unwrap_err();
    assert!(refused.to_string().contains("belongs to none"), "{refused}");
    let on_disk = fs::read_to_string(certificate).unwrap();
    assert_eq!(on_disk, first.trust_anchors_pem());
}

#[test]
fn a_leaf_is_refused_as_authority() {
    let (directory, authority) = authority();
    let leaf = directory.path().join("leaf.crt");
    let leaf_key = directory.path().join("leaf.key");
    let domain = TrustDomain::new("muster.test").unwrap();
    let operator = OperatorId::new(&domain, "eve").unwrap();
    let issued = authority
        .operator(&operator, AGENT_TTL, Timestamp::now())
        .unwrap();
    fs::write(&leaf, &issued.certificate_pem).unwrap();
    fs::write(&leaf_key, issued.key_pem.expose_secret()).unwrap();
    let refused = Authority::load(&leaf, &leaf_key, Timestamp::now()).unwrap_err();
    assert!(refused.to_string().contains("not an authority's"));
}

#[test]
fn cve_2021_27098_an_agent_certificate_carries_nothing_of_the_request_but_its_key() {
    let (_directory, authority) = authority();
    let key = KeyPair::generate().unwrap();
    let mut evil = CertificateParams::new(vec!["coordinator.test".to_owned()]).unwrap();
    let operator = Ia5String::try_from("spiffe://muster.test/operator/eve").unwrap();
    evil.subject_alt_names.push(SanType::URI(operator));
    evil.distinguished_name.push(DnType::CommonName, "eve");
    evil.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    evil.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    evil.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let request = evil.serialize_request(&key).unwrap();
    let requested = RequestedKey::from_csr(request.der()).unwrap();

    let now = Timestamp::now();
    let issued = authority.agent(&agent_id(), &requested, now).unwrap();
    let (_, certificate) = parse_x509_certificate(&issued.certificate).unwrap();
    assert_eq!(uris(&certificate), [agent_id().to_string()]);
    assert!(!certificate.is_ca());
    assert_eq!(certificate.subject().to_string(), "CN=i-0123456789abcdef0");
    let usage = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && !usage.any);
    let usage = certificate.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && !usage.key_cert_sign());
    let public_key = &certificate.public_key().subject_public_key.data;
    assert_eq!(public_key.as_ref(), key.der_bytes());
}

#[test]
fn an_agent_certificate_lasts_an_hour_and_has_its_own_serial() {
    let (_directory, authority) = authority();
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let requested = RequestedKey::from_csr(request.der()).unwrap();
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let issue = || authority.agent(&agent_id(), &requested, now).unwrap();
    let (first, second) = (issue(), issue());
    assert_eq!(first.not_after.as_second(), 1_800_003_600);
    let (_, first) = parse_x509_certificate(&first.certificate).unwrap();
    let (_, second) = parse_x509_certificate(&second.certificate).unwrap();
    assert_eq!(first.validity().not_after.timestamp(), 1_800_003_600);
    assert_eq!(first.validity().not_before.timestamp(), 1_799_999_940);
    assert_ne!(first.serial, second.serial);
    assert!(first.raw_serial().len() >= 14);
}

#[test]
fn no_operator_certificate_outlives_twelve_hours_or_the_authority() {
    let (_directory, authority) = authority();
    let domain = TrustDomain::new("muster.test").unwrap();
    let id = OperatorId::new(&domain, "alice").unwrap();
    let year = Duration::from_secs(365 * 24 * 60 * 60);
    let now = Timestamp::now();
    let issued = authority.operator(&id, year, now).unwrap();
    assert_eq!(issued.not_after.as_second() - now.as_second(), 12 * 60 * 60);
    let near_the_end = later(authority.not_after, Duration::ZERO) - Duration::from_secs(60);
    let issued = authority.operator(&id, year, near_the_end).unwrap();
    assert_eq!(issued.not_after, authority.not_after);
    assert!(matches!(
        authority.operator(&id, year, authority.not_after),
        Err(CaError::Expired(_))
    ));
}

#[test]
fn the_debug_text_of_an_operator_identity_shows_no_key() {
    let (_directory, authority) = authority();
    let domain = TrustDomain::new("muster.test").unwrap();
    let id = OperatorId::new(&domain, "alice").unwrap();
    let issued = authority
        .operator(&id, AGENT_TTL, Timestamp::now())
        .unwrap();
    assert!(!format!("{issued:?}").contains("PRIVATE KEY"));
}

fn of(certificates: &str, key: &SecretString) -> Result<Authority, Unusable> {
    Authority::of(certificates, key, Timestamp::now()).map_err(|error| match error {
        CaError::Given(problem) => problem,
        other => panic!("{other}"),
    })
}

#[test]
fn of_several_certificates_that_of_the_key_issues_and_all_are_trusted() {
    let (old, new, third) = (Pair::new(), Pair::new(), Pair::new());
    let alone = old.with(&[]);
    assert_eq!(alone.trust_anchors(), [alone.certificate().clone()]);
    let both = old.with(&[&new, &third, &new, &old]);
    assert_eq!(both.certificate(), alone.certificate());
    let issuer_first = [&old, &new, &third].map(|pair| pair.with(&[]).certificate().clone());
    assert_eq!(both.trust_anchors(), issuer_first);
    let pem: String = [&old, &new, &third]
        .map(|pair| pair.certificate.as_str())
        .concat();
    assert_eq!(both.trust_anchors_pem(), pem);
    let swapped = new.with(&[&old]);
    assert_eq!(swapped.certificate(), new.with(&[]).certificate());
    assert_ne!(swapped.fingerprint(), both.fingerprint());
}

#[test]
fn of_two_certificates_of_one_key_the_longer_one_issues() {
    let pair = Pair::new();
    let now = Timestamp::now();
    let day = Duration::from_secs(24 * 60 * 60);
    let short = pair.again(now, day);
    for text in [
        format!("{short}{}", pair.certificate),
        format!("{}{short}", pair.certificate),
    ] {
        let authority = of(&text, &pair.key).unwrap();
        assert_eq!(authority.certificate(), pair.with(&[]).certificate());
        assert_eq!(authority.trust_anchors().len(), 2);
    }
}

#[test]
fn what_stands_beside_the_certificates_is_told_to_nobody() {
    let pair = Pair::new();
    let text = format!(
        "# ours\n{}{}",
        pair.key.expose_secret(),
        pair.certificate.replace('\n', "\r\n")
    );
    let authority = of(&text, &pair.key).unwrap();
    assert_eq!(authority.trust_anchors_pem(), pair.certificate);
}

#[test]
fn another_that_has_expired_is_not_trusted_and_is_no_reason_to_refuse_the_rest() {
    let (old, new) = (Pair::new(), Pair::new());
    let long_ago = Timestamp::from_second(1_600_000_000).unwrap();
    let expired = old.again(long_ago, Duration::from_secs(1_000));
    let authority = of(&format!("{expired}{}", new.certificate), &new.key).unwrap();
    assert_eq!(authority.trust_anchors(), new.with(&[]).trust_anchors());
}

/// What a test changes of the texts of an authority that is good: certificates and key.
type Damage = fn(&mut String, &mut SecretString);

#[rstest]
#[case::none(|text: &mut String, _: &mut _| text.clear(), "no certificate")]
#[case::no_pem(|text: &mut String, _: &mut _| *text = "abc".to_owned(), "no certificate")]
#[case::cut_short(|text: &mut String, _: &mut _| text.truncate(text.len() - 40), "no certificate")]
#[case::no_der(
    |text: &mut String, _: &mut _| *text = text.replace("MII", "AAA"),
    "no certificate"
)]
#[case::no_key(|_: &mut String, key: &mut SecretString| *key = "".into(), "no private key")]
#[case::other_key(
    |_: &mut String, key: &mut SecretString| *key = Pair::new().key,
    "the key belongs to none of the 1 certificates"
)]
#[case::half_swapped(
    |text: &mut String, _: &mut _| *text = Pair::new().bundle(&[&Pair::new()]),
    "the key belongs to none of the 2 certificates"
)]
#[case::leaf_beside(
    |text: &mut String, _: &mut _| text.push_str(&Pair::new().leaf()),
    "certificate 2 of 2 is not an authority's"
)]
#[case::large(
    |text: &mut String, _: &mut _| (0..30).for_each(|_| text.push_str(&Pair::new().certificate)),
    "8192 is the most"
)]
fn a_pair_that_can_not_be_used_is_refused_with_what_to_do(
    #[case] damage: Damage,
    #[case] told: &str,
) {
    let Pair {
        mut certificate,
        mut key,
    } = Pair::new();
    damage(&mut certificate, &mut key);
    let refused = of(&certificate, &key).unwrap_err();
    assert!(refused.to_string().contains(told), "{refused}");
}

#[test]
fn an_authority_issues_only_in_its_time() {
    let pair = Pair::new();
    let at = |second| Timestamp::from_second(second).unwrap();
    let text = pair.again(at(2_000_000_000), Duration::from_secs(1_000));
    let check = |now| Authority::of(&text, &pair.key, at(now)).map(|_| ());
    assert!(matches!(
        check(1_999_999_000),
        Err(CaError::Given(Unusable::Early(_)))
    ));
    check(2_000_000_999).unwrap();
    assert!(matches!(
        check(2_000_001_000),
        Err(CaError::Given(Unusable::Expired(_)))
    ));
}
