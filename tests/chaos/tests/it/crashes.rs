//! Every named point of worker and scheduler (`docs/testing.md`): a process dies there, once before and once after it, while work of
//! every kind is under way. All of it ends once; what was done twice is done under the same key, and once more at most.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use serde_json::json;
use tidemill_policy::service::Definition;
use tidemill_protocol::RunState;
use tidemill_runtime::crash::Point;
use tidemill_store::Author;
use tidemill_testkit::{Process, built_binary, wait_for};

use crate::ledger::{audits_fold, ended_once, nothing_is_left};
use crate::pool::{LONG, Pool, Program, SCHEDULER, WORKER};

/// So many pools at once: they wait for deaths to be noticed most of the time.
const AT_ONCE: usize = 4;
/// What `SIGABRT` is.
const ABORTED: i32 = 6;
/// Notes its key and fails as it is told.
const NOTE: &str = "echo \\\"$TIDEMILL_IDEMPOTENCY_KEY\\\" >> FILE";

/// Deaths are noticed soon, and survived often.
const SETTINGS: &[(&str, &str)] = &[
    ("TIDEMILL_EXEC__ALLOW__SH", "/bin/sh"),
    ("TIDEMILL_WORKER__CRASH_BUDGET", "20"),
    ("TIDEMILL_WORKER__BEAT_MS", "200"),
    ("TIDEMILL_WORKER__BLOCK_MS", "200"),
    ("TIDEMILL_WORKER__GRACE_MS", "200"),
    ("TIDEMILL_SCHEDULER__CRASH_BUDGET", "20"),
    ("TIDEMILL_SCHEDULER__BEAT_MS", "200"),
    ("TIDEMILL_SCHEDULER__BLOCK_MS", "200"),
    ("TIDEMILL_SCHEDULER__DEAD_AFTER_MS", "1000"),
];

const ALL: &str = r#"
name: all
steps:
  - { id: a, tool: exec.run, with: { program: sh, args: [-c, "NOTE"] } }
  - { id: again, tool: exec.run, retry: { max_attempts: 6, base_ms: 5, on: [exec] }, with: { program: sh, args: [-c, "NOTE; [ $TIDEMILL_ATTEMPT -gt 1 ]"] } }
  - { id: each, needs: [a], for_each: { items: [1, 2, 3], concurrency: 2 }, tool: exec.run, with: { program: sh, args: [-c, "NOTE"] } }
  - { id: nap, needs: [a], wait: { for_ms: 20 } }
  - { id: block, needs: [nap], steps: [{ id: inner, tool: exec.run, with: { program: sh, args: [-c, "NOTE"] } }] }
  - { id: loop, needs: [again], repeat: { while: "${ .iteration <= 2 }" }, tool: exec.run, with: { program: sh, args: [-c, "NOTE"] } }
output: { items: "${ .steps.each.output | length }" }
finally:
  - { id: last, tool: exec.run, with: { program: sh, args: [-c, "NOTE"] } }
"#;

const UNDONE: &str = r#"
name: undone
steps:
  - { id: a, tool: exec.run, with: { program: sh, args: [-c, "NOTE"] }, compensate: { tool: exec.run, with: { program: sh, args: [-c, "NOTE"] } } }
  - { id: b, needs: [a], tool: exec.run, retry: { max_attempts: 1 }, with: { program: sh, args: [-c, "exit 3"] } }
"#;

/// What was noted: keys, and how often.
fn noted(file: &Path) -> BTreeMap<String, usize> {
    let mut keys = BTreeMap::new();
    for key in std::fs::read_to_string(file).unwrap_or_default().lines() {
        *keys.entry(key.to_owned()).or_default() += 1;
    }
    keys
}

/// How often each key is noted where nobody dies.
fn expected() -> BTreeMap<String, usize> {
    let mut keys: BTreeMap<String, usize> = BTreeMap::new();
    for n in 0..2 {
        for job in ["told", "untold"] {
            keys.insert(format!("{job}-{n}"), 1);
        }
        let steps =
            ["/a", "/each[0]", "/each[1]", "/each[2]", "~block.0/inner", "/loop#1", "/loop#2", "/last"];
        for step in steps {
            keys.insert(format!("all-{n}{step}"), 1);
        }
        keys.insert(format!("all-{n}/again"), 2);
        for step in ["/a", "/a!undo"] {
            keys.insert(format!("undone-{n}{step}"), 1);
        }
    }
    keys
}

