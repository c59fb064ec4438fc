//! `exec.run` with real programs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tidemill_tool::{ErrorClass, Tool};
use tidemill_tools::ExecRun;
use tidemill_tools::exec::{Programs, Settings};

use crate::{TestResult, call, code_of};

/// The shell is a program like another here: the tests choose it, the tool never does.
fn settings() -> Settings {
    Settings { allow: BTreeMap::from([("sh".to_owned(), PathBuf::from("/bin/sh"))]), ..Settings::default() }
}

fn tool_with(settings: Settings) -> Result<Arc<dyn Tool>, String> {
    Ok(Arc::new(ExecRun::new(Arc::new(Programs::new(settings)?))))
}

fn script(text: &str) -> serde_json::Value {
    json!({"program": "sh", "args": ["-c", text]})
}

/// Waits until something holds; the kernel tells nobody when a process is gone.
async fn eventually(what: &str, holds: impl Fn() -> bool) -> TestResult {
    for _ in 0..500 {
        if holds() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(format!("not within 5 s: {what}").into())
}

fn is_alive(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| !rest.starts_with('Z')))
}

fn is_zombie(pid: &str) -> bool {
    Path::new(&format!("/proc/{pid}")).exists() && !is_alive(pid)
}

#[tokio::test]
async fn a_program_reads_json_and_prints_text_or_json() -> TestResult {
    let tool = tool_with(settings())?;
    let input = json!({"program": "sh", "args": ["-c", "cat"], "stdin": {"b": [1, "ä"]}});
    assert_eq!(call(&tool, &input).await?, json!({"exit_code": 0, "stdout": "{\"b\":[1,\"ä\"]}"}));
    let input =
        json!({"program": "sh", "args": ["-c", "cat"], "stdin_text": " {\"a\": 1} ", "output": "json"});
    assert_eq!(call(&tool, &input).await?["stdout"], json!({"a": 1}));
    Ok(())
}

#[tokio::test]
async fn nothing_runs_that_is_not_allowed() -> TestResult {
    let tool = tool_with(Settings::default())?;
    for program in ["sh", "/bin/sh", "../bin/sh", ""] {
        assert_eq!(code_of(&tool, &json!({"program": program})).await, "program_refused", "{program}");
    }
    let tool = tool_with(settings())?;
    assert_eq!(code_of(&tool, &json!({"program": "/bin/sh"})).await, "program_refused");
    assert_eq!(code_of(&tool, &json!({"program": "sh", "env": {"LD_PRELOAD": "/x"}})).await, "invalid_input");
    assert_eq!(code_of(&tool, &json!({"program": "sh", "cwd": "/"})).await, "invalid_input");
    assert_eq!(code_of(&tool, &json!({"program": "sh", "args": ["a\u{0}b"]})).await, "invalid_input");
    Ok(())
}

#[tokio::test]
async fn arguments_are_never_read_by_a_shell() -> TestResult {
    let tool = tool_with(Settings {
        allow: BTreeMap::from([("printf".to_owned(), PathBuf::from("/usr/bin/printf"))]),
        ..Settings::default()
    })?;
    let args = json!(["%s|", "$HOME", "`id`", "; exit 1", "*", "a b"]);
    assert_eq!(
        call(&tool, &json!({"program": "printf", "args": args})).await?["stdout"],
        "$HOME|`id`|; exit 1|*|a b|"
    );
    Ok(())
}

#[tokio::test]
async fn environment_folder_and_files_are_the_calls_own() -> TestResult {
    let env = BTreeMap::from([("REGION".to_owned(), "north".to_owned())]);
    let tool = tool_with(Settings { env, ..settings() })?;
    let output =
        call(&tool, &script("env | sort; pwd; ls -A; ls /proc/self/fd | wc -l; touch left-over; ulimit -c"))
            .await?;
    let text = output["stdout"].as_str().unwrap_or_default().to_owned();
    let names: Vec<&str> =
        text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    assert_eq!(
        names
            .iter()
            .filter(|name| !matches!(**name, "PWD" | "OLDPWD" | "SHLVL" | "_"))
            .copied()
            .collect::<Vec<_>>(),
        [
            "HOME",
            "LANG",
            "PATH",
            "REGION",
            "TIDEMILL_ATTEMPT",
            "TIDEMILL_IDEMPOTENCY_KEY",
            "TMPDIR",
            "TRACEPARENT"
        ],
    );
    assert!(
        text.contains("TIDEMILL_IDEMPOTENCY_KEY=job-7/hold\n") && text.contains("TIDEMILL_ATTEMPT=2\n"),
        "{text}"
    );
    let rest: Vec<&str> = text.lines().skip_while(|line| line.contains('=')).collect();
    let [folder, files, core] = rest[..] else { return Err(format!("unexpected output: {text}").into()) };
    // Three pipes, and the folder that `ls` itself reads.
    assert_eq!((files, core), ("4", "0"));
    eventually("the folder is removed", || !Path::new(folder).exists()).await
}

