//! Backup files: their names, and how they come to be.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::error::{Error, Outcome};

/// How the name of a backup ends.
const PLAIN: &str = ".tidemill";
/// How that of an encrypted one does.
const SEALED: &str = ".tidemill.age";
const MOMENT: &str = "%Y%m%dT%H%M%SZ";

/// A file that bears the name of a backup: `<namespace>-<moment>.tidemill`, with `.age` behind it when encrypted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BackupFile {
    pub(super) namespace: String,
    /// When it was begun, in Unix milliseconds.
    pub(super) created_ms: u64,
    pub(super) is_sealed: bool,
    pub(super) path: PathBuf,
}

impl BackupFile {
    /// Reads a name; `None` for that of anything else.
    fn of(path: PathBuf) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let (stem, is_sealed) = match name.strip_suffix(SEALED) {
            Some(stem) => (stem, true),
            None => (name.strip_suffix(PLAIN)?, false),
        };
        let (namespace, moment) = stem.rsplit_once('-')?;
        let at = DateTime::strptime(MOMENT, moment).ok()?.to_zoned(TimeZone::UTC).ok()?;
        let created_ms = u64::try_from(at.timestamp().as_millisecond()).ok()?;
        Some(Self { namespace: namespace.to_owned(), created_ms, is_sealed, path })
    }

    /// Backups in a folder, by namespace, oldest first.
    pub(super) fn in_folder(folder: &Path) -> Outcome<Vec<Self>> {
        let failed = |error: io::Error| at(folder, "read", &error);
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_file() {
                found.extend(Self::of(path));
            }
        }
        found.sort();
        Ok(found)
    }

    pub(super) fn name(&self) -> String {
        self.path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }
}

/// The name of a backup of that namespace and moment.
pub(super) fn name_of(namespace: &str, created_ms: u64, is_sealed: bool) -> String {
    let at = i64::try_from(created_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let moment = at.map_or_else(|| created_ms.to_string(), |at| at.strftime(MOMENT).to_string());
    format!("{namespace}-{moment}{}", if is_sealed { SEALED } else { PLAIN })
}

/// What could not be done with a file, and why.
pub(super) fn at(path: &Path, what: &str, error: &io::Error) -> Error {
    Error::failed("io", format!("cannot {what} {}: {error}", path.display()))
}

/// A file that has its name only when it is complete; one that is given up leaves nothing behind.
#[derive(Debug)]
pub(super) struct Draft {
    file: Option<BufWriter<File>>,
    draft: PathBuf,
    path: PathBuf,
}

impl Draft {
    pub(super) fn new(path: PathBuf) -> Outcome<Self> {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        if path.exists() {
            return Err(Error::failed(
                "exists",
                format!("{} is there already: name another file", path.display()),
            ));
        }
        name.push(".part");
        let draft = path.with_file_name(name);
        let mut options = File::options();
        options.write(true).create_new(true);
        // what passes through a pool is nobody else's business
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&draft).map_err(|error| {
            let advice = if error.kind() == io::ErrorKind::AlreadyExists {
                io::Error::other("another backup is being written there, or was broken off: delete it if so")
            } else {
                error
            };
            at(&draft, "write", &advice)
        })?;
        Ok(Self { file: Some(BufWriter::new(file)), draft, path })
    }

    /// Makes what was written durable and gives the file its name; replies how many bytes it has.
    pub(super) fn keep(mut self) -> Outcome<u64> {
        let Some(file) = self.file.take() else { return Ok(0) };
        let failed = |error: io::Error| at(&self.draft, "write", &error);
        let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        fs::rename(&self.draft, &self.path).map_err(|error| at(&self.path, "write", &error))?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        // the name is durable when its folder is; not every file system can be asked for that
        File::open(folder.unwrap_or_else(|| Path::new("."))).and_then(|folder| folder.sync_all()).ok();
        Ok(bytes)
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_mut().map_or(Ok(0), |file| file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            fs::remove_file(&self.draft).ok();
        }
    }
}

/// A size for people.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => format!("{} KiB", bytes / 1_024),
        1_048_576..1_073_741_824 => format!("{} MiB", bytes / 1_048_576),
        _ => format!("{}.{} GiB", bytes / 1_073_741_824, bytes % 1_073_741_824 * 10 / 1_073_741_824),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{BackupFile, name_of};

    #[test]
    fn a_name_tells_namespace_and_moment_and_is_read_again() {
        let name = name_of("tm-eu", 1_732_000_000_123, true);
        assert_eq!(name, "tm-eu-20241119T070640Z.tidemill.age");
        let file = BackupFile::of(PathBuf::from("/b").join(&name)).unwrap();
        assert_eq!((&*file.namespace, file.created_ms, file.is_sealed), ("tm-eu", 1_732_000_000_000, true));
        for other in ["notes.txt", "tm.tidemill", "tm-20241119.tidemill", "tm-20241119T070640Z.tidemill.part"]
        {
            assert_eq!(BackupFile::of(PathBuf::from(other)), None, "{other}");
        }
    }
}
