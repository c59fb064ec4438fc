//! What a scheduler counts. Ticks, errors and times of each duty are counted by the runtime (`tidemill_duty_…`).

use tidemill_runtime::metrics::{Counter, Gauge, Labelled, MetricName, Metrics};

/// Runs started.
pub const RUNS_STARTED: MetricName = MetricName::new("tidemill_runs_started", "Runs started", &[]);
/// Runs started, by execution mode.
pub const EXECUTIONS: MetricName =
    MetricName::new("tidemill_executions", "Runs started, by execution mode", &["mode"]);
/// The pool's execution mode.
pub const MODE: MetricName = MetricName::new(
    "tidemill_execution_mode",
    "1 for the pool's execution mode, 0 for the others; each scheduler tells the same",
    &["mode"],
);
/// Requests for runs that exist already.
pub const RUNS_REPEATED: MetricName =
    MetricName::new("tidemill_runs_repeated", "Requests dropped because a run of that id exists", &[]);
/// Ends of runs that others heard of.
pub const NOTICES: MetricName = MetricName::new(
    "tidemill_notices",
    "Ends of runs told to whoever waited for them: a parent, a group, steps that waited",
    &[],
);
/// Requests that could not be started.
pub const RUNS_REFUSED: MetricName =
    MetricName::new("tidemill_runs_refused", "Requests for runs that went to the dead letters", &["code"]);
/// Definitions that cannot be used.
pub const VALIDATION_FAILED: MetricName = MetricName::new(
    "tidemill_definition_validation_failed",
    "Published workflows that could not be used, at the start or for a run (`invalid_workflow`, `damaged_definition`)",
    &["code"],
);
/// Runs of versions on their way out.
pub const DEPRECATED_STARTS: MetricName = MetricName::new(
    "tidemill_deprecated_starts",
    "Batches of runs started with a deprecated version",
    &["workflow"],
);
/// Work that became due.
pub const PROMOTED: MetricName =
    MetricName::new("tidemill_promoted", "Work put aside that became ready", &["queue"]);
/// Jobs called up from lines.
pub const CALLED_UP: MetricName =
    MetricName::new("tidemill_called_up", "Jobs called up from the lines of a service", &["service"]);
/// Steps let out of lines because their run has ended.
pub const LEFT_LINES: MetricName =
    MetricName::new("tidemill_left_lines", "Steps let out of lines because their run has ended", &[]);
/// How long lines are.
pub const LINE_LENGTH: MetricName = MetricName::new(
    "tidemill_line_length",
    "Jobs that wait in the lines of a service; each scheduler tells the same",
    &["service"],
);
/// How long the first in line has waited.
pub const LINE_OLDEST: MetricName = MetricName::new(
    "tidemill_line_oldest_ms",
    "For how long the first in the lines of a service has waited; each scheduler tells the same",
    &["service"],
);
/// Cron entries fired.
pub const CRON_FIRED: MetricName =
    MetricName::new("tidemill_cron_fired", "Times that cron entries fired", &[]);
/// Cron times let pass.
pub const CRON_SKIPPED: MetricName =
    MetricName::new("tidemill_cron_skipped", "Looks at a cron entry that let missed times pass", &[]);
/// Cron entries that cannot be read.
pub const CRON_INVALID: MetricName =
    MetricName::new("tidemill_cron_invalid", "Looks at a due cron entry that cannot be carried out", &[]);
/// Entries taken from the dead.
pub const RECLAIMED: MetricName =
    MetricName::new("tidemill_reclaimed", "Entries taken from processes that died", &["queue"]);
/// Processes found dead.
pub const DEAD_MEMBERS: MetricName =
    MetricName::new("tidemill_dead_members", "Processes whose liveness stood still", &[]);
/// Times that liveness could not be judged.
pub const WATCH_RESETS: MetricName = MetricName::new(
    "tidemill_watch_resets",
    "Times that the watch over liveness began anew (clock jump, restart of Redis, own pause)",
    &["why"],
);
/// Jobs buried because too many processes died holding them.
pub const DEATHS_BURIED: MetricName = MetricName::new(
    "tidemill_deaths_buried",
    "Jobs buried because too many processes died holding them",
    &[],
);
/// Repairs by the audit.
pub const REPAIRED: MetricName = MetricName::new("tidemill_repaired", "Repairs by the audit", &["what"]);
/// Runs that the audit cannot carry on.
pub const STUCK: MetricName = MetricName::new(
    "tidemill_stuck_runs",
    "Runs that stand still in a way that the audit cannot repair",
    &[],
);
/// Runs ended at their deadline.
pub const EXPIRED: MetricName = MetricName::new("tidemill_expired", "Runs ended at their deadline", &[]);
/// Runs that have a place in a group.
pub const GROUP_HOLDERS: MetricName = MetricName::new(
    "tidemill_group_holders",
    "Runs that have a place in a group; each scheduler tells the same",
    &["workflow"],
);
/// Runs that wait for a place in a group.
pub const GROUP_WAITING: MetricName = MetricName::new(
    "tidemill_group_waiting",
    "Runs that wait for their turn in a group; each scheduler tells the same",
    &["workflow"],
);
/// Requests put aside because their group was full.
pub const GROUP_QUEUED: MetricName = MetricName::new(
    "tidemill_group_queued",
    "Requests for runs put aside because their group was full",
    &["workflow"],
);
/// Runs cancelled for newer ones of their group.
pub const GROUP_CANCELLED: MetricName = MetricName::new(
    "tidemill_group_cancelled",
    "Runs cancelled for newer ones of their group",
    &["workflow"],
);
/// Records deleted to bound memory.
pub const TRIMMED: MetricName =
    MetricName::new("tidemill_trimmed", "Records deleted to bound memory", &["what"]);
