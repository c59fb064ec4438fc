//! Random workflows on a real pool come to what the reference interpreter says, whoever dies meanwhile, and leave nothing behind.
//!
//! `TIDEMILL_CASES` says how many workflows each test draws (30), `TIDEMILL_SEED` from where on.

#![expect(clippy::print_stdout, reason = "a test says how much it has tried")]

mod drive;
mod judge;
mod mortal;
mod script;
mod shape;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tidemill_protocol::RunState;
use tidemill_store::{StopRun, Store};
use tidemill_testkit::{RedisServer, wait_for, wait_until};
use tidemill_workflow::reference::{Prediction, predict};
use tidemill_workflow::{AnyTool, Plan};

use self::drive::World;
use self::judge::{Came, Terms, judge, stands_clean};
use self::mortal::Mortal;
use self::script::{Asked, Ledger, Told};
use self::shape::draw;

/// Nothing waits for as long unless something is wrong.
const LONG: Duration = Duration::from_secs(60);

/// A workflow, what it comes to, and the run that is to show it.
struct Case {
    seed: u64,
    id: String,
    input: u64,
    text: String,
    others: BTreeMap<String, String>,
    /// By `name@version`, without blocks.
    plans: BTreeMap<String, Arc<Plan>>,
    prediction: Prediction,
    asked: Asked,
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var_os(name).and_then(|text| text.to_str()?.parse().ok()).unwrap_or(default)
}

impl Case {
    fn draw(seed: u64) -> Self {
        let (id, name) = (format!("c{seed:06}-"), format!("w{seed:06}"));
        let drawn = draw(seed, &name);
        let input = SmallRng::seed_from_u64(seed ^ 2).random_range(0..100);
        let compiled = |name: &str, text: &str| {
            let plan = Plan::published(text, (name, 1), &AnyTool);
            Arc::new(plan.unwrap_or_else(|problems| panic!("TIDEMILL_SEED={seed}: {problems}\n{text}")))
        };
        let text = serde_json::to_string_pretty(&drawn.workflow).unwrap();
        let others: BTreeMap<String, String> =
            drawn.others.iter().map(|(name, other)| (name.clone(), other.to_string())).collect();
        let called = others.iter().map(|(name, text)| (name.clone(), compiled(name, text))).collect();
        let plan = compiled(&name, &text);
        let told = Told::new(&id, &drawn.book, &called);
        let prediction = predict(&plan, &json!({ "n": input }), &told).unwrap();
        let asked = told.asked();
        let mut plans: BTreeMap<String, Arc<Plan>> =
            called.iter().map(|(name, plan)| (format!("{name}@1"), Arc::clone(plan))).collect();
        plans.insert(format!("{name}@1"), plan);
        Self { seed, id, input, text, others, plans, prediction, asked }
    }

    /// The plan of a run by its workflow, `name@version#block`.
    fn plan_of(&self, workflow: &str) -> Option<Arc<Plan>> {
        let (whole, block) = workflow.split_once('#').unwrap_or((workflow, ""));
        let plan = self.plans.get(whole)?;
        if block.is_empty() { Some(Arc::clone(plan)) } else { plan.block(block).cloned() }
    }

    async fn publish(&self, store: &Store) {
        for (name, text) in &self.others {
            assert!(store.home().publish(name, 1, text).await.unwrap());
        }
        let name = self.text_name();
        assert!(store.home().publish(&name, 1, &self.text).await.unwrap());
    }

    fn text_name(&self) -> String {
        format!("w{:06}", self.seed)
    }

    /// Told when a test fails, so that it can be looked at again.
    fn story(&self, came: &Came) -> String {
        let states: Vec<_> = came.iter().map(|(id, run)| (id, run.state, &run.error)).collect();
        format!(
            "seed {0} (TIDEMILL_SEED={0} TIDEMILL_CASES=1): input {1}\n{2}\n{3:#?}\nruns: {states:?}",
            self.seed, self.input, self.text, self.others
        )
    }
}

/// Workflows that are tried side by side.
const AT_ONCE: u64 = 30;

/// What one test draws from, a stage at a time.
fn seeds(salt: u64) -> impl Iterator<Item = Range<u64>> {
    let (first, count) = (number("TIDEMILL_SEED", 20_000 * salt), number("TIDEMILL_CASES", 30));
    let end = first + count;
    (first..end).step_by(AT_ONCE as usize).map(move |from| from..end.min(from + AT_ONCE))
}

/// A server with all that works on it.
struct Stage {
    server: RedisServer,
    store: Store,
    ledger: Arc<Ledger>,
    cases: Vec<Case>,
}

