//! Workflows: from a definition in YAML or JSON to a validated plan, and the expressions in it. Pure: no clock, no
//! network, no Redis.

mod definition;
mod expr;
mod nearest;
mod plan;
mod problem;
mod schema;
mod scope;
mod source;
mod template;

pub use definition::{
    ActionDefinition, CaseDefinition, Definition, FailurePolicy, ForEachDefinition, Join, MAX_STEPS, OnError,
    Pick, StepDefinition, SwitchDefinition,
};
pub use expr::{ExprError, Fault, Filter, Limits};
pub use plan::{Action, ChosenBy, Decision, Finish, Fires, ForEach, Need, Plan, PlanStep, ToolCatalog};
pub use problem::{Problem, ProblemCode, Problems};
pub use scope::{RunView, Scope, StepView};
pub use template::{Expr, References, Template};

/// JSON Schema (draft 2020-12) of the definition format, for editors. What it cannot express (circles, expressions,
/// tools) is found by [`Definition::compile`].
pub const DEFINITION_SCHEMA: &str = include_str!("../schema/workflow.schema.json");
