//! What the units leave to those who run in them: enough for their work, and no more.

use std::time::Duration;

use crate::surroundings::{IMDS, Surroundings};

const OFF: Duration = Duration::from_secs(20);

/// What a supervisor does, in the words of a shell.
const SUPERVISOR: &str = r#"
systemd-notify --ready
cd /run/muster
check() { if "${@:2}" 2>>errors; then echo "$1: yes"; else echo "$1: no"; fi >>report; }
cgroup=/sys/fs/cgroup/system.slice/muster-runner.service

check 'make the console pipe' mkfifo -m 0600 console
check 'give it to the runner' chown runner: console
mkdir job/perf && chown runner: job job/perf
check 'start the runner' systemctl start --no-block muster-runner.service
while [[ ! -e /run/muster/job/perf/Runner.perf ]]; do sleep 0.05; done
check 'read its perf file' grep -q RunnerProcessStarted job/perf/Runner.perf
check 'read its logs' grep -q secret /opt/actions-runner/_diag/Runner_1.log
pid=$(systemctl show --value --property MainPID muster-runner.service)
check 'see its process' test -d "/proc/$pid"
check 'read its cgroup' grep -qx "$pid" "$cgroup/cgroup.procs"
kill -INT "$pid" && echo 'signal it: yes' >>report
while systemctl --quiet is-active muster-runner.service; do sleep 0.05; done
check 'see what it left' grep -q . "$cgroup/cgroup.procs"
echo 1 >"$cgroup/cgroup.kill" && echo 'kill what it left: yes' >>report
while grep -q . "$cgroup/cgroup.procs" 2>/dev/null; do sleep 0.05; done

check 'write to /etc' touch /etc/x
check 'write to the runner' touch /opt/actions-runner/x
check 'write to a home' touch /home/runner/x
check 'reach a network' bash -c ': >/dev/tcp/169.254.169.254/80'
check 'gain from setuid' sh -c '! grep -q "NoNewPrivs:.1" /proc/self/status'
check 'load a module' sh -c 'modprobe dummy || insmod dummy'
check 'mount' mount -t tmpfs none /mnt
echo done >>report
while [[ ! -e /run/muster/poweroff ]]; do sleep 0.05; done
systemctl poweroff
exec sleep infinity
"#;

/// What a runner does: leaves a process behind when it is interrupted, and files of its own.
const RUNNER: &str = r#"
mkdir -m 0700 /opt/actions-runner/_diag
echo secret >/opt/actions-runner/_diag/Runner_1.log
trap 'exit 0' INT
(trap '' INT TERM; exec setsid sleep infinity) &
{
  echo "user $(id -un), home $HOME, in $PWD"
  echo "sudo makes $(sudo -n id -un)"
  grep NoNewPrivs /proc/self/status
  echo "umask $(umask)"
  grep -o '[^/]*$' /proc/self/cgroup | tail -1
  env | cut -d= -f1 | sort | xargs
} >/report/runner.new
mv /report/runner.new /report/runner
echo RunnerProcessStarted:2026-01-01T00:00:00.0000000Z >/run/muster/job/perf/Runner.perf
while :; do sleep 0.1; done
"#;

#[tokio::test]
async fn the_supervisor_can_do_its_work_and_no_more() {
    let around = Surroundings::new().await;
    let boot = around
        .host()
        .script("muster-supervisor.service", SUPERVISOR)
        .script(
            "muster-agent.service",
            "systemd-notify --ready; exec sleep infinity",
        )
        .script("muster-runner.service", RUNNER)
        .drop_in(
            "muster-runner.service",
            "[Service]\nExecStopPost=\nNotifyAccess=none\n",
        );
    let mut host = boot.start().await.unwrap();
    host.booted().await.unwrap();
    let report = async || host.read(&["cat", "/run/muster/report"]).await;
    let report = muster_tests::world::wait_for("the report", OFF, || async {
        Ok(report().await.ok().filter(|text| text.ends_with("done")))
    })
    .await;
    let errors = host
        .read(&["cat", "/run/muster/errors"])
        .await
        .unwrap_or_default();
    let report = report.unwrap_or_else(|error| panic!("{error}\n{errors}\n{}", host.log()));
    let expected = "\
        make the console pipe: yes\ngive it to the runner: yes\nstart the runner: yes\n\
        read its perf file: yes\nread its logs: yes\nsee its process: yes\nread its cgroup: yes\n\
        signal it: yes\nsee what it left: yes\nkill what it left: yes\n\
        write to /etc: no\nwrite to the runner: no\nwrite to a home: no\nreach a network: no\n\
        gain from setuid: no\nload a module: no\nmount: no\ndone";
    assert_eq!(report, expected, "{errors}");
    assert_eq!(
        host.report("runner").await.unwrap(),
        "user runner, home /home/runner, in /opt/actions-runner\n\
         sudo makes root\nNoNewPrivs:\t0\numask 0022\nmuster-runner.service\n\
         HOME INVOCATION_ID JOURNAL_STREAM LANG LOGNAME PATH PWD SHELL SHLVL \
         SYSTEMD_EXEC_PID USER _\n"
    );
    // The runner's end has set the last clock.
    host.wait_property("muster-linger.timer", "ActiveState", "active")
        .await
        .unwrap();
    host.read(&["touch", "/run/muster/poweroff"]).await.unwrap();
    host.off(OFF).await.unwrap();
}

/// What an agent needs, and what it must not have.
const AGENT: &str = r#"
exec >/dev/null
report=$(
  check() { if "${@:2}" 2>/dev/null >&2; then echo -n "$1: yes; "; else echo -n "$1: no; "; fi; }
  check 'metadata' sh -c '/usr/lib/muster/muster-agent selftest-probe --reach URL | grep answered'
  check 'read the runner' ls /opt/actions-runner/_diag
  check 'see other processes' test -d /proc/1/fd
  check 'write' touch /run/muster/x /var/x /etc/x
  check 'read homes' ls /home/runner
  check 'use sudo' sudo -n true
  check 'mount' unshare --mount true
)
systemd-notify --ready --status="$report"
exec sleep infinity
"#;

#[tokio::test]
async fn the_agent_reaches_the_network_and_nothing_else() {
    let around = Surroundings::new().await;
    let boot = around
        .host()
        .quiet()
        .script("muster-agent.service", &AGENT.replace("URL", IMDS));
    let mut host = boot.start().await.unwrap();
    host.booted().await.unwrap();
    let found = host
        .property("muster-agent.service", "StatusText")
        .await
        .unwrap();
    assert_eq!(
        found,
        "metadata: yes; read the runner: no; see other processes: no; write: no; read homes: no; \
         use sudo: no; mount: no;"
    );
    host.press_power_button().unwrap();
    host.off(OFF).await.unwrap();
}
