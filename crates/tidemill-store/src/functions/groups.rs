//! Groups: of the runs that share a key, only so many at once.

use redis::{Cmd, Pipeline};
use tidemill_protocol::{EntryId, Labels};

use super::{Function, FunctionCall};
use crate::inspect::noted;
use crate::{Error, Partition, keys};

pub(super) const ENTER: Function = Function {
    name: "tm1_group_enter",
    keys: &["groups", "holders", "waiting"],
    args: &["name", "limit", "on_full", "member", "asked"],
};
pub(super) const LEAVE: Function = Function {
    name: "tm1_group_leave",
    keys: &["groups", "holders", "waiting"],
    args: &["name", "member", "most"],
};
pub(super) const REFUSE: Function = Function {
    name: "tm1_group_refuse",
    keys: &[
        "requests",
        "run",
        "audit",
        "live",
        "ended",
        "cancelled",
        "dead",
        "started",
        "labelled",
        "result",
        "reply",
    ],
    args: &[
        "group",
        "who",
        "entry",
        "id",
        "workflow",
        "error",
        "code",
        "reason",
        "ttl_ms",
        "has_reply",
        "keep_ms",
        "input",
    ],
};

/// What a group does with a run that comes while it is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// It waits for its turn.
    Queue,
    /// The oldest is cancelled, and it waits until that has ended.
    CancelOlder,
    /// It is refused.
    CancelNewer,
}

impl WhenFull {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::CancelOlder => "cancel_older",
            Self::CancelNewer => "cancel_newer",
        }
    }
}

/// A run in a group: ids that Redis gave do not tell their partition, so it stands with them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupMember {
    /// The partition that the run lives in.
    pub partition: u32,
    /// The run's id.
    pub run: String,
}

impl GroupMember {
    /// A run of a partition.
    #[must_use]
    pub fn new(partition: &Partition, run: &str) -> Self {
        Self { partition: partition.index(), run: run.to_owned() }
    }

    fn read(text: &str) -> Option<Self> {
        let (partition, run) = text.split_once(' ')?;
        Some(Self { partition: partition.parse().ok()?, run: run.to_owned() })
    }
}

impl std::fmt::Display for GroupMember {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.partition, self.run)
    }
}

/// A run that asks for a place.
#[derive(Debug, Clone)]
pub struct Entrance<'a> {
    /// The group's name.
    pub group: &'a str,
    /// How many of it may run at once.
    pub limit: u32,
    /// What if they do.
    pub when_full: WhenFull,
    /// Who asks.
    pub member: &'a GroupMember,
    /// When the run was asked for: 1000 times the millisecond, plus a number that orders those of one millisecond. It is the same
    /// each time that the run asks.
    pub asked: u64,
}

/// What the answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupVerdict {
    /// The run has a place until it leaves.
    Enters,
    /// It waits behind so many others.
    Waits(u64),
    /// It is not to run at all.
    Refused,
    /// A key of the group holds something that Tidemill did not write.
    Foreign,
}

/// The answer to an [`Entrance`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entered {
    /// What became of it.
    pub verdict: GroupVerdict,
    /// Who has to go for it; naming them does not make them go.
    pub gone: Vec<GroupMember>,
}

/// A requested run that ends before it began.
#[derive(Debug, Clone)]
pub struct RefusedRun<'a> {
    /// The entry that asks for it, owned by the caller.
    pub entry: &'a EntryId,
    /// The run's id.
    pub id: &'a str,
    /// Its workflow as `name@version`.
    pub workflow: &'a str,
    /// Its input, JSON text.
    pub input: &'a [u8],
    /// Stable word.
    pub code: &'a str,
    /// Sentence for people.
    pub reason: &'a str,
    /// How long its result is kept, in milliseconds; 0: not at all.
    pub ttl_ms: u64,
    /// A stream of the caller's that gets the result.
    pub reply_to: Option<&'a str>,
    /// How long the run is kept, in milliseconds.
    pub keep_ms: u64,
    /// What the run's hash holds besides.
    pub fields: Vec<(&'a str, &'a [u8])>,
    /// What it is found by.
    pub labels: &'a Labels,
    /// The run that asked for it.
    pub parent: Option<&'a str>,
}

/// A group with runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupCount {
    /// Its name.
    pub name: String,
    /// How many may run at once.
    pub limit: u64,
    /// How many have a place.
    pub holders: u64,
    /// How many wait for one.
    pub waiting: u64,
}

