//! What the runner prints, as far as it means something.
//!
//! The job's name in it is text that the author of the workflow chose, and the job can write to the
//! same pipe: a line is a hint. Lines as of actions/runner 2.336.0; each form cites its source there.

use serde::{Deserialize, Serialize};

/// Longest line that is looked at, in bytes.
pub(crate) const LINE_MAX: usize = 8 * 1024;
/// Longest job name that is kept, in characters.
const JOB_NAME_MAX: usize = 512;
/// Longest complaint that is kept, in characters.
const COMPLAINT_MAX: usize = 256;
/// What stands between a job and its result.
const RESULT: &str = " completed with result: ";
/// How lines begin that say why the runner can't go on (BrokerMessageListener.cs, Program.cs:136-156,
/// Runner.cs:823-830, SelfUpdaterV2.cs:68-130, CommandSettings.cs).
const COMPLAINTS: [&str; 9] = [
    "An error occurred: ",
    "Failed to create session. ",
    "Failed to create a session. ",
    "Stop retry on SessionConflictException ",
    "The runner no longer exists on the server. ",
    "Runner is not configured.",
    "Fail to create and validate runner's work directory ",
    "Runner update failed: ",
    "Unrecognized command-line input arguments ",
];

/// The meaning of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ConsoleLine {
    /// `Current runner version: '2.336.0'` (Runner.cs:490).
    Version(String),
    /// `√ Connected to GitHub`, before the session is asked for, at each try
    /// (BrokerMessageListener.cs:131-133).
    Connected,
    /// `<time>: Listening for Jobs` (Runner.cs:491).
    Listening,
    /// `<time>: Running job: <name>` (JobDispatcher.cs:378).
    RunningJob(String),
    /// `<time>: Job <name> completed with result: <result>` (JobDispatcher.cs:591), also behind other text;
    /// then the name may be empty.
    JobCompleted(String, JobResult),
    /// Another session of this registration exists; the runner tries again for minutes
    /// (BrokerMessageListener.cs:472-492).
    SessionConflict,
    /// `<time>: Runner connect error: <problem>. Retrying until reconnected.`
    ConnectError(String),
    /// `<time>: Runner reconnected.`
    Reconnected,
    /// `The local machine's clock may be out of sync with the server time …`
    ClockSkew(String),
    /// GitHub refuses this version (Program.cs:142-147).
    VersionDeprecated,
    /// `Runner update in progress, do not shutdown runner.` (SelfUpdaterV2.cs:68-130)
    Updating,
    /// `Exiting...`: it got SIGINT or SIGQUIT (Runner.cs:361).
    Exiting,
    /// One of the lines that say why it can't go on.
    Complaint(String),
    /// Anything else.
    Other,
}

/// How a job ended, in the runner's words (TaskResult.cs).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum JobResult {
    /// All went well.
    Succeeded,
    /// Well, with warnings.
    SucceededWithIssues,
    /// A step failed.
    Failed,
    /// It was cancelled.
    Canceled,
    /// Nothing in it had to run.
    Skipped,
    /// The runner gave it up.
    Abandoned,
}

impl JobResult {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Succeeded, "Succeeded"),
        (Self::SucceededWithIssues, "SucceededWithIssues"),
        (Self::Failed, "Failed"),
        (Self::Canceled, "Canceled"),
        (Self::Skipped, "Skipped"),
        (Self::Abandoned, "Abandoned"),
    ];

    /// The result in an exit code of 100 and above (TaskResultUtil.cs:8-19).
    pub(crate) fn from_exit_code(code: i32) -> Option<Self> {
        let index = usize::try_from(code.checked_sub(100)?).ok()?;
        Self::ALL.get(index).map(|(result, _)| *result)
    }

    /// The word that the runner prints.
    pub(crate) fn word(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(result, _)| *result == self)
            .map_or("", |(_, word)| word)
    }

    fn from_word(text: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, word)| *word == text)
            .map(|(result, _)| *result)
    }
}

