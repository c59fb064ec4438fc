//! The scheduler: starts runs, promotes what is due, calls up what waits in lines, fires cron entries, reclaims from the dead, expires, bounds memory, audits.
//!
//! Any number of schedulers work side by side without a leader. Each duty (one file) looks at Redis and then calls one atomic
//! function that two schedulers cannot both win, so a scheduler that is slow, doubled or killed at any point does no harm. None of
//! them decides by a wall clock: what is due is due by Redis's time, and who is dead is told by this process's monotonic clock.

mod auditor;
mod context;
mod courier;
mod cron;
mod error;
mod expirer;
mod groups;
mod membership;
mod memory;
pub mod metrics;
mod modes;
mod pacer;
mod plans;
mod promoter;
mod reclaimer;
mod retention;
mod scheduler;
mod settings;
mod starter;
mod validation;
mod waits;

pub use auditor::RunRepair;
pub use cron::{Schedule, ScheduleError};
pub use error::Error;
pub use plans::{NoPlan, Plans, ToStart};
pub use retention::Settings as RetentionSettings;
pub use scheduler::{Scheduler, Setup};
pub use settings::{InvalidSetting, Settings};

/// The tools that every worker has without any configuration.
pub const BUILT_IN_TOOLS: [&str; 6] =
    ["echo", "exec.run", "http.request", "jq.transform", "sleep", "template.render"];
