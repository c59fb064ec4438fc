//! What the numbers were taken on.

use std::fs;

use anyhow::Result;
use tidemill_runtime::clock::Clock;
use tokio::process::Command;

/// Machine, versions and date.
#[derive(Debug, Default)]
pub(crate) struct Conditions {
    lines: Vec<(&'static str, String)>,
}

async fn output_of(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().await.ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("{}, {cores} cores", model.map_or("unknown", |(_, name)| name.trim()))
}

fn first_line(file: &str) -> String {
    fs::read_to_string(file).unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}

async fn revision() -> String {
    let Some(commit) = output_of("git", &["rev-parse", "--short=12", "HEAD"]).await else {
        return "unknown".to_owned();
    };
    let changed = output_of("git", &["status", "--porcelain", "--untracked-files=no"]).await;
    if changed.is_some_and(|changed| !changed.is_empty()) {
        format!("{commit} with local changes")
    } else {
        commit
    }
}

async fn redis_version() -> String {
    let text = output_of("redis-server", &["--version"]).await.unwrap_or_default();
    text.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap_or("unknown").to_owned()
}

impl Conditions {
    /// Reads them from the system.
    pub(crate) async fn read(rounds: u32, quick: bool) -> Result<Self> {
        let now = jiff::Timestamp::from_millisecond(i64::try_from(Clock::system().wall_ms())?)?;
        let build = if cfg!(debug_assertions) { "debug (numbers mean nothing)" } else { "optimised" };
        let load = first_line("/proc/loadavg");
        let load = load.split_whitespace().next().unwrap_or("unknown").to_owned();
        let mut lines = vec![
            ("date", now.strftime("%Y-%m-%d %H:%M UTC").to_string()),
            ("revision", revision().await),
            ("build", build.to_owned()),
            ("processor", processor()),
            ("kernel", first_line("/proc/sys/kernel/osrelease")),
            ("Redis", redis_version().await),
            ("load average before the start, by other programs", load),
            ("rounds", rounds.to_string()),
        ];
        if quick {
            lines.push(("size", "a tenth (`--quick`): not for comparing".to_owned()));
        }
        Ok(Self { lines })
    }

    /// As a list.
    pub(crate) fn markdown(&self) -> String {
        self.lines.iter().map(|(name, value)| format!("* {name}: {value}\n")).collect()
    }
}
