//! Settings of `exec.run`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What `exec.run` and the tools made from it may run, and how far a program may go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The programs that may run: a name for jobs to use, and the absolute path behind it (default: none).
    pub allow: BTreeMap<String, PathBuf>,
    /// Variables of every program's environment, beside `PATH`, `HOME`, `TMPDIR`, `LANG` and those of the call
    /// (default: none). Nothing else of the worker's environment is passed on.
    pub env: BTreeMap<String, String>,
    /// The `PATH` of programs (default `/usr/local/bin:/usr/bin:/bin`).
    pub path: String,
    /// The folder in which each call gets an empty folder of its own (default: the system's folder for temporary files).
    pub folder: Option<PathBuf>,
    /// The most that a program may print, in bytes (default 1,048,576).
    pub max_stdout_bytes: usize,
    /// How much of the end of a program's complaints an error quotes, in bytes (default 2,048).
    pub stderr_tail_bytes: usize,
    /// Private writable memory of each process, in bytes (default 1,073,741,824).
    pub max_memory_bytes: u64,
    /// Processor time of each process, in seconds (default 300).
    pub max_cpu_seconds: u64,
    /// The largest file that a process may write, in bytes (default 1,073,741,824).
    pub max_file_bytes: u64,
    /// Open files of each process (default 256).
    pub max_open_files: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            allow: BTreeMap::new(),
            env: BTreeMap::new(),
            path: "/usr/local/bin:/usr/bin:/bin".to_owned(),
            folder: None,
            max_stdout_bytes: 1024 * 1024,
            stderr_tail_bytes: 2048,
            max_memory_bytes: 1024 * 1024 * 1024,
            max_cpu_seconds: 300,
            max_file_bytes: 1024 * 1024 * 1024,
            max_open_files: 256,
        }
    }
}
