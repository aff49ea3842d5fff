//! Ports, the address that players are told, the certificate.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::{Finding, cli};
use crate::clock::Timestamp;
use crate::config::{Config, Http, Webrtc};
use crate::serve::tls;

const ASKING: Duration = Duration::from_secs(2);
const ANSWER_BYTES_MAX: u64 = 4 << 10;
/// A certificate that ends sooner should have been renewed.
const RENEWED_BEFORE: time::Duration = time::Duration::days(14);

/// Whether each port can be had, or is this server's already.
pub(super) fn ports(config: &Config) -> Vec<Finding> {
    let tcp = [
        ("http.listen", Some(config.http.listen)),
        ("http.admin_listen", Some(config.http.admin_listen)),
        (
            "http.tls_listen",
            config.http.tls.as_ref().map(|_| config.http.tls_listen),
        ),
        ("rtmp.listen", Some(config.rtmp.listen)),
        ("rtmp.tls_listen", config.rtmp.tls_listen),
    ];
    let is_running = is_lamplight(config.http.listen);
    let tcp = tcp.into_iter().filter_map(|(key, addr)| {
        let addr = addr?;
        Some(port(key, addr, TcpListener::bind(addr), is_running))
    });
    let udp = config.webrtc.udp;
    let udp = port("webrtc.udp", udp, UdpSocket::bind(udp), is_running);
    tcp.chain([udp]).collect()
}

fn port<T>(key: &'static str, addr: SocketAddr, bound: io::Result<T>, is_running: bool) -> Finding {
    let Err(err) = bound else {
        return Finding::ok(key, format!("{addr} is free"));
    };
    match err.kind() {
        io::ErrorKind::AddrInUse if is_running => {
            Finding::ok(key, format!("{addr} is taken, and a Lamplight runs here"))
        }
        io::ErrorKind::AddrInUse => {
            let text = format!("{addr} is taken by another program; stop it or set {key}");
            Finding::fail(key, text)
        }
        io::ErrorKind::PermissionDenied => {
            let text = format!(
                "{addr} may not be opened; run: setcap cap_net_bind_service=+ep on the binary, or \
                 set {key} to a port from 1024 on"
            );
            Finding::fail(key, text)
        }
        _ => {
            let text = format!("{addr} cannot be opened ({err}); set {key}");
            Finding::fail(key, text)
        }
    }
}

/// Whether this server answers there.
fn is_lamplight(listen: SocketAddr) -> bool {
    let mut addr = listen;
    if addr.ip().is_unspecified() {
        addr.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let ask = || -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&addr, ASKING)?;
        stream.set_read_timeout(Some(ASKING))?;
        stream.set_write_timeout(Some(ASKING))?;
        let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request)?;
        let mut answer = String::new();
        stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
        Ok(answer)
    };
    // The form of the request's id is this server's own.
    addr.port() != 0 && ask().is_ok_and(|answer| answer.contains("x-request-id: req_"))
}

/// Where players are told to send.
pub(super) fn public_address(webrtc: &Webrtc) -> Finding {
    let key = "webrtc.public_addrs";
    let told = match webrtc.public_addrs.as_slice() {
        [] if webrtc.udp.ip().is_unspecified() => outward(),
        [] => vec![webrtc.udp.ip()],
        set => set.to_vec(),
    };
    if told.iter().all(IpAddr::is_loopback) {
        let text = "only this machine itself can watch over WebRTC; name the address that players \
                    reach";
        return Finding::warn(key, text);
    }
    let list: Vec<_> = told.iter().map(ToString::to_string).collect();
    let list = list.join(", ");
    let is_inner = |ip: &IpAddr| matches!(ip, IpAddr::V4(v4) if v4.is_private());
    if told.iter().all(is_inner) {
        let text = format!("{list}; behind NAT name the address that the internet sees");
        return Finding::ok(key, text);
    }
    Finding::ok(key, list)
}

/// The address from which this machine would send to the internet. Nothing is sent.
fn outward() -> Vec<IpAddr> {
    let documentation = SocketAddr::from(([192, 0, 2, 1], 9));
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0));
    let routed = socket.and_then(|socket| {
        socket.connect(documentation)?;
        socket.local_addr()
    });
    routed.map_or_else(|_no_route| Vec::new(), |addr| vec![addr.ip()])
}

/// Whether browsers will take it.
pub(super) fn certificate(http: &Http, now: Timestamp) -> Finding {
    let key = "http.tls_cert";
    let Some(files) = &http.tls else {
        return Finding::ok(key, "TLS is off");
    };
    let until = match tls::expires(files) {
        Ok(until) => until,
        Err(err) => return Finding::fail(key, cli::describe(&err)),
    };
    let (day, now) = (until.date(), now.to_datetime());
    if until <= now {
        Finding::fail(key, format!("ended on {day}; renew it, then send SIGHUP"))
    } else if until - now < RENEWED_BEFORE {
        Finding::warn(key, format!("ends on {day}; renew it, then send SIGHUP"))
    } else if is_open(&files.key) {
        let text = format!(
            "everybody may read its key; run: chmod o= {}",
            files.key.display()
        );
        Finding::warn(key, text)
    } else {
        Finding::ok(key, format!("good until {day}"))
    }
}

/// Whether users beside owner and group may read a file.
fn is_open(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|file| file.permissions().mode() & 0o004 != 0)
}