impl Stage {
    /// Draws the cases and asks for all their runs at once.
    async fn set(seeds: Range<u64>) -> Self {
        let cases: Vec<Case> = seeds.map(Case::draw).collect();
        let server = RedisServer::start().await.unwrap();
        let settings = tidemill_store::Settings { url: server.url(), ..tidemill_store::Settings::default() };
        let store = Store::new(&settings, "tm", 1).unwrap();
        store.check().await.unwrap();
        for case in &cases {
            case.publish(&store).await;
            let input = json!({ "n": case.input }).to_string();
            let name = case.text_name();
            let words = ["XADD", "tm:{0}:runs", "*", "workflow", &name, "id", &case.id, "input", &input];
            server.cli(&words).await.unwrap();
        }
        Self { server, store, ledger: Ledger::new(), cases }
    }

    /// Every run of a case, by id.
    async fn came(&self, case: &Case) -> Came {
        let prefix = self.store.home().keys().run("");
        let keys = self.server.cli(&["KEYS", &format!("tm:{{0}}:run:{}*", case.id)]).await.unwrap();
        let mut came = Came::new();
        for id in keys.lines().filter_map(|key| key.strip_prefix(&prefix)) {
            if let Some(run) = self.store.home().run(id).await.unwrap() {
                came.insert(id.to_owned(), run);
            }
        }
        came
    }

    /// Plays the world around a run until it and all that it started have ended.
    async fn play(&self, case: &Case) -> Came {
        let mut world = World::of(case);
        let mut came = Came::new();
        let played = wait_until(LONG, "the end", async || {
            world.act(&self.store, case).await;
            let root = self.store.home().run(&case.id).await.unwrap();
            if !root.is_some_and(|run| run.state.is_terminal()) {
                return false;
            }
            came = self.came(case).await;
            came.values()
                .all(|run| run.state.is_terminal() && run.steps.values().all(|step| step.state.is_terminal()))
        })
        .await;
        if played.is_err() {
            came = self.came(case).await;
            let open: Vec<_> = came
                .values()
                .map(|run| {
                    (
                        &run.id,
                        run.state,
                        run.steps.iter().filter(|(_, step)| !step.state.is_terminal()).collect::<Vec<_>>(),
                    )
                })
                .filter(|(_, state, steps)| !state.is_terminal() || !steps.is_empty())
                .collect();
            panic!("it does not end: {open:#?}\nnot done: {world:?}\n{}", case.story(&came));
        }
        came
    }

    async fn play_all(&self) -> Vec<Came> {
        join_all(self.cases.iter().map(|case| self.play(case))).await
    }

    /// The question at the end.
    async fn judge(&self, came: &[Came], terms: Terms) {
        let certain = self.cases.iter().filter(|case| case.prediction.is_certain).count();
        let runs: usize = came.iter().map(BTreeMap::len).sum();
        println!(
            "{} workflows ({certain} certain), {runs} runs, {} calls",
            self.cases.len(),
            self.ledger.count("c")
        );
        let mut wrong = Vec::new();
        for (case, came) in self.cases.iter().zip(came) {
            if let Err(problem) = judge(case, came, &self.ledger, terms) {
                wrong.push((case, came, problem));
            }
        }
        if let Some((case, came, problem)) = wrong.iter().min_by_key(|(case, ..)| case.text.len()) {
            let all: Vec<_> =
                wrong.iter().map(|(case, _, problem)| format!("{}: {problem}", case.seed)).collect();
            panic!("{problem}\n{}\nall {}: {}", case.story(came), all.len(), all.join("\n"));
        }
        let ids: Vec<String> = came.iter().flat_map(|came| came.keys().cloned()).collect();
        wait_for(LONG, "everything to fit", async || stands_clean(&self.store, &self.cases, &ids).await)
            .await
            .unwrap();
        wait_for(LONG, "nothing to be left", async || self.nothing_is_left().await).await.unwrap();
        let shared = self.ledger.shared_keys();
        assert!(shared.is_empty(), "one key for different work: {shared:?}");
    }

    async fn nothing_is_left(&self) -> Result<(), String> {
        let home = self.store.home();
        let depth = home.depth("default").await.map_err(|error| error.to_string())?;
        let (live, _) = home.run_counts().await.map_err(|error| error.to_string())?;
        let requests = self.server.cli(&["XLEN", &home.keys().runs()]).await.unwrap();
        let keys = self.server.cli(&["KEYS", "tm:{0}:*"]).await.unwrap();
        let left: Vec<&str> = keys
            .lines()
            .filter(|key| key.contains(":mail:") || key.contains("@waits") || key.contains("deferred:"))
            .collect();
        if (depth.ready, depth.running, depth.deferred, live, requests.trim()) == (0, 0, 0, 0, "0")
            && left.is_empty()
        {
            return Ok(());
        }
        Err(format!("{depth:?}, {live} live runs, {requests} requests, {left:?}"))
    }

