//! `tidemill backup prune`.

use std::fs;
use std::path::PathBuf;

use serde_json::json;
use tidemill_runtime::clock::Clock;

use super::counted;
use super::files::{self, BackupFile};
use crate::context::Context;
use crate::error::Outcome;

const DAY_MS: u64 = 24 * 3_600 * 1_000;

/// Delete backups in a folder that are older than so many days
///
/// Judged by the moment in their names; files of other names are left alone. The newest backups of each namespace stay, however old.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidemill backup prune /backups --keep-days 30 --keep-last 3 --dry-run")]
pub(crate) struct Arguments {
    /// The folder
    folder: PathBuf,
    /// Keep what is not older than so many days
    #[arg(long, value_name = "N")]
    keep_days: u64,
    /// Keep the newest M of each namespace in any case
    #[arg(long, value_name = "M", default_value_t = 1)]
    keep_last: usize,
    /// Only tell what would be deleted
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Outcome {
    let now_ms = Clock::system().wall_ms();
    let all = BackupFile::in_folder(&arguments.folder)?;
    let gone = outlived(&all, now_ms, arguments);
    let (mut bytes, word) = (0, if arguments.dry_run { "would delete" } else { "deleted" });
    for file in &gone {
        let size = fs::metadata(&file.path).map_or(0, |known| known.len());
        if !arguments.dry_run {
            fs::remove_file(&file.path).map_err(|error| files::at(&file.path, "delete", &error))?;
        }
        bytes += size;
        let document = json!({ "file": file.path, "bytes": size, "deleted": !arguments.dry_run });
        context.output.told(&document, format!("{word} {}", file.name()));
    }
    if !context.output.is_json() {
        let kept = all.len() - gone.len();
        let (gone, size) = (counted(gone.len() as u64, "backup"), files::size(bytes));
        context.output.line(format!("{word} {gone} ({size}), {kept} kept"));
    }
    Ok(())
}

/// The backups that are to go.
fn outlived<'f>(all: &'f [BackupFile], now_ms: u64, arguments: &Arguments) -> Vec<&'f BackupFile> {
    let before_ms = now_ms.saturating_sub(arguments.keep_days.saturating_mul(DAY_MS));
    let mut gone = Vec::new();
    for of_one in all.chunk_by(|one, other| one.namespace == other.namespace) {
        let old = of_one.len().saturating_sub(arguments.keep_last);
        gone.extend(of_one.iter().take(old).filter(|file| file.created_ms < before_ms));
    }
    gone
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{Arguments, BackupFile, DAY_MS, outlived};

    #[test]
    fn the_newest_of_each_namespace_stay_however_old() {
        let file = |namespace: &str, day: u64| BackupFile {
            namespace: namespace.to_owned(),
            created_ms: day * DAY_MS,
            is_sealed: false,
            path: PathBuf::from(format!("{namespace}{day}")),
        };
        let all = [file("a", 1), file("a", 2), file("a", 3), file("a", 90), file("b", 1), file("b", 2)];
        let gone = |keep_days, keep_last| {
            let arguments = Arguments { folder: PathBuf::new(), keep_days, keep_last, dry_run: false };
            let gone = outlived(&all, 100 * DAY_MS, &arguments);
            gone.iter().map(|file| file.path.display().to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(gone(30, 1), "a1 a2 a3 b1");
        assert_eq!(gone(30, 2), "a1 a2");
        assert_eq!(gone(98, 0), "a1 b1");
        assert_eq!((gone(100, 0), gone(u64::MAX, 0)), (String::new(), String::new()));
    }
}
