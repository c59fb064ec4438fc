//! `tidemill dead`.

mod replay;

use std::collections::HashSet;

use indicatif::ProgressBar;
use serde_json::{Value, json};
use tidemill_store::{Letter, Partition};

use crate::context::Context;
use crate::error::{Error, Outcome};
use crate::moment::{moment, relative};
use crate::progress;
use crate::table::{Cell, Style, Table, printable, shortened};

/// Dead letters: what could not be done, with the reason and the original fields
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List dead letters, oldest first
    #[command(after_help = "Examples:
  tidemill dead list
  tidemill dead list --code unknown_tool --json | jq .fields.tool")]
    List {
        /// Only those with this code
        #[arg(long)]
        code: Option<String>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
    },
    /// Show a dead letter with its original fields
    #[command(after_help = "Example:\n  tidemill dead show 1732000000123-0")]
    Show {
        /// The letter's id, or that of its job or run
        id: String,
    },
    /// Put the work of dead letters back: a job under its id, with all its attempts; a run that had failed as a new run
    #[command(after_help = "Examples:
  tidemill dead replay 1732000000123-0
  tidemill dead replay --code http_status --dry-run
  tidemill dead replay --all")]
    Replay(Selection),
    /// Drop dead letters for good
    #[command(after_help = "Examples:
  tidemill dead drop 1732000000123-0
  tidemill dead drop --code unknown_tool --dry-run")]
    Drop(Selection),
}

/// Which dead letters.
#[derive(Debug, clap::Args)]
#[group(id = "which", required = true, multiple = true, args = ["ids", "code", "all"])]
pub(crate) struct Selection {
    /// Ids of letters, or of their jobs or runs
    #[arg(value_name = "ID", conflicts_with_all = ["code", "all"])]
    ids: Vec<String>,
    /// All with this code
    #[arg(long)]
    code: Option<String>,
    /// All
    #[arg(long)]
    all: bool,
    /// Only tell what would be done
    #[arg(long)]
    dry_run: bool,
}

/// Letters in one read.
const PAGE: usize = 500;
/// Letters held at once while all are worked on.
const BULK_PAGE: usize = 100;

pub(crate) async fn run(context: &Context, command: Command) -> Outcome {
    match command {
        Command::List { code, limit } => list(context, code.as_deref(), limit).await,
        Command::Show { id } => show(context, &id).await,
        Command::Replay(selection) => each(context, selection, Doing::Replay).await,
        Command::Drop(selection) => each(context, selection, Doing::Drop).await,
    }
}

/// A letter and its partition.
struct Found<'c> {
    partition: &'c Partition,
    letter: Letter,
}

impl Found<'_> {
    /// How the command names it: its id, with the partition before it where there are several.
    fn name(&self, context: &Context) -> String {
        if context.store.partition_count() == 1 {
            return self.letter.letter.clone();
        }
        format!("{}/{}", self.partition.index(), self.letter.letter)
    }

    /// The id of its job or run.
    fn work(&self) -> String {
        self.letter.field("id").unwrap_or_else(|| self.letter.entry.clone())
    }

    /// The tool or workflow that it asked for.
    fn target(&self) -> String {
        let field = |name| self.letter.field(name);
        field("tool").or_else(|| field("workflow")).or_else(|| field("wf")).unwrap_or_default()
    }

    fn document(&self, context: &Context) -> Value {
        let mut document = serde_json::to_value(&self.letter).unwrap_or_default();
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        document["letter"] = self.name(context).into();
        document["id"] = self.work().into();
        document["fields"] =
            self.letter.fields.iter().map(|(name, value)| (name.clone(), Value::from(text(value)))).collect();
        document
    }
}

/// The letters of a partition that `fits` wants, at most `most`.
async fn read<'c>(
    partition: &'c Partition,
    most: usize,
    fits: impl Fn(&Letter) -> bool,
) -> Outcome<Vec<Found<'c>>> {
    let (mut found, mut after) = (Vec::new(), None::<String>);
    while found.len() < most {
        let page = partition.letters(after.as_deref(), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.letter.clone());
        let full = page.len() == PAGE;
        found
            .extend(page.into_iter().filter(|letter| fits(letter)).map(|letter| Found { partition, letter }));
        if !full {
            break;
        }
    }
    found.truncate(most);
    Ok(found)
}

