//! What `selftest` and the processes that it starts are told.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::*;
use url::Url;

/// The service's addresses, the same on every instance.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html>
const IPV4: &str = "http://169.254.169.254";
const IPV6: &str = "http://[fd00:ec2::254]";

/// One of the two commands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// `selftest`.
    Test(Options),
    /// `selftest-probe`: look as the user that this process is. Not for people.
    Probe(Probe),
}

/// How to test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// Which checks.
    pub(super) part: Part,
    /// Who must reach the metadata service.
    pub(super) allowed: Vec<String>,
    /// Who must not. The first of them is the runner's user.
    pub(super) denied: Vec<String>,
    /// The metadata service.
    pub(super) endpoints: Vec<Endpoint>,
    /// The unpacked runner.
    pub(super) runner_dir: PathBuf,
    /// One JSON document in place of lines.
    pub(super) json: bool,
}

/// Which checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Every one.
    All,
    /// Who reaches the metadata service.
    Imds,
    /// Users, directories, kernel settings.
    Host,
}

impl Part {
    pub(super) fn has_imds(self) -> bool {
        self != Self::Host
    }

    pub(super) fn has_host(self) -> bool {
        self != Self::Imds
    }
}

/// One address of the metadata service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Scheme http.
    pub(super) url: Url,
    /// Whether a host may be without it.
    pub(super) optional: bool,
}

/// What a probe tries.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// The metadata service at this address.
    Reach(Url),
    /// The runner in this directory.
    Runner(PathBuf),
    /// Root's rights without a password.
    Sudo,
}

/// Reads what comes behind the command `selftest` or `selftest-probe`.
pub(crate) fn parse(command: &str, parser: &mut lexopt::Parser) -> Result<Order, lexopt::Error> {
    if command == "selftest-probe" {
        return probe(parser).map(Order::Probe);
    }
    let (mut allowed, mut denied, mut endpoints) = (Vec::new(), Vec::new(), Vec::new());
    let mut part = Part::All;
    let mut runner_dir = PathBuf::from("/opt/actions-runner");
    let mut json = false;
    while let Some(argument) = parser.next()? {
        match argument {
            Long("allow-user") => allowed.push(parser.value()?.string()?),
            Long("deny-user") => denied.push(parser.value()?.string()?),
            Long("endpoint") => endpoints.push(Endpoint {
                url: parser.value()?.parse_with(http)?,
                optional: false,
            }),
            Long("runner-dir") => runner_dir = parser.value()?.into(),
            Long("only") => part = parser.value()?.parse_with(a_part)?,
            Long("json") => json = true,
            other => return Err(other.unexpected()),
        }
    }
    if allowed.is_empty() {
        allowed = vec!["root".into(), "muster-agent".into()];
    }
    if denied.is_empty() {
        denied = vec!["runner".into()];
    }
    if endpoints.is_empty() {
        for (url, optional) in [(IPV4, false), (IPV6, true)] {
            let url = OsString::from(url).parse_with(http)?;
            endpoints.push(Endpoint { url, optional });
        }
    }
    Ok(Order::Test(Options {
        part,
        allowed,
        denied,
        endpoints,
        runner_dir,
        json,
    }))
}

fn probe(parser: &mut lexopt::Parser) -> Result<Probe, lexopt::Error> {
    match parser.next()? {
        Some(Long("reach")) => parser.value()?.parse_with(http).map(Probe::Reach),
        Some(Long("runner")) => Ok(Probe::Runner(parser.value()?.into())),
        Some(Long("sudo")) => Ok(Probe::Sudo),
        Some(other) => Err(other.unexpected()),
        None => Err("nothing to probe".into()),
    }
}

fn http(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|error| format!("{error}"))?;
    if url.scheme() == "http" && url.has_host() {
        Ok(url)
    } else {
        Err("expected an http:// address".into())
    }
}

fn a_part(text: &str) -> Result<Part, String> {
    match text {
        "imds" => Ok(Part::Imds),
        "host" => Ok(Part::Host),
        _ => Err("expected imds or host".into()),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Options, Order, Part, Probe, parse};

    fn read(command: &str, line: &str) -> Result<Order, lexopt::Error> {
        let words = line.split_whitespace();
        parse(command, &mut lexopt::Parser::from_args(words))
    }

    fn options(line: &str) -> Options {
        match read("selftest", line).unwrap() {
            Order::Test(options) => options,
            Order::Probe(probe) => panic!("{probe:?}"),
        }
    }

    #[test]
    fn without_options_it_tests_what_the_image_has() {
        let options = options("");
        assert_eq!(options.part, Part::All);
        assert_eq!(options.allowed, ["root", "muster-agent"]);
        assert_eq!(options.denied, ["runner"]);
        let optional: Vec<_> = options.endpoints.iter().map(|e| e.optional).collect();
        assert_eq!(optional, [false, true]);
        assert_eq!(options.runner_dir.to_str(), Some("/opt/actions-runner"));
    }

    #[test]
    fn what_is_named_replaces_the_defaults() {
        let options = options(
            "--allow-user a --deny-user b --deny-user c --endpoint http://h/p --only imds --json",
        );
        assert_eq!(options.allowed, ["a"]);
        assert_eq!(options.denied, ["b", "c"]);
        assert_eq!(options.endpoints.len(), 1);
        assert_eq!(options.part, Part::Imds);
        assert!(options.json);
    }

    #[rstest]
    #[case("selftest", "--endpoint https://h", "http://")]
    #[case("selftest", "--only some", "imds or host")]
    #[case("selftest", "--power-off", "--power-off")]
    #[case("selftest-probe", "", "nothing to probe")]
    fn refused(#[case] command: &str, #[case] line: &str, #[case] named: &str) {
        let error = read(command, line).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }

    #[test]
    fn a_probe_does_one_thing() {
        let order = read("selftest-probe", "--sudo").unwrap();
        assert_eq!(order, Order::Probe(Probe::Sudo));
    }
}
