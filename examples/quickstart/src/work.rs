//! The work itself: publish the workflow, ask for one run per record by plain XADD, follow the answers.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use redis::aio::MultiplexedConnection;
use redis::streams::StreamReadReply;
use redis::{AsyncConnectionConfig, Client, Cmd, Pipeline};
use serde::Deserialize;
use serde_json::Value;
use tidemill_store::Partition;
use tidemill_workflow::{Plan, ToolCatalog};
use tokio::time::Instant;

use crate::progress::Progress;
use crate::records::Record;

/// The workflow, as it stands beside this program's source.
pub(crate) const WORKFLOW: &str = include_str!("../workflow.yaml");
/// The stream that gets the results: any key outside the pool's own.
pub(crate) const REPLIES: &str = "quickstart:results";
/// How many commands are sent before their replies are awaited.
const BATCH: usize = 1_000;
/// How long a result can be read by its id, in milliseconds.
const RESULT_TTL_MS: u64 = 3_600_000;
/// How long one read of results blocks, and so how often the bars move.
const BLOCK: Duration = Duration::from_millis(100);
/// After so long without any run's end something is wrong.
const STALLED: Duration = Duration::from_secs(90);

/// A run's result, as it came.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// The JSON text.
    pub(crate) text: String,
    /// `succeeded`, `failed`, …
    pub(crate) state: String,
    /// The run's output.
    pub(crate) output: Value,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Returned {
    /// One answer per record, in the order of the records.
    pub(crate) answers: Vec<Answer>,
    /// Answers to runs that had been answered before: none, if all is well.
    pub(crate) doubled: u64,
    /// From the first XADD to the last answer.
    pub(crate) wall: Duration,
}

/// The tools that the workers announced.
struct Announced(HashMap<String, Value>);

impl ToolCatalog for Announced {
    fn knows(&self, tool: &str) -> bool {
        self.0.contains_key(tool)
    }

    fn input_schema(&self, tool: &str) -> Option<Value> {
        self.0.get(tool)?.get("input_schema").filter(|schema| !schema.is_null()).cloned()
    }

    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
}

/// Checks the workflow against the tools that the workers announced, and publishes it.
pub(crate) async fn publish(home: &Partition) -> Result<Plan> {
    let tools = home.tools().await?.into_iter();
    let tools = tools.map(|(name, text)| (name, serde_json::from_str(&text).unwrap_or_default()));
    let plan = Plan::from_source(WORKFLOW, "examples/quickstart/workflow.yaml", &Announced(tools.collect()))?;
    if !home.publish(&plan.name, plan.version, WORKFLOW).await? {
        bail!("version {} of workflow {} is published already with another text", plan.version, plan.name);
    }
    Ok(plan)
}

/// A plain connection, as any Redis client has it.
pub(crate) async fn plain_connection(url: &str) -> Result<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(10)));
    let client = Client::open(url).context("the URL of the private Redis")?;
    let connection = client.get_multiplexed_async_connection_with_config(&config).await;
    connection.context("connecting to the private Redis")
}

/// Asks for one run per record: what `redis-cli XADD tm:{0}:runs '*' workflow … input … id …` does.
pub(crate) async fn enqueue(
    redis: &mut MultiplexedConnection,
    runs: &str,
    workflow: &str,
    records: &[Record],
) -> Result<()> {
    for some in records.chunks(BATCH) {
        let mut pipeline = Pipeline::with_capacity(some.len());
        for record in some {
            pipeline.cmd("XADD").arg(runs).arg("*").arg("workflow").arg(workflow);
            pipeline.arg("id").arg(&record.id).arg("input").arg(serde_json::to_string(record)?);
            pipeline.arg("reply_to").arg(REPLIES).arg("result_ttl_ms").arg(RESULT_TTL_MS).ignore();
        }
        pipeline.query_async::<()>(redis).await.context("enqueueing the runs")?;
    }
    Ok(())
}

/// Reads results as they come until every record has one.
#[derive(Debug)]
pub(crate) struct Follower<'a> {
    places: HashMap<&'a str, usize>,
    answers: Vec<Option<Answer>>,
    doubled: u64,
    cursor: String,
}

