//! `exec.run`: one run of a program that the operator allows. There is never a shell.
//!
//! Each run has a process group, an empty folder and a clean environment of its own; dropping the call's future kills the
//! group and removes the folder.

mod launcher;
mod settings;
mod streams;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tidemill_tool::{Call, Context, ErrorClass, Payload, Tool, ToolError, ToolFuture};

pub use settings::Settings;

use crate::input::{self, Fixed, Prepared};
use crate::secret;
use launcher::{Launch, Launcher, Limits, Running};

/// The most that the arguments of one run may hold together, in bytes.
const MAX_ARGS_BYTES: usize = 128 * 1024;

/// How deep printed JSON may nest.
const MAX_DEPTH: usize = 126;

/// How long the pipes may stay open after the program and its group have ended.
const DRAIN: Duration = Duration::from_secs(1);

/// Members that only an operator may give: an environment changes what a program is.
const OPERATORS_OWN: &[&str] = &["env"];

/// What all tools made from `exec.run` share: the allowed programs and the thread that starts them.
#[derive(Debug)]
pub struct Programs {
    settings: Settings,
    launcher: OnceLock<Launcher>,
}

impl Programs {
    /// # Errors
    /// A program is not an absolute path of a file, or a bound is 0; the sentence names the key.
    pub fn new(settings: Settings) -> Result<Self, String> {
        for (name, path) in &settings.allow {
            check_program(path).map_err(|why| format!("allow.{name}: {} {why}", path.display()))?;
        }
        for (name, value) in &settings.env {
            check_variable(name, value).map_err(|why| format!("env.{name}: {why}"))?;
        }
        for (key, bound) in [
            ("max_memory_bytes", settings.max_memory_bytes),
            ("max_cpu_seconds", settings.max_cpu_seconds),
            ("max_open_files", settings.max_open_files),
        ] {
            if bound == 0 {
                return Err(format!("{key}: 0 lets no program run; give at least 1"));
            }
        }
        Ok(Self { settings, launcher: OnceLock::new() })
    }

    fn launcher(&self) -> std::io::Result<&Launcher> {
        if let Some(launcher) = self.launcher.get() {
            return Ok(launcher);
        }
        let started = Launcher::start()?;
        Ok(self.launcher.get_or_init(|| started))
    }
}

fn check_program(path: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    if !path.is_absolute() {
        return Err("is not an absolute path".to_owned());
    }
    let metadata = std::fs::metadata(path).map_err(|error| format!("cannot be used: {error}"))?;
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        return Err("is not an executable file".to_owned());
    }
    Ok(())
}

fn check_variable(name: &str, value: &str) -> Result<(), String> {
    if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
        return Err("is not a variable of an environment".to_owned());
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input<'a> {
    program: Option<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(borrow)]
    stdin: Option<&'a RawValue>,
    stdin_text: Option<String>,
    #[serde(default)]
    output: Printed,
    #[serde(default)]
    env: BTreeMap<String, String>,
}

/// What the program prints.
#[derive(Deserialize, Default, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Printed {
    #[default]
    Text,
    Json,
}

