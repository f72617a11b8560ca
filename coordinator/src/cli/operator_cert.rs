//! `issue-operator-cert`: gives an operator a certificate for some hours, as files for `grpcurl`.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use thiserror::Error;

use crate::identity::ca::{Authority, CaError, MAX_OPERATOR_TTL};
use crate::identity::files::{PUBLIC, SECRET, write_atomically};
use crate::identity::spiffe::{OperatorId, SpiffeError, TrustDomain};

/// The files that are written, in this order: the certificate last, as it is of no use before.
const AUTHORITY_FILE: &str = "ca.crt";
const KEY_FILE: &str = "operator.key";
const CERTIFICATE_FILE: &str = "operator.crt";

/// What to issue, and where to.
#[derive(Clone, Debug)]
pub(super) struct Order<'a> {
    /// The operator's name: `[a-z0-9-]`, up to 64 characters. It is what the records of actions show.
    pub name: &'a str,
    /// The trust domain of the coordinator.
    pub trust_domain: &'a TrustDomain,
    /// How long it is valid, up to twelve hours.
    pub ttl: Duration,
    /// The directory for the files; made if there is none.
    pub out: &'a Path,
    /// Whether files of an earlier call may be replaced.
    pub force: bool,
    /// Where operators reach the coordinator, as `host:port`, for the line to paste.
    pub address: &'a str,
}

/// What was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Receipt {
    /// The name in the certificate.
    pub id: String,
    /// When it expires.
    pub not_after: Timestamp,
    /// A `grpcurl` call that uses the files.
    pub grpcurl: String,
}

