//! `tidemill service pause`, `resume`, `isolate`, `disable`, `close`, `reset`.

use jiff::Timestamp;
use tidemill_producer::services::{self, Moved};
use tidemill_store::Control;

use super::Who;
use super::assign::milliseconds;
use crate::context::Context;
use crate::error::{Error, Outcome};
use crate::moment::{moment, relative};

/// A service or one of its tiers, and why.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The service, or a tier: openai/tenant:acme, @tenant:acme, @pool
    name: String,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
}

/// Grant nothing until `resume`, or for a time; what waits keeps its place and its attempts
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill service pause openai --for 30s --why 'their incident 4711'
  tidemill service pause @tenant:acme")]
pub(crate) struct PauseArguments {
    #[command(flatten)]
    of: Arguments,
    /// For so long: 500ms, 30s, 5m, 2h, 1d
    #[arg(long = "for", value_name = "TIME", value_parser = milliseconds)]
    time: Option<u64>,
    /// Until then: RFC 3339, or Unix milliseconds
    #[arg(long, value_name = "MOMENT", conflicts_with = "time", value_parser = unix_ms)]
    until: Option<u64>,
}

fn unix_ms(text: &str) -> Result<u64, String> {
    if let Ok(ms) = text.parse() {
        return Ok(ms);
    }
    let at: Timestamp = text.parse().map_err(|_| {
        "write it as 2026-11-21T18:00:00Z (with its zone), or in Unix milliseconds".to_owned()
    })?;
    u64::try_from(at.as_millisecond()).map_err(|_| "it is before 1970".to_owned())
}

pub(super) async fn run(context: &Context, arguments: &Arguments, control: Control) -> Outcome {
    let Moved { name, from, to } = act(context, arguments, control).await?;
    let document = Moved { name: name.clone(), from: from.clone(), to: to.clone() };
    let line = match control {
        Control::Reset => format!("{name} begins anew; it is {to}"),
        _ if from == to => format!("{name} is {to}, as before"),
        _ => format!("{name} is {to}; it was {from}"),
    };
    context.output.told(&document, line);
    Ok(())
}

pub(super) async fn pause(context: &Context, arguments: PauseArguments) -> Outcome {
    let now_ms = context.store.home().now_ms().await?;
    let until_ms = arguments.time.map(|time| now_ms.saturating_add(time)).or(arguments.until);
    if let Some(until) = until_ms.filter(|until| *until <= now_ms) {
        return Err(Error::usage(format!("{} has passed by Redis's clock", moment(until))));
    }
    let moved = act(context, &arguments.of, Control::Pause(until_ms)).await?;
    let end = until_ms.map_or_else(
        || format!("until `tidemill service resume {}`", moved.name),
        |until| format!("until {} ({})", moment(until), relative(until, now_ms)),
    );
    let line = format!("{} is paused {end}; it was {}", moved.name, moved.from);
    context.output.told(
        &serde_json::json!({ "name": moved.name, "from": moved.from, "to": moved.to, "until_ms": until_ms }),
        line,
    );
    Ok(())
}

async fn act(context: &Context, arguments: &Arguments, control: Control) -> Outcome<Moved> {
    let who = Who::here();
    let author = who.author(arguments.why.as_deref());
    Ok(services::control(&context.store, author, &arguments.name, control).await?)
}

#[cfg(test)]
mod tests {
    use super::unix_ms;

    #[test]
    fn a_moment_is_rfc_3339_or_a_number() {
        assert_eq!(unix_ms("1732000000123"), Ok(1_732_000_000_123));
        assert_eq!(unix_ms("2024-11-19T08:06:40.123+01:00"), Ok(1_732_000_000_123));
        for wrong in ["tomorrow", "2024-11-19", "1960-01-01T00:00:00Z", "-5"] {
            assert!(unix_ms(wrong).is_err(), "{wrong}");
        }
    }
}
