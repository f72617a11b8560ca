//! Names and numbers that identify things. Each has its own type, so that one can't stand for another.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $type(String);

        impl $type {
            /// Wraps a text; whether it is well-formed was checked where it came in.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $type {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
    };
}

name! {
    /// Name of a pool, as configured: `[a-z0-9-]`, 1 to 32 characters.
    PoolName
}
name! {
    /// Name of an account that instances are launched in; `local` for the local provider.
    AccountName
}
name! {
    /// One intent to create an instance; it is also the client token of the call that creates it.
    LaunchId
}
name! {
    /// Id of an instance, such as `i-0123456789abcdef0`.
    InstanceId
}
name! {
    /// Id of an image that instances are made from, such as `ami-0123456789abcdef0`.
    ImageId
}
name! {
    /// Name of a runner at GitHub, unique for each attempt to register.
    RunnerName
}

/// GitHub's id of a workflow job. A re-run has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub i64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// GitHub's id of a registered runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GithubRunnerId(pub i64);

impl fmt::Display for GithubRunnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Makes launch ids: different for each seed and each call, without a clock or an entropy source.
#[derive(Clone, Debug)]
pub(crate) struct LaunchIds {
    state: u64,
}

impl LaunchIds {
    /// Starts a sequence. The seed must be random for each start of the process.
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next id: 12 characters of `[a-z2-7]`, 60 bits of the seed's sequence.
    pub(crate) fn next(&mut self) -> LaunchId {
        // splitmix64, https://prng.di.unimi.it/splitmix64.c
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let text = (0..12)
            .map(|digit| {
                let index = (mixed >> (5 * digit)) & 31;
                char::from(b"abcdefghijklmnopqrstuvwxyz234567"[usize::try_from(index).unwrap_or(0)])
            })
            .collect::<String>();
        LaunchId(text)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn launch_ids_do_not_repeat() {
        let mut ids = LaunchIds::new(7);
        let mut other = LaunchIds::new(8);
        let seen: HashSet<_> = (0..5_000)
            .flat_map(|_| [ids.next(), other.next()])
            .collect();
        assert_eq!(seen.len(), 10_000);
    }
}