/// No certificate was issued.
#[derive(Debug, Error)]
pub(super) enum OrderError {
    /// The name can't be in a certificate.
    #[error(transparent)]
    Name(#[from] SpiffeError),
    /// The time is zero or too long.
    #[error("a certificate is valid for at least a minute and at most {} hours", MAX_OPERATOR_TTL.as_secs() / 3600)]
    Ttl,
    /// Something is there already.
    #[error("{0} exists; --force replaces it")]
    Exists(PathBuf),
    /// A file can't be written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The authority refuses.
    #[error(transparent)]
    Authority(#[from] CaError),
}

/// Issues a certificate and writes `operator.crt`, `operator.key` (for its owner only) and `ca.crt`.
/// Blocks.
///
/// # Errors
/// When the name or the time is not allowed, a file exists, or one can't be written.
pub(super) fn issue(
    authority: &Authority,
    order: &Order<'_>,
    now: Timestamp,
) -> Result<Receipt, OrderError> {
    if !(Duration::from_secs(60)..=MAX_OPERATOR_TTL).contains(&order.ttl) {
        return Err(OrderError::Ttl);
    }
    let id = OperatorId::new(order.trust_domain, order.name)?;
    let file = |name: &str| order.out.join(name);
    if !order.force {
        let names = [AUTHORITY_FILE, KEY_FILE, CERTIFICATE_FILE];
        // A link that leads nowhere counts too.
        let existing = names
            .into_iter()
            .map(file)
            .find(|path| fs::symlink_metadata(path).is_ok());
        if let Some(path) = existing {
            return Err(OrderError::Exists(path));
        }
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| OrderError::File { path, source }
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(order.out)
        .map_err(failed(order.out))?;
    let issued = authority.operator(&id, order.ttl, now)?;
    let write = |name: &str, content: &str, mode: u32| {
        let path = file(name);
        write_atomically(&path, content.as_bytes(), mode).map_err(failed(&path))
    };
    write(AUTHORITY_FILE, authority.trust_anchors_pem(), PUBLIC)?;
    write(KEY_FILE, issued.key_pem.expose_secret(), SECRET)?;
    write(CERTIFICATE_FILE, &issued.certificate_pem, PUBLIC)?;
    let shown = |name: &str| quoted(&file(name).display().to_string());
    Ok(Receipt {
        id: id.to_string(),
        not_after: issued.not_after,
        grpcurl: format!(
            "grpcurl -cacert {} -cert {} -key {} {} muster.v1.OperatorService/ListPools",
            shown(AUTHORITY_FILE),
            shown(CERTIFICATE_FILE),
            shown(KEY_FILE),
            quoted(order.address),
        ),
    })
}

/// A text as one word of a shell.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-:+@,=".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rstest::rstest;

    use super::*;
    use crate::identity::ca::fixtures::Pair;

    struct World {
        directory: tempfile::TempDir,
        authority: Authority,
        trust_domain: TrustDomain,
    }

    impl World {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let authority = Authority::load_or_create(directory.path(), Timestamp::now()).unwrap();
            Self {
                directory,
                authority,
                trust_domain: TrustDomain::new("muster.test").unwrap(),
            }
        }

        fn out(&self) -> PathBuf {
            self.directory.path().join("new/alice")
        }

        fn order<'a>(&'a self, out: &'a Path) -> Order<'a> {
            Order {
                name: "alice",
                trust_domain: &self.trust_domain,
                ttl: MAX_OPERATOR_TTL,
                out,
                force: false,
                address: "localhost:7443",
            }
        }

        fn issue(&self, order: &Order<'_>) -> Result<Receipt, OrderError> {
            issue(&self.authority, order, Timestamp::now())
        }
    }

    #[test]
    fn three_files_appear_and_the_key_is_its_owners() {
        let world = World::new();
        let out = world.out();
        let receipt = world.issue(&world.order(&out)).unwrap();
        assert_eq!(receipt.id, "spiffe://muster.test/operator/alice");
        let mode = |name: &str| fs::metadata(out.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("operator.key"), 0o600);
        assert_eq!(mode("operator.crt"), 0o644);
        let authority = fs::read_to_string(out.join("ca.crt")).unwrap();
        assert_eq!(authority, world.authority.trust_anchors_pem());
        for name in ["ca.crt", "operator.crt", "operator.key"] {
            let path = out.join(name);
            assert!(receipt.grpcurl.contains(path.to_str().unwrap()));
        }
        assert!(
            receipt
                .grpcurl
                .ends_with("localhost:7443 muster.v1.OperatorService/ListPools")
        );
    }

    #[test]
    fn while_an_authority_is_replaced_an_operator_trusts_both() {
        let (old, new) = (Pair::new(), Pair::new());
        let mut world = World::new();
        world.authority = old.with(&[&new]);
        let out = world.out();
        world.issue(&world.order(&out)).unwrap();
        let anchors = fs::read_to_string(out.join("ca.crt")).unwrap();
        assert_eq!(anchors, format!("{}{}", old.certificate, new.certificate));
    }

    #[test]
    fn nothing_is_replaced_unless_forced() {
        let world = World::new();
        let out = world.out();
        let mut order = world.order(&out);
        world.issue(&order).unwrap();
        let key = fs::read(out.join("operator.key")).unwrap();
        assert!(matches!(world.issue(&order), Err(OrderError::Exists(_))));
        assert_eq!(fs::read(out.join("operator.key")).unwrap(), key);
        order.force = true;
        world.issue(&order).unwrap();
        assert_ne!(fs::read(out.join("operator.key")).unwrap(), key);
    }

    #[rstest]
    #[case::too_short("alice", 59)]
    #[case::too_long("alice", 12 * 3600 + 1)]
    #[case::no_name("", 3600)]
    #[case::path("../alice", 3600)]
    #[case::upper_case("Alice", 3600)]
    fn what_must_not_be_issued_leaves_no_file(#[case] name: &str, #[case] seconds: u64) {
        let world = World::new();
        let out = world.out();
        let order = Order {
            name,
            ttl: Duration::from_secs(seconds),
            ..world.order(&out)
        };
        assert!(matches!(
            world.issue(&order),
            Err(OrderError::Ttl | OrderError::Name(_))
        ));
        assert!(!out.exists());
    }

    #[rstest]
    #[case("/etc/muster/ca.crt", "/etc/muster/ca.crt")]
    #[case("my files/ca.crt", "'my files/ca.crt'")]
    #[case("it's", r"'it'\''s'")]
    #[case("", "''")]
    fn paths_can_be_pasted(#[case] path: &str, #[case] word: &str) {
        assert_eq!(quoted(path), word);
    }
}
