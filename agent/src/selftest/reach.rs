//! Who reaches the instance metadata service.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use nix::unistd::User;

use super::options::{Endpoint, Options};
use super::probe::{self, Outcome, Reached};
use super::report::{Report, Verdict};

/// The rules that `imds-guard.nft` loads.
const TABLE: [&str; 2] = ["inet", "muster_imds_guard"];
/// A refusal that takes longer is none: tools in jobs would wait for it.
const REFUSAL_MAX_MILLIS: u64 = 1000;
const START_GUARD: &str = "look at `systemctl status muster-imds-guard.service`";

/// Checks the guard and each user at each address.
pub(super) fn check(options: &Options, report: &mut Report) {
    table(report);
    for endpoint in &options.endpoints {
        check_endpoint(endpoint, options, report);
    }
}

fn table(report: &mut Report) {
    let listed = Command::new("nft")
        .args(["list", "table"])
        .args(TABLE)
        .stdin(Stdio::null())
        .output();
    let got = match &listed {
        Ok(output) if output.status.success() => "loaded".to_owned(),
        Ok(output) => String::from_utf8_lossy(&output.stderr)
            .lines()
            .next()
            .unwrap_or("nft failed")
            .to_owned(),
        Err(error) => format!("start nft: {error}"),
    };
    let table = TABLE.join(" ");
    let name = format!("nftables table {table}");
    report.must(got == "loaded", name, "loaded", got, START_GUARD);
}

fn check_endpoint(endpoint: &Endpoint, options: &Options, report: &mut Report) {
    // The refusal of a denied user proves something only if somebody else is answered.
    let mut answers = false;
    for user in &options.allowed {
        let name = format!("{} as {user}", endpoint.url);
        let reached = match reach(user, endpoint) {
            Ok(reached) => reached,
            Err(problem) => {
                report.must(false, name, "a token", problem, "make the user");
                continue;
            }
        };
        let answered = reached.outcome == Outcome::Answered(200);
        if endpoint.optional && !answered && !answers {
            let got = format!("not offered on this host: {}", describe(&reached));
            report.add(Verdict::Skip, name, "a token", got, "");
            return;
        }
        answers |= answered;
        report.must(
            answered,
            name,
            "a token",
            describe(&reached),
            "is HttpEndpoint enabled for this instance, and no other firewall in between?",
        );
        if reached.credentials {
            report.add(
                Verdict::Warn,
                format!("instance profile as {user}"),
                "no role to be listed",
                "a role is listed",
                "a job becomes root by sudo and may get past the guard: detach the instance \
                 profile, or see to it that its role may do nothing",
            );
        }
    }
    for user in &options.denied {
        let name = format!("{} as {user}", endpoint.url);
        match reach(user, endpoint) {
            Ok(reached) => refusal(&name, &reached, answers, report),
            Err(problem) => report.must(false, name, "a refusal", problem, "make the user"),
        }
    }
}

fn refusal(name: &str, reached: &Reached, answers: bool, report: &mut Report) {
    let got = describe(reached);
    let refused = reached.outcome == Outcome::Refused && reached.millis < REFUSAL_MAX_MILLIS;
    let expected = format!("a refusal within {REFUSAL_MAX_MILLIS} ms");
    if refused && !answers {
        let got = format!("{got}, as for everybody");
        let advice = "this proves nothing until an allowed user gets a token";
        report.must(false, name, expected, got, advice);
        return;
    }
    report.must(refused, name, expected, got, START_GUARD);
    report.must(
        !reached.credentials,
        format!("{name}, credentials"),
        "none to be seen",
        if reached.credentials {
            "an instance profile's role is listed"
        } else {
            "none to be seen"
        },
        "run no job on this host; it can act as the instance",
    );
}

fn reach(name: &str, endpoint: &Endpoint) -> Result<Reached, String> {
    let user = User::from_name(name)
        .map_err(|errno| errno.desc().to_owned())?
        .ok_or_else(|| format!("there is no user {name}"))?;
    let url = OsStr::new(endpoint.url.as_str());
    probe::ask(&user, &[OsStr::new("--reach"), url])
}

fn describe(reached: &Reached) -> String {
    let millis = reached.millis;
    match &reached.outcome {
        Outcome::Answered(200) => format!("a token in {millis} ms"),
        Outcome::Answered(status) => format!("status {status} in {millis} ms"),
        Outcome::Refused => format!("refused in {millis} ms"),
        Outcome::TimedOut => format!("no answer in {millis} ms"),
        Outcome::Failed(problem) => problem.clone(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Outcome, Reached, Report, refusal};

    fn passes(outcome: Outcome, millis: u64, answers: bool) -> bool {
        let reached = Reached {
            outcome,
            millis,
            credentials: false,
        };
        let mut report = Report::default();
        refusal("x", &reached, answers, &mut report);
        report.passed()
    }

    #[rstest]
    #[case(Outcome::Refused, 3, true, true)]
    #[case(Outcome::Refused, 1500, true, false)]
    #[case(Outcome::Refused, 3, false, false)]
    #[case(Outcome::TimedOut, 2000, true, false)]
    #[case(Outcome::Answered(200), 1, true, false)]
    #[case(Outcome::Answered(401), 1, true, false)]
    #[case(Outcome::Failed("no route".into()), 1, true, false)]
    fn only_a_quick_refusal_that_others_do_not_meet_is_one(
        #[case] outcome: Outcome,
        #[case] millis: u64,
        #[case] answers: bool,
        #[case] passed: bool,
    ) {
        assert_eq!(passes(outcome, millis, answers), passed);
    }
}
