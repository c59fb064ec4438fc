//! `tidemill dead`.

mod replay;

use std::collections::HashSet;

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

async fn selected<'c>(context: &'c Context, selection: &Selection) -> Outcome<Vec<Found<'c>>> {
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    for id in &selection.ids {
        let one = find(context, id).await?;
        if seen.insert(one.name(context)) {
            found.push(one);
        }
    }
    if selection.ids.is_empty() {
        let code = selection.code.as_deref();
        for partition in context.store.partitions() {
            found.extend(
                read(partition, usize::MAX, |letter| code.is_none_or(|code| code == letter.code)).await?,
            );
        }
    }
    Ok(found)
}

async fn each(context: &Context, selection: Selection, doing: Doing) -> Outcome {
    let found = selected(context, &selection).await?;
    let (verb, done) = match doing {
        Doing::Replay => ("replaying", "replayed"),
        Doing::Drop => ("dropping", "dropped"),
    };
    let (mut count, mut refused) = (0_u64, Vec::new());
    let bar = progress::bar(context.output, verb, found.len() as u64);
    for found in &found {
        let name = found.name(context);
        let outcome = match (doing, selection.dry_run) {
            (Doing::Replay, dry_run) => replay::replay(context, found, dry_run).await,
            (Doing::Drop, true) => Ok(Some(found.work())),
            (Doing::Drop, false) => {
                Ok(found.partition.drop_letter(&found.letter.letter).await?.then(|| found.work()))
            }
        };
        bar.inc(1);
        match outcome {
            Ok(Some(id)) => {
                count += 1;
                told(context, (&name, &id), (done, selection.dry_run), selection.ids.is_empty());
            }
            // somebody else was faster
            Ok(None) => {}
            Err(replay::Refused::Letter(why)) => refused.push(format!("{name}: {why}")),
            Err(replay::Refused::Redis(error)) => return Err(error),
        }
    }
    bar.finish_and_clear();
    if !context.output.is_json() && selection.ids.is_empty() {
        let would = if selection.dry_run { "would be " } else { "" };
        context.output.line(format!("{count} of {} dead letters {would}{done}", found.len()));
    }
    if refused.is_empty() {
        Ok(())
    } else {
        Err(Error::failed("not_replayed", format!("not replayed:\n{}", refused.join("\n"))))
    }
}

fn told(context: &Context, (letter, id): (&str, &str), (done, dry_run): (&str, bool), many: bool) {
    if context.output.is_json() {
        context.output.document(&json!({ "letter": letter, "id": id, "state": done, "dry_run": dry_run }));
    } else if dry_run || !many {
        let would = if dry_run { "would be " } else { "" };
        context.output.line(format!("{letter} {would}{done} ({id})"));
    }
}