/// A run in a group, and since when it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRow {
    /// The run.
    pub member: GroupMember,
    /// When it was asked for, in Unix milliseconds.
    pub asked_ms: u64,
}

fn members(words: &[String]) -> Vec<GroupMember> {
    words.iter().filter_map(|word| GroupMember::read(word)).collect()
}

impl Partition {
    fn group_call(&self, function: &Function, group: &str) -> FunctionCall {
        let keys = self.keys();
        let mut call = FunctionCall::new(function, function.keys.len());
        call.key(&keys.groups()).key(&keys.group(group)).key(&keys.group_waiting(group));
        call
    }

    /// Asks for a place in a group whose name belongs to this partition. Asking again changes nothing.
    ///
    /// # Errors
    /// Redis is not reachable or refuses; the outcome is then unknown and may be asked for again.
    pub async fn enter_group(&self, entrance: &Entrance<'_>) -> Result<Entered, Error> {
        let mut call = self.group_call(&ENTER, entrance.group);
        call.arg(entrance.group).arg(entrance.limit).arg(entrance.when_full.as_str());
        call.arg(entrance.member.to_string()).arg(entrance.asked);
        let mut reply: Vec<String> = self.link().query("entering a group", call.command()).await?;
        let gone = reply.split_off(reply.len().min(2));
        let ahead = reply.get(1).and_then(|ahead| ahead.parse().ok()).unwrap_or(0);
        let verdict = match reply.first().map(String::as_str) {
            Some("1") => GroupVerdict::Enters,
            Some("0") => GroupVerdict::Waits(ahead),
            Some("-1") => GroupVerdict::Refused,
            Some("-2") => GroupVerdict::Foreign,
            _ => return Err(Error::Corrupt("tm1_group_enter gave no verdict".to_owned())),
        };
        Ok(Entered { verdict, gone: members(&gone) })
    }

    /// Gives a place or the wait for one back (`None`: nobody's) and replies whose turn it is, who asked first first. They stay as
    /// they are until they ask for their place themselves, so each may be told as often as one likes.
    ///
    /// # Errors
    /// Redis is not reachable or refuses; asking again changes nothing.
    pub async fn leave_group(
        &self,
        group: &str,
        member: Option<&GroupMember>,
        most: u32,
    ) -> Result<Vec<GroupMember>, Error> {
        let mut call = self.group_call(&LEAVE, group);
        call.arg(group).arg(member.map(ToString::to_string).unwrap_or_default()).arg(most);
        let words: Vec<String> = self.link().query("leaving a group", call.command()).await?;
        Ok(members(&words))
    }

    /// Ends a requested run before it began: cancelled. `false`: somebody else has the request, or a run of that id exists.
    ///
    /// # Errors
    /// Redis is not reachable or refuses; the outcome is then unknown and may be tried again.
    pub async fn refuse_run(&self, who: &str, refused: &RefusedRun<'_>) -> Result<bool, Error> {
        let (keys, id) = (self.keys(), refused.id);
        let sets = self.sets_of(refused.labels, refused.parent);
        let mut call = FunctionCall::new(&REFUSE, REFUSE.keys.len() + sets.len());
        let run = keys.run(id);
        call.key(&keys.runs()).key(&run).key(&keys.audit(id)).key(&keys.live()).key(&keys.ended());
        call.key(&keys.cancelled()).key(&keys.dead()).key(&keys.started()).key(&keys.labelled());
        call.key(&keys.result(id)).key(refused.reply_to.unwrap_or(&run));
        for set in &sets {
            call.key(set);
        }
        let error = serde_json::json!({ "code": refused.code, "message": refused.reason }).to_string();
        call.arg(keys::SCHEDULERS).arg(who).arg(refused.entry.as_str()).arg(id).arg(refused.workflow);
        call.arg(error).arg(refused.code).arg(refused.reason).arg(refused.ttl_ms);
        call.arg(u8::from(refused.reply_to.is_some())).arg(refused.keep_ms).arg(refused.input);
        for (name, value) in &refused.fields {
            call.arg(*name).arg(*value);
        }
        if !refused.labels.is_empty() {
            call.arg("lb").arg(refused.labels.to_json());
        }
        let reply: i64 = self.link().query("refusing a run", call.command()).await?;
        Ok(reply == 1)
    }

