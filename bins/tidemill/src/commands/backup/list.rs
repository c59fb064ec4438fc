//! `tidemill backup list`.

use std::fs;
use std::path::PathBuf;

use serde_json::json;
use tidemill_store::backup;

use super::files::{self, BackupFile};
use super::seal::OpenArguments;
use crate::context::Context;
use crate::error::Outcome;
use crate::moment;
use crate::table::{Cell, Style, Table};

/// List the backups in a folder, by namespace, oldest first
///
/// Reads their names, and of those that can be opened their heads; `tidemill backup verify` reads all of one.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidemill backup list /backups")]
pub(crate) struct Arguments {
    /// The folder
    #[arg(default_value = ".")]
    folder: PathBuf,
    #[command(flatten)]
    open: OpenArguments,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Outcome {
    let mut table = Table::new(&["FILE", "NAMESPACE", "CREATED", "SIZE", "PARTITIONS", "BY", "NOTE"]);
    for file in BackupFile::in_folder(&arguments.folder)? {
        let bytes = fs::metadata(&file.path).map_or(0, |known| known.len());
        let head = if file.is_sealed && !arguments.open.is_given() {
            Err("encrypted".to_owned())
        } else {
            let opened = arguments.open.open(&file.path).map_err(|error| error.message().to_owned());
            opened.and_then(|open| backup::read_header(open).map_err(|error| error.to_string()))
        };
        if context.output.is_json() {
            context.output.document(&json!({
                "file": file.path, "namespace": file.namespace, "created_ms": file.created_ms, "bytes": bytes,
                "encrypted": file.is_sealed, "header": head.as_ref().ok(), "note": head.as_ref().err(),
            }));
            continue;
        }
        let (partitions, by, note) = match &head {
            Ok(head) => (head.partitions.to_string(), format!("tidemill {}", head.version), Cell::new("")),
            Err(note) if file.is_sealed && note == "encrypted" => {
                (String::new(), String::new(), Cell::new(note))
            }
            Err(note) => (String::new(), String::new(), Cell::new(note).style(Style::Bad)),
        };
        table.row(vec![
            Cell::new(file.name()),
            Cell::new(&file.namespace),
            Cell::new(moment::moment(file.created_ms)),
            Cell::new(files::size(bytes)),
            Cell::new(partitions),
            Cell::new(by),
            note,
        ]);
    }
    let empty = format!("no backups in {}", arguments.folder.display());
    context.output.listing(&table, &empty);
    Ok(())
}
