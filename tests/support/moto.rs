//! A store that speaks S3, of the harness's own: moto's server on a free port, empty, with one
//! bucket.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Half a minute.
const LOOKS_MAX: usize = 600;
pub(crate) const BUCKET: &str = "recordings";

/// Ends with the test.
pub(crate) struct Moto {
    child: Child,
    pub(crate) addr: SocketAddr,
}

impl Moto {
    pub(crate) fn start() -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into())
    }

    /// At an address, which may have been another's a moment ago.
    pub(crate) fn start_at(addr: SocketAddr) -> Self {
        let free = until("the address is free", || TcpListener::bind(addr).ok());
        let addr = free.local_addr().unwrap();
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/moto/bin/moto_server");
        assert!(
            program.is_file(),
            "moto is missing: run scripts/setup.sh --test"
        );
        drop(free);
        let mut moto = Command::new(program);
        moto.args(["-H", "127.0.0.1", "-p", &addr.port().to_string()]);
        moto.stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let moto = Self {
            child: moto.spawn().unwrap(),
            addr,
        };
        until("moto starts", || moto.has_bucket().then_some(()));
        moto
    }

    pub(crate) fn stop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Makes the bucket; false while nothing answers.
    fn has_bucket(&self) -> bool {
        let Ok(mut socket) = TcpStream::connect(self.addr) else {
            return false;
        };
        let ask = format!(
            "PUT /{BUCKET} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=id/20260101/us-east-1/s3/aws4_request, \
             SignedHeaders=host, Signature=0\r\n\r\n",
            self.addr
        );
        let mut status = String::new();
        let asked = socket.write_all(ask.as_bytes()).and_then(|()| {
            let mut answer = BufReader::new(&mut socket);
            answer.read_line(&mut status)?;
            answer.read_to_end(&mut Vec::new())
        });
        asked.is_ok() && status.contains(" 200 ")
    }

    /// A file with the id and the secret of a key, made in a folder.
    pub(crate) fn credentials(&self, folder: &Path) -> PathBuf {
        let path = folder.join(format!("s3-{}.key", self.addr.port()));
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&path).unwrap();
        file.write_all(b"id\nsecret\n").unwrap();
        path
    }
}

/// Looks until there is something.
fn until<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    for _ in 0..LOOKS_MAX {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    panic!("it never came that {what}");
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.stop();
    }
}
