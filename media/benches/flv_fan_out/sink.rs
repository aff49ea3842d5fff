//! The readers: a process that takes what comes and counts its bytes.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

/// Makes a process of this program the readers.
pub(crate) const ARGUMENT: &str = "--sink";
const READ_BYTES: usize = 64 << 10;

/// That process; it ends when dropped.
pub(crate) struct Sink {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    addr: SocketAddr,
}

impl Sink {
    pub(crate) fn start() -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .arg(ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let to = child.stdin.take().unwrap();
        let mut from = BufReader::new(child.stdout.take().unwrap());
        let addr = line(&mut from).parse().unwrap();
        Self {
            child,
            to,
            from,
            addr,
        }
    }

    pub(crate) async fn connect(&self, count: u32) -> Vec<TcpStream> {
        let mut streams = Vec::new();
        for _ in 0..count {
            let stream = TcpStream::connect(self.addr).await.unwrap();
            stream.set_nodelay(true).unwrap();
            streams.push(stream);
        }
        streams
    }

    /// What all got so far.
    pub(crate) fn bytes(&mut self) -> u64 {
        writeln!(self.to, "bytes").unwrap();
        line(&mut self.from).parse().unwrap()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // Over already, or ended here.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn line(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// Reads for ever; says its address, and on each line how many bytes came.
pub(crate) fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let bytes = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&bytes);
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    println!("{}", listener.local_addr().unwrap());
    runtime.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(drain(stream, Arc::clone(&counted)));
        }
    });
    while !line(&mut std::io::stdin().lock()).is_empty() {
        println!("{}", bytes.load(Ordering::Relaxed));
    }
}

async fn drain(mut stream: TcpStream, bytes: Arc<AtomicU64>) {
    let mut memory = vec![0; READ_BYTES];
    while let Ok(count @ 1..) = stream.read(&mut memory).await {
        bytes.fetch_add(count as u64, Ordering::Relaxed);
    }
}
