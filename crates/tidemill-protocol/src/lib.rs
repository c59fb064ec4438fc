//! The words and bytes that every part of Tidemill agrees on: ids, states with their table of moves, jobs, payloads,
//! results, dead letters, audit records and error codes. Pure: no clock, no network, no Redis.

mod audit;
mod fold;
mod ids;
mod job;
mod lua;
mod outcome;
mod payload;
mod retry;
mod state;
mod timeline;
mod work;

pub use audit::{AuditRecord, StepRecord};
pub use fold::{Course, Flaw, Fold, RUN_SUBJECT, item_of};
pub use ids::{
    EntryId, InvalidName, MAX_ID_BYTES, check_id, check_queue, check_service, check_target, check_tenant,
    check_user, partition_of,
};
pub use job::{
    DEFAULT_MAX_INPUT_BYTES, DEFAULT_PRIORITY, Extras, FIELDS, Job, MAX_FIELDS, Malformed, Reader, Target,
};
pub use lua::{state_machine_page, transitions_lua};
pub use outcome::{Degraded, ErrorBody, ResultDocument, result_head};
pub use payload::{Encoding, Payload, PayloadError};
pub use retry::{ErrorClass, RetryPolicy};
pub use state::{RunState, StepState};
pub use timeline::{Span, Timeline, Track};
pub use work::{Part, RunPart, Work};
