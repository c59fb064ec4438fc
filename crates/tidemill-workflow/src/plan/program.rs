//! Plans of documents in other languages: one step that is a program, and the blocks that it runs.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::json;

use super::{Action, Plan};
use crate::any_tool::AnyTool;
use crate::orchestrate::Program;
use crate::problem::Problems;

/// What a program's plan is made of.
#[derive(Debug)]
pub struct ProgramPlan {
    /// The workflow's name.
    pub name: String,
    /// Its version, where the document says one.
    pub version: Option<u32>,
    /// Id of the step that is the program.
    pub step: String,
    /// The document.
    pub program: Arc<dyn Program>,
    /// What it can run as children, each by its path.
    pub blocks: Vec<(String, Plan)>,
}

impl Plan {
    /// The plan of a program: it sees the run's input, and its output is the run's.
    ///
    /// # Errors
    /// The name of the workflow or of the step is none.
    pub fn of_program(parts: ProgramPlan) -> Result<Self, Problems> {
        let ProgramPlan { name, version, step, program, blocks } = parts;
        let definition =
            json!({ "name": name, "steps": [{ "id": step, "tool": "echo", "with": "${ .input }" }] });
        let mut plan = Self::from_source(&definition.to_string(), &name, &AnyTool)?;
        plan.version = version.unwrap_or(1);
        for step in &mut plan.steps {
            step.action = Action::Program(Arc::clone(&program));
        }
        plan.waits = true;
        let block = |(path, block): (String, Self)| {
            let named =
                Self { name: plan.name.clone(), version: plan.version, block: Some(path.clone()), ..block };
            (path, Arc::new(named))
        };
        plan.blocks = blocks.into_iter().map(block).collect::<HashMap<_, _>>();
        Ok(plan)
    }

    /// The plan under the name and version that it was published as, whatever its text says; its blocks, too.
    #[must_use]
    pub fn published_as(mut self, name: &str, version: u32) -> Self {
        for block in self.blocks.values_mut() {
            let block = Arc::make_mut(block);
            name.clone_into(&mut block.name);
            block.version = version;
        }
        name.clone_into(&mut self.name);
        self.version = version;
        self
    }
}