/// One death at one point.
struct Death {
    at: String,
    point: Point,
    pool: Pool,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Death {
    async fn prepare(point: Point, side: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("noted");
        let pool = Pool::start().await;
        let note = |text: &str| text.replace("NOTE", NOTE).replace("FILE", file.to_str().unwrap());
        pool.publish("all", &note(ALL)).await;
        pool.publish("undone", &note(UNDONE)).await;
        Self { at: format!("{}:{side}", point.as_str()), point, pool, file, _folder: folder }
    }

    /// A program of the kind that lives.
    async fn living(&self, kind: (&str, &str)) -> Program {
        let mine: Vec<(&str, &str)> =
            SETTINGS.iter().copied().filter(|(name, _)| belongs(name, kind.0)).collect();
        Program::start(&self.pool.url, kind, &mine, None).await
    }

    /// One that is to die; it may do so before it has said anything.
    fn doomed(&self, kind: (&str, &str)) -> Process {
        let mut builder = Process::builder(built_binary(kind.0).unwrap());
        builder = builder.env("TIDEMILL_REDIS_URL", &self.pool.url).env("TIDEMILL_HTTP_ADDR", "127.0.0.1:0");
        for (name, value) in SETTINGS.iter().filter(|(name, _)| belongs(name, kind.0)) {
            builder = builder.env(name, value);
        }
        builder.env("TIDEMILL_TEST_CRASH_AT", &self.at).start().unwrap()
    }

    fn is_of_worker(&self) -> bool {
        self.point.as_str().starts_with("worker.")
    }

    async fn ask(&self) {
        let file = self.file.to_str().unwrap();
        let note = json!({ "program": "sh", "args": ["-c", format!("echo \"$TIDEMILL_IDEMPOTENCY_KEY\" >> {file}")] });
        self.pool.jobs("told", 2, "exec.run", &note.to_string()).await;
        for n in 0..2 {
            let (id, key) = (format!("untold-{n}"), self.pool.home().keys().jobs("default"));
            self.pool
                .cli(&["XADD", &key, "*", "tool", "exec.run", "id", &id, "input", &note.to_string()])
                .await;
        }
        self.pool.jobs("unknown", 2, "no.such", "{}").await;
        self.pool.runs("all", 2, "all", "{}").await;
        self.pool.runs("undone", 2, "undone", "{}").await;
        match self.point {
            // what waits for a limit
            Point::WorkerPark => {
                let rules = json!({ "tools": ["sleep"], "limits": [{ "unit": "requests", "limit": 2, "window_ms": 2_000 }] });
                let author = Author { who: "test", why: "a test", is_file: false };
                let rules = Definition::from_json(&rules.to_string()).unwrap();
                self.pool.store.services().apply(author, "narrow", Some(&rules)).await.unwrap();
                self.pool.jobs("long", 6, "sleep", "{\"ms\":1}").await;
            }
            Point::WorkerRelease | Point::SchedulerReclaim | Point::SchedulerForget => {
                self.pool.jobs("long", 2, "sleep", "{\"ms\":2000}").await;
            }
            _ => {}
        }
    }

    fn long_ones(&self) -> usize {
        match self.point {
            Point::WorkerPark => 6,
            Point::WorkerRelease | Point::SchedulerReclaim | Point::SchedulerForget => 2,
            _ => 0,
        }
    }

    /// Lets the process die and another go on; what lives after that.
    async fn happens(&self) -> Vec<Program> {
        let (mortal, other) = if self.is_of_worker() { (WORKER, SCHEDULER) } else { (SCHEDULER, WORKER) };
        let mut living = vec![self.living(other).await];
        if self.is_of_worker() {
            self.ask().await;
        }
        let mut doomed = self.doomed(mortal);
        if !self.is_of_worker() {
            self.ask().await;
        }
        match self.point {
            Point::WorkerRelease => {
                doomed.wait_for_line("worker started", LONG).await.unwrap();
                self.is_begun().await;
                doomed.term().unwrap();
            }
            Point::SchedulerReclaim | Point::SchedulerForget => {
                self.is_begun().await;
                // the scheduler has seen this one live before it dies
                let mut worker = living.remove(0);
                let seen = worker.consumer();
                doomed.wait_for_line("scheduler started", LONG).await.unwrap();
                wait_for(LONG, "something held", async || {
                    let held = self.pool.held_by(&seen).await.len();
                    if held > 0 { Ok(()) } else { Err("nothing".to_owned()) }
                })
                .await
                .unwrap();
                worker.process.kill().await.unwrap();
                living.push(self.living(WORKER).await);
            }
            _ => {}
        }
        let status = doomed.wait(LONG).await.unwrap_or_else(|error| {
            panic!("{} was not reached: {error}\n{}", self.at, doomed.output());
        });
        let output = doomed.output();
        assert_eq!(status.signal(), Some(ABORTED), "{}: {status:?}\n{output}", self.at);
        assert!(output.contains(&format!("crash at {}", self.at)), "{}: {output}", self.at);
        living.push(self.living(mortal).await);
        living
    }

    /// Waits until the long ones are held by somebody.
    async fn is_begun(&self) {
        let begun = async || {
            let depth = self.pool.home().depth("default").await.map_err(|error| error.to_string())?;
            if depth.running >= 2 { Ok(()) } else { Err(format!("{depth:?}")) }
        };
        wait_for(LONG, "work to be under way", begun).await.unwrap();
    }

    async fn judge(&self) {
        let (pool, at) = (&self.pool, &self.at);
        pool.replies_are(8 + self.long_ones()).await;
        nothing_is_left(pool).await;
        ended_once(pool, "told", 2, "succeeded").await;
        ended_once(pool, "unknown", 2, "failed").await;
        ended_once(pool, "all", 2, "succeeded").await;
        ended_once(pool, "undone", 2, "compensated").await;
        ended_once(pool, "long", self.long_ones(), "succeeded").await;
        let ids = |names: &[&str]| names.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        audits_fold(pool, &ids(&["all-0", "all-1", "all-0~block.0", "all-1~block.0"]), RunState::Succeeded)
            .await;
        audits_fold(pool, &ids(&["undone-0", "undone-1"]), RunState::Compensated).await;
        let (noted, expected) = (noted(&self.file), expected());
        for (key, times) in &expected {
            let times = 1..=times + 1;
            let seen = noted.get(key).copied().unwrap_or(0);
            assert!(times.contains(&seen), "{at}: {key} was done {seen} times, and {times:?} are explained");
        }
        let more: Vec<_> = noted.keys().filter(|key| !expected.contains_key(*key)).collect();
        assert!(more.is_empty(), "{at}: done under keys that nobody knows: {more:?}");
    }
}

/// Whether a setting is one of this program.
fn belongs(name: &str, program: &str) -> bool {
    let is_worker = program == WORKER.0;
    match name {
        _ if name.starts_with("TIDEMILL_SCHEDULER__") => !is_worker,
        _ => is_worker,
    }
}

#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread")]
async fn a_death_before_and_after_every_point_loses_nothing_and_doubles_no_outcome() {
    // `TIDEMILL_TEST_POINT=worker.step` tries that one
    let only = std::env::var_os("TIDEMILL_TEST_POINT").and_then(|name| name.into_string().ok());
    let points = Point::ALL.iter().filter(|point| only.as_ref().is_none_or(|only| only == point.as_str()));
    let deaths: Vec<(Point, &str)> =
        points.flat_map(|point| [(*point, "before"), (*point, "after")]).collect();
    let mut survived = 0;
    for some in deaths.chunks(AT_ONCE) {
        let all = join_all(some.iter().map(async |(point, side)| {
            let death = Death::prepare(*point, side).await;
            let living = death.happens().await;
            println!("died at {}", death.at);
            tokio::time::timeout(LONG, death.judge())
                .await
                .unwrap_or_else(|_| panic!("{}: it does not end", death.at));
            drop(living);
        }));
        survived += all.await.len();
    }
    let expected = if only.is_some() { 2 } else { Point::ALL.len() * 2 };
    assert_eq!(survived, expected, "every point was passed and survived");
}
