//! `check-config`: is this file good? Binds nothing, starts nothing.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use super::USAGE;
use crate::config::{Config, UrlSource, is_known_region, verify_files};

/// Checks a configuration file and the files that it names. Errors go to standard error, with exit code
/// 64; a summary goes to standard output, with exit code 0.
#[must_use]
pub fn check_config(path: &Path) -> ExitCode {
    match check(path) {
        Ok(summary) => write_all(&mut io::stdout(), &summary, ExitCode::SUCCESS),
        Err(errors) => write_all(&mut io::stderr(), &errors, ExitCode::from(USAGE)),
    }
}

/// Writes a text; a reader that has gone away doesn't change the verdict.
fn write_all(out: &mut impl Write, text: &str, code: ExitCode) -> ExitCode {
    drop(writeln!(out, "{text}"));
    code
}

/// The summary, or the errors, one on each line.
fn check(path: &Path) -> Result<String, String> {
    let config = Config::load(path).map_err(|errors| errors.to_string())?;
    verify_files(&config).map_err(|errors| {
        let lines = errors
            .iter()
            .map(|error| format!("{}: {error}", path.display()));
        lines.collect::<Vec<_>>().join("\n")
    })?;
    Ok(summary(path, &config))
}

fn summary(path: &Path, config: &Config) -> String {
    let mut lines = vec![
        format!("{} is good", path.display()),
        format!("data in {}", config.coordinator.data_dir.display()),
        store(config),
        format!(
            "webhooks on {}, enrolment on {}, agents on {}, operators on {}",
            config.listen.web, config.listen.enroll, config.listen.agents, config.listen.operators
        ),
        format!(
            "GitHub app {} at {}",
            config.github.app_id, config.github.api_url
        ),
    ];
    for account in &config.ec2 {
        let (name, region) = (&account.settings.name, &account.settings.region);
        if !is_known_region(region) {
            lines.push(format!(
                "account {name}: {region} is no region that this version knows; is it spelt right?"
            ));
        }
    }
    for pool in &config.fleet.pools {
        let labels: Vec<_> = pool.labels.iter().map(String::as_str).collect();
        lines.push(format!(
            "pool {}: {}, {} to {} instances in {}, labels {}",
            pool.name,
            pool.scope,
            pool.min_idle,
            pool.max,
            pool.account,
            labels.join(", ")
        ));
    }
    lines.join("\n")
}

fn store(config: &Config) -> String {
    match &config.store.postgres {
        None => "store: SQLite, in a file there, for one coordinator".to_owned(),
        Some(postgres) => match &postgres.url {
            UrlSource::Plain(url) => format!("store: PostgreSQL at {url}"),
            UrlSource::Secret(source) => format!("store: PostgreSQL, by the URL in {source}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::StoreKind;

    const GOOD: &str = r#"
[github]
app_id = "Iv1.0123456789abcdef"
private_key_file = "app.pem"
webhook_secret_files = ["hook"]
[accounts.local]
max_instances = 4
[local]
agent_binary = "agent"
runner_dir = "."
[[pool]]
name = "linux"
scope = { repository = "octo-org/octo-repo" }
labels = ["self-hosted"]
account = "local"
max = 4
"#;

    /// A directory with a file for each name and content.
    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = directory.path().join(name);
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        }
        directory
    }

    #[test]
    fn a_good_file_is_summed_up() {
        let files = [
            ("muster.toml", GOOD),
            ("app.pem", "key"),
            ("hook", "hush"),
            ("agent", ""),
        ];
        let directory = directory(&files);
        let summary = check(&directory.path().join("muster.toml")).unwrap();
        assert!(summary.contains("store: SQLite, in a file there"));
        assert!(summary.contains("GitHub app Iv1.0123456789abcdef at https://api.github.com/"));
        assert!(summary.contains(
            "pool linux: repository octo-org/octo-repo, 0 to 4 instances in local, \
             labels self-hosted"
        ));
    }

    #[test]
    fn another_store_than_is_expected_is_refused() {
        let load = |file: &str| {
            let directory = directory(&[("muster.toml", file)]);
            Config::load(&directory.path().join("muster.toml")).unwrap()
        };
        let file = load(GOOD);
        let shared = "[identity]\nca_certificate_file = \"ca.pem\"\nca_key_file = \"ca.key\"\n\
                      [store]\nurl = \"postgres://db/muster\"\n[github]";
        let shared = load(&GOOD.replace("[github]", shared));
        assert_eq!(StoreKind::Sqlite.refuses(&file), None);
        assert_eq!(StoreKind::Postgres.refuses(&shared), None);
        let missing = StoreKind::Postgres.refuses(&file).unwrap();
        assert!(missing.starts_with("PostgreSQL is expected"), "{missing}");
        let other = StoreKind::Sqlite.refuses(&shared).unwrap();
        assert!(other.starts_with("SQLite is expected"), "{other}");
        assert!(store(&shared).contains("postgres://db/muster"));
    }

    #[test]
    fn a_region_that_nobody_knows_is_asked_about() {
        let account = "[accounts.main]\nmax_instances = 1\naws_account_id = \"123456789012\"\n\
                       region = \"eu-west-9\"\n[[pool]]";
        let file = GOOD.replace("[[pool]]", account);
        let files = [
            ("muster.toml", file.as_str()),
            ("app.pem", "key"),
            ("hook", "hush"),
            ("agent", ""),
        ];
        let directory = directory(&files);
        let path = directory.path().join("muster.toml");
        let asked = "account main: eu-west-9 is no region that this version knows";
        assert!(check(&path).unwrap().contains(asked));
        std::fs::write(&path, file.replace("eu-west-9", "eu-west-1")).unwrap();
        assert!(!check(&path).unwrap().contains("no region"));
    }

    #[test]
    fn files_that_are_missing_are_all_named() {
        let directory = directory(&[("muster.toml", GOOD)]);
        let errors = check(&directory.path().join("muster.toml")).unwrap_err();
        let lines: Vec<_> = errors.lines().collect();
        assert_eq!(lines.len(), 3, "{errors}");
        for (line, key) in lines.iter().zip([
            "muster.toml: github.private_key_file: ",
            "muster.toml: github.webhook_secret_files: ",
            "muster.toml: local.agent_binary: ",
        ]) {
            assert!(line.contains(key), "{line}");
        }
    }

    #[test]
    fn a_wrong_file_is_a_usage_error() {
        let directory = directory(&[("muster.toml", "nonsense = 1")]);
        let code = check_config(&directory.path().join("muster.toml"));
        assert_eq!(code, ExitCode::from(64));
    }
}
