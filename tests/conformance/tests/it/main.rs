//! The scenarios of the Serverless Workflow conformance kit, each on a pool of its own run.
#![expect(clippy::expect_used, clippy::panic, reason = "tests")]

mod pool;
mod serverless_workflow;
mod stand_in;
