//! The checks and what came of them, for people and for programs.

use std::fmt;

use serde::Serialize;

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// As expected.
    Pass,
    /// Not as expected: no job should run here.
    Fail,
    /// Not as expected, which may be meant.
    Warn,
    /// It doesn't apply to this host.
    Skip,
}

/// One check.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    name: String,
    verdict: Verdict,
    expected: String,
    got: String,
    /// What to do about it; empty if nothing is to be done.
    #[serde(skip_serializing_if = "str::is_empty")]
    advice: &'static str,
}

/// All checks, in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Report(Vec<Check>);

impl Report {
    /// Adds a check; the advice is kept if it is needed.
    pub(super) fn add(
        &mut self,
        verdict: Verdict,
        name: impl Into<String>,
        expected: impl Into<String>,
        got: impl Into<String>,
        advice: &'static str,
    ) {
        let needed = matches!(verdict, Verdict::Fail | Verdict::Warn);
        self.0.push(Check {
            name: name.into(),
            verdict,
            expected: expected.into(),
            got: got.into(),
            advice: if needed { advice } else { "" },
        });
    }

    /// Adds a check that must hold.
    pub(super) fn must(
        &mut self,
        holds: bool,
        name: impl Into<String>,
        expected: impl Into<String>,
        got: impl Into<String>,
        advice: &'static str,
    ) {
        let verdict = if holds { Verdict::Pass } else { Verdict::Fail };
        self.add(verdict, name, expected, got, advice);
    }

    /// Whether nothing failed.
    pub(super) fn passed(&self) -> bool {
        self.count(Verdict::Fail) == 0
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.0.iter().filter(|c| c.verdict == verdict).count()
    }

    /// One document: `{"passed": …, "checks": […]}`.
    pub(super) fn json(&self) -> String {
        let document = serde_json::json!({ "passed": self.passed(), "checks": self.0 });
        format!("{document}\n")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.0 {
            let Check {
                name,
                expected,
                got,
                advice,
                ..
            } = check;
            match check.verdict {
                Verdict::Pass => writeln!(f, "ok    {name}: {got}")?,
                Verdict::Skip => writeln!(f, "skip  {name}: {got}")?,
                Verdict::Warn => writeln!(f, "warn  {name}: {got}; expected {expected}; {advice}")?,
                Verdict::Fail => writeln!(f, "FAIL  {name}: {got}; expected {expected}; {advice}")?,
            }
        }
        let (failed, all) = (self.count(Verdict::Fail), self.0.len());
        if failed == 0 {
            writeln!(f, "passed: {all} checks, none failed")
        } else {
            writeln!(f, "FAILED: {failed} of {all} checks")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Report, Verdict};

    #[test]
    fn only_a_failure_fails_and_says_what_to_do() {
        let mut report = Report::default();
        report.must(true, "users", "two", "two", "make them");
        report.add(Verdict::Warn, "sudo", "works", "does not", "install it");
        report.add(Verdict::Skip, "ipv6", "", "no route", "");
        assert!(report.passed());
        report.must(false, "guard", "loaded", "missing", "start it");
        assert!(!report.passed());
        assert_eq!(
            report.to_string(),
            "ok    users: two\n\
             warn  sudo: does not; expected works; install it\n\
             skip  ipv6: no route\n\
             FAIL  guard: missing; expected loaded; start it\n\
             FAILED: 1 of 4 checks\n"
        );
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["passed"], false);
        assert_eq!(json["checks"][3]["verdict"], "fail");
        assert_eq!(json["checks"][0].get("advice"), None);
    }
}
