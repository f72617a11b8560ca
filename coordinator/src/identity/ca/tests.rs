use std::os::unix::fs::PermissionsExt as _;

use rcgen::string::Ia5String;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

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
    assert!(refused.to_string().contains("another certificate's"));
    let on_disk = fs::read_to_string(certificate).unwrap();
    assert_eq!(on_disk, first.certificate_pem());
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
    let refused = Authority::load(&leaf, &leaf_key).unwrap_err();
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
