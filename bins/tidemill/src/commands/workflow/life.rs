//! `tidemill workflow activate`, `deprecate` and `archive`.

use tidemill_producer::MovingVersion;
use tidemill_store::VersionState;

use super::super::service::Who;
use crate::context::Context;
use crate::error::Outcome;

/// Put a version to use: the newest active one is what the plain name starts
///
/// From draft, or back from deprecated. Of many who move a version at once one succeeds; the others get a conflict.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidemill workflow activate order@4 --reason 'tried for a week'")]
pub(crate) struct Arguments {
    #[command(flatten)]
    of: MoveArguments,
}

/// Take a version out of use: it is started only by NAME@VERSION, with a warning
///
/// Runs under way go on with their version, wherever it stands. `activate` takes it back.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidemill workflow deprecate order@3 --reason 'order@4 is better'")]
pub(crate) struct DeprecateArguments {
    #[command(flatten)]
    of: MoveArguments,
}

/// Put a version away for good: nothing starts it any more, and nothing moves it again
///
/// Refused while runs of it are under way, for looking at them is easier before; --force does it all the same, and they go on.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidemill workflow archive order@2 --reason 'its vendor is gone'")]
pub(crate) struct ArchiveArguments {
    #[command(flatten)]
    of: MoveArguments,
    /// Although runs of it are under way
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
struct MoveArguments {
    /// The version
    #[arg(value_name = "NAME@VERSION")]
    target: String,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Who, for the audit [default: user and host]
    #[arg(long, value_name = "WHO")]
    by: Option<String>,
}

pub(super) async fn activate(context: &Context, arguments: &Arguments) -> Outcome {
    go(context, &arguments.of, VersionState::Active, false).await
}

pub(super) async fn deprecate(context: &Context, arguments: &DeprecateArguments) -> Outcome {
    go(context, &arguments.of, VersionState::Deprecated, false).await
}

pub(super) async fn archive(context: &Context, arguments: &ArchiveArguments) -> Outcome {
    go(context, &arguments.of, VersionState::Archived, arguments.force).await
}

async fn go(context: &Context, arguments: &MoveArguments, to: VersionState, force: bool) -> Outcome {
    let MoveArguments { target, reason, by } = arguments;
    let here = Who::here();
    let who = by.as_deref().unwrap_or(here.as_str());
    let moving = MovingVersion { target, to, from: None, force, who, why: reason };
    let moved = context.intake().workflows().move_version(&moving).await?;
    let newest = match moved.newest_active {
        Some(newest) => format!("a start of {:?} gets version {newest}", moved.name),
        None => format!("{:?} has no active version now: a start must name one", moved.name),
    };
    let line = format!("{}@{} is {}; it was {}; {newest}", moved.name, moved.version, moved.to, moved.from);
    context.output.told(&moved, line);
    Ok(())
}
