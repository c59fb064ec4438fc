//! What a claimed entry is: a job as the contract describes it, or a part of a run as Tidemill itself dispatches it.

use bytes::Bytes;

use crate::job::{Job, Malformed, Reader, tickets};

/// What a claimed entry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// A job as the contract describes it.
    Job(Job),
    /// A part of a run.
    Part(RunPart),
    /// Something that whoever starts runs is told, in the stream of requested runs.
    Notice(Notice),
}

/// Something that whoever starts runs is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A run has ended that others wait for, or that has steps waiting.
    Ended {
        /// The run's id.
        run: String,
    },
    /// A request was cancelled that waited for its turn in a group.
    Left {
        /// The id of the run that was asked for.
        run: String,
        /// The group's name.
        group: String,
    },
}

/// A part of a run, dispatched by the function library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunPart {
    /// The run's id.
    pub run: String,
    /// Its workflow as `name@version`.
    pub workflow: String,
    /// Which part.
    pub part: Part,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// How many workers died holding it.
    pub deaths: u32,
    /// When the first attempt began, in Unix milliseconds; only set for a retry.
    pub first_attempt_ms: Option<u64>,
    /// The tiers from whose lines it was called up.
    pub tickets: Vec<String>,
}

/// Which part of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A step.
    Step {
        /// Its index in the plan.
        step: u32,
    },
    /// One item of a `for_each`.
    Item {
        /// The step's index.
        step: u32,
        /// The item's index.
        item: u64,
    },
    /// The joining of a `for_each`'s outputs.
    Gather {
        /// The step's index.
        step: u32,
    },
    /// The computing of the run's output.
    Finish,
    /// What is next at the run's end: a step that undoes another, one that comes last, or the end itself.
    Close,
    /// The rest of a fan-out too wide for one call.
    Fan {
        /// The step whose dependents are dispatched; absent for the run's first steps.
        origin: Option<u32>,
        /// Where to go on.
        from: u32,
        /// The mode letters of the settling call.
        mode: String,
    },
}

impl Notice {
    /// The notice that an entry is, if it is one.
    #[must_use]
    pub fn of(fields: &[(Bytes, Bytes)]) -> Option<Self> {
        // one that was taken from the dead carries what moving adds
        let mut own = fields.iter().filter(|(name, _)| !name.starts_with(b"_"));
        let (Some((name, told)), None) = (own.next(), own.next()) else { return None };
        let told = std::str::from_utf8(told).ok()?;
        match &**name {
            b"ended" => Some(Self::Ended { run: told.to_owned() }),
            b"left" => {
                let (run, group) = told.split_once(' ')?;
                Some(Self::Left { run: run.to_owned(), group: group.to_owned() })
            }
            _ => None,
        }
    }
}

impl Work {
    /// Reads an entry.
    ///
    /// # Errors
    /// The entry is neither a job (see [`Reader::read`]) nor a well-formed part of a run.
    pub fn read(reader: Reader, fields: Vec<(Bytes, Bytes)>) -> Result<Self, Malformed> {
        if let Some(notice) = Notice::of(&fields) {
            return Ok(Self::Notice(notice));
        }
        if fields.first().is_some_and(|(name, _)| &**name == b"run")
            || fields.iter().any(|(name, _)| &**name == b"run")
        {
            return RunPart::read(&fields).map(Self::Part);
        }
        reader.read(fields).map(Self::Job)
    }
}

impl RunPart {
    /// The field `run` reads `<run> <workflow>`, with `<step>` and for an item `<item>` behind it; other fields are rare.
    fn read(fields: &[(Bytes, Bytes)]) -> Result<Self, Malformed> {
        let find = |name: &str| {
            let value =
                fields.iter().find(|(field, _)| &**field == name.as_bytes()).map(|(_, value)| &**value);
            value.map(|value| std::str::from_utf8(value).map_err(|_| bad(name))).transpose()
        };
        let number = |name: &str| find(name)?.map(|v| v.parse::<u32>().map_err(|_| bad(name))).transpose();
        let mut words = find("run")?.ok_or_else(|| bad("run"))?.split(' ');
        let (Some(run), Some(workflow)) = (words.next(), words.next()) else { return Err(bad("run")) };
        let step = words.next().map(|step| step.parse::<u32>().map_err(|_| bad("run"))).transpose()?;
        let item = words.next().map(|item| item.parse::<u64>().map_err(|_| bad("run"))).transpose()?;
        let part = match (step, item) {
            (Some(step), Some(item)) => Part::Item { step, item },
            (Some(step), None) if find("gather")?.is_some() => Part::Gather { step },
            (Some(step), None) => Part::Step { step },
            (None, _) if find("finish")?.is_some() => Part::Finish,
            (None, _) if find("close")?.is_some() => Part::Close,
            (None, _) => {
                let origin = find("fan")?.ok_or_else(|| bad("fan"))?;
                Part::Fan {
                    origin: if origin == "roots" {
                        None
                    } else {
                        Some(origin.parse().map_err(|_| bad("fan"))?)
                    },
                    from: number("from")?.ok_or_else(|| bad("from"))?,
                    mode: find("mode")?.unwrap_or_default().to_owned(),
                }
            }
        };
        Ok(Self {
            run: run.to_owned(),
            workflow: workflow.to_owned(),
            part,
            attempt: number("attempt")?.unwrap_or(1),
            deaths: number("_deaths")?.unwrap_or(0),
            first_attempt_ms: find("_first_ms")?
                .map(|v| v.parse().map_err(|_| bad("_first_ms")))
                .transpose()?,
            tickets: find("_ticket")?.map(tickets).unwrap_or_default(),
        })
    }
}

fn bad(field: &str) -> Malformed {
    Malformed {
        code: "malformed",
        message: format!(
            "an entry with a field \"run\" is Tidemill's own, and its field {field:?} is missing or not valid"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&'static str, &'static str)]) -> Vec<(Bytes, Bytes)> {
        pairs.iter().map(|(name, value)| (Bytes::from(*name), Bytes::from(*value))).collect()
    }

    #[test]
    fn a_notice_that_was_taken_from_the_dead_is_still_one() {
        let ended = Notice::Ended { run: "r1".to_owned() };
        for moved in [&[][..], &[("_entry", "1-0"), ("_deaths", "1")]] {
            let all: Vec<_> = [("ended", "r1")].iter().chain(moved).copied().collect();
            assert_eq!(Notice::of(&fields(&all)).as_ref(), Some(&ended));
        }
        assert_eq!(Notice::of(&fields(&[("ended", "r1"), ("tool", "echo")])), None);
        assert_eq!(Notice::of(&fields(&[("_deaths", "1")])), None);
    }
}
