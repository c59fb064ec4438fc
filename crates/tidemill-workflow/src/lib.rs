//! Workflows: from a definition in YAML or JSON to a validated plan, and the expressions in it. Pure: no clock, no
//! network, no Redis.

mod any_tool;
mod definition;
mod diff;
mod expr;
mod fits;
mod nearest;
pub mod orchestrate;
mod plan;
mod problem;
pub mod reference;
mod schema;
mod scope;
pub mod source;
mod template;

pub use any_tool::AnyTool;
pub use definition::{
    ActionDefinition, ApprovalDefinition, BlockDefinition, CallDefinition, CaseDefinition, Definition,
    FailurePolicy, ForEachDefinition, GroupDefinition, Join, MAX_NESTING, MAX_STEPS, OnError, Pick,
    RemindDefinition, RepeatDefinition, SignalDefinition, StepDefinition, SwitchDefinition, WaitDefinition,
};
pub use diff::{Audience, Change, ChangeKind, Diff};
pub use expr::{BoundFilter, ExprError, Fault, Filter, Limits};
pub use fits::Fits;
pub use nearest::nearest;
pub use orchestrate::{ChildTarget, advance};
pub use plan::{
    Action, Again, Approval, Branch, Budget, Child, ChosenBy, Decision, Finish, Fires, ForEach, Group, Kept,
    Need, OnFull, OnReject, OnTimeout, Plan, PlanStep, ProgramPlan, Reminder, Repeat, Signal, Tolerance,
    ToolCatalog, Wait,
};
pub use problem::{Problem, ProblemCode, Problems};
pub use schema::Schema;
pub use scope::{LOCALS, RunView, Scope, StepView};
pub use template::{Expr, References, Template, TextPart, text_parts};

/// JSON Schema (draft 2020-12) of the definition format, for editors. What it cannot express (circles, expressions,
/// tools) is found by [`Definition::compile`].
pub const DEFINITION_SCHEMA: &str = include_str!("../schema/workflow.schema.json");
