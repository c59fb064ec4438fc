//! The words and bytes that every part of Tidemill agrees on: ids, states with their table of moves, jobs, payloads,
//! results, dead letters, audit records and error codes. Pure: no clock, no network, no Redis.

mod audit;
mod checksum;
mod fold;
mod ids;
mod job;
mod labels;
mod lua;
mod mode;
mod outcome;
mod payload;
mod retry;
mod state;
mod timeline;
mod work;

pub use audit::{AuditRecord, StepRecord};
pub use checksum::{checksum, seal, unseal};
pub use fold::{Course, Flaw, Fold, RUN_SUBJECT, item_of};
pub use ids::{
    CHILD, EntryId, InvalidName, MAX_CHILD_ID_BYTES, MAX_ID_BYTES, check_any_id, check_id, check_queue,
    check_service, check_target, check_tenant, check_user, partition_of, root_of,
};
pub use job::{
    ChildExtras, DEFAULT_MAX_INPUT_BYTES, DEFAULT_PRIORITY, Extras, FIELDS, Job, MAX_FIELDS, Malformed,
    Reader, Target,
};
pub use labels::{
    InvalidLabels, Labels, MAX_LABEL_NAME_BYTES, MAX_LABEL_VALUE_BYTES, MAX_LABELS, NO_LABELS,
    check_label_name,
};
pub use lua::{state_machine_page, transitions_lua};
pub use mode::{ExecutionMode, UnknownMode};
pub use outcome::{Degraded, ErrorBody, ResultDocument, result_head};
pub use payload::{Encoding, Payload, PayloadError};
pub use retry::{ErrorClass, RetryPolicy};
pub use state::{RunState, StepState};
pub use timeline::{Span, Timeline, Track};
pub use work::{Notice, Part, RunPart, Work};