#[tokio::test]
async fn a_failure_says_code_signal_and_the_end_of_the_complaint() -> TestResult {
    let tool = tool_with(Settings { stderr_tail_bytes: 20, ..settings() })?;
    let error = call(&tool, &script("echo early-noise-that-is-long >&2; echo the-reason >&2; exit 75"))
        .await
        .err()
        .ok_or("no error")?;
    assert_eq!((error.class, error.code.as_ref()), (ErrorClass::Exec, "exec_exit"));
    assert!(
        error.message.contains("exit code 75") && error.message.ends_with("the-reason"),
        "{}",
        error.message
    );
    assert!(!error.message.contains("early"), "{}", error.message);
    let error = call(&tool, &script("kill -TERM $$")).await.err().ok_or("no error")?;
    assert_eq!((error.code.as_ref(), error.message.contains("signal 15")), ("exec_signal", true));
    Ok(())
}

#[tokio::test]
async fn output_is_bounded_and_checked() -> TestResult {
    let tool = tool_with(Settings { max_stdout_bytes: 10_000, ..settings() })?;
    assert_eq!(code_of(&tool, &script("while :; do echo endless; done")).await, "output_too_large");
    assert_eq!(code_of(&tool, &script("printf '\\377'")).await, "output_not_text");
    let printing =
        |text: &str| json!({"program": "sh", "args": ["-c", "cat"], "stdin_text": text, "output": "json"});
    assert_eq!(code_of(&tool, &printing("{")).await, "output_not_json");
    assert_eq!(code_of(&tool, &printing(&"[".repeat(9_000))).await, "output_too_deep");
    Ok(())
}

#[tokio::test]
async fn a_program_that_reads_nothing_still_ends() -> TestResult {
    let tool = tool_with(settings())?;
    let input = json!({"program": "sh", "args": ["-c", "echo done"], "stdin": "x".repeat(1_000_000)});
    assert_eq!(call(&tool, &input).await?["stdout"], "done\n");
    Ok(())
}

#[tokio::test]
async fn limits_hold_for_memory_time_and_files() -> TestResult {
    let tool =
        tool_with(Settings { max_cpu_seconds: 1, max_file_bytes: 4096, max_open_files: 16, ..settings() })?;
    assert_eq!(code_of(&tool, &script("while :; do :; done")).await, "exec_signal");
    let error = call(&tool, &script("exec head -c 100000 /dev/zero > big")).await.err().ok_or("no error")?;
    assert!(error.message.contains("signal 25"), "{}", error.message);
    assert_eq!(
        call(&tool, &script("ulimit -n; grep NoNewPrivs /proc/self/status")).await?["stdout"],
        "16\nNoNewPrivs:\t1\n"
    );
    let tool = tool_with(Settings { max_memory_bytes: 8 * 1024 * 1024, ..settings() })?;
    let hungry = "x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done";
    let code = code_of(&tool, &script(hungry)).await;
    assert!(code == "exec_exit" || code == "exec_signal", "{code}");
    Ok(())
}

#[tokio::test]
async fn dropping_the_call_kills_the_whole_group_and_leaves_no_zombie() -> TestResult {
    let place = tempfile::tempdir()?;
    let pids = place.path().join("pids");
    let tool = tool_with(settings())?;
    // A grandchild that ignores what it can, and a child that waits for it.
    let text = format!(
        "(trap '' TERM HUP INT; while :; do sleep 1; done) & echo $$ $! > {0}.new; mv {0}.new {0}; wait",
        pids.display()
    );
    let input = script(&text);
    tokio::select! {
        output = call(&tool, &input) => return Err(format!("the call ended with {output:?}").into()),
        started = eventually("both processes run", || pids.exists()) => started?,
    }
    let text = std::fs::read_to_string(&pids)?;
    let pids: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(pids.len(), 2);
    eventually("both processes are gone", || !pids.iter().any(|pid| is_alive(pid))).await?;
    eventually("the child was reaped", || !pids.first().is_some_and(|pid| is_zombie(pid))).await
}

#[tokio::test]
async fn what_a_program_leaves_running_ends_with_it() -> TestResult {
    let tool = tool_with(settings())?;
    // The background process keeps the pipe open: without its end the call would never return.
    let output = call(&tool, &script("sleep 1000 & echo $!")).await?;
    let pid = output["stdout"].as_str().unwrap_or_default().trim().to_owned();
    eventually("the background process is gone", || !is_alive(&pid)).await
}

#[tokio::test]
async fn many_runs_at_once_do_not_disturb_each_other() -> TestResult {
    let tool = tool_with(settings())?;
    let runs = (0..50).map(|n| {
        let tool = Arc::clone(&tool);
        tokio::spawn(async move {
            let input = json!({"program": "sh", "args": ["-c", "cat"], "stdin": n, "output": "json"});
            call(&tool, &input).await.map(|output| output["stdout"].as_i64())
        })
    });
    for (n, run) in runs.collect::<Vec<_>>().into_iter().enumerate() {
        assert_eq!(run.await??, i64::try_from(n).ok());
    }
    Ok(())
}

#[test]
fn settings_that_cannot_work_are_refused_by_name() {
    for (path, part) in [
        ("sh", "absolute"),
        ("/does/not/exist", "cannot be used"),
        ("/etc/passwd", "executable"),
        ("/bin", "executable"),
    ] {
        let settings = Settings {
            allow: BTreeMap::from([("p".to_owned(), PathBuf::from(path))]),
            ..Settings::default()
        };
        let why = Programs::new(settings).err().unwrap_or_default();
        assert!(why.starts_with("allow.p: ") && why.contains(part), "{why}");
    }
    let why = Programs::new(Settings { max_open_files: 0, ..Settings::default() }).err().unwrap_or_default();
    assert!(why.starts_with("max_open_files"), "{why}");
}
