//! Scenarios of the conformance test kit of the Serverless Workflow specification: what to run, and what must come of it.
//!
//! They are read from our own files (`serverless-workflow/*.yaml`), which say the same as the kit's in other words, and from the
//! kit's own Gherkin files, of which this reads as much as they use.

mod gherkin;
mod own;
mod scenario;

pub use gherkin::read as read_feature;
pub use own::read as read_own;
pub use scenario::{Check, Order, Scenario, lookup};
