//! `run`: shells and scripts through the allow-listed tool, and other workflows.

use serde_json::Value;
use tidemill_workflow::ProblemCode;
use tidemill_workflow::source::{Kind, Node};

use super::TASK_VARIABLES;
use super::fields::{Fields, Reader};
use crate::document::{Action, Command, Gives, Process, version_number, workflow_name};
use crate::dynamic::Dynamic;

/// The tool behind `run: shell` and `run: script`.
const EXEC_TOOL: &str = "exec.run";

pub(super) fn run(reader: &mut Reader<'_>, name: &str, node: &Node) -> Option<Action> {
    const KINDS: [&str; 4] = ["container", "script", "shell", "workflow"];
    let fields =
        reader.object(node, &["container", "script", "shell", "workflow", "await", "return"], &[])?;
    let awaits = reader.optional(&fields, "await", Reader::boolean).unwrap_or(true);
    reader.unsupported(&fields, "container", "call a tool that runs it");
    let given: Vec<&str> = KINDS.into_iter().filter(|kind| fields.has(kind)).collect();
    match given.as_slice() {
        ["workflow"] => workflow(reader, &fields, awaits),
        ["container"] => None,
        [kind] => {
            reader.needs_tool(kind, EXEC_TOOL);
            let command = match *kind {
                "shell" => reader.optional(&fields, "shell", shell),
                _ => reader.optional(&fields, "script", script),
            };
            let gives = reader.optional(&fields, "return", gives).unwrap_or_default();
            let block = reader.block(name);
            Some(Action::Process(Box::new(Process { block, command: command?, awaits, gives })))
        }
        _ => {
            reader.bad_value(format!("must be one of {}", KINDS.join(", ")));
            None
        }
    }
}

fn gives(reader: &mut Reader<'_>, node: &Node) -> Option<Gives> {
    match reader.word(node, &["stdout", "stderr", "code", "all", "none"])? {
        "stdout" => Some(Gives::Stdout),
        "code" => Some(Gives::Code),
        "none" => Some(Gives::Nothing),
        word => {
            let message = format!("`{word}` is not supported; stderr is kept only of a process that fails");
            reader.problem(ProblemCode::NotSupported, message);
            None
        }
    }
}

fn shell(reader: &mut Reader<'_>, node: &Node) -> Option<Command> {
    let fields = process(reader, node, &["command", "arguments", "environment"])?;
    let command =
        reader.required(&fields, "command", |reader, node| reader.text_template(node, TASK_VARIABLES));
    let arguments = reader.optional(&fields, "arguments", |reader, node| match &node.kind {
        Kind::Array(_) => reader.template(node, TASK_VARIABLES),
        _ => {
            let message = "an object of arguments has no order and is not supported; give a list".to_owned();
            reader.problem(ProblemCode::NotSupported, message);
            None
        }
    });
    Some(Command::Shell { command: command?, arguments })
}

fn script(reader: &mut Reader<'_>, node: &Node) -> Option<Command> {
    let fields = process(reader, node, &["language", "code", "source", "arguments", "environment"])?;
    reader.unsupported(&fields, "source", "write the script into `code`");
    let language = reader.required(&fields, "language", |reader, node| {
        let text = reader.text(node)?;
        let is_known = matches!(text.as_str(), "js" | "javascript" | "python");
        if !is_known {
            let message = format!("`{text}` is not supported; scripts are `js` or `python`");
            reader.problem(ProblemCode::NotSupported, message);
        }
        is_known.then_some(text)
    });
    let code = reader.required(&fields, "code", |reader, node| reader.text_template(node, TASK_VARIABLES));
    let arguments = reader.optional(&fields, "arguments", arguments);
    let (language, code) = (language?, code?);
    Some(if language == "python" {
        Command::Python { code, arguments }
    } else {
        Command::JavaScript { code, arguments }
    })
}

/// Values that a script sees as variables of these names.
fn arguments(reader: &mut Reader<'_>, node: &Node) -> Option<Dynamic> {
    reader.any_object(node)?;
    reader.each_member(node, |reader, name, _| {
        let fits = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !fits {
            reader.bad_value(format!("`{name}` is no name of a variable"));
        }
    })?;
    reader.template(node, TASK_VARIABLES)
}

fn process<'o>(reader: &mut Reader<'_>, node: &'o Node, members: &[&str]) -> Option<Fields<'o>> {
    let fields = reader.object(node, members, &[])?;
    reader.unsupported(
        &fields,
        "environment",
        "the environment of programs is the operator's; give arguments",
    );
    Some(fields)
}

fn workflow(reader: &mut Reader<'_>, fields: &Fields<'_>, awaits: bool) -> Option<Action> {
    let output = match reader.optional(fields, "return", |reader, node| {
        reader.word(node, &["stdout", "stderr", "code", "all", "none"])
    }) {
        None | Some("stdout") => true,
        Some("none") => false,
        Some(word) => {
            let message = format!("`{word}` means nothing of a workflow; leave it out or give `none`");
            reader.inside("return", |reader| reader.problem(ProblemCode::NotSupported, message));
            return None;
        }
    };
    reader.optional(fields, "workflow", |reader, node| {
        let fields = reader.object(node, &["namespace", "name", "version", "input"], &[])?;
        let namespace = reader.required(&fields, "namespace", Reader::label);
        let name = reader.required(&fields, "name", Reader::label);
        let version = reader.optional(&fields, "version", |reader, node| {
            let text = reader.text(node)?;
            if text == "latest" {
                return Some(String::new());
            }
            let number = version_number(&text).map_err(|message| reader.bad_value(message)).ok()?;
            Some(format!("@{number}"))
        });
        let input = reader.optional(&fields, "input", |reader, node| match &node.kind {
            Kind::Scalar(Value::Null) => None,
            _ => reader.template(node, TASK_VARIABLES),
        });
        let target = format!("{}{}", workflow_name(&namespace?, &name?), version.unwrap_or_default());
        Some(Action::Workflow { target, input, awaits, output })
    })
}
