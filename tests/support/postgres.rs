//! A PostgreSQL of the harness's own: made with `initdb` in a temporary directory, run by an
//! unprivileged user on a free port, one database a test.
//!
//! All test processes of a run share one server. Each holds a shared lock on a file; a watchdog
//! stops the server and removes its directory once nobody has held that lock for a while. So a
//! test that crashes leaves nothing behind.

use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::Connection;

/// nobody on every Debian: `initdb` refuses to run as root.
const UID: &str = "65534";

/// Where to connect, and the lock that keeps the server alive.
struct Cluster {
    url: String,
    _in_use: Option<File>,
}

/// The URL of a fresh, empty database; `None` when the tests run on SQLite.
#[expect(
    clippy::disallowed_methods,
    reason = "the choice of the database is the harness's, not a setting"
)]
pub(crate) async fn fresh_database() -> Option<String> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let wanted = std::env::var("LAMPLIGHT_TEST_DB").ok()?;
    if wanted == "sqlite" || wanted.is_empty() {
        return None;
    }
    let cluster = cluster(&wanted);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("t{}_{number}", std::process::id());
    let root = format!("{}/postgres", cluster.url);
    let mut connection = sqlx::postgres::PgConnection::connect(&root).await.unwrap();
    for sql in [
        format!("DROP DATABASE IF EXISTS {name}"),
        format!("CREATE DATABASE {name}"),
    ] {
        sqlx::query(sqlx::AssertSqlSafe(sql))
            .execute(&mut connection)
            .await
            .unwrap();
    }
    connection.close().await.unwrap();
    Some(format!("{}/{name}", cluster.url))
}

/// The server of this run; `wanted` may name one that runs already.
fn cluster(wanted: &str) -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        if wanted.starts_with("postgres") && wanted.contains("://") {
            return Cluster {
                url: wanted.trim_end_matches('/').into(),
                _in_use: None,
            };
        }
        join_or_start().unwrap()
    })
}

fn join_or_start() -> io::Result<Cluster> {
    let base = std::env::temp_dir().join("lamplight-test-postgres");
    fs::create_dir_all(&base)?;
    let gate = File::create(base.join("gate"))?;
    gate.lock()?;
    let in_use = File::create(base.join("in_use"))?;
    in_use.lock_shared()?;
    let port = match running(&base) {
        Some(port) => port,
        None => start(&base)?,
    };
    gate.unlock()?;
    Ok(Cluster {
        url: format!("postgres://app@127.0.0.1:{port}"),
        _in_use: Some(in_use),
    })
}

fn running(base: &Path) -> Option<u16> {
    let port = fs::read_to_string(base.join("port")).ok()?.parse().ok()?;
    std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    Some(port)
}

fn start(base: &Path) -> io::Result<u16> {
    let data = base.join("data");
    if data.exists() {
        fs::remove_dir_all(&data)?;
    }
    fs::create_dir_all(&data)?;
    std::os::unix::fs::chown(&data, UID.parse().ok(), UID.parse().ok())
        .or_else(|err| if is_root() { Err(err) } else { Ok(()) })?;
    let dir = data.display();
    let bin = binaries()?;
    let initdb = format!(
        "{}/initdb -D {dir} -U app -A trust -N >/dev/null",
        bin.display()
    );
    run(&initdb)?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    // Durability is not what these tests look at.
    let options = format!(
        "-p {port} -k {dir} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=500"
    );
    let start = format!(
        "{}/pg_ctl -D {dir} -w -l {dir}/log -o '{options}' start >/dev/null",
        bin.display()
    );
    run(&start)?;
    fs::write(base.join("port"), port.to_string())?;
    watch(base, &bin)?;
    Ok(port)
}

/// Stops the server once no test has used it for ten seconds.
fn watch(base: &Path, bin: &Path) -> io::Result<()> {
    let (base, bin) = (base.display(), bin.display());
    let stop = format!("{bin}/pg_ctl -D {base}/data -m immediate stop >/dev/null 2>&1");
    let script = format!(
        "exec 8>{base}/gate 9>{base}/in_use
         while :; do
           flock -x 9; flock -u 9; sleep 10
           flock -x 8
           if flock -n -x 9; then {}; rm -rf {base}/data {base}/port; exit; fi
           flock -u 8
         done",
        as_user(&stop)
    );
    Command::new("setsid")
        .args(["sh", "-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map(drop)
}

fn run(command: &str) -> io::Result<()> {
    let output = Command::new("sh")
        .args(["-c", &as_user(command)])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{command}: {said}")))
}

fn as_user(command: &str) -> String {
    if !is_root() {
        return command.into();
    }
    let quoted = command.replace('\'', "'\\''");
    format!("setpriv --reuid={UID} --regid={UID} --clear-groups sh -c '{quoted}'")
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

/// Debian keeps the server's programs out of the path, by version.
fn binaries() -> io::Result<PathBuf> {
    let mut versions: Vec<_> = fs::read_dir("/usr/lib/postgresql")?
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| bin.join("initdb").is_file())
        .collect();
    versions.sort();
    let missing = || io::Error::other("no PostgreSQL is installed; run scripts/test.sh");
    versions.pop().ok_or_else(missing)
}