#[derive(Serialize)]
struct Output<'a> {
    exit_code: i32,
    stdout: Stdout<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Stdout<'a> {
    Text(&'a str),
    Json(&'a RawValue),
}

/// The tool `exec.run`, or a named tool made from it.
#[derive(Debug, Clone)]
pub struct ExecRun {
    name: Arc<str>,
    programs: Arc<Programs>,
    fixed: Option<Fixed>,
}

impl ExecRun {
    /// The tool without anything fixed.
    #[must_use]
    pub fn new(programs: Arc<Programs>) -> Self {
        Self { name: Arc::from("exec.run"), programs, fixed: None }
    }

    pub(crate) fn named(name: Arc<str>, programs: Arc<Programs>, fixed: Fixed) -> Result<Self, String> {
        let sample = fixed.sample().to_string();
        let shape: Input<'_> = serde_json::from_str(&sample).map_err(|error| error.to_string())?;
        if let Some(program) = &shape.program
            && !programs.settings.allow.contains_key(program)
        {
            return Err(format!("`{program}` is not in exec.allow; add its name and absolute path there"));
        }
        for (name, value) in &shape.env {
            check_variable(name, value).map_err(|why| format!("env.{name}: {why}"))?;
        }
        if fixed.has_secrets() && fixed.get("program").is_none() {
            return Err("`with` holds a secret but no `program`, so that any allowed program could get it; fix the `program`".to_owned());
        }
        Ok(Self { name, programs, fixed: Some(fixed.with_operators_own(OPERATORS_OWN)) })
    }

    async fn run(self: Arc<Self>, call: Call) -> Result<Payload, ToolError> {
        let Prepared { json, secrets } = input::prepare(&self.name, self.fixed.as_ref(), call.input)?;
        let result = self.run_prepared(&json, &call.context).await;
        if secrets.is_empty() {
            return result;
        }
        match result {
            Ok(output) => Ok(secret::redact_payload(output, &secrets)),
            Err(error) => Err(secret::redact_error(error, &secrets)),
        }
    }

    async fn run_prepared(&self, json: &Bytes, context: &Context) -> Result<Payload, ToolError> {
        let input: Input<'_> = input::read(&self.name, json)?;
        if self.fixed.is_none() && !input.env.is_empty() {
            return Err(self.refused("`env` is the operator's: it stands in the settings of a named tool"));
        }
        let stdin = match (input.stdin, input.stdin_text.as_ref()) {
            (Some(_), Some(_)) => return Err(self.refused("give only one of `stdin` and `stdin_text`")),
            (Some(json), None) => json.get().as_bytes().to_vec(),
            (None, text) => text.map(|text| text.as_bytes().to_vec()).unwrap_or_default(),
        };
        let printed = input.output;
        let program = input.program.clone().unwrap_or_default();
        let launch = self.launch(input, context)?;
        let running = match self.programs.launcher() {
            Ok(launcher) => launcher.launch(launch).await,
            Err(error) => Err(error),
        };
        let running = running.map_err(|error| {
            ToolError::new(
                ErrorClass::Internal,
                "exec_start",
                format!("{program} cannot be started: {error}"),
            )
        })?;
        self.finish(&program, running, &stdin, printed).await
    }

    fn refused(&self, why: &str) -> ToolError {
        ToolError::invalid_input(format!("the input of {} does not fit: {why}", self.name))
    }

    fn launch(&self, input: Input<'_>, context: &Context) -> Result<Launch, ToolError> {
        let settings = &self.programs.settings;
        let Some(program) = input.program else { return Err(self.refused("`program` is missing")) };
        let Some(path) = settings.allow.get(&program) else {
            let message = format!(
                "the program `{}` is not allowed; an operator adds its name and absolute path to exec.allow",
                program.escape_debug()
            );
            return Err(ToolError::new(ErrorClass::Forbidden, "program_refused", message));
        };
        if input.args.iter().map(|arg| arg.len() + 1).sum::<usize>() > MAX_ARGS_BYTES {
            return Err(self.refused("`args` hold more than 128 KiB; give the data on `stdin`"));
        }
        if input.args.iter().any(|arg| arg.contains('\0')) {
            return Err(self.refused("`args` hold a NUL character"));
        }
        let mut env: Vec<(OsString, OsString)> = vec![
            ("PATH".into(), settings.path.as_str().into()),
            ("LANG".into(), "C.UTF-8".into()),
            ("TIDEMILL_ATTEMPT".into(), context.attempt.to_string().into()),
        ];
        let mut add = |name: &str, value: &str| env.push((name.into(), value.into()));
        let key = context.idempotency_key();
        if !key.contains('\0') {
            add("TIDEMILL_IDEMPOTENCY_KEY", &key);
        }
        if let Some(trace) = context.traceparent.as_ref().filter(|trace| !trace.contains('\0')) {
            add("TRACEPARENT", trace);
        }
        for (name, value) in settings.env.iter().chain(&input.env) {
            check_variable(name, value).map_err(|why| self.refused(&format!("`env.{name}` {why}")))?;
            add(name, value);
        }
        Ok(Launch {
            path: path.clone(),
            args: input.args,
            env,
            folder: settings.folder.clone(),
            limits: Limits::new(settings),
        })
    }

    async fn finish(
        &self,
        program: &str,
        mut running: Running,
        stdin: &[u8],
        printed: Printed,
    ) -> Result<Payload, ToolError> {
        let settings = &self.programs.settings;
        let bounds =
            streams::Bounds { stdout: settings.max_stdout_bytes, stderr_tail: settings.stderr_tail_bytes };
        let pipes = streams::Pipes::take(&mut running.child);
        let (status, streams) = {
            let mut traffic = std::pin::pin!(pipes.run(stdin, bounds, &running.group));
            let mut streams = None;
            let status = loop {
                tokio::select! {
                    done = &mut traffic, if streams.is_none() => streams = Some(done),
                    status = running.child.wait() => break status,
                }
            };
            // What the program left behind goes with it, and lets the pipes close.
            running.group.kill();
            match streams {
                Some(streams) => (status, Some(streams)),
                None => (status, tokio::time::timeout(DRAIN, traffic).await.ok()),
            }
        };
        let broken =
            |what: String| ToolError::new(ErrorClass::Exec, "exec_broken", format!("{program} {what}"));
        let status = status.map_err(|error| broken(format!("could not be waited for: {error}")))?;
        let Some(streams) = streams else {
            return Err(broken(
                "ended, but a process that it detached keeps its output open; let it end with its group"
                    .to_owned(),
            ));
        };
        if streams.is_too_large {
            return Err(ToolError::new(
                ErrorClass::BadContent,
                "output_too_large",
                format!(
                    "{program} printed more than {} bytes; let it print less, or raise exec.max_stdout_bytes",
                    bounds.stdout
                ),
            ));
        }
        let code = exit_code(program, status, &streams.stderr_tail)?;
        output(program, code, &streams.stdout, printed)
    }
}

impl Tool for ExecRun {
    fn kind(&self) -> &'static str {
        "exec"
    }

    fn input_schema(&self) -> Value {
        let programs: Vec<&String> = self.programs.settings.allow.keys().collect();
        let program = if programs.is_empty() {
            json!({"type": "string", "description": "A name in exec.allow; none is allowed."})
        } else {
            json!({"enum": programs, "description": "A name in exec.allow."})
        };
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "additionalProperties": false,
            "required": ["program"],
            "properties": {
                "program": program,
                "args": {"type": "array", "items": {"type": "string"}},
                "stdin": {"description": "Any JSON value, written to the program's standard input."},
                "stdin_text": {"type": "string"},
                "output": {"enum": ["text", "json"], "default": "text"}
            }
        });
        crate::schema::for_caller(schema, self.fixed.as_ref())
    }

    fn call(self: Arc<Self>, call: Call) -> ToolFuture {
        Box::pin(self.run(call))
    }
}

