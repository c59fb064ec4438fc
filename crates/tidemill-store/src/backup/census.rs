//! Every kind of key, and what becomes of it in a backup. A test compares this with the functions that make keys, so a kind that is
//! missing here fails it. For most kinds, one line here is all that a backup needs.

/// Of what type a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// A string.
    String,
    /// A hash.
    Hash,
    /// A set.
    Set,
    /// A sorted set.
    SortedSet,
    /// A stream.
    Stream,
}

/// In which of the walks over a pool that works a key is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walk {
    /// Before the jobs: what makes jobs. What it made since is among them, and an id makes sure that it is not made again.
    First,
    /// After the jobs, with the runs.
    Middle,
    /// After the runs: what they refer to.
    Last,
}

/// Where a key goes in a pool with another number of partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goes {
    /// To the partition of the id in its name.
    ById,
    /// To the partition of the same number; of those that are not there, to another.
    ByNumber,
    /// Each row to the partition of the id that is its member, or its field.
    ByMember,
    /// To every partition.
    Everywhere,
}

/// What becomes of a kind of key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is copied as it stands, with the time that it has left.
    Copied(Walk, Goes),
    /// As that, where results are wanted.
    Result(Walk, Goes),
    /// A run, or its audit or items: read together.
    Run,
    /// A hash or a sorted set beside a run, of its name: read with it.
    WithRun,
    /// Work: each job is copied by itself; what belongs to a run goes with that.
    Work,
    /// It is made anew from what is copied.
    Derived,
    /// It says something of this moment, or of this Redis, alone.
    Transient,
}

/// A kind of key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// The function that makes it.
    pub name: &'static str,
    /// Its name behind the tag; one that ends with a colon has more behind it.
    pub pattern: &'static str,
    /// Its type.
    pub of: Type,
    /// What becomes of it.
    pub fate: Fate,
}

const fn kind(name: &'static str, pattern: &'static str, of: Type, fate: Fate) -> Kind {
    Kind { name, pattern, of, fate }
}

/// The keys of a partition.
#[rustfmt::skip]
pub const PARTITION: &[Kind] = &[
    kind("jobs", "jobs:", Type::Stream, Fate::Work),
    kind("runs", "runs", Type::Stream, Fate::Work),
    kind("due", "due:", Type::SortedSet, Fate::Work),
    kind("deferred", "deferred:", Type::Hash, Fate::Work),
    kind("line", "line:", Type::SortedSet, Fate::Work),
    kind("lines", "lines", Type::Set, Fate::Derived),
    kind("turns", "turns:", Type::Hash, Fate::Copied(Walk::Middle, Goes::ByNumber)),
    kind("dead", "dead", Type::Stream, Fate::Copied(Walk::Last, Goes::ByNumber)),
    kind("run", "run:", Type::Hash, Fate::Run),
    kind("audit", "audit:", Type::Stream, Fate::Run),
    kind("items", "items:", Type::Hash, Fate::Run),
    kind("mail", "mail:", Type::Hash, Fate::WithRun),
    kind("children", "children:", Type::SortedSet, Fate::WithRun),
    kind("events", "events", Type::Stream, Fate::Copied(Walk::Last, Goes::ByNumber)),
    kind("ears", "ears", Type::Set, Fate::Copied(Walk::Last, Goes::Everywhere)),
    kind("started", "started", Type::SortedSet, Fate::Copied(Walk::Last, Goes::ByMember)),
    kind("label", "label:", Type::SortedSet, Fate::Copied(Walk::Last, Goes::ByMember)),
    kind("labelled", "labelled", Type::Hash, Fate::Copied(Walk::Last, Goes::ByMember)),
    kind("groups", "groups", Type::Hash, Fate::Copied(Walk::Middle, Goes::ByMember)),
    kind("group", "group:", Type::SortedSet, Fate::Copied(Walk::Middle, Goes::ById)),
    kind("group_waiting", "group_waiting:", Type::SortedSet, Fate::Copied(Walk::Middle, Goes::ById)),
    kind("live", "live", Type::SortedSet, Fate::Derived),
    kind("ended", "ended", Type::SortedSet, Fate::Derived),
    kind("cancelled", "cancelled", Type::SortedSet, Fate::Copied(Walk::Last, Goes::Everywhere)),
    kind("result", "result:", Type::String, Fate::Result(Walk::Middle, Goes::ById)),
    kind("id", "id:", Type::String, Fate::Copied(Walk::Middle, Goes::ById)),
    kind("beats", "beats", Type::Hash, Fate::Transient),
    kind("members", "members", Type::Hash, Fate::Transient),
    kind("restored", "restored", Type::Set, Fate::Transient),
    kind("queues", "queues", Type::Set, Fate::Copied(Walk::Last, Goes::Everywhere)),
    kind("tools", "tools", Type::Hash, Fate::Copied(Walk::Last, Goes::ByNumber)),
    kind("workflows", "workflows", Type::Hash, Fate::Copied(Walk::Last, Goes::ByNumber)),
    kind("workflow", "workflow:", Type::Hash, Fate::Copied(Walk::Last, Goes::ByNumber)),
    kind("versions", "versions:", Type::Hash, Fate::Copied(Walk::Last, Goes::ByNumber)),
    kind("workflow_changes", "workflow_changes", Type::Stream, Fate::Copied(Walk::Last, Goes::ByNumber)),
    kind("paused", "paused", Type::Hash, Fate::Copied(Walk::Last, Goes::ByNumber)),
    kind("operations", "operations", Type::Stream, Fate::Copied(Walk::Last, Goes::ByNumber)),
    kind("mode", "mode", Type::Hash, Fate::Copied(Walk::Last, Goes::ByNumber)),
    kind("mode_changes", "mode_changes", Type::Stream, Fate::Copied(Walk::Last, Goes::ByNumber)),
    kind("mode_runs", "mode_runs", Type::Hash, Fate::Copied(Walk::Last, Goes::ByNumber)),
    kind("crons", "crons", Type::Hash, Fate::Copied(Walk::First, Goes::ByNumber)),
    kind("cron_due", "cron_due", Type::SortedSet, Fate::Copied(Walk::First, Goes::ByNumber)),
    kind("cron_fired", "cron_fired", Type::Hash, Fate::Copied(Walk::First, Goes::ByNumber)),
];