async fn list(context: &Context, code: Option<&str>, limit: usize) -> Outcome {
    let (mut found, mut all) = (Vec::new(), 0);
    for partition in context.store.partitions() {
        all += partition.letter_count().await?;
        found.extend(read(partition, limit, |letter| code.is_none_or(|code| code == letter.code)).await?);
    }
    found.sort_by_key(|found| found.letter.at_ms);
    found.truncate(limit);
    if context.output.is_json() {
        for found in &found {
            context.output.document(&found.document(context));
        }
        return Ok(());
    }
    if found.is_empty() {
        context.output.line(match code {
            Some(code) => format!("no dead letter has the code {code:?}; there are {all} in all"),
            None => "there are no dead letters".to_owned(),
        });
        return Ok(());
    }
    let now_ms = context.store.home().now_ms().await?;
    let mut table = Table::new(&["LETTER", "DIED", "CODE", "WHAT", ">TRIES", "JOB OR RUN", "REASON"]);
    for found in &found {
        table.row(vec![
            Cell::new(found.name(context)),
            Cell::new(relative(found.letter.at_ms, now_ms)),
            Cell::new(&found.letter.code).style(Style::Bad),
            Cell::new(found.target()),
            found.letter.attempts.into(),
            Cell::new(found.work()),
            Cell::new(shortened(&found.letter.reason, 80)),
        ]);
    }
    context.output.table(&table);
    if (found.len() as u64) < all {
        context.output.line(format!("{} of {all} dead letters; --limit shows more", found.len()));
    }
    Ok(())
}

/// The letter of this id, or that of this job or run.
async fn find<'c>(context: &'c Context, id: &str) -> Outcome<Found<'c>> {
    let (wanted, letter_id) =
        match id.split_once('/').map(|(partition, rest)| (partition.parse::<u32>(), rest)) {
            Some((Ok(partition), rest)) => (Some(partition), rest),
            _ => (None, id),
        };
    let is_letter = tidemill_protocol::EntryId::parse(letter_id.to_owned()).is_ok();
    let partitions = context.store.partitions().iter();
    for partition in
        partitions.filter(|partition| is_letter && wanted.is_none_or(|wanted| wanted == partition.index()))
    {
        if let Some(letter) = partition.letter(letter_id).await? {
            return Ok(Found { partition, letter });
        }
    }
    for partition in context.partitions_for(id) {
        let of_work = |letter: &Letter| letter.entry == id || letter.field("id").as_deref() == Some(id);
        // the newest, if it died more than once
        if let Some(found) = read(partition, usize::MAX, of_work).await?.pop() {
            return Ok(found);
        }
    }
    Err(Error::failed(
        "unknown_letter",
        format!(
            "no dead letter has the id {id:?}, nor does one of a job or run with it; `tidemill dead list` shows them"
        ),
    ))
}

async fn show(context: &Context, id: &str) -> Outcome {
    let found = find(context, id).await?;
    let letter = &found.letter;
    let width =
        letter.fields.iter().map(|(name, _)| name.chars().count() + 2).max().unwrap_or(0).clamp(8, 40);
    let mut text = String::new();
    let mut say = |name: &str, value: &str| text.push_str(&format!("{name:<width$}  {}\n", printable(value)));
    say("letter", &found.name(context));
    say("job/run", &found.work());
    say("died", &moment(letter.at_ms));
    say("code", &letter.code);
    say("reason", &letter.reason);
    say("attempts", &letter.attempts.to_string());
    say("stream", &letter.stream);
    say("entry", &letter.entry);
    for (name, value) in &letter.fields {
        say(&format!("  {}", printable(name)), &String::from_utf8_lossy(value));
    }
    context.output.told(&found.document(context), text.trim_end());
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Replay,
    Drop,
}

