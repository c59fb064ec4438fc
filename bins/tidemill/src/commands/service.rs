//! `tidemill service`.

mod assign;
mod control;
mod file;
mod history;
mod list;
mod set;
mod show;
mod top;

use std::env;

use tidemill_store::Author;

pub(super) use self::assign::milliseconds;
use crate::context::Context;
use crate::error::Outcome;

/// What tools depend on: limits, concurrency, breakers, pauses
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    List(list::Arguments),
    Show(show::Arguments),
    Set(set::Arguments),
    Remove(set::RemoveArguments),
    Pause(control::PauseArguments),
    /// Take back a pause, an isolation or a disabling
    #[command(after_help = "Example:\n  tidemill service resume openai --why 'their incident is over'")]
    Resume(control::Arguments),
    /// Hold a service's breaker open: nothing is sent until `resume`
    #[command(after_help = "Example:\n  tidemill service isolate openai --why 'wrong answers'")]
    Isolate(control::Arguments),
    /// Let everything pass a service's breaker until `resume`
    #[command(after_help = "Example:\n  tidemill service disable openai")]
    Disable(control::Arguments),
    /// Close a service's breaker now
    #[command(after_help = "Example:\n  tidemill service close openai")]
    Close(control::Arguments),
    /// Forget what was used, the breaker's window, the retry budget and the counters
    #[command(after_help = "Example:\n  tidemill service reset openai")]
    Reset(control::Arguments),
    History(history::Arguments),
    Top(top::Arguments),
}

pub(crate) async fn run(context: &Context, command: Command) -> Outcome {
    use tidemill_store::Control;
    match command {
        Command::List(list::Arguments {}) => list::run(context).await,
        Command::Show(arguments) => show::run(context, arguments).await,
        Command::Set(arguments) => Box::pin(set::run(context, arguments)).await,
        Command::Remove(arguments) => set::remove(context, arguments).await,
        Command::Pause(arguments) => control::pause(context, arguments).await,
        Command::Resume(arguments) => control::run(context, &arguments, Control::Resume).await,
        Command::Isolate(arguments) => control::run(context, &arguments, Control::Isolate).await,
        Command::Disable(arguments) => control::run(context, &arguments, Control::Disable).await,
        Command::Close(arguments) => control::run(context, &arguments, Control::Close).await,
        Command::Reset(arguments) => control::run(context, &arguments, Control::Reset).await,
        Command::History(arguments) => history::run(context, arguments).await,
        Command::Top(arguments) => top::run(context, &arguments).await,
    }
}

/// Who does something by hand, and why.
#[derive(Debug, clap::Args)]
pub(super) struct Why {
    /// Why; it is kept
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Who; your account is added
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

impl Why {
    pub(super) fn who(&self) -> String {
        let here = Who::here();
        let named = self.by.as_deref().map(str::trim).filter(|by| !by.is_empty());
        named.map_or_else(|| here.as_str().to_owned(), |by| format!("{by} ({})", here.as_str()))
    }

    pub(super) fn reason(&self) -> &str {
        &self.reason
    }
}

/// Who changes something, as the audit names it: `cli:<user>@<host>`.
pub(super) struct Who(String);

impl Who {
    /// The name of the account.
    pub(super) fn account() -> String {
        let named = ["USER", "LOGNAME"].iter().filter_map(env::var_os).find(|name| !name.is_empty());
        named.map_or_else(
            || format!("uid-{}", rustix::process::getuid().as_raw()),
            |name| name.to_string_lossy().into_owned(),
        )
    }

    pub(super) fn here() -> Self {
        let user = Self::account();
        Self(format!("cli:{user}@{}", rustix::system::uname().nodename().to_string_lossy()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    fn author<'a>(&'a self, why: Option<&'a str>) -> Author<'a> {
        Author { who: &self.0, why: why.unwrap_or("by hand"), is_file: false }
    }
}
