//! Named moments at which a test lets a process die.
//!
//! A debug build that is started with `TIDEMILL_TEST_CRASH_AT=<point>:before` or `…:after` aborts when it comes to that moment: nothing is
//! finished, nobody is told. With `<point>:after:3` it is the third time. A release build has nothing of this.
//! `docs/testing.md` lists the points.

macro_rules! points {
    ($($(#[doc = $doc:literal])+ $point:ident = $name:literal,)+) => {
        /// What a process is about to do, or has just done.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Point {
            $($(#[doc = $doc])+ $point,)+
        }

        impl Point {
            /// Every point.
            pub const ALL: &[Self] = &[$(Self::$point,)+];

            /// Its name, as it is written in the variable.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$point => $name,)+
                }
            }

            /// What it is, in a sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$point => concat!($($doc),+),)+
                }
            }
        }
    };
}

points! {
    /// A worker claims entries from its queues.
    WorkerClaim = "worker.claim",
    /// A worker reads what it needs of the runs of the entries it claimed.
    WorkerRead = "worker.read",
    /// A worker calls a tool.
    WorkerEffect = "worker.effect",
    /// A worker acknowledges plain jobs.
    WorkerAcknowledge = "worker.acknowledge",
    /// A worker records the ends of plain jobs with a result.
    WorkerComplete = "worker.complete",
    /// A worker buries plain jobs that failed for good.
    WorkerBury = "worker.bury",
    /// A worker puts aside what is to be tried again.
    WorkerDefer = "worker.defer",
    /// A worker parks what waits for a limit, a breaker or a pause.
    WorkerPark = "worker.park",
    /// A worker hands back what it holds.
    WorkerRelease = "worker.release",
    /// A worker settles steps.
    WorkerStep = "worker.step",
    /// A worker settles items of a `for_each`.
    WorkerItem = "worker.item",
    /// A worker begins a `for_each`.
    WorkerExpand = "worker.expand",
    /// A worker ends a run whose output is computed.
    WorkerFinish = "worker.finish",
    /// A worker puts a step to wait, with what it asks for.
    WorkerWait = "worker.wait",
    /// A worker does what is next at a run's end.
    WorkerClose = "worker.close",
    /// A scheduler claims requests and notices.
    SchedulerClaim = "scheduler.claim",
    /// A scheduler starts runs.
    SchedulerStart = "scheduler.start",
    /// A scheduler promotes what is due.
    SchedulerPromote = "scheduler.promote",
    /// A scheduler wakes steps whose alarms are due.
    SchedulerAlarm = "scheduler.alarm",
    /// A scheduler tells a parent of its child's end.
    SchedulerEnded = "scheduler.ended",
    /// A scheduler hands on what a dead consumer held.
    SchedulerReclaim = "scheduler.reclaim",
    /// A scheduler forgets a dead consumer.
    SchedulerForget = "scheduler.forget",
}

/// The point is about to be passed.
#[inline]
pub fn before(point: Point) {
    reached(point, "before");
}

/// The point has been passed.
#[inline]
pub fn after(point: Point) {
    reached(point, "after");
}

#[cfg(not(debug_assertions))]
const fn reached(_: Point, _: &'static str) {}

#[cfg(debug_assertions)]
fn reached(point: Point, side: &'static str) {
    use std::io::Write;

    let Some(armed) = armed::point() else { return };
    if armed.is_now(point, side) {
        // a test that waits for this word knows that the point was there
        drop(writeln!(std::io::stderr(), "crash at {}:{side}", point.as_str()));
        std::process::abort();
    }
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::Point;

    /// The name of the variable; the settings leave those of this prefix alone.
    const VARIABLE: &str = "TIDEMILL_TEST_CRASH_AT";

    pub(super) struct Armed {
        name: String,
        side: String,
        left: AtomicU32,
    }

    impl Armed {
        pub(super) fn of(text: &str) -> Option<Self> {
            let mut words = text.split(':');
            let (name, side) = (words.next()?.to_owned(), words.next()?.to_owned());
            let left = words.next().map_or(Some(1), |count| count.parse().ok())?;
            Some(Self { name, side, left: AtomicU32::new(left) })
        }

        pub(super) fn is_now(&self, point: Point, side: &str) -> bool {
            self.name == point.as_str() && self.side == side && self.left.fetch_sub(1, Ordering::SeqCst) == 1
        }
    }

    static ARMED: LazyLock<Option<Armed>> =
        LazyLock::new(|| Armed::of(&std::env::var_os(VARIABLE)?.into_string().ok()?));

    pub(super) fn point() -> Option<&'static Armed> {
        ARMED.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Point, armed::Armed};

    #[test]
    fn the_page_names_every_point() {
        let page = include_str!("../../../docs/testing.md");
        for point in Point::ALL {
            let row = format!("| `{}` | {} |", point.as_str(), point.meaning().trim());
            assert!(page.contains(&row), "docs/testing.md lacks the row {row}");
        }
        let names: HashSet<&str> = Point::ALL.iter().map(|point| point.as_str()).collect();
        assert_eq!(names.len(), Point::ALL.len());
    }

    #[test]
    fn a_moment_comes_once_and_at_the_time_that_was_asked_for() {
        let armed = Armed::of("worker.step:after:2").unwrap();
        let seen: Vec<bool> = (0..4).map(|_| armed.is_now(Point::WorkerStep, "after")).collect();
        assert_eq!(seen, [false, true, false, false]);
        assert!(!armed.is_now(Point::WorkerStep, "before") && !armed.is_now(Point::WorkerItem, "after"));
        assert!(Armed::of("worker.step").is_none() && Armed::of("worker.step:after:x").is_none());
    }
}
