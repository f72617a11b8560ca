//! How things end, as the figures tell them apart.

/// How a webhook was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookAnswer {
    /// Stored.
    Accepted,
    /// Stored before.
    Duplicate,
    /// Signed well, and of no interest.
    Ignored,
    /// Not signed, or not by GitHub.
    Unauthorized,
    /// Not a webhook: malformed or too large.
    Malformed,
    /// It could not be stored; GitHub keeps it.
    Unavailable,
}

impl WebhookAnswer {
    pub(super) const ALL: [Self; 6] = [
        Self::Accepted,
        Self::Duplicate,
        Self::Ignored,
        Self::Unauthorized,
        Self::Malformed,
        Self::Unavailable,
    ];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Ignored => "ignored",
            Self::Unauthorized => "unauthorized",
            Self::Malformed => "malformed",
            Self::Unavailable => "unavailable",
        }
    }
}

/// How a machine's try to enrol ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnrolmentOutcome {
    /// It has a certificate.
    Enrolled,
    /// Its proof, or the ledger, says no.
    Refused,
    /// Another had enrolled for the same launch before.
    Second,
    /// It could not be checked at the time.
    Unavailable,
    /// It left, or was too slow.
    BrokenOff,
}

impl EnrolmentOutcome {
    pub(super) const ALL: [Self; 5] = [
        Self::Enrolled,
        Self::Refused,
        Self::Second,
        Self::Unavailable,
        Self::BrokenOff,
    ];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Enrolled => "enrolled",
            Self::Refused => "refused",
            Self::Second => "second",
            Self::Unavailable => "unavailable",
            Self::BrokenOff => "broken_off",
        }
    }
}

/// How a call to AWS ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AwsOutcome {
    /// It was carried out.
    Done,
    /// AWS said that there are too many.
    Throttled,
    /// AWS said no: a permission, capacity, a request that is wrong.
    Refused,
    /// Something at AWS broke, or the answer can't be read.
    Failed,
    /// Nobody answered, or it could not be sent.
    Unanswered,
}

impl AwsOutcome {
    pub(super) const ALL: [Self; 5] = [
        Self::Done,
        Self::Throttled,
        Self::Refused,
        Self::Failed,
        Self::Unanswered,
    ];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Throttled => "throttled",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Unanswered => "unanswered",
        }
    }
}

/// What becomes of an instance with our mark that nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StrayState {
    /// Two listings had it: it is to be ended.
    Found,
    /// Its provider was told to end it, and took that.
    Ended,
}

impl StrayState {
    pub(super) const ALL: [Self; 2] = [Self::Found, Self::Ended];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Ended => "ended",
        }
    }
}
