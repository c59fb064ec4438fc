//! The three pipes of a program, at the same time and bounded.

use std::collections::VecDeque;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};

use super::launcher::Group;

/// How much is read at once.
const CHUNK_BYTES: usize = 8 * 1024;

/// How much of each pipe is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) stdout: usize,
    pub(crate) stderr_tail: usize,
}

/// Our ends of the pipes.
pub(crate) struct Pipes {
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
}

/// What the program printed.
pub(crate) struct Streams {
    pub(crate) stdout: Vec<u8>,
    pub(crate) is_too_large: bool,
    /// The end of what it complained, without control characters.
    pub(crate) stderr_tail: String,
}

impl Pipes {
    pub(crate) const fn take(child: &mut Child) -> Self {
        Self { stdin: child.stdin.take(), stdout: child.stdout.take(), stderr: child.stderr.take() }
    }

    /// Feeds and reads until every pipe is closed; a program that prints too much is killed.
    pub(crate) async fn run(self, input: &[u8], bounds: Bounds, group: &Group) -> Streams {
        let feed = async {
            if let Some(mut stdin) = self.stdin {
                // A program need not read its input to the end.
                drop(stdin.write_all(input).await);
            }
        };
        let read = async {
            let result = read_all(self.stdout, bounds.stdout).await;
            if result.1 {
                group.kill();
            }
            result
        };
        let ((), (stdout, is_too_large), stderr_tail) =
            tokio::join!(feed, read, read_tail(self.stderr, bounds.stderr_tail));
        Streams { stdout, is_too_large, stderr_tail }
    }
}

/// Everything up to a bound, and whether there was more.
async fn read_all(pipe: Option<impl AsyncRead + Unpin>, bound: usize) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    let Some(pipe) = pipe else { return (all, false) };
    let mut bounded = pipe.take(u64::try_from(bound).unwrap_or(u64::MAX).saturating_add(1));
    // A pipe that breaks is a program that ended; its status tells the rest.
    drop(bounded.read_to_end(&mut all).await);
    let is_too_large = all.len() > bound;
    (all, is_too_large)
}

/// The last bytes as text; the rest is read and forgotten.
async fn read_tail(pipe: Option<impl AsyncRead + Unpin>, bound: usize) -> String {
    let Some(mut pipe) = pipe else { return String::new() };
    let mut tail: VecDeque<u8> = VecDeque::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
        tail.extend(chunk.iter().take(count));
        let surplus = tail.len().saturating_sub(bound);
        tail.drain(..surplus);
    }
    let text = String::from_utf8_lossy(tail.make_contiguous()).into_owned();
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
