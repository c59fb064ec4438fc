//! `tidemill backup`.

mod create;
mod files;
mod list;
mod prune;
mod restore;
mod seal;
mod verify;

use crate::context::Context;
use crate::error::{Error, Outcome};

/// Backups of a pool: made while it works, checked without it, restored anywhere
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Create(create::Arguments),
    List(list::Arguments),
    Verify(verify::Arguments),
    Restore(restore::Arguments),
    Prune(prune::Arguments),
}

pub(crate) async fn run(context: &Context, command: Command) -> Outcome {
    match command {
        Command::Create(arguments) => {
            context.connect().await?;
            create::run(context, &arguments).await
        }
        Command::Restore(arguments) => Box::pin(restore::run(context, &arguments)).await,
        Command::List(arguments) => list::run(context, &arguments),
        Command::Verify(arguments) => verify::run(context, &arguments),
        Command::Prune(arguments) => prune::run(context, &arguments),
    }
}

fn of_backup(error: tidemill_store::backup::BackupError) -> Error {
    use tidemill_store::backup::BackupError;
    let code = match error {
        BackupError::Store(error) => return error.into(),
        BackupError::Io(_) => "io",
        BackupError::Foreign(_) => "no_backup",
        BackupError::Newer { .. } => "newer_backup",
        BackupError::Truncated { .. } | BackupError::Damaged { .. } => "damaged_backup",
        BackupError::Refused(_) => "refused",
    };
    Error::failed(code, error.to_string())
}

/// `12 runs`, `1 run`.
fn counted(count: u64, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}
