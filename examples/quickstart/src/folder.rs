//! The folder of the quickstart's files. One quickstart at a time works in it; each clears away the pool of the one before.

use std::env;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The subfolder that is emptied at each start: settings, logs, Redis's files.
const POOL: &str = "pool";
const LOCK: &str = "lock";
/// Stands in a pool's folder, so that nothing else is ever emptied.
const MARK: &str = "made-by-tidemill-quickstart";

/// The folder, locked until this is dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    programs: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder, locks it, and empties what an earlier quickstart left of its pool.
    ///
    /// # Errors
    /// Another quickstart works in it, or it cannot be made.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let context = || format!("the data folder {}", path.display());
        fs::create_dir_all(path).with_context(context)?;
        let lock = File::create(path.join(LOCK)).with_context(context)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "another quickstart works in {}; end it first, or give this one a folder of its own with --data",
                path.display()
            ),
            Err(TryLockError::Error(error)) => return Err(error).with_context(context),
        }
        let own = env::current_exe().context("finding this program")?;
        let programs = own.parent().context("this program stands in no folder")?.to_owned();
        let folder = Self { path: path.to_owned(), programs, _lock: lock };
        folder.empty_pool().with_context(context)?;
        Ok(folder)
    }

    fn empty_pool(&self) -> Result<()> {
        let pool = self.pool();
        let mark = pool.join(MARK);
        if pool.exists() {
            if !mark.is_file() {
                bail!("{} is not a quickstart's; move it away", pool.display());
            }
            fs::remove_dir_all(&pool)?;
        }
        fs::create_dir(&pool)?;
        File::create(mark)?;
        Ok(())
    }

    /// Where results go.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the pool's files go.
    pub(crate) fn pool(&self) -> PathBuf {
        self.path.join(POOL)
    }

    /// Where the built programs are: beside this one.
    pub(crate) fn programs(&self) -> &Path {
        &self.programs
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::Folder;

    #[test]
    fn two_quickstarts_do_not_share_a_folder() {
        let scratch = tempfile::tempdir().unwrap();
        let first = Folder::open(scratch.path()).unwrap();
        let text = Folder::open(scratch.path()).unwrap_err().to_string();
        assert!(text.contains("another quickstart"), "{text}");
        fs::write(first.pool().join("old"), "x").unwrap();
        drop(first);
        let second = Folder::open(scratch.path()).unwrap();
        assert!(!second.pool().join("old").exists());
    }

    #[test]
    fn a_folder_of_somebody_else_is_not_emptied() {
        let scratch = tempfile::tempdir().unwrap();
        fs::create_dir(scratch.path().join("pool")).unwrap();
        fs::write(scratch.path().join("pool/mine"), "x").unwrap();
        let text = format!("{:#}", Folder::open(scratch.path()).unwrap_err());
        assert!(text.contains("not a quickstart's"), "{text}");
        assert!(scratch.path().join("pool/mine").exists());
    }
}
