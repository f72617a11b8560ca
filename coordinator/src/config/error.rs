//! Everything that is wrong with a configuration, at once.

use std::fmt;
use std::path::{Path, PathBuf};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line and column, both from 1; none if it is about the file as a whole.
    pub at: Option<(usize, usize)>,
    /// What is wrong with which value, and what was expected.
    pub text: String,
}

/// All that is wrong with a configuration, in the order of the file. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    path: PathBuf,
    problems: Vec<Problem>,
}

impl ConfigErrors {
    pub(super) fn new(path: &Path, problems: Vec<Problem>) -> Self {
        Self {
            path: path.to_owned(),
            problems,
        }
    }

    /// An error about the file as a whole.
    pub(super) fn whole(path: &Path, text: impl fmt::Display) -> Self {
        let problem = Problem {
            at: None,
            text: text.to_string(),
        };
        Self::new(path, vec![problem])
    }

    /// The problems.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            let path = self.path.display();
            match problem.at {
                Some((line, column)) => write!(f, "{path}:{line}:{column}: {}", problem.text)?,
                None => write!(f, "{path}: {}", problem.text)?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
