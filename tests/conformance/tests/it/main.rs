//! The scenarios of the Serverless Workflow conformance kit, and documents beyond it, on a pool.
#![expect(clippy::expect_used, clippy::panic, reason = "tests")]

mod documents;
mod pool;
mod serverless_workflow;
mod stand_in;
