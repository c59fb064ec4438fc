//! Events: what runs and others publish, and the steps that listen for it.

use bytes::Bytes;
use redis::Cmd;
use redis::streams::{StreamAutoClaimReply, StreamId, StreamReadReply};
use tidemill_protocol::EntryId;

use crate::{Error, Partition, Remedy};

/// The group of those who bring events to the steps that listen.
const COURIERS: &str = "couriers";
/// All of them read as one consumer: each entry goes to one of them, and what one leaves behind another takes up.
const COURIER: &str = "courier";
/// How long an entry is left to the one who read it, in milliseconds.
const LEFT_MS: u64 = 30_000;
/// About how many events are kept.
const KEPT: u64 = 100_000;

/// A published event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedEvent {
    /// Its entry in the stream of events.
    pub entry: EntryId,
    /// The event as JSON text.
    pub event: Bytes,
}

/// A step that listens for an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ear {
    /// The run.
    pub run: String,
    /// The step's index.
    pub step: u32,
}

impl Partition {
    /// Publishes an event: a `CloudEvents` object as JSON text.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn publish_event(&self, event: &str) -> Result<EntryId, Error> {
        let mut add = Cmd::new();
        add.arg("XADD")
            .arg(self.keys().events())
            .arg("MAXLEN")
            .arg("~")
            .arg(KEPT)
            .arg("*")
            .arg("event")
            .arg(event);
        let entry: String = self.link().query("publishing an event", &add).await?;
        EntryId::parse(entry).map_err(|error| Error::Corrupt(error.to_string()))
    }

    /// Events that nobody has brought to their listeners yet, or (with `left`) that somebody began to and did not finish.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn next_events(&self, most: usize, left: bool) -> Result<Vec<PublishedEvent>, Error> {
        let mut read = Cmd::new();
        if left {
            read.arg("XAUTOCLAIM").arg(self.keys().events()).arg(COURIERS).arg(COURIER).arg(LEFT_MS).arg("0");
            read.arg("COUNT").arg(most);
        } else {
            read.arg("XREADGROUP").arg("GROUP").arg(COURIERS).arg(COURIER).arg("COUNT").arg(most);
            read.arg("STREAMS").arg(self.keys().events()).arg(">");
        }
        let entries = if left {
            self.link()
                .query::<StreamAutoClaimReply>("taking up events", &read)
                .await
                .map(|reply| reply.claimed)
        } else {
            let reply = self.link().query::<Option<StreamReadReply>>("reading events", &read).await;
            reply
                .map(|reply| reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids).collect())
        };
        match entries {
            Ok(entries) => Ok(entries.into_iter().filter_map(published).collect()),
            Err(error) if error.remedy() == Remedy::CreateGroup => {
                let mut create = Cmd::new();
                create
                    .arg("XGROUP")
                    .arg("CREATE")
                    .arg(self.keys().events())
                    .arg(COURIERS)
                    .arg("0")
                    .arg("MKSTREAM");
                match self.link().raw("creating a group", &create).await {
                    Ok(_) => Ok(Vec::new()),
                    Err(Error::Redis { source, .. }) if source.code() == Some("BUSYGROUP") => Ok(Vec::new()),
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// These events have been brought to their listeners.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn events_done(&self, entries: &[EntryId]) -> Result<(), Error> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut done = Cmd::new();
        done.arg("XACK").arg(self.keys().events()).arg(COURIERS);
        for entry in entries {
            done.arg(entry.to_string());
        }
        self.link().query("acknowledging events", &done).await
    }

    /// The steps that listen for events under this signal.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn ears(&self, signal: &str) -> Result<Vec<Ear>, Error> {
        let pattern = format!("{} *", escaped(signal));
        let (mut cursor, mut ears) = (0_u64, Vec::new());
        loop {
            let mut scan = Cmd::new();
            scan.arg("SSCAN")
                .arg(self.keys().ears())
                .arg(cursor)
                .arg("MATCH")
                .arg(&pattern)
                .arg("COUNT")
                .arg(1_000);
            let (next, members): (u64, Vec<String>) = self.link().query("finding listeners", &scan).await?;
            ears.extend(members.iter().filter_map(|member| ear(member)));
            if next == 0 {
                return Ok(ears);
            }
            cursor = next;
        }
    }

    /// A step does not listen any more: it has ended, or its run has.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn deaf(&self, signal: &str, ear: &Ear) -> Result<(), Error> {
        let mut remove = Cmd::new();
        remove.arg("SREM").arg(self.keys().ears()).arg(format!("{signal} {} {}", ear.run, ear.step));
        self.link().query("forgetting a listener", &remove).await
    }
}

fn published(entry: StreamId) -> Option<PublishedEvent> {
    let event: Bytes = entry.get::<Vec<u8>>("event")?.into();
    Some(PublishedEvent { entry: EntryId::parse(entry.id).ok()?, event })
}

/// `<signal> <run> <step>`; the signal has no space.
fn ear(member: &str) -> Option<Ear> {
    let (rest, step) = member.rsplit_once(' ')?;
    let (_, run) = rest.rsplit_once(' ')?;
    Some(Ear { run: run.to_owned(), step: step.parse().ok()? })
}

/// Text as a pattern that matches just it.
fn escaped(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\' | '^') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ear_is_read_from_its_member() {
        assert_eq!(ear("event:a.b r1~x.0 3"), Some(Ear { run: "r1~x.0".into(), step: 3 }));
        assert_eq!(ear("event:a.b"), None);
        assert_eq!(escaped("event:a*[b]"), "event:a\\*\\[b\\]");
    }
}