impl<'a> Follower<'a> {
    pub(crate) fn new(records: &'a [Record]) -> Self {
        let places = records.iter().enumerate().map(|(place, record)| (record.id.as_str(), place));
        Self {
            places: places.collect(),
            answers: vec![None; records.len()],
            doubled: 0,
            cursor: "0".to_owned(),
        }
    }

    /// Follows the work to its end. `begun` is when the first run was asked for.
    pub(crate) async fn follow(
        mut self,
        redis: &mut MultiplexedConnection,
        home: &Partition,
        progress: &Progress,
        begun: Instant,
    ) -> Result<Returned> {
        let (mut missing, mut last) = (self.answers.len(), Instant::now());
        while missing > 0 {
            let fresh = self.read(redis).await?;
            missing -= fresh;
            if fresh > 0 {
                last = Instant::now();
            } else if last.elapsed() > STALLED {
                bail!("no run has ended for {} s, and {missing} are missing", STALLED.as_secs());
            }
            progress.show(self.answers.len() - missing, self.steps_done(home).await?);
        }
        let wall = begun.elapsed();
        let answers = self.answers.into_iter().flatten().collect();
        Ok(Returned { answers, doubled: self.doubled, wall })
    }

    /// One read; tells how many runs got their first answer.
    async fn read(&mut self, redis: &mut MultiplexedConnection) -> Result<usize> {
        let mut ask = Cmd::new();
        ask.arg("XREAD").arg("COUNT").arg(BATCH).arg("BLOCK").arg(BLOCK.as_millis());
        ask.arg("STREAMS").arg(REPLIES).arg(&self.cursor);
        let reply: Option<StreamReadReply> = ask.query_async(redis).await.context("reading results")?;
        let entries = reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids);
        let mut fresh = 0;
        for entry in entries {
            let text: Option<String> = entry.get("result");
            let text = text.with_context(|| format!("entry {} of {REPLIES} has no result", entry.id))?;
            fresh += usize::from(self.note(text)?);
            self.cursor = entry.id;
        }
        Ok(fresh)
    }

    fn note(&mut self, text: String) -> Result<bool> {
        #[derive(Deserialize)]
        struct Wire {
            id: String,
            state: String,
            #[serde(default)]
            output: Value,
        }
        let wire: Wire =
            serde_json::from_str(&text).with_context(|| format!("a result is not as documented: {text}"))?;
        let place = self.places.get(wire.id.as_str()).and_then(|place| self.answers.get_mut(*place));
        let place = place.with_context(|| format!("a result for {:?}, which nobody asked for", wire.id))?;
        if place.is_some() {
            self.doubled += 1;
            return Ok(false);
        }
        *place = Some(Answer { text, state: wire.state, output: wire.output });
        Ok(true)
    }

    /// How many steps have ended in the runs that have not.
    async fn steps_done(&self, home: &Partition) -> Result<u64> {
        let open =
            self.places.iter().filter(|(_, place)| self.answers.get(**place).is_some_and(Option::is_none));
        let wanted: Vec<_> = open.map(|(id, _)| (home.keys().run(id), vec!["d".to_owned()])).collect();
        let rows = home.run_fields(&wanted).await?;
        let counts = rows.into_iter().flatten().flatten();
        Ok(counts.filter_map(|count| std::str::from_utf8(&count).ok()?.parse::<u64>().ok()).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::Follower;
    use crate::records;

    #[test]
    fn a_second_answer_to_a_run_is_counted_and_not_taken() {
        let records = records::take(2);
        let mut follower = Follower::new(&records);
        let text = |state: &str| format!(r#"{{"id":"{}","state":"{state}","output":null}}"#, records[1].id);
        assert!(follower.note(text("succeeded")).unwrap());
        assert!(!follower.note(text("failed")).unwrap());
        assert_eq!(follower.doubled, 1);
        assert_eq!(follower.answers[1].as_ref().map(|answer| answer.state.as_str()), Some("succeeded"));
        assert!(follower.note(r#"{"id":"stranger","state":"failed"}"#.to_owned()).is_err());
    }
}
