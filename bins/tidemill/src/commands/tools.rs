//! `tidemill tools`.

use serde_json::{Value, json};

use crate::catalog;
use crate::context::Context;
use crate::error::{Error, Outcome};
use crate::table::{Cell, Table};
use crate::waiting::pretty;

/// List the tools that workers have announced, or show one with the schema of its input
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill tools
  tidemill tools http.request")]
pub(crate) struct Arguments {
    /// Show this one alone, with its schema
    name: Option<String>,
}

pub(crate) async fn run(context: &Context, arguments: Arguments) -> Outcome {
    let tools = catalog::announced(context).await?;
    let word = |described: &Value, member: &str| described[member].as_str().unwrap_or_default().to_owned();
    if let Some(name) = arguments.name {
        let Some(described) = tools.get(&name) else {
            return Err(Error::failed(
                "unknown_tool",
                format!(
                    "no worker has announced a tool {name:?}; `tidemill tools` lists those that are there"
                ),
            ));
        };
        let schema = &described["input_schema"];
        let lines = format!(
            "{name}  {}  {}\n{}",
            word(described, "kind"),
            word(described, "description"),
            pretty(&schema.to_string())
        );
        let document = json!({ "name": name, "kind": described["kind"], "description": described["description"], "input_schema": schema });
        context.output.told(&document, lines);
        return Ok(());
    }
    let mut names: Vec<&String> = tools.keys().collect();
    names.sort();
    let mut table = Table::new(&["TOOL", "KIND", "DESCRIPTION"]);
    for name in names {
        let described = &tools[name];
        if context.output.is_json() {
            let document =
                json!({ "name": name, "kind": described["kind"], "description": described["description"] });
            context.output.document(&document);
        } else {
            table.row(vec![
                Cell::new(name),
                Cell::new(word(described, "kind")),
                Cell::new(word(described, "description")),
            ]);
        }
    }
    context.output.listing(&table, "no worker has announced a tool yet");
    Ok(())
}