/// The keys of services.
#[rustfmt::skip]
pub const SERVICES: &[Kind] = &[
    kind("definitions_key", "definitions", Type::Hash, Fate::Copied(Walk::Last, Goes::ByNumber)),
    kind("config", "config", Type::Hash, Fate::Copied(Walk::Last, Goes::ByNumber)),
    kind("changes", "changes", Type::Stream, Fate::Copied(Walk::Last, Goes::ByNumber)),
    kind("tier", "tier:", Type::String, Fate::Copied(Walk::Last, Goes::ByNumber)),
    kind("learned_key", "learned", Type::Hash, Fate::Transient),
    kind("held", "held:", Type::Hash, Fate::Transient),
    kind("sums", "sums:", Type::Hash, Fate::Transient),
];

/// The keys of a service's cache: its answers can be asked for again.
#[rustfmt::skip]
pub const CACHE: &[Kind] = &[
    kind("values", "values", Type::Hash, Fate::Transient),
    kind("order", "order", Type::SortedSet, Fate::Transient),
    kind("expiry", "expiry", Type::SortedSet, Fate::Transient),
    kind("totals", "totals", Type::Hash, Fate::Transient),
    kind("fills", "fills", Type::SortedSet, Fate::Transient),
    kind("fillers", "fillers", Type::Hash, Fate::Transient),
];

/// The kind of a key by its name behind the tag, and what its name has behind the kind's pattern.
#[must_use]
pub fn find<'k>(kinds: &'static [Kind], key: &'k str) -> Option<(&'static Kind, &'k str)> {
    kinds.iter().find_map(|kind| {
        let rest = key.strip_prefix(kind.pattern)?;
        (kind.pattern.ends_with(':') || rest.is_empty()).then_some((kind, rest))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{CACHE, Kind, PARTITION, SERVICES, Type, find};

    const SOURCES: [(&str, &[Kind]); 3] = [
        (include_str!("../keys.rs"), PARTITION),
        (include_str!("../services.rs"), SERVICES),
        (include_str!("../cache/keys.rs"), CACHE),
    ];

    /// The functions of a file that make keys, with the type that their comments promise and the first words of their keys.
    fn made(source: &str) -> BTreeMap<String, (String, String)> {
        let mut made = BTreeMap::new();
        for part in source.split("    /// ").skip(1) {
            let Some((of, _)) = part.split_once(':') else { continue };
            let Some((_, body)) = part.split_once("pub fn ") else { continue };
            if part.matches("///").count() > 3
                || !["String", "Hash", "Set", "Sorted set", "Stream"].contains(&of)
            {
                continue;
            }
            let body = body.split("\n    }").next().unwrap();
            let (name, rest) = body.split_once('(').unwrap();
            let text = rest.split('"').nth(1).unwrap_or_default().trim_start_matches("{}");
            let pattern = text.split('{').next().unwrap().to_owned();
            made.insert(name.to_owned(), (of.to_owned(), pattern));
        }
        made
    }

    #[test]
    fn every_kind_of_key_is_in_the_census() {
        for (source, kinds) in SOURCES {
            let made = made(source);
            assert!(made.len() >= 6, "{made:?}");
            for (name, (of, pattern)) in &made {
                let kind = kinds.iter().find(|kind| kind.name == name);
                let kind =
                    kind.unwrap_or_else(|| panic!("backup/census.rs has no line for the key `{name}`"));
                let word = match kind.of {
                    Type::String => "String",
                    Type::Hash => "Hash",
                    Type::Set => "Set",
                    Type::SortedSet => "Sorted set",
                    Type::Stream => "Stream",
                };
                assert_eq!((kind.pattern, word), (&**pattern, &**of), "{name}");
            }
            for kind in kinds {
                assert!(made.contains_key(kind.name), "no function makes `{}`", kind.name);
            }
        }
    }

    #[test]
    fn a_key_is_of_one_kind() {
        let name = |key: &str| find(PARTITION, key).map(|(kind, rest)| (kind.name, rest.to_owned()));
        assert_eq!(name("run:a:b"), Some(("run", "a:b".to_owned())));
        assert_eq!(name("runs"), Some(("runs", String::new())));
        assert_eq!(name("lines"), Some(("lines", String::new())));
        assert_eq!(name("line:openai/user:a"), Some(("line", "openai/user:a".to_owned())));
        assert_eq!((name("reply:mine"), name("runsx")), (None, None));
    }
}
