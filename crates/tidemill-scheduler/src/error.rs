//! Why a scheduler does not start, or a tick of a duty failed.

/// An error of the scheduler.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Redis refused, or could not be reached.
    #[error(transparent)]
    Store(#[from] tidemill_store::Error),
    /// A setting cannot be used.
    #[error(transparent)]
    Setting(#[from] crate::InvalidSetting),
    /// A published definition is not valid: nothing that needs it could run.
    #[error(
        "published workflows are not valid, so no run of them could start; publish a corrected version and archive this one \
         (`tidemill workflow archive NAME@VERSION --reason …`):\n{0}"
    )]
    BadWorkflows(String),
    /// A task that the scheduler cannot do without has failed.
    #[error("{task} failed: {reason}")]
    Task {
        /// Which.
        task: &'static str,
        /// Its words.
        reason: String,
    },
}
