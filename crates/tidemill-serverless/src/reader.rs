//! From text to a document: every problem with its line and column, and what is not carried out refused with its path.

mod calls;
mod data;
mod events;
mod fields;
mod processes;
mod tasks;
mod tries;

use std::collections::BTreeMap;

use tidemill_workflow::source::{self, Node};
use tidemill_workflow::{Problem, ProblemCode, Problems, ToolCatalog};

use crate::document::{Action, Document, Flow, ROOT, Task, TaskId, version_number, workflow_name};
use fields::{Fields, Reader};

/// Members of a document.
const MEMBERS: &[&str] = &["document", "input", "use", "do", "timeout", "output", "schedule", "evaluate"];
const ABOUT: &[&str] = &["dsl", "namespace", "name", "version", "title", "summary", "tags", "metadata"];
const REUSED: &[&str] =
    &["authentications", "catalogs", "errors", "extensions", "functions", "retries", "secrets", "timeouts"];

/// What expressions of a task may name.
const TASK_VARIABLES: &[&str] = &["context", "input", "task", "workflow", "runtime"];

pub(crate) fn read(text: &str, file: &str, catalog: &dyn ToolCatalog) -> Result<Document, Problems> {
    let root = source::read(text).map_err(|refusal| {
        Problems::new(vec![Problem {
            file: file.to_owned(),
            line: refusal.place.line,
            column: refusal.place.column,
            path: String::new(),
            code: refusal.code,
            message: refusal.message,
        }])
    })?;
    let mut reader = Reader::new(&root, file, catalog);
    let document = reader.object(&root, MEMBERS, &[]).map(|fields| document(&mut reader, &fields, &root));
    let problems = reader.into_problems();
    match document {
        Some(document) if problems.is_empty() => Ok(document),
        _ => Err(Problems::new(problems)),
    }
}

fn document(reader: &mut Reader<'_>, fields: &Fields<'_>, root: &Node) -> Document {
    let about = reader.required(fields, "document", about).unwrap_or_default();
    reader.optional(fields, "evaluate", evaluate);
    reader.unsupported(
        fields,
        "schedule",
        "publish the workflow and give it a schedule with `tidemill cron`",
    );
    reader.add_task(|_, _| None);
    reader.optional(fields, "use", reused);
    let input = reader.optional(fields, "input", |reader, node| {
        data::transform(reader, node, "from", &["workflow", "runtime"])
    });
    let output = reader.optional(fields, "output", |reader, node| {
        data::transform(reader, node, "as", &["context", "workflow", "runtime"])
    });
    let timeout_ms = reader.optional(fields, "timeout", data::timeout);
    let list = reader.required(fields, "do", tasks::list).unwrap_or_default();
    let task = Task {
        name: about.name.clone(),
        reference: String::new(),
        condition: None,
        input: input.unwrap_or_default(),
        output: output.unwrap_or_default(),
        export: Default::default(),
        timeout_ms,
        then: Flow::Continue,
        action: Action::Do(list),
    };
    if let Some(place) = reader.tasks.get_mut(ROOT) {
        *place = Some(task);
    }
    let About { namespace, name, version, title, announces } = about;
    let tasks = std::mem::take(&mut reader.tasks).into_iter().flatten().collect();
    Document { namespace, name, version, title, announces, definition: root.to_value(), tasks }
}

#[derive(Default)]
struct About {
    namespace: String,
    name: String,
    version: Option<String>,
    title: Option<String>,
    announces: bool,
}

fn about(reader: &mut Reader<'_>, node: &Node) -> Option<About> {
    const LONGEST: usize = 64;
    let fields = reader.object(node, ABOUT, &[])?;
    reader.required(&fields, "dsl", dsl);
    let namespace = reader.required(&fields, "namespace", Reader::label).unwrap_or_default();
    let name = reader.required(&fields, "name", Reader::label).unwrap_or_default();
    let version = reader.optional(&fields, "version", |reader, node| {
        let text = reader.text(node)?;
        version_number(&text).map_err(|message| reader.problem(ProblemCode::BadValue, message)).ok()?;
        Some(text)
    });
    let title = reader.optional(&fields, "title", Reader::text);
    reader.optional(&fields, "summary", Reader::text);
    reader.optional(&fields, "tags", |reader, node| reader.any_object(node));
    let metadata = reader.optional(&fields, "metadata", |reader, node| reader.any_object(node));
    let announces = metadata.is_some_and(|metadata| metadata.get("lifecycleEvents") == Some(&true.into()));
    let workflow = workflow_name(&namespace, &name);
    if workflow.len() > LONGEST {
        let message = format!("`{workflow}`, namespace and name, is longer than {LONGEST} characters");
        reader.inside("name", |reader| reader.problem(ProblemCode::BadValue, message));
    }
    Some(About { namespace, name, version, title, announces })
}

