//! Whose a database is that was put back. Only root can give files away; nobody else can try it.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use nix::unistd::Uid;

use super::backup::{backup, restore};
use crate::store::Store;
use crate::store::fixtures::{at, delivery};

/// The coordinator's user in the shipped image.
const COORDINATOR: u32 = 65_534;

async fn copy_in(directory: &Path) -> std::path::PathBuf {
    let source = directory.join("source.db");
    let store = Store::open(&source).await.unwrap();
    store.accept_delivery(delivery("a")).await.unwrap();
    store.close().await;
    drop(store);
    let copy = directory.join("copy.db");
    backup(&source, &copy, false).await.unwrap();
    copy
}

/// User, group and mode.
fn rights(path: &Path) -> (u32, u32, u32) {
    let it = std::fs::metadata(path).unwrap();
    (it.uid(), it.gid(), it.mode() & 0o777)
}

#[tokio::test]
async fn the_mode_of_the_database_that_is_replaced_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let copy = copy_in(directory.path()).await;
    let database = directory.path().join("muster.db");
    restore(&copy, &database, at(0)).await.unwrap();
    std::fs::set_permissions(&database, Permissions::from_mode(0o640)).unwrap();
    restore(&copy, &database, at(1)).await.unwrap();
    assert_eq!(rights(&database).2, 0o640);
}

#[tokio::test]
async fn what_root_puts_back_has_the_owner_of_what_was_there_or_of_the_directory() {
    if !Uid::effective().is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let copy = copy_in(directory.path()).await;
    let home = directory.path().join("muster");
    std::fs::create_dir(&home).unwrap();
    chown(&home, Some(COORDINATOR), Some(COORDINATOR)).unwrap();
    // Where there was nothing, not even the directory.
    let database = home.join("lib/data/muster.db");
    restore(&copy, &database, at(0)).await.unwrap();
    for (path, mode) in [
        ("lib", 0o700),
        ("lib/data", 0o700),
        ("lib/data/muster.db", 0o600),
        ("lib/data/muster.db.lock", 0o600),
    ] {
        let has = rights(&home.join(path));
        assert_eq!(has, (COORDINATOR, COORDINATOR, mode), "{path}");
    }

    chown(&database, Some(7), Some(8)).unwrap();
    std::fs::set_permissions(&database, Permissions::from_mode(0o660)).unwrap();
    let restored = restore(&copy, &database, at(1)).await.unwrap();
    assert_eq!(rights(&database), (7, 8, 0o660));
    assert_eq!(rights(&restored.aside.unwrap()), (7, 8, 0o660));
    let left: Vec<_> = std::fs::read_dir(database.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            !["db", "lock"]
                .iter()
                .any(|end| path.extension() == Some(end.as_ref()))
        })
        .collect();
    assert_eq!(left.len(), 1, "{left:?}");
}
