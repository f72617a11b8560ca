use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn domain() -> TrustDomain {
    TrustDomain::new("muster.test").unwrap()
}

#[test]
fn the_two_forms_are_as_documented() {
    let agent = AgentId::new(
        &domain(),
        "linux-small",
        "local",
        "local",
        "i-0123456789abcdef0",
    );
    assert_eq!(
        agent.unwrap().to_string(),
        "spiffe://muster.test/pool/linux-small/instance/local/local/i-0123456789abcdef0"
    );
    assert_eq!(
        OperatorId::new(&domain(), "alice").unwrap().to_string(),
        "spiffe://muster.test/operator/alice"
    );
}

#[rstest]
#[case::empty("")]
#[case::dots("..")]
#[case::climb("../..")]
#[case::percent("%2e%2e")]
#[case::slashes("//")]
#[case::slash("a/b")]
#[case::upper_case("Pool")]
#[case::unicode("pôol")]
#[case::look_alike("рool")]
#[case::space("a b")]
#[case::newline("a\n")]
#[case::nul("a\0b")]
#[case::query("a?b")]
#[case::fragment("a#b")]
#[case::too_long("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")]
fn cve_2021_27099_a_segment_outside_the_alphabet_is_refused(#[case] evil: &str) {
    let instance = "i-0123456789abcdef0";
    assert!(AgentId::new(&domain(), evil, "local", "local", instance).is_err());
    assert!(AgentId::new(&domain(), "linux", evil, "local", instance).is_err());
    assert!(AgentId::new(&domain(), "linux", "local", evil, instance).is_err());
    assert!(AgentId::new(&domain(), "linux", "local", "local", evil).is_err());
    assert!(OperatorId::new(&domain(), evil).is_err());
    assert!(
        format!("spiffe://muster.test/operator/{evil}")
            .parse::<SpiffeId>()
            .is_err()
    );
}

#[rstest]
#[case("i-0123456")]
#[case("i-0123456789abcdef01")]
#[case("i-0123456789ABCDEF0")]
#[case("i-0123456789abcdefg")]
#[case("0123456789abcdef0")]
#[case("linux")]
fn an_instance_id_of_another_form_is_refused(#[case] evil: &str) {
    assert!(AgentId::new(&domain(), "linux", "local", "local", evil).is_err());
}

#[rstest]
#[case::no_scheme("muster.test/operator/alice")]
#[case::other_scheme("https://muster.test/operator/alice")]
#[case::upper_scheme("SPIFFE://muster.test/operator/alice")]
#[case::no_domain("spiffe:///operator/alice")]
#[case::port("spiffe://muster.test:443/operator/alice")]
#[case::user("spiffe://a@muster.test/operator/alice")]
#[case::upper_domain("spiffe://Muster.test/operator/alice")]
#[case::empty_label("spiffe://muster..test/operator/alice")]
#[case::trailing_slash("spiffe://muster.test/operator/alice/")]
#[case::double_slash("spiffe://muster.test//operator/alice")]
#[case::more("spiffe://muster.test/operator/alice/extra")]
#[case::less("spiffe://muster.test/operator")]
#[case::no_path("spiffe://muster.test")]
#[case::other_kind("spiffe://muster.test/coordinator/alice")]
#[case::no_instance("spiffe://muster.test/pool/linux/instance/local/local")]
#[case::dot_segment("spiffe://muster.test/pool/linux/../instance/local/local/i-01234567")]
fn a_text_of_another_form_is_refused(#[case] text: &str) {
    assert!(text.parse::<SpiffeId>().is_err(), "{text}");
}

proptest! {
    #[test]
    fn what_parses_is_written_the_same(text in "(spiffe://)?[a-z0-9./%A-Z-]{0,80}") {
        if let Ok(id) = text.parse::<SpiffeId>() {
            prop_assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn what_is_built_from_any_parts_reads_back_as_these_parts(
        pool in "\\PC{0,12}|[a-z0-9-]{1,12}",
        account in "\\PC{0,12}|[a-z0-9-]{1,12}",
        instance in "i-[0-9a-f]{6,19}|\\PC{0,12}",
    ) {
        if let Ok(id) = AgentId::new(&domain(), &pool, &account, "local", &instance) {
            let SpiffeId::Agent(back) = id.to_string().parse::<SpiffeId>().unwrap() else {
                panic!("an agent reads back as an operator");
            };
            prop_assert_eq!(back.pool(), pool);
            prop_assert_eq!(back.account(), account);
            prop_assert_eq!(back.instance(), instance);
        }
    }

    #[test]
    fn an_operator_name_never_makes_an_agent(name in "\\PC{0,60}") {
        if let Ok(id) = OperatorId::new(&domain(), &name) {
            prop_assert!(matches!(id.to_string().parse(), Ok(SpiffeId::Operator(_))));
        }
    }
}
