//! Which version a start gets from a scheduler, and what it does on a stored definition that is not what was published.

use tidemill_protocol::RunState;
use tidemill_scheduler::{Error, Scheduler};
use tidemill_store::{Publication, Publishing, VersionMove, VersionMoved, VersionState};

use crate::pool::{Pool, quick};

fn text(version: u32) -> String {
    format!("name: w\nversion: {version}\nsteps: [{{ id: a, tool: echo }}]\n")
}

async fn publish(pool: &Pool, version: u32, state: VersionState) {
    let source = text(version);
    let publication = Publication { name: "w", version, source: &source, state, who: "test", why: "test" };
    assert_eq!(pool.home().publish_as(&publication).await.unwrap(), Publishing::New);
}

async fn go(pool: &Pool, version: u32, from: VersionState, to: VersionState) {
    let wanted = VersionMove { name: "w", version, from, to, who: "test", why: "test" };
    assert_eq!(pool.home().move_version(&wanted).await.unwrap(), VersionMoved::Moved);
}

async fn started(pool: &Pool, target: &str, id: &str) -> String {
    pool.ask(&["workflow", target, "id", id]).await;
    pool.run(id).await.workflow
}

#[tokio::test]
async fn a_start_gets_the_newest_active_version_and_runs_under_way_keep_theirs() {
    use VersionState::{Active, Archived, Deprecated, Draft};
    let pool = Pool::start().await;
    publish(&pool, 1, Active).await;
    publish(&pool, 2, Active).await;
    publish(&pool, 3, Draft).await;
    let scheduler = pool.schedule(quick()).await;
    assert_eq!(started(&pool, "w", "plain").await, "w@2");
    assert_eq!(started(&pool, "w@3-draft", "draft").await, "w@3");
    go(&pool, 3, Draft, Active).await;
    assert_eq!(started(&pool, "w", "activated").await, "w@3");
    go(&pool, 3, Active, Deprecated).await;
    assert_eq!(started(&pool, "w", "back").await, "w@2");
    assert_eq!(started(&pool, "w@3", "deprecated").await, "w@3");
    scheduler.count_is("tidemill_deprecated_starts_total{workflow=\"w@3\"}", 1).await;
    go(&pool, 3, Deprecated, Archived).await;
    let run = pool.home().run("deprecated").await.unwrap().unwrap();
    assert_eq!((run.state, run.workflow.as_str()), (RunState::Running, "w@3"));
}

#[tokio::test]
async fn what_may_not_be_started_goes_to_the_dead_letters_and_holds_up_nothing() {
    use VersionState::{Active, Archived, Draft};
    let pool = Pool::start().await;
    publish(&pool, 1, Draft).await;
    let scheduler = pool.schedule(quick()).await;
    pool.ask(&["workflow", "w", "id", "none"]).await;
    pool.ask(&["workflow", "w@1", "id", "draft"]).await;
    pool.count_is("XLEN", "tm:{0}:dead", 2).await;
    go(&pool, 1, Draft, Active).await;
    go(&pool, 1, Active, Archived).await;
    publish(&pool, 2, Active).await;
    pool.cli(&["HSET", "tm:{0}:workflow:w", "2", &text(2).replacen("echo", "ecio", 1)]).await;
    pool.ask(&["workflow", "w@1", "id", "archived"]).await;
    pool.ask(&["workflow", "w", "id", "damaged"]).await;
    pool.count_is("XLEN", "tm:{0}:dead", 4).await;
    let letters = pool.home().letters(None, 10).await.unwrap();
    let codes: Vec<_> = letters.iter().map(|letter| letter.code.as_str()).collect();
    for code in ["no_active_version", "workflow_draft", "workflow_archived", "damaged_definition"] {
        assert!(codes.contains(&code), "{code} is not in {codes:?}");
        scheduler.count_is(&format!("tidemill_runs_refused_total{{code=\"{code}\"}}"), 1).await;
    }
    scheduler.count_is("tidemill_definition_validation_failed_total{code=\"damaged_definition\"}", 1).await;
    pool.cli(&["HSET", "tm:{0}:workflow:w", "2", &text(2)]).await;
    assert_eq!(started(&pool, "w", "mended").await, "w@2");
}

#[tokio::test]
async fn a_scheduler_does_not_start_on_a_damaged_definition_and_does_not_mind_a_bad_draft() {
    let pool = Pool::start().await;
    publish(&pool, 1, VersionState::Active).await;
    let (state, source) = (VersionState::Draft, "name: [");
    let draft = Publication { name: "bad", version: 1, source, state, who: "test", why: "test" };
    assert_eq!(pool.home().publish_as(&draft).await.unwrap(), Publishing::New);
    Scheduler::new(pool.setup(quick())).unwrap().prepare().await.unwrap();
    pool.cli(&["HSET", "tm:{0}:workflow:w", "1", "name: w"]).await;
    let error = Scheduler::new(pool.setup(quick())).unwrap().prepare().await.unwrap_err();
    assert!(matches!(&error, Error::BadWorkflows(what) if what.contains("w@1 is damaged")), "{error}");
    assert!(error.to_string().contains("tidemill workflow archive"), "{error}");
}
