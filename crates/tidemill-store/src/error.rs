//! What can go wrong between Tidemill and Redis, and the one table of what to do about it.

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Redis refused, or could not be reached. After an I/O fault the outcome is unknown; every function is idempotent.
    #[error("redis: {source} ({what})")]
    Redis {
        /// Its row in the table.
        fault: Fault,
        /// What was being done.
        what: &'static str,
        /// The client's error.
        source: RedisError,
    },
    /// The URL or another setting is not valid.
    #[error("the redis settings are not valid: {0}")]
    Settings(String),
    /// The server is not one that Tidemill may run on.
    #[error("this redis cannot be used: {0}")]
    Unsuitable(String),
    /// A stored definition is not the one that was published: it must not be executed.
    #[error(transparent)]
    Damaged(#[from] crate::Damaged),
    /// Redis holds something that Tidemill did not write.
    #[error("unexpected content in redis: {0}")]
    Corrupt(String),
}

/// A class of Redis error. Each has one row in [`Fault::remedy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The connection broke or could not be made.
    Io,
    /// No reply came in time; the outcome is unknown.
    Timeout,
    /// A replica answered: the primary has moved.
    ReadOnly,
    /// A blocking read was ended by a demotion or a deleted stream.
    Unblocked,
    /// The server reads its data set.
    Loading,
    /// `maxmemory` is reached.
    OutOfMemory,
    /// A script runs too long.
    Busy,
    /// The stream or its group is not there.
    NoGroup,
    /// The function library is not loaded.
    NoFunction,
    /// The server refuses writes because it cannot persist.
    Misconfigured,
    /// Too few replicas, or the link to the primary is down.
    NoReplicas,
    /// The cluster's map changes.
    ClusterMoving,
    /// The user may not do this.
    NoPermission,
    /// The password or user is wrong.
    Authentication,
    /// A key has another type than Tidemill's.
    WrongType,
    /// Anything else.
    Other,
}

/// What to do about a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Remedy {
    /// Drop the connection, find the primary, try again with backoff.
    Reconnect,
    /// Keep the connection, try again with backoff.
    Wait,
    /// Create the group, then try again.
    CreateGroup,
    /// Load the library, then try again.
    LoadLibrary,
    /// Trying again cannot help: tell.
    GiveUp,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 16] = [
        Self::Io,
        Self::Timeout,
        Self::ReadOnly,
        Self::Unblocked,
        Self::Loading,
        Self::OutOfMemory,
        Self::Busy,
        Self::NoGroup,
        Self::NoFunction,
        Self::Misconfigured,
        Self::NoReplicas,
        Self::ClusterMoving,
        Self::NoPermission,
        Self::Authentication,
        Self::WrongType,
        Self::Other,
    ];

    /// The table.
    #[must_use]
    pub const fn remedy(self) -> Remedy {
        match self {
            Self::Io | Self::Timeout | Self::ReadOnly | Self::Unblocked => Remedy::Reconnect,
            Self::Loading
            | Self::OutOfMemory
            | Self::Busy
            | Self::Misconfigured
            | Self::NoReplicas
            | Self::ClusterMoving => Remedy::Wait,
            Self::NoGroup => Remedy::CreateGroup,
            Self::NoFunction => Remedy::LoadLibrary,
            Self::NoPermission | Self::Authentication | Self::WrongType | Self::Other => Remedy::GiveUp,
        }
    }

    /// The word in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Io => "io",
            Self::Timeout => "timeout",
            Self::ReadOnly => "read_only",
            Self::Unblocked => "unblocked",
            Self::Loading => "loading",
            Self::OutOfMemory => "out_of_memory",
            Self::Busy => "busy",
            Self::NoGroup => "no_group",
            Self::NoFunction => "no_function",
            Self::Misconfigured => "misconfigured",
            Self::NoReplicas => "no_replicas",
            Self::ClusterMoving => "cluster_moving",
            Self::NoPermission => "no_permission",
            Self::Authentication => "authentication",
            Self::WrongType => "wrong_type",
            Self::Other => "other",
        }
    }

    /// Finds the row of a client error.
    #[must_use]
    pub fn of(error: &RedisError) -> Self {
        if error.is_timeout() {
            return Self::Timeout;
        }
        if error.is_io_error() || error.is_connection_dropped() {
            return Self::Io;
        }
        match error.kind() {
            ErrorKind::AuthenticationFailed => Self::Authentication,
            ErrorKind::MasterNameNotFoundBySentinel
            | ErrorKind::NoValidReplicasFoundBySentinel
            | ErrorKind::ClusterConnectionNotFound => Self::Io,
            ErrorKind::Server(kind) => Self::of_server(kind, error),
            _ => Self::of_code(error),
        }
    }

    fn of_server(kind: ServerErrorKind, error: &RedisError) -> Self {
        match kind {
            ServerErrorKind::ReadOnly => Self::ReadOnly,
            ServerErrorKind::BusyLoading => Self::Loading,
            ServerErrorKind::MasterDown => Self::NoReplicas,
            ServerErrorKind::Moved
            | ServerErrorKind::Ask
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown => Self::ClusterMoving,
            ServerErrorKind::NoPerm => Self::NoPermission,
            _ => Self::of_code(error),
        }
    }

    // the client has no kind of its own for these: Redis's first word decides, in a pipeline that of the first command refused
    fn of_code(error: &RedisError) -> Self {
        let refused = error.clone().into_server_errors();
        let first = refused.as_ref().and_then(|refused| refused.first()).map(|(_, refused)| refused);
        let detail = first.map_or_else(|| error.detail(), |refused| refused.details()).unwrap_or_default();
        match first.map_or_else(|| error.code(), |refused| Some(refused.code())).unwrap_or_default() {
            "UNBLOCKED" => Self::Unblocked,
            "OOM" => Self::OutOfMemory,
            "BUSY" => Self::Busy,
            "NOGROUP" => Self::NoGroup,
            "MISCONF" => Self::Misconfigured,
            "NOREPLICAS" => Self::NoReplicas,
            "WRONGTYPE" => Self::WrongType,
            "WRONGPASS" | "NOAUTH" => Self::Authentication,
            "LOADING" => Self::Loading,
            "READONLY" => Self::ReadOnly,
            "NOSCRIPT" => Self::NoFunction,
            _ if detail.contains("Function not found")
                || error.to_string().contains("Function not found") =>
            {
                Self::NoFunction
            }
            _ => Self::Other,
        }
    }
}

impl Error {
    pub(crate) fn redis(what: &'static str, source: RedisError) -> Self {
        Self::Redis { fault: Fault::of(&source), what, source }
    }

    pub(crate) fn timed_out(what: &'static str, why: &'static str) -> Self {
        Self::redis(what, std::io::Error::new(std::io::ErrorKind::TimedOut, why).into())
    }

    /// What to do about it.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Redis { fault, .. } => fault.remedy(),
            Self::Settings(_) | Self::Unsuitable(_) | Self::Damaged(_) | Self::Corrupt(_) => Remedy::GiveUp,
        }
    }

    /// The fault, when Redis is its source.
    #[must_use]
    pub const fn fault(&self) -> Option<Fault> {
        match self {
            Self::Redis { fault, .. } => Some(*fault),
            Self::Settings(_) | Self::Unsuitable(_) | Self::Damaged(_) | Self::Corrupt(_) => None,
        }
    }

    /// Whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        !matches!(self.remedy(), Remedy::GiveUp)
    }
}
