//! Why a backup cannot be made, read or restored.

use std::io;

use super::FORMAT;

/// Why a backup cannot be made, read or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Redis is not reachable or refuses.
    #[error(transparent)]
    Store(#[from] crate::Error),
    /// The file cannot be written or read.
    #[error("the backup cannot be read or written: {0}")]
    Io(io::Error),
    /// The file is something else.
    #[error("this is no backup of Tidemill{0}")]
    Foreign(&'static str),
    /// A newer Tidemill wrote it.
    #[error(
        "the backup has format {found}, and this Tidemill ({}) reads formats up to {FORMAT}: use the version that wrote it, or a newer one",
        env!("CARGO_PKG_VERSION")
    )]
    Newer {
        /// Its format.
        found: u32,
    },
    /// The end is missing.
    #[error(
        "the backup is cut short: it ends after {records} records, without its end mark; nothing of it can be trusted"
    )]
    Truncated {
        /// Records read before.
        records: u64,
    },
    /// What was read is not what was written.
    #[error("the backup is damaged after {records} records: {why}")]
    Damaged {
        /// Records read before.
        records: u64,
        /// What does not fit.
        why: String,
    },
    /// The target does not suit, and nothing was written.
    #[error("not restored: {0}")]
    Refused(String),
}

impl BackupError {
    /// Sorts what a reader met: the end of the file, what a decoder found, or a fault of the disk.
    pub(super) fn reading(error: io::Error, records: u64) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            Self::Truncated { records }
        } else if error.raw_os_error().is_some() {
            Self::Io(error)
        } else {
            Self::Damaged { records, why: error.to_string() }
        }
    }
}