    /// The groups whose names belong to this partition and that have runs, with their limits; a page of them and where the next
    /// begins, 0 after the last.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn groups(&self, cursor: u64) -> Result<(u64, Vec<GroupCount>), Error> {
        let mut ask = Cmd::new();
        ask.arg("HSCAN").arg(self.keys().groups()).arg(cursor).arg("COUNT").arg(200);
        let (next, words): (u64, Vec<String>) = self.link().query("listing groups", &ask).await?;
        let named: Vec<(&String, u64)> = words
            .chunks_exact(2)
            .filter_map(|pair| Some((pair.first()?, pair.get(1)?.parse().unwrap_or(0))))
            .collect();
        let counts = self.group_counts(&named).await?;
        Ok((next, counts))
    }

    /// One group; `None` when it has no runs.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn group(&self, name: &str) -> Result<Option<GroupCount>, Error> {
        let mut ask = Cmd::new();
        ask.arg("HGET").arg(self.keys().groups()).arg(name);
        let limit: Option<u64> = self.link().query("asking for a group", &ask).await?;
        let Some(limit) = limit else { return Ok(None) };
        Ok(self.group_counts(&[(&name.to_owned(), limit)]).await?.pop())
    }

    async fn group_counts(&self, named: &[(&String, u64)]) -> Result<Vec<GroupCount>, Error> {
        if named.is_empty() {
            return Ok(Vec::new());
        }
        let mut ask = Pipeline::with_capacity(named.len() * 2);
        for (name, _) in named {
            ask.cmd("ZCARD").arg(self.keys().group(name));
            ask.cmd("ZCARD").arg(self.keys().group_waiting(name));
        }
        let counts: Vec<u64> = self.link().pipeline("counting a group's runs", &ask).await?;
        let count = |(index, (name, limit)): (usize, &(&String, u64))| GroupCount {
            name: (*name).clone(),
            limit: *limit,
            holders: counts.get(index * 2).copied().unwrap_or(0),
            waiting: counts.get(index * 2 + 1).copied().unwrap_or(0),
        };
        Ok(named.iter().enumerate().map(count).collect())
    }

    /// The runs of a group, who asked first first, from `offset`: those that wait, or those that have a place.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn group_rows(
        &self,
        name: &str,
        waiting: bool,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<GroupRow>, Error> {
        let key = if waiting { self.keys().group_waiting(name) } else { self.keys().group(name) };
        let mut ask = Cmd::new();
        ask.arg("ZRANGE").arg(key).arg(offset).arg(offset + limit.max(1) - 1).arg("WITHSCORES");
        let rows: Vec<(String, f64)> = self.link().query("listing a group's runs", &ask).await?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a score is a whole number, far below 2^53"
        )]
        let row = |(member, asked): (String, f64)| {
            Some(GroupRow { member: GroupMember::read(&member)?, asked_ms: asked as u64 / 1000 })
        };
        Ok(rows.into_iter().filter_map(row).collect())
    }

    /// How many wait before a run in a group; `None` when it does not wait there.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn group_place(&self, name: &str, member: &GroupMember) -> Result<Option<u64>, Error> {
        let mut ask = Cmd::new();
        ask.arg("ZRANK").arg(self.keys().group_waiting(name)).arg(member.to_string());
        self.link().query("asking for a place in a group", &ask).await
    }

    /// The group in which a requested run waits; `None` when it is not put aside, or for another reason.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn group_of_request(&self, run: &str) -> Result<Option<String>, Error> {
        let mut ask = Cmd::new();
        ask.arg("HGET").arg(self.keys().deferred(keys::RUNS)).arg(format!("j:{run}"));
        let packed: Option<Vec<u8>> = self.link().query("asking why a run waits", &ask).await?;
        Ok(packed.and_then(|packed| noted(&packed, b"_group")))
    }

    /// Has a requested run that was put aside be looked at now, whatever its time. `false`: it is not put aside.
    ///
    /// # Errors
    /// Redis is not reachable or refuses; asking again does no harm.
    pub async fn hasten_request(&self, run: &str) -> Result<bool, Error> {
        let member = format!("j:{run}");
        let mut ask = Cmd::new();
        ask.arg("ZADD").arg(self.keys().due(keys::RUNS)).arg("XX").arg(1).arg(&member);
        let _: u64 = self.link().query("hastening a run", &ask).await?;
        let promoted = self.promote(keys::RUNS, &[member]).await?;
        Ok(promoted.first().copied().unwrap_or(false))
    }
}