    fn worker(&self) -> Mortal {
        Mortal::worker(&self.server.url(), &self.ledger)
    }

    fn scheduler(&self) -> Mortal {
        Mortal::scheduler(&self.server.url())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_workflows_come_to_what_the_reference_says() {
    for seeds in seeds(1) {
        comes_true(&Stage::set(seeds).await).await;
    }
}

async fn comes_true(stage: &Stage) {
    let (_schedulers, _workers) = ([stage.scheduler(), stage.scheduler()], [stage.worker(), stage.worker()]);
    let came = stage.play_all().await;
    stage.judge(&came, Terms { deaths: 0, cancelled: false }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_workflows_come_to_the_same_while_workers_and_schedulers_are_killed() {
    for seeds in seeds(2) {
        comes_true_in_spite_of_deaths(&Stage::set(seeds).await).await;
    }
}

async fn comes_true_in_spite_of_deaths(stage: &Stage) {
    let expected: usize =
        stage.cases.iter().map(|case| case.asked.calls.values().map(Vec::len).sum::<usize>()).sum();
    let (mut schedulers, mut workers) =
        (vec![stage.scheduler(), stage.scheduler()], vec![stage.worker(), stage.worker()]);
    let mut deaths = 0;
    let killing = async {
        // while the first three quarters are done; the last one has to end in peace
        for round in 1..=6 {
            stage.ledger.reaches(expected * round / 8).await;
            deaths += 1;
            drop(workers.remove(0));
            workers.push(stage.worker());
            if round % 2 == 0 {
                drop(schedulers.remove(0));
                schedulers.push(stage.scheduler());
            }
        }
    };
    let (came, ()) = futures_util::future::join(stage.play_all(), killing).await;
    stage.judge(&came, Terms { deaths, cancelled: false }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_workflows_end_when_they_are_cancelled_at_any_moment() {
    for seeds in seeds(3) {
        ends_when_cancelled(&Stage::set(seeds).await).await;
    }
}

async fn ends_when_cancelled(stage: &Stage) {
    let (_scheduler, _workers) = (stage.scheduler(), [stage.worker(), stage.worker()]);
    let cancelling = join_all(stage.cases.iter().map(async |case| {
        let mut random = SmallRng::seed_from_u64(case.seed ^ 3);
        let calls: usize = case.asked.calls.values().map(Vec::len).sum();
        let (after, spares) = (random.random_range(0..=calls), random.random_bool(0.3));
        wait_until(LONG, "the moment", async || {
            let run = stage.store.home().run(&case.id).await.unwrap();
            run.is_some_and(|run| stage.ledger.count(&case.id) >= after || run.state.is_terminal())
        })
        .await
        .unwrap();
        let stop = StopRun {
            id: &case.id,
            to: RunState::Cancelled,
            who: "test",
            code: "cancelled",
            reason: "a test wants it",
            only_past_deadline: false,
            spares,
            by_force: false,
        };
        stage.store.home().stop_run(&stop).await.unwrap()
    }));
    let (came, stopped) = futures_util::future::join(stage.play_all(), cancelling).await;
    let stopped = stopped.iter().filter(|stopped| **stopped == Some(true)).count();
    assert!(stopped > 0, "one of them at least was cancelled before its end");
    println!("{stopped} were cancelled before their ends");
    stage.judge(&came, Terms { deaths: 0, cancelled: true }).await;
}

#[test]
fn most_random_workflows_are_certain_and_all_kinds_of_steps_are_among_them() {
    let cases: Vec<Case> = (0..300).map(Case::draw).collect();
    let certain = cases.iter().filter(|case| case.prediction.is_certain).count();
    assert!(certain > 150, "only {certain} of 300 can be predicted in full");
    let text: String = cases.iter().map(|case| case.text.as_str()).collect();
    let words = [
        "switch",
        "for_each",
        "repeat",
        "race",
        "wait",
        "signal",
        "approval",
        "steps",
        "workflow",
        "goto",
        "compensate",
        "finally",
        "join",
        "when",
        "batch",
        "detached",
    ];
    for word in words {
        assert!(text.contains(&format!("\"{word}\"")), "no {word} was drawn");
    }
    let states: std::collections::BTreeSet<_> =
        cases.iter().map(|case| case.prediction.state.as_str()).collect();
    assert_eq!(states.len(), 4, "{states:?}");
}