/// Reads one line.
pub(crate) fn parse(line: &str) -> ConsoleLine {
    let line = without_ansi(line);
    let line = line.trim_end();
    match whole(line) {
        ConsoleLine::Other => glued(line).unwrap_or(ConsoleLine::Other),
        meaning => meaning,
    }
}

/// A job can put text without an end before the runner's own line. The result at its end is the runner's.
fn glued(line: &str) -> Option<ConsoleLine> {
    let (head, word) = line.rsplit_once(RESULT)?;
    let name = head.rsplit_once("Z: Job ").map_or("", |(_, name)| name);
    let result = JobResult::from_word(word)?;
    Some(ConsoleLine::JobCompleted(
        shortened(name, JOB_NAME_MAX),
        result,
    ))
}

fn whole(line: &str) -> ConsoleLine {
    if let Some(text) = after_time(line) {
        return timed(text);
    }
    if let Some(version) = line
        .strip_prefix("Current runner version: '")
        .and_then(|rest| rest.strip_suffix('\''))
    {
        return ConsoleLine::Version(version.chars().take(64).collect());
    }
    match line {
        "√ Connected to GitHub" => return ConsoleLine::Connected,
        "A session for this runner already exists." => return ConsoleLine::SessionConflict,
        "Runner update in progress, do not shutdown runner." => return ConsoleLine::Updating,
        "Exiting..." => return ConsoleLine::Exiting,
        _ => {}
    }
    if line.starts_with("The local machine's clock may be out of sync with the server time") {
        return ConsoleLine::ClockSkew(shortened(line, COMPLAINT_MAX));
    }
    // "An error occurred: [Error: Forbidden ]Runner version v2.x.y is deprecated and cannot …"
    if line.starts_with("An error occurred: ")
        && line.contains("Runner version v")
        && line.ends_with(" is deprecated and cannot receive messages.")
    {
        return ConsoleLine::VersionDeprecated;
    }
    if COMPLAINTS.iter().any(|begin| line.starts_with(begin)) {
        return ConsoleLine::Complaint(shortened(line, COMPLAINT_MAX));
    }
    ConsoleLine::Other
}

fn timed(text: &str) -> ConsoleLine {
    if text == "Listening for Jobs" {
        return ConsoleLine::Listening;
    }
    if text == "Runner reconnected." {
        return ConsoleLine::Reconnected;
    }
    if let Some(name) = text.strip_prefix("Running job: ") {
        return ConsoleLine::RunningJob(shortened(name, JOB_NAME_MAX));
    }
    if let Some(problem) = text
        .strip_prefix("Runner connect error: ")
        .and_then(|rest| rest.strip_suffix(". Retrying until reconnected."))
    {
        return ConsoleLine::ConnectError(shortened(problem, COMPLAINT_MAX));
    }
    // The name may hold the same words, so the last ones count.
    if let Some((name, word)) = text
        .strip_prefix("Job ")
        .and_then(|rest| rest.rsplit_once(RESULT))
        && let Some(result) = JobResult::from_word(word)
    {
        return ConsoleLine::JobCompleted(shortened(name, JOB_NAME_MAX), result);
    }
    ConsoleLine::Other
}

fn shortened(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}

/// What follows a leading `yyyy-MM-dd HH:mm:ssZ: `.
fn after_time(line: &str) -> Option<&str> {
    const SHAPE: &[u8] = b"0000-00-00 00:00:00Z: ";
    let (time, text) = line.split_at_checked(SHAPE.len())?;
    let fits = |(byte, shape): (u8, &u8)| match shape {
        b'0' => byte.is_ascii_digit(),
        other => byte == *other,
    };
    time.bytes().zip(SHAPE).all(fits).then_some(text)
}

