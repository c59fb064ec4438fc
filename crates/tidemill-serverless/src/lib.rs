//! The second front door: documents of the CNCF Serverless Workflow DSL 1.0, in YAML or JSON.
//!
//! A document is a tree of lists of tasks through which one value flows and changes. It is not turned into edges between
//! steps: `then` jumps within a list, `exit` and `end` leave several levels, and `try` repeats what it holds. So a document
//! becomes a [`Program`](tidemill_workflow::orchestrate::Program): a pure interpreter that is the one step of its plan. What
//! it computes (`set`, `switch`, `do`, `for`, `try`, `raise`, every expression) happens inside of its turns; whatever has an
//! effect (`call`, `run`, `wait`, `listen`, `emit`) is asked of the pool and is durable: a call is a child run of a block
//! with one step. Between turns all that it knows is its memo.
//!
//! [`plan`] reads either language: a text with `document.dsl` is read here, any other as a definition of Tidemill's own.

mod document;
mod duration;
mod dynamic;
mod fault;
mod machine;
mod plan;
mod reader;
mod uri;

pub use document::Document;
pub use fault::Fault;
pub use plan::{is_document, plan, published};