/// What was done so far.
#[derive(Default)]
struct Tally {
    looked_at: u64,
    chosen: u64,
    done: u64,
    refused: Vec<String>,
}

async fn each(context: &Context, selection: Selection, doing: Doing) -> Outcome {
    let (verb, done) = match doing {
        Doing::Replay => ("replaying", "replayed"),
        Doing::Drop => ("dropping", "dropped"),
    };
    let mut work = Work { context, doing, done, selection, tally: Tally::default() };
    if work.selection.ids.is_empty() {
        let mut all = 0;
        for partition in context.store.partitions() {
            all += partition.letter_count().await?;
        }
        let bar = progress::bar(context.output, verb, all);
        for partition in context.store.partitions() {
            work.all_of(partition, &bar).await?;
        }
        bar.finish_and_clear();
    } else {
        work.named().await?;
    }
    work.end()
}

struct Work<'c> {
    context: &'c Context,
    doing: Doing,
    done: &'static str,
    selection: Selection,
    tally: Tally,
}

impl<'c> Work<'c> {
    async fn named(&mut self) -> Outcome {
        let mut seen = HashSet::new();
        for id in std::mem::take(&mut self.selection.ids) {
            let found = find(self.context, &id).await?;
            if seen.insert(found.name(self.context)) {
                self.one(&found, true).await?;
            }
        }
        Ok(())
    }

    /// Page by page, for letters may be large and many; up to now, for what is replayed may die again meanwhile.
    async fn all_of(&mut self, partition: &'c Partition, bar: &ProgressBar) -> Outcome {
        let (now_ms, mut after) = (partition.now_ms().await?, None::<String>);
        loop {
            let page = partition.letters(after.as_deref(), BULK_PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.letter.clone());
            for letter in page {
                let died_ms = letter.letter.split_once('-').and_then(|(ms, _)| ms.parse::<u64>().ok());
                if died_ms.is_some_and(|died_ms| died_ms > now_ms) {
                    return Ok(());
                }
                self.tally.looked_at += 1;
                bar.inc(1);
                if self.selection.code.as_ref().is_none_or(|code| *code == letter.code) {
                    self.one(&Found { partition, letter }, false).await?;
                }
            }
        }
    }

    async fn one(&mut self, found: &Found<'_>, alone: bool) -> Outcome {
        let (name, dry_run) = (found.name(self.context), self.selection.dry_run);
        self.tally.chosen += 1;
        let outcome = match (self.doing, dry_run) {
            (Doing::Replay, dry_run) => replay::replay(self.context, found, dry_run).await,
            (Doing::Drop, true) => Ok(Some(found.work())),
            (Doing::Drop, false) => {
                Ok(found.partition.drop_letter(&found.letter.letter).await?.then(|| found.work()))
            }
        };
        let id = match outcome {
            Ok(Some(id)) => id,
            // somebody else was faster
            Ok(None) => return Ok(()),
            Err(replay::Refused::Redis(error)) => return Err(error),
            Err(replay::Refused::Letter(why)) => {
                self.tally.refused.push(format!("{name}: {why}"));
                return Ok(());
            }
        };
        self.tally.done += 1;
        let (output, done) = (self.context.output, self.done);
        if output.is_json() {
            output.document(&json!({ "letter": name, "id": id, "state": done, "dry_run": dry_run }));
        } else if dry_run || alone {
            let would = if dry_run { "would be " } else { "" };
            output.line(format!("{name} {would}{done} ({id})"));
        }
        Ok(())
    }

    fn end(self) -> Outcome {
        let Tally { looked_at, chosen, done: count, refused } = self.tally;
        if !self.context.output.is_json() && (looked_at > 0 || chosen == 0) {
            let would = if self.selection.dry_run { "would be " } else { "" };
            self.context.output.line(format!("{count} of {chosen} dead letters {would}{}", self.done));
        }
        if refused.is_empty() {
            return Ok(());
        }
        Err(Error::failed("not_replayed", format!("not replayed:\n{}", refused.join("\n"))))
    }
}
