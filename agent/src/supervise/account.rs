//! The environment that a login of this process's user would have.

use nix::unistd::{Uid, User};

const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a login of this account would set. The agent's own environment is not for the job.
pub(crate) fn environment() -> Vec<(&'static str, String)> {
    let user = User::from_uid(Uid::current()).ok().flatten();
    let (name, home, shell) = match user {
        Some(user) => (
            user.name,
            user.dir.display().to_string(),
            user.shell.display().to_string(),
        ),
        None => ("runner".into(), "/tmp".into(), "/bin/sh".into()),
    };
    let path = std::env::var("PATH").unwrap_or_else(|_| PATH_DEFAULT.into());
    vec![
        ("PATH", path),
        ("HOME", home),
        ("USER", name.clone()),
        ("LOGNAME", name),
        ("SHELL", shell),
        ("LANG", "C.UTF-8".into()),
    ]
}
