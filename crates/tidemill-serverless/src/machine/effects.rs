//! What is asked of the pool: tools, programs, other workflows, events.

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tidemill_workflow::orchestrate::ChildTarget;

use super::data::Spot;
use super::memory::{Asked, Doing};
use super::{Machine, Next, Stop};
use crate::document::{Action, Command, Process, Task};
use crate::duration::iso_time;
use crate::dynamic::{kind, plain_text};
use crate::fault::{Fault, Standard};
use crate::plan::block_path;

impl Machine<'_> {
    /// Begins a task that another run carries out.
    pub(super) fn call(&mut self, task: &Task, spot: &Spot<'_>) -> Result<(Doing, Next), Stop> {
        match &task.action {
            Action::Http(call) => self.call_http(call, spot),
            Action::OpenApi(call) => self.call_openapi(call, spot),
            Action::Tool { block, with, .. } => {
                let input = self.evaluate(with, spot)?;
                Ok(self.ask_tool(block, &input, Asked::Tool))
            }
            Action::Process(process) => {
                let input = self.process_input(process, spot)?;
                if process.awaits {
                    return Ok(self.ask_tool(&process.block, &input, Asked::Process));
                }
                self.ask(&process.block, ChildTarget::Block(block_path(&process.block)), &input, true);
                Ok((Doing::Begun, Next::Finish { output: spot.input.clone(), flow: None }))
            }
            Action::Workflow { target, input, awaits, .. } => {
                let given = input.as_ref().map(|input| self.evaluate(input, spot)).transpose()?;
                let input = given.as_ref().unwrap_or(spot.input);
                let key = self.ask("workflow", ChildTarget::Workflow(target.clone()), input, !awaits);
                if *awaits {
                    return Ok((Doing::Child { key, asked: Asked::Workflow }, Next::Wait));
                }
                Ok((Doing::Begun, Next::Finish { output: spot.input.clone(), flow: None }))
            }
            _ => Ok((Doing::Begun, Next::Finish { output: spot.input.clone(), flow: None })),
        }
    }

    /// Runs the block of a task.
    pub(super) fn ask_tool(&mut self, block: &str, input: &Value, asked: Asked) -> (Doing, Next) {
        let key = self.ask(block, ChildTarget::Block(block_path(block)), input, false);
        (Doing::Child { key, asked }, Next::Wait)
    }

    fn process_input(&self, process: &Process, spot: &Spot<'_>) -> Result<Value, Stop> {
        match &process.command {
            Command::Shell { command, arguments } => {
                let mut command = plain_text(&self.evaluate(command, spot)?);
                let arguments =
                    arguments.as_ref().map(|arguments| self.evaluate(arguments, spot)).transpose()?;
                let mut args = vec!["-c".to_owned()];
                if let Some(Value::Array(arguments)) = arguments.filter(|arguments| arguments != &json!([])) {
                    command.push_str(" \"$@\"");
                    args.extend([command, "sh".to_owned()]);
                    args.extend(arguments.iter().map(plain_text));
                } else {
                    args.push(command);
                }
                Ok(json!({ "program": "sh", "args": args }))
            }
            Command::JavaScript { code, arguments } => {
                let script = self.script(code, arguments.as_ref(), spot, |name, value| {
                    format!("const {name} = {value};\n")
                })?;
                Ok(json!({ "program": "node", "args": ["-e", script] }))
            }
            Command::Python { code, arguments } => {
                // a JSON string is a Python string too, apart from surrogates, which JSON text of ours never escapes
                let script = self.script(code, arguments.as_ref(), spot, |name, value| {
                    format!("{name} = __import__('json').loads({})\n", Value::from(value.to_string()))
                })?;
                Ok(json!({ "program": "python3", "args": ["-c", script] }))
            }
        }
    }

    fn script(
        &self,
        code: &crate::dynamic::Dynamic,
        arguments: Option<&crate::dynamic::Dynamic>,
        spot: &Spot<'_>,
        line: impl Fn(&str, &Value) -> String,
    ) -> Result<String, Stop> {
        let arguments = arguments.map(|arguments| self.evaluate(arguments, spot)).transpose()?;
        let members = match arguments {
            Some(Value::Object(members)) => members,
            _ => Map::new(),
        };
        let mut script: String = members.iter().map(|(name, value)| line(name, value)).collect();
        script.push_str(&plain_text(&self.evaluate(code, spot)?));
        Ok(script)
    }

    /// The event that a task emits, with what it left out; it goes out with the turn.
    pub(super) fn emitted(
        &mut self,
        attributes: &crate::dynamic::Dynamic,
        spot: &Spot<'_>,
    ) -> Result<Value, Stop> {
        let wrong =
            |detail: String| Stop::from(Fault::standard(Standard::Validation, &spot.task.reference, detail));
        let Value::Object(mut event) = self.evaluate(attributes, spot)? else {
            return Err(wrong("an event must be an object".to_owned()));
        };
        for name in ["source", "type", "id", "time", "subject", "dataschema", "datacontenttype"] {
            let fits = match event.get(name) {
                None => !matches!(name, "source" | "type"),
                Some(Value::String(text)) => !text.is_empty(),
                Some(_) => false,
            };
            if !fits {
                let got = event.get(name).map_or("nothing", kind);
                return Err(wrong(format!("`{name}` of an event must be a string, not {got}")));
            }
        }
        let number = self.memory.next_event;
        self.memory.next_event += 1;
        let id = || Value::from(format!("{}-{number}", self.moment.scope.run.id));
        event.insert("specversion".to_owned(), "1.0".into());
        event.entry("id").or_insert_with(id);
        event.entry("time").or_insert_with(|| iso_time(self.moment.now_ms).into());
        event.entry("data").or_insert(Value::Null);
        let event = Value::Object(event);
        self.publish.push(Bytes::from(event.to_string()));
        Ok(event)
    }
}