/// Without colour sequences (`ESC [ … letter`), which .NET prints only if it is told to.
fn without_ansi(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            if characters.next() == Some('[') {
                for c in characters.by_ref() {
                    if c.is_ascii_alphabetic() {
                        break;
                    }
                }
            }
        } else {
            text.push(character);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::{ConsoleLine, JobResult, parse};

    #[rstest]
    #[case("2026-08-01 10:00:00Z: Listening for Jobs", ConsoleLine::Listening)]
    #[case(
        "\u{1b}[32m2026-08-01 10:00:00Z: Listening for Jobs\u{1b}[0m",
        ConsoleLine::Listening
    )]
    #[case("Current runner version: '2.336.0'", ConsoleLine::Version("2.336.0".into()))]
    #[case(
        "2026-08-01 10:00:00Z: Running job: build (linux, a)",
        ConsoleLine::RunningJob("build (linux, a)".into())
    )]
    #[case(
        "2026-08-01 10:00:00Z: Job b completed with result: Failed",
        ConsoleLine::JobCompleted("b".into(), JobResult::Failed)
    )]
    #[case(
        "2026-08-01 10:00:00Z: Job x completed with result: Succeeded completed with result: Canceled",
        ConsoleLine::JobCompleted("x completed with result: Succeeded".into(), JobResult::Canceled)
    )]
    #[case(
        "A session for this runner already exists.",
        ConsoleLine::SessionConflict
    )]
    #[case(
        "An error occurred: Error: Forbidden Runner version v2.1.0 is deprecated and cannot receive messages.",
        ConsoleLine::VersionDeprecated
    )]
    #[case("x 2026-08-01 10:00:00Z: Listening for Jobs", ConsoleLine::Other)]
    #[case(
        "2026-08-01 10:00:00Z: Job b completed with result: Weird",
        ConsoleLine::Other
    )]
    #[case("2026-08-01T10:00:00Z: Listening for Jobs", ConsoleLine::Other)]
    #[case(
        "xxxx2026-08-01 10:00:00Z: Job b completed with result: Canceled",
        ConsoleLine::JobCompleted("b".into(), JobResult::Canceled)
    )]
    #[case(
        "xxxx completed with result: Canceled",
        ConsoleLine::JobCompleted(String::new(), JobResult::Canceled)
    )]
    #[case("√ Connected to GitHub", ConsoleLine::Connected)]
    #[case("2026-08-01 10:00:00Z: Runner reconnected.", ConsoleLine::Reconnected)]
    #[case(
        "2026-08-01 10:00:00Z: Runner connect error: Error: Conflict. Retrying until reconnected.",
        ConsoleLine::ConnectError("Error: Conflict".into())
    )]
    #[case("Exiting...", ConsoleLine::Exiting)]
    #[case(
        "Runner update in progress, do not shutdown runner.",
        ConsoleLine::Updating
    )]
    #[case(
        "Failed to create session. Error: Forbidden",
        ConsoleLine::Complaint("Failed to create session. Error: Forbidden".into())
    )]
    #[case(
        "The local machine's clock may be out of sync with the server time by more than five minutes.",
        ConsoleLine::ClockSkew(
            "The local machine's clock may be out of sync with the server time by more than five minutes."
                .into()
        )
    )]
    #[case("√ Removed .runner", ConsoleLine::Other)]
    #[case("", ConsoleLine::Other)]
    fn lines(#[case] line: &str, #[case] meaning: ConsoleLine) {
        assert_eq!(parse(line), meaning);
    }

    #[rstest]
    #[case(99, None)]
    #[case(100, Some(JobResult::Succeeded))]
    #[case(103, Some(JobResult::Canceled))]
    #[case(105, Some(JobResult::Abandoned))]
    #[case(106, None)]
    #[case(i32::MIN, None)]
    fn exit_codes(#[case] code: i32, #[case] result: Option<JobResult>) {
        assert_eq!(JobResult::from_exit_code(code), result);
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(line in "\\PC*|(\u{1b}\\[?[0-9m]*)*") {
            let _ = parse(&line);
        }

        #[test]
        fn a_job_name_can_not_forge_another_result(name in "\\PC{0,40}") {
            let name = name.replace('\u{1b}', "");
            let line = format!("2026-08-01 10:00:00Z: Job {name} completed with result: Failed");
            prop_assert_eq!(parse(&line), ConsoleLine::JobCompleted(name, JobResult::Failed));
        }
    }
}
