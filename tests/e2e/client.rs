//! A foreign program that a test drives: bounded in time and in what it writes, gone with the test.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines, Take};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// Of the processor; also the end of a program whose test was killed before it could end it.
const CPU_S_MAX: u32 = 600;
const FILE_BYTES_MAX: u32 = 1 << 30;
const STDOUT_BYTES_MAX: u64 = 4 << 20;

/// A program as all tests start it: without input and output, killed when dropped.
pub(crate) fn program(name: &str) -> Command {
    let mut look = std::process::Command::new("sh");
    look.args(["-c", "command -v \"$0\"", name])
        .stdout(Stdio::null());
    let is_there = look.status().unwrap().success();
    assert!(is_there, "no {name}: run scripts/setup.sh --test");
    let mut command = Command::new("prlimit");
    command
        .arg(format!("--cpu={CPU_S_MAX}"))
        .arg(format!("--fsize={FILE_BYTES_MAX}"))
        .args(["--", name])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true);
    command
}

/// A script of this folder with its task, in the interpreter of its kind.
pub(crate) fn script(name: &str, task: &serde_json::Value) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let aiortc = root.join(".tools/aiortc/bin/python");
    let mut command = match name {
        _ if name.ends_with(".mjs") => program("node"),
        _ if name.ends_with("_aiortc.py") => program(&aiortc.display().to_string()),
        // The system's own Python has the system's GStreamer.
        _ => program("/usr/bin/python3"),
    };
    command
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(root.join("tests/e2e").join(name))
        .arg(task.to_string());
    command
}

/// Sends a signal by its name, as a person would.
pub(crate) async fn signal(child: &Child, name: &str) {
    let id = child.id().expect("it still runs: see its log").to_string();
    let sent = Command::new("kill").args(["-s", name, &id]).status().await;
    assert!(sent.unwrap().success());
}

/// A running program that is talked to in lines; killed when dropped.
pub(crate) struct Client {
    _child: Child,
    words: Option<ChildStdin>,
    lines: Lines<BufReader<Take<ChildStdout>>>,
}

impl Client {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.stdout.take().unwrap().take(STDOUT_BYTES_MAX);
        Self {
            words: child.stdin.take(),
            lines: BufReader::new(output).lines(),
            _child: child,
        }
    }

    /// Its next line.
    pub(crate) async fn line(&mut self, within: Duration) -> String {
        let line = timeout(within, self.lines.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("nothing was said within {within:?}"));
        line.unwrap().expect("the program ended: see above")
    }

    pub(crate) async fn say(&mut self, line: &str) {
        let words = self.words.as_mut().expect("it was not told to end");
        let line = format!("{line}\n");
        words.write_all(line.as_bytes()).await.unwrap();
    }

    /// Ends its input.
    pub(crate) fn hang_up(&mut self) {
        self.words = None;
    }
}
