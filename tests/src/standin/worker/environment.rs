//! The folders and variables that hooks and steps see (actions/runner `GitHubContext.cs:9-50`,
//! `JobRunner.cs:160-176`).

use std::collections::HashMap;
use std::path::PathBuf;

use serde_json::json;

use super::Worker;

impl Worker {
    /// Empties `_temp`, makes the workspace, writes the event.
    pub(super) fn prepare_folders(&self) -> std::io::Result<()> {
        let temp = self.temp();
        if temp.exists() {
            std::fs::remove_dir_all(&temp)?;
        }
        std::fs::create_dir_all(temp.join("_github_workflow"))?;
        std::fs::create_dir_all(temp.join("_runner_file_commands"))?;
        std::fs::create_dir_all(self.workspace())?;
        let event = json!({
            "repository": { "id": self.job.repository_id, "full_name": self.job.repository },
        });
        std::fs::write(temp.join("_github_workflow/event.json"), event.to_string())
    }

    pub(super) fn work(&self) -> PathBuf {
        let settings = crate::standin::files::settings(&self.root).unwrap_or_default();
        let folder = if settings.work_folder.is_empty() {
            "_work"
        } else {
            &settings.work_folder
        };
        self.root.join(folder)
    }

    pub(super) fn temp(&self) -> PathBuf {
        self.work().join("_temp")
    }

    /// `_work/<repo>/<repo>`.
    pub(super) fn workspace(&self) -> PathBuf {
        let name = self.job.repository.rsplit('/').next().unwrap_or("repo");
        self.work().join(name).join(name)
    }

    /// The process's own variables and the job's over them.
    pub(super) fn environment(&self) -> HashMap<String, String> {
        let job = &self.job;
        let owner = job.repository.split('/').next().unwrap_or_default();
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let commands = self.temp().join("_runner_file_commands");
        let workflow_ref = format!(
            "{}/.github/workflows/{}.yml@refs/heads/main",
            job.repository, job.workflow
        );
        let mut all = self.env.clone();
        let own = [
            ("GITHUB_ACTIONS", "true".to_owned()),
            ("CI", "true".to_owned()),
            ("GITHUB_ACTOR", "octocat".to_owned()),
            ("GITHUB_API_URL", "https://api.github.com".to_owned()),
            ("GITHUB_SERVER_URL", "https://github.com".to_owned()),
            ("GITHUB_EVENT_NAME", "push".to_owned()),
            (
                "GITHUB_EVENT_PATH",
                text(self.temp().join("_github_workflow/event.json")),
            ),
            ("GITHUB_ENV", text(commands.join("set_env"))),
            ("GITHUB_PATH", text(commands.join("add_path"))),
            ("GITHUB_OUTPUT", text(commands.join("set_output"))),
            ("GITHUB_STEP_SUMMARY", text(commands.join("step_summary"))),
            ("GITHUB_JOB", key(&job.display_name)),
            ("GITHUB_REF", "refs/heads/main".to_owned()),
            ("GITHUB_REF_NAME", "main".to_owned()),
            ("GITHUB_REF_TYPE", "branch".to_owned()),
            ("GITHUB_REPOSITORY", job.repository.clone()),
            ("GITHUB_REPOSITORY_ID", job.repository_id.to_string()),
            ("GITHUB_REPOSITORY_OWNER", owner.to_owned()),
            ("GITHUB_RUN_ID", job.run_id.to_string()),
            ("GITHUB_RUN_NUMBER", job.run_number.to_string()),
            ("GITHUB_RUN_ATTEMPT", job.run_attempt.to_string()),
            ("GITHUB_WORKFLOW", job.workflow.clone()),
            ("GITHUB_WORKFLOW_REF", workflow_ref),
            ("GITHUB_WORKSPACE", text(self.workspace())),
            ("RUNNER_OS", "Linux".to_owned()),
            ("RUNNER_ARCH", "X64".to_owned()),
            ("RUNNER_NAME", job.runner_name.clone()),
            ("RUNNER_ENVIRONMENT", "self-hosted".to_owned()),
            ("RUNNER_TEMP", text(self.temp())),
            ("RUNNER_WORKSPACE", text(self.workspace().join(".."))),
            ("RUNNER_TRACKING_ID", self.tracking_id.clone()),
        ];
        all.extend(own.map(|(name, value)| (name.to_owned(), value)));
        let cache = all.get("RUNNER_TOOL_CACHE").cloned();
        all.insert(
            "RUNNER_TOOL_CACHE".to_owned(),
            cache.unwrap_or_else(|| text(self.work().join("_tool"))),
        );
        all
    }
}

/// The job's key in the workflow file, as far as a display name tells it.
fn key(display_name: &str) -> String {
    display_name
        .split([' ', '(', '/'])
        .next()
        .unwrap_or_default()
        .to_lowercase()
}
