//! Whose the files are that `restore` makes: the coordinator's, also if root runs it.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, fchown, lchown,
};
use std::path::Path;

use nix::unistd::Uid;

use super::super::database::sqlite::directory_of;
use super::{BackupError, file};

/// An owner and a group, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    user: u32,
    group: u32,
}

impl Owner {
    fn of(path: &Path) -> Result<Self, BackupError> {
        fs::metadata(path).map(Self::from).map_err(file(path))
    }

    fn refused(self, path: &Path) -> impl FnOnce(io::Error) -> BackupError {
        move |source| BackupError::Owner {
            path: path.to_owned(),
            user: self.user,
            group: self.group,
            source,
        }
    }
}

impl From<fs::Metadata> for Owner {
    fn from(it: fs::Metadata) -> Self {
        Self {
            user: it.uid(),
            group: it.gid(),
        }
    }
}

/// What a database is to have that is put in a place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rights {
    /// None where it stays with whoever made it.
    owner: Option<Owner>,
    mode: u32,
}

impl Rights {
    /// Those of the database that is there. Where there is none it is for its owner only, and that is whoever the
    /// directory belongs to, if root makes it; nobody else can give files away.
    pub(super) fn at(database: &Path) -> Result<Self, BackupError> {
        match fs::metadata(database) {
            Ok(there) => Ok(Self {
                mode: there.mode() & 0o777,
                owner: Some(there.into()),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self {
                mode: 0o600,
                owner: match Uid::effective().is_root() {
                    true => Some(Owner::of(directory_of(database))?),
                    false => None,
                },
            }),
            Err(error) => Err(file(database)(error)),
        }
    }

    /// Gives them to a file that is open, for what is at its path may be another's. `path` is for people.
    pub(super) fn give(self, it: &File, path: &Path) -> Result<(), BackupError> {
        self.give_owner(it, path)?;
        it.set_permissions(Permissions::from_mode(self.mode))
            .map_err(file(path))
    }

    /// The same without the mode.
    pub(super) fn give_owner(self, it: &File, path: &Path) -> Result<(), BackupError> {
        let has: Owner = it.metadata().map_err(file(path))?.into();
        match self.owner {
            Some(owner) if owner != has => {
                fchown(it, Some(owner.user), Some(owner.group)).map_err(owner.refused(path))
            }
            _ => Ok(()),
        }
    }
}

/// Makes a directory, and those above it that aren't there, each for its owner only. What root makes belongs to
/// whoever has the one above.
pub(super) fn make_directory(directory: &Path) -> Result<(), BackupError> {
    let missing: Vec<_> = directory
        .ancestors()
        .take_while(|above| !above.as_os_str().is_empty() && !above.exists())
        .collect();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(file(directory))?;
    if Uid::effective().is_root() {
        for made in missing.into_iter().rev() {
            let owner = Owner::of(directory_of(made))?;
            lchown(made, Some(owner.user), Some(owner.group)).map_err(owner.refused(made))?;
        }
    }
    Ok(())
}