/// 0, or the error that the status stands for.
fn exit_code(program: &str, status: ExitStatus, stderr_tail: &str) -> Result<i32, ToolError> {
    let said = if stderr_tail.is_empty() { String::new() } else { format!("; it said: {stderr_tail}") };
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(0),
        (Some(code), _) => Err(ToolError::new(
            ErrorClass::Exec,
            "exec_exit",
            format!("{program} ended with exit code {code}{said}"),
        )),
        (None, Some(signal)) => {
            let hint = match signal {
                24 => " (it used more processor time than exec.max_cpu_seconds)",
                25 => " (it wrote a larger file than exec.max_file_bytes)",
                6 | 9 | 11 => " (perhaps it needs more memory than exec.max_memory_bytes or the machine has)",
                _ => "",
            };
            let message = format!("{program} was ended by signal {signal}{hint}{said}");
            Err(ToolError::new(ErrorClass::Exec, "exec_signal", message))
        }
        (None, None) => Err(ToolError::new(
            ErrorClass::Exec,
            "exec_broken",
            format!("{program} ended without a status{said}"),
        )),
    }
}

fn output(program: &str, exit_code: i32, stdout: &[u8], printed: Printed) -> Result<Payload, ToolError> {
    let bad = |code: &'static str, why: String| {
        ToolError::new(ErrorClass::BadContent, code, format!("what {program} printed is not {why}"))
    };
    let stdout = match printed {
        Printed::Text => Stdout::Text(
            std::str::from_utf8(stdout).map_err(|error| bad("output_not_text", format!("UTF-8: {error}")))?,
        ),
        Printed::Json => {
            let depth = crate::json::depth(stdout);
            if depth > MAX_DEPTH {
                return Err(bad(
                    "output_too_deep",
                    format!("readable: it nests {depth} levels deep, more than {MAX_DEPTH}"),
                ));
            }
            Stdout::Json(
                serde_json::from_slice(stdout)
                    .map_err(|error| bad("output_not_json", format!("JSON: {error}")))?,
            )
        }
    };
    Payload::from_value(&Output { exit_code, stdout })
        .map_err(|error| bad("output_not_json", error.to_string()))
}