/// Redis's memory.
pub const REDIS_USED: MetricName =
    MetricName::new("tidemill_redis_used_memory_bytes", "Memory that Redis uses", &[]);
/// Redis's bound.
pub const REDIS_MAX: MetricName =
    MetricName::new("tidemill_redis_max_memory_bytes", "Memory that Redis may use; 0 for no bound", &[]);
/// Whether Redis is near its bound.
pub const REDIS_NEAR_LIMIT: MetricName =
    MetricName::new("tidemill_redis_memory_near_limit", "1 while Redis uses 80 % of its memory or more", &[]);

/// The names of this crate, for the page that lists them.
pub const ALL: &[MetricName] = &[
    RUNS_STARTED,
    EXECUTIONS,
    MODE,
    RUNS_REPEATED,
    NOTICES,
    RUNS_REFUSED,
    VALIDATION_FAILED,
    DEPRECATED_STARTS,
    PROMOTED,
    CALLED_UP,
    LEFT_LINES,
    LINE_LENGTH,
    LINE_OLDEST,
    CRON_FIRED,
    CRON_SKIPPED,
    CRON_INVALID,
    RECLAIMED,
    DEAD_MEMBERS,
    WATCH_RESETS,
    DEATHS_BURIED,
    REPAIRED,
    STUCK,
    EXPIRED,
    GROUP_HOLDERS,
    GROUP_WAITING,
    GROUP_QUEUED,
    GROUP_CANCELLED,
    TRIMMED,
    REDIS_USED,
    REDIS_MAX,
    REDIS_NEAR_LIMIT,
];

/// The counters of a scheduler.
#[derive(Debug, Clone)]
pub(crate) struct Counters {
    pub(crate) runs_started: Counter,
    pub(crate) executions: Labelled<Counter>,
    pub(crate) mode: Labelled<Gauge>,
    pub(crate) runs_repeated: Counter,
    pub(crate) notices: Counter,
    pub(crate) runs_refused: Labelled<Counter>,
    pub(crate) validation_failed: Labelled<Counter>,
    pub(crate) deprecated_starts: Labelled<Counter>,
    pub(crate) promoted: Labelled<Counter>,
    pub(crate) called_up: Labelled<Counter>,
    pub(crate) left_lines: Counter,
    pub(crate) line_length: Labelled<Gauge>,
    pub(crate) line_oldest: Labelled<Gauge>,
    pub(crate) cron_fired: Counter,
    pub(crate) cron_skipped: Counter,
    pub(crate) cron_invalid: Counter,
    pub(crate) reclaimed: Labelled<Counter>,
    pub(crate) dead_members: Counter,
    pub(crate) watch_resets: Labelled<Counter>,
    pub(crate) deaths_buried: Counter,
    pub(crate) repaired: Labelled<Counter>,
    pub(crate) stuck: Gauge,
    pub(crate) expired: Counter,
    pub(crate) group_holders: Labelled<Gauge>,
    pub(crate) group_waiting: Labelled<Gauge>,
    pub(crate) group_queued: Labelled<Counter>,
    pub(crate) group_cancelled: Labelled<Counter>,
    pub(crate) trimmed: Labelled<Counter>,
    pub(crate) redis_used: Gauge,
    pub(crate) redis_max: Gauge,
    pub(crate) redis_near_limit: Gauge,
}

impl Counters {
    /// Registers all; once a process.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            runs_started: metrics.counter(RUNS_STARTED),
            executions: metrics.counters(EXECUTIONS),
            mode: metrics.gauges(MODE),
            runs_repeated: metrics.counter(RUNS_REPEATED),
            notices: metrics.counter(NOTICES),
            runs_refused: metrics.counters(RUNS_REFUSED),
            validation_failed: metrics.counters(VALIDATION_FAILED),
            deprecated_starts: metrics.counters(DEPRECATED_STARTS),
            promoted: metrics.counters(PROMOTED),
            called_up: metrics.counters(CALLED_UP),
            left_lines: metrics.counter(LEFT_LINES),
            line_length: metrics.gauges(LINE_LENGTH),
            line_oldest: metrics.gauges(LINE_OLDEST),
            cron_fired: metrics.counter(CRON_FIRED),
            cron_skipped: metrics.counter(CRON_SKIPPED),
            cron_invalid: metrics.counter(CRON_INVALID),
            reclaimed: metrics.counters(RECLAIMED),
            dead_members: metrics.counter(DEAD_MEMBERS),
            watch_resets: metrics.counters(WATCH_RESETS),
            deaths_buried: metrics.counter(DEATHS_BURIED),
            repaired: metrics.counters(REPAIRED),
            stuck: metrics.gauge(STUCK),
            expired: metrics.counter(EXPIRED),
            group_holders: metrics.gauges(GROUP_HOLDERS),
            group_waiting: metrics.gauges(GROUP_WAITING),
            group_queued: metrics.counters(GROUP_QUEUED),
            group_cancelled: metrics.counters(GROUP_CANCELLED),
            trimmed: metrics.counters(TRIMMED),
            redis_used: metrics.gauge(REDIS_USED),
            redis_max: metrics.gauge(REDIS_MAX),
            redis_near_limit: metrics.gauge(REDIS_NEAR_LIMIT),
        }
    }
}
