//! Users, directories and kernel settings of the host.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use nix::unistd::User;

use super::options::Options;
use super::probe;
use super::report::{Report, Verdict};

const PTRACE_SCOPE: &str = "/proc/sys/kernel/yama/ptrace_scope";
const AS_INSTALLED: &str = "run `systemd-tmpfiles --create muster.conf`, or ami/install again";

/// Checks all of it.
pub(super) fn check(options: &Options, report: &mut Report) {
    for name in options.allowed.iter().chain(&options.denied) {
        check_user(name, report);
    }
    ptrace_scope(report);
    let runner = options.denied.first().map(String::as_str);
    let Some(runner) = runner.and_then(|name| User::from_name(name).ok().flatten()) else {
        return;
    };
    runner_dir(&runner, &options.runner_dir, report);
    sudo(&runner, report);
    directory(Path::new("/run/muster"), 0o755, 0, report);
}

fn check_user(name: &str, report: &mut Report) {
    let user = User::from_name(name).ok().flatten();
    let got = user
        .as_ref()
        .map_or("missing".to_owned(), |user| format!("uid {}", user.uid));
    // Root under another name would pass the guard.
    let fits = user.is_some_and(|user| user.uid.is_root() == (name == "root"));
    report.must(
        fits,
        format!("user {name}"),
        "to exist, with a uid of its own",
        got,
        "run `systemd-sysusers`, or ami/install again",
    );
}

fn ptrace_scope(report: &mut Report) {
    let name = "ptrace scope";
    let advice = "set kernel.yama.ptrace_scope = 1: steps of a job can read the runner's memory";
    match fs::read_to_string(PTRACE_SCOPE) {
        Ok(text) => {
            let scope = text.trim();
            report.must(scope != "0", name, "1 or more", scope, advice);
        }
        Err(error) => {
            let got = format!("this kernel has no Yama ({PTRACE_SCOPE}: {error})");
            report.add(Verdict::Skip, name, "1 or more", got, advice);
        }
    }
}

fn runner_dir(runner: &User, dir: &Path, report: &mut Report) {
    let arguments = [OsStr::new("--runner"), dir.as_os_str()];
    let problems = probe::ask::<Vec<String>>(runner, &arguments).unwrap_or_else(|e| vec![e]);
    let got = if problems.is_empty() {
        "can be run and written by its user".to_owned()
    } else {
        problems.join("; ")
    };
    report.must(
        problems.is_empty(),
        format!("runner in {}", dir.display()),
        "to be whole, its user's own, and below directories that its user may list",
        got,
        "unpack the official runner there, and give it to its user",
    );
}

fn sudo(runner: &User, report: &mut Report) {
    let problem = probe::ask::<Option<String>>(runner, &[OsStr::new("--sudo")]);
    let (verdict, got) = match problem {
        Ok(None) => (Verdict::Pass, "works without a password".to_owned()),
        Ok(Some(problem)) | Err(problem) => (Verdict::Warn, problem),
    };
    report.add(
        verdict,
        format!("sudo as {}", runner.name),
        "to work without a password",
        got,
        "workflows made for GitHub's hosted runners need it; is /etc/sudoers.d/runner there?",
    );
}

fn directory(path: &Path, mode: u32, owner: u32, report: &mut Report) {
    let expected = format!("a directory of uid {owner}, mode {mode:o}");
    let (holds, got) = match fs::symlink_metadata(path) {
        Ok(data) => {
            let found = data.permissions().mode() & 0o7777;
            let kind = if data.is_dir() {
                "a directory"
            } else {
                "no directory"
            };
            let holds = data.is_dir() && found == mode && data.uid() == owner;
            (
                holds,
                format!("{kind} of uid {}, mode {found:o}", data.uid()),
            )
        }
        Err(error) => (false, error.to_string()),
    };
    report.must(
        holds,
        path.display().to_string(),
        expected,
        got,
        AS_INSTALLED,
    );
}

#[cfg(test)]
mod tests {
    use super::{Report, check_user, directory, fs};

    #[test]
    fn a_directory_that_others_may_write_to_fails() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |mode| {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            fs::set_permissions(dir.path(), mode).unwrap();
        };
        let me = nix::unistd::geteuid().as_raw();
        let mut report = Report::default();
        mode(0o755);
        directory(dir.path(), 0o755, me, &mut report);
        assert!(report.passed(), "{report}");
        mode(0o777);
        directory(dir.path(), 0o755, me, &mut report);
        assert!(!report.passed());
        let mut report = Report::default();
        directory(&dir.path().join("none"), 0o755, me, &mut report);
        assert!(!report.passed());
    }

    #[test]
    fn a_user_that_does_not_exist_fails() {
        let mut report = Report::default();
        check_user("root", &mut report);
        assert!(report.passed(), "{report}");
        check_user("nobody-of-this-name", &mut report);
        assert!(!report.passed());
    }
}
