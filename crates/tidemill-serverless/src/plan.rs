//! From a document to the plan of one step.

use std::sync::Arc;

use serde_json::json;
use tidemill_workflow::orchestrate::{Moment, Program, Turn};
use tidemill_workflow::{ExprError, Plan, Problems, ProgramPlan, ToolCatalog, source};

use crate::document::{Action, Document};
use crate::machine;

/// Id of the step that is the document.
const STEP: &str = "flow";

/// Path of the block that carries out the task whose block has this id.
pub(crate) fn block_path(block: &str) -> String {
    format!("{STEP}/{block}")
}

/// Whether a text is a document of the DSL rather than a definition of Tidemill's own.
#[must_use]
pub fn is_document(text: &str) -> bool {
    let names_it = |root: source::Node| {
        root.member("document").is_some_and(|document| document.value.member("dsl").is_some())
    };
    // most texts need no reading for it
    text.contains("dsl") && source::read(text).is_ok_and(names_it)
}

/// The plan of a text in either language.
///
/// # Errors
/// All that is wrong with it.
pub fn plan(text: &str, file: &str, catalog: &dyn ToolCatalog) -> Result<Plan, Problems> {
    if is_document(text) {
        Document::parse(text, file, catalog)?.into_plan(catalog)
    } else {
        Plan::from_source(text, file, catalog)
    }
}

/// The plan of a text in either language that was published under this name and version: that is what it is called.
///
/// # Errors
/// All that is wrong with it.
pub fn published(
    text: &str,
    (name, version): (&str, u32),
    catalog: &dyn ToolCatalog,
) -> Result<Plan, Problems> {
    if is_document(text) {
        let document = Document::parse(text, &format!("workflow {name}@{version}"), catalog)?;
        Ok(document.into_plan(catalog)?.published_as(name, version))
    } else {
        Plan::published(text, (name, version), catalog)
    }
}

impl Document {
    /// Makes the document the program of a plan.
    ///
    /// # Errors
    /// A call cannot be carried out.
    pub fn into_plan(self, catalog: &dyn ToolCatalog) -> Result<Plan, Problems> {
        let blocks = self.tasks.iter().filter_map(|task| called(&task.action));
        let blocks = blocks
            .map(|(block, tool)| {
                let definition = json!({
                    "name": self.workflow_name(),
                    // the document's own `try` decides what is tried again
                    "steps": [{ "id": block, "tool": tool, "with": "${ .input }", "retry": { "max_attempts": 1 } }],
                });
                let plan = Plan::from_source(&definition.to_string(), block, catalog)?;
                Ok((block_path(block), plan))
            })
            .collect::<Result<Vec<_>, Problems>>()?;
        Plan::of_program(ProgramPlan {
            name: self.workflow_name(),
            version: self.version_number(),
            step: STEP.to_owned(),
            program: Arc::new(self),
            blocks,
        })
    }
}

/// The block of a task, and the tool that it calls.
fn called(action: &Action) -> Option<(&str, &str)> {
    match action {
        Action::Http(call) => Some((&call.block, "http.request")),
        Action::OpenApi(call) => Some((&call.block, "http.request")),
        Action::Tool { block, tool, .. } => Some((block, tool)),
        Action::Process(process) => Some((&process.block, "exec.run")),
        _ => None,
    }
}

impl Program for Document {
    fn advance(&self, moment: &Moment<'_>) -> Result<Turn, ExprError> {
        machine::advance(self, moment)
    }
}
