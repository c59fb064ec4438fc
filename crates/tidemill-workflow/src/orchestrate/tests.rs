//! Waiting steps on a bench that has all that the worker and Redis have, but happens at once.

mod approvals;
mod bench;
mod children;
mod closings;
mod histories;
mod loops;
mod waits;

use bench::{Bench, block, condition, step, template, workflow};