fn dsl(reader: &mut Reader<'_>, node: &Node) -> Option<()> {
    let text = reader.text(node)?;
    // 1.0.0-alpha1 had another shape; what is like the final one is read as such
    let is_known =
        text.strip_prefix("1.0.").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    if !is_known {
        let message = format!("`{text}` is no version of the DSL that is read here; 1.0.x is");
        reader.problem(ProblemCode::NotSupported, message);
    }
    Some(())
}

fn evaluate(reader: &mut Reader<'_>, node: &Node) -> Option<()> {
    let fields = reader.object(node, &["language", "mode"], &[])?;
    for (name, supported) in [("language", "jq"), ("mode", "strict")] {
        reader.optional(&fields, name, |reader, node| {
            let text = reader.text(node)?;
            if text != supported {
                let message = format!("`{text}` is not supported; expressions are `{supported}`");
                reader.problem(ProblemCode::NotSupported, message);
            }
            Some(())
        });
    }
    Some(())
}

/// Components are read where they are used; functions are tasks of their own.
fn reused(reader: &mut Reader<'_>, node: &Node) -> Option<()> {
    let fields = reader.object(node, REUSED, &[])?;
    reader.unsupported(&fields, "catalogs", "copy the function into `use.functions`");
    reader.unsupported(&fields, "extensions", "write the tasks before and after where they belong");
    reader.unsupported(&fields, "secrets", "let an operator give the secret to a named tool, and call that");
    reader.optional(&fields, "authentications", |reader, node| {
        reader.each_member(node, |reader, name, node| {
            if let Some(authentication) = calls::authentication(reader, node) {
                reader.authentications.insert(name.to_owned(), authentication);
            }
        })
    });
    reader.optional(&fields, "timeouts", |reader, node| {
        reader.each_member(node, |reader, name, node| {
            if let Some(timeout_ms) = data::timeout(reader, node) {
                reader.timeouts.insert(name.to_owned(), timeout_ms);
            }
        })
    });
    reader.optional(&fields, "errors", |reader, node| {
        reader.each_member(node, |reader, name, node| {
            if let Some(error) = tries::error(reader, node) {
                reader.errors.insert(name.to_owned(), error);
            }
        })
    });
    reader.optional(&fields, "retries", |reader, node| {
        reader.each_member(node, |reader, name, node| {
            let retry = reader.with_local(&["error"], |reader| tries::retry(reader, node));
            if let Some(retry) = retry {
                reader.retries.insert(name.to_owned(), retry);
            }
        })
    });
    reader.optional(&fields, "functions", functions)
}

/// Functions may call each other, so all names are known before the first is read.
fn functions(reader: &mut Reader<'_>, node: &Node) -> Option<()> {
    let mut ids: BTreeMap<String, TaskId> = BTreeMap::new();
    reader.each_member(node, |reader, name, _| {
        ids.insert(name.to_owned(), reader.tasks.len());
        reader.tasks.push(None);
    })?;
    reader.functions.clone_from(&ids);
    reader.each_member(node, |reader, name, node| {
        let Some(id) = ids.get(name) else { return };
        let task = tasks::task(reader, name, node);
        if let Some(place) = reader.tasks.get_mut(*id) {
            *place = task;
        }
    })?;
    circles(reader, &ids);
    Some(())
}

/// A function that calls itself, however indirectly, would never end.
fn circles(reader: &mut Reader<'_>, ids: &BTreeMap<String, TaskId>) {
    let mut circular = Vec::new();
    for (name, id) in ids {
        let (mut open, mut seen) = (vec![*id], Vec::new());
        while let Some(at) = open.pop() {
            let called = reader.tasks.get(at).and_then(Option::as_ref).map(called_by).unwrap_or_default();
            if called.contains(id) {
                circular.push(name.clone());
                break;
            }
            for next in called {
                if !seen.contains(&next) {
                    seen.push(next);
                    open.push(next);
                }
            }
        }
    }
    for name in circular {
        let message = format!("the function `{name}` calls itself, and would never end");
        reader.inside(&name, |reader| reader.problem(ProblemCode::Cycle, message));
    }
}

/// Tasks that a task runs.
fn called_by(task: &Task) -> Vec<TaskId> {
    match &task.action {
        Action::Do(tasks) | Action::Fork { branches: tasks, .. } => tasks.clone(),
        Action::For(repeated) => repeated.tasks.clone(),
        Action::Try(attempt) => attempt.tasks.iter().chain(&attempt.handler).copied().collect(),
        Action::Function { task, .. } => vec![*task],
        Action::Listen(listen) => listen.each.as_ref().map(|each| each.tasks.clone()).unwrap_or_default(),
        Action::Set(_)
        | Action::Switch(_)
        | Action::Raise(_)
        | Action::Wait { .. }
        | Action::Http(_)
        | Action::OpenApi(_)
        | Action::Tool { .. }
        | Action::Process(_)
        | Action::Workflow { .. }
        | Action::Emit(_) => Vec::new(),
    }
}
