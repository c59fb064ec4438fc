//! `tidemill library`.

use serde_json::json;
use tidemill_store::{LIBRARY_NAME, LIBRARY_VERSION, library_text};

use crate::context::Context;
use crate::error::Outcome;

/// The Redis functions that all programs work with
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Load the library into Redis, unless the same or a newer one is there
    ///
    /// Programs load it by themselves where their Redis user may; where only an administrator may, this does it for them.
    Load,
    /// Write the library's text, as FUNCTION LOAD takes it
    #[command(after_help = "Example:
  tidemill library show | redis-cli -x FUNCTION LOAD REPLACE")]
    Show,
}

pub(crate) async fn run(context: &Context, command: Command) -> Outcome {
    match command {
        Command::Show => {
            let text = library_text();
            let document = json!({ "name": LIBRARY_NAME, "version": LIBRARY_VERSION, "text": text });
            context.output.told(&document, text.trim_end());
        }
        Command::Load => {
            let facts = context.connect().await?;
            let document = json!({ "name": LIBRARY_NAME, "version": LIBRARY_VERSION, "server": facts });
            let line = format!(
                "library {LIBRARY_NAME}, version {LIBRARY_VERSION} or newer, is loaded on {} {}",
                facts.product, facts.version
            );
            context.output.told(&document, line);
        }
    }
    Ok(())
}
