//! Promises about taking work in.

use std::time::Duration;

use tidemill_store::{Admission, Durability, Enqueued, keys};

use crate::pool::{Pool, claim, field};

const KEEP: Duration = Duration::from_secs(60);

fn job<'a>(id: Option<&'a str>) -> Admission<'a> {
    let mut fields: Vec<(&str, &[u8])> = vec![("tool", b"echo"), ("input", b"\xf0\x9f\x8c\x8a\x00\xff")];
    if let Some(id) = id {
        fields.push(("id", id.as_bytes()));
    }
    Admission { id, fields, ..Admission::default() }
}

fn entry_of(answer: &Enqueued) -> &str {
    let Enqueued::Ready(entry) = answer else { panic!("{answer:?}") };
    entry
}

async fn enqueue(pool: &Pool, queue: &str, bound: u64, jobs: &[Admission<'_>]) -> Vec<Enqueued> {
    pool.home().enqueue(queue, bound, KEEP, jobs).await.unwrap()
}

pub(crate) async fn an_answer_tells_what_became_of_each_job(pool: &Pool) {
    let later = Admission { delay_ms: Some(3_600_000), ..job(Some("later")) };
    let past = Admission { run_at_ms: Some(1), ..job(Some("past")) };
    let answers =
        enqueue(pool, "default", 0, &[job(None), job(Some("a")), job(Some("a")), later, past]).await;
    let first = entry_of(&answers[0]).to_owned();
    entry_of(&answers[1]);
    assert_eq!(answers[2..4], [Enqueued::Duplicate, Enqueued::Deferred]);
    entry_of(&answers[4]);
    pool.interruption().await;
    let again = enqueue(pool, "default", 0, &[job(Some("a")), job(Some("later"))]).await;
    assert_eq!(again, [Enqueued::Duplicate, Enqueued::Duplicate], "an id is remembered");
    let claimed = claim(&mut pool.worker("w1"), "default", 3).await;
    assert_eq!(claimed[0].entry.as_str(), first);
    let input = claimed[0].fields.iter().find(|(name, _)| &**name == b"input").unwrap();
    assert_eq!(&*input.1, b"\xf0\x9f\x8c\x8a\x00\xff", "byte for byte");
    assert_eq!(pool.home().queues().await.unwrap(), ["default"]);
    let depth = pool.home().depth("default").await.unwrap();
    assert_eq!((depth.ready, depth.running, depth.deferred), (0, 3, 1));
}

pub(crate) async fn a_full_queue_refuses_and_takes_again_when_there_is_room(pool: &Pool) {
    let answers = enqueue(pool, "default", 2, &[job(None), job(Some("b")), job(Some("c"))]).await;
    entry_of(&answers[1]);
    assert_eq!(answers[2], Enqueued::QueueFull);
    pool.interruption().await;
    assert_eq!(enqueue(pool, "default", 2, &[job(Some("c"))]).await, [Enqueued::QueueFull]);
    let claimed = claim(&mut pool.worker("w1"), "default", 1).await;
    pool.home().acknowledge("default", &[claimed[0].entry.clone()]).await.unwrap();
    let answers = enqueue(pool, "default", 2, &[job(Some("c")), job(Some("d"))]).await;
    entry_of(&answers[0]);
    assert_eq!(
        answers[1],
        Enqueued::QueueFull,
        "a refused id is not remembered, an accepted one fills the queue"
    );
}

pub(crate) async fn delayed_work_waits_and_keeps_its_id(pool: &Pool) {
    let soon = Admission { delay_ms: Some(20), ..job(Some("soon")) };
    let later = Admission { delay_ms: Some(3_600_000), ..job(Some("later")) };
    for queue in ["default", keys::RUNS] {
        let ids = [format!("{queue}-soon"), format!("{queue}-later")];
        let jobs = [
            Admission { id: Some(&ids[0]), ..soon.clone() },
            Admission { id: Some(&ids[1]), ..later.clone() },
        ];
        assert_eq!(enqueue(pool, queue, 0, &jobs).await, [Enqueued::Deferred, Enqueued::Deferred]);
        let members: Vec<_> = ids.iter().map(|id| format!("j:{id}")).collect();
        pool.interruption().await;
        assert_eq!(pool.becomes_due(queue).await, members[..1]);
        assert_eq!(pool.home().promote(queue, &members).await.unwrap(), [true, false], "not before its time");
        assert_eq!(pool.home().promote(queue, &members).await.unwrap(), [false, false], "only once");
        let left = pool.home().due_at(queue, &members).await.unwrap();
        assert!(left[0].is_none() && left[1].is_some());
    }
    let claimed = claim(&mut pool.worker("w1"), "default", 1).await;
    assert_eq!(field(&claimed[0], "id").unwrap(), "soon");
    let entry = &claimed[0].entry;
    let mine = [(entry, entry, "default-soon")];
    assert_eq!(
        pool.home().accept("default", KEEP, &mine).await.unwrap(),
        [true],
        "the delayed one is the job"
    );
    assert_eq!(
        pool.home().accept("default", KEEP, &mine).await.unwrap(),
        [true],
        "asking again changes nothing"
    );
    let second = pool.xadd(&pool.jobs(), &["tool", "echo", "id", "default-soon"]).await;
    claim(&mut pool.worker("w1"), "default", 1).await;
    let other = [(&second, &second, "default-soon")];
    assert_eq!(pool.home().accept("default", KEEP, &other).await.unwrap(), [false]);
    assert_eq!(claim(&mut pool.scheduler("s1"), keys::RUNS, 1).await.len(), 1);
}

/// The servers of these tests keep nothing on disk; under Sentinel there is a replica until the failover.
pub(crate) async fn an_answer_never_claims_more_safety_than_there_is(pool: &Pool) {
    pool.interruption().await;
    for wanted in Durability::ALL {
        let within = (wanted, Duration::from_millis(50));
        let (taken, assurance) =
            pool.home().enqueue_assured(("default", 0), KEEP, &[job(None)], within).await.unwrap();
        entry_of(&taken[0]);
        let reached = match wanted {
            Durability::Fast => "fast",
            Durability::Replicated => "unknown", // nobody confirms, and the work is there all the same
            Durability::Fsync => "fast",
        };
        assert_eq!(assurance.as_str(), reached, "{wanted:?}: {assurance:?}");
        assert_eq!(assurance.reason.is_some(), wanted != Durability::Fast);
    }
    assert_eq!(pool.length(&pool.jobs()).await, "3");
}
