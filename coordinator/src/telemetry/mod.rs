//! Logs and figures: JSON lines on standard error, CloudWatch metrics on standard output, the same
//! series for Prometheus.

pub mod emf;
mod logs;
mod metrics;
mod outcomes;

pub use logs::{LogError, Logs};
pub use metrics::{Allowance, Certificate, GithubLimit, Metrics};
pub use outcomes::{AwsOutcome, EnrolmentOutcome, StrayState, WebhookAnswer};
