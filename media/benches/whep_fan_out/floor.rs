//! The floor F: protecting a 1 200-byte packet with AES-128-GCM and sending it, nothing else.

use std::io::IoSliceMut;
use std::net::UdpSocket;
use std::time::Duration;

use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

const PACKET_BYTES: usize = 1_200;
const RTP_HEADER_BYTES: usize = 12;
/// Packets of one frame at 2.5 Mb/s and 30 frames/s.
const RUN: usize = 9;
const RUNS: u32 = 20_000;

/// CPU of one packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Floor {
    protect: Duration,
    send: Duration,
    has_offload: bool,
}

impl Floor {
    pub(crate) fn packet_us(self) -> f64 {
        (self.protect + self.send).as_secs_f64() * 1e6
    }
}

impl std::fmt::Display for Floor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let us = |it: Duration| it.as_secs_f64() * 1e6;
        let how = if self.has_offload { "with" } else { "without" };
        let (protect, send) = (us(self.protect), us(self.send));
        write!(
            f,
            "AES-128-GCM {protect:.2} us, send {send:.2} us {how} segmentation offload"
        )
    }
}

/// Measures F on this machine, now.
pub(crate) fn measure() -> Floor {
    let (send, has_offload) = send();
    Floor {
        protect: protect(),
        send,
        has_offload,
    }
}

fn protect() -> Duration {
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[7; 16]).unwrap());
    let mut packet = [5_u8; PACKET_BYTES];
    let (header, body) = packet.split_at_mut(RTP_HEADER_BYTES);
    let began = thread_cpu();
    for _ in 0..RUNS {
        for _ in 0..RUN {
            let nonce = Nonce::assume_unique_for_key([9; 12]);
            let tag = key
                .seal_in_place_separate_tag(nonce, Aad::from(&*header), body)
                .unwrap();
            header[0] ^= tag.as_ref()[0];
        }
    }
    each(thread_cpu() - began)
}

fn send() -> (Duration, bool) {
    let (from, to) = (socket(), socket());
    let addr = to.local_addr().unwrap();
    std::thread::spawn(move || drain(&to));
    let state = UdpSocketState::new(UdpSockRef::from(&from)).unwrap();
    let has_offload = state.max_gso_segments() >= RUN;
    let packets = vec![3_u8; PACKET_BYTES * RUN];
    let step = if has_offload {
        packets.len()
    } else {
        PACKET_BYTES
    };
    let began = thread_cpu();
    for _ in 0..RUNS {
        for run in packets.chunks(step) {
            let transmit = Transmit {
                destination: addr,
                ecn: None,
                contents: run,
                segment_size: has_offload.then_some(PACKET_BYTES),
                src_ip: None,
            };
            // A full buffer on loopback drops, and has cost the same.
            drop(state.try_send(UdpSockRef::from(&from), &transmit));
        }
    }
    (each(thread_cpu() - began), has_offload)
}

fn socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}

/// Reads until the bench is over, so that sending meets a receiver that keeps up.
fn drain(socket: &UdpSocket) {
    let state = UdpSocketState::new(UdpSockRef::from(socket)).unwrap();
    socket.set_nonblocking(false).unwrap();
    let mut memory = vec![0_u8; 1 << 16];
    let mut metas = [RecvMeta::default()];
    loop {
        let mut slices = [IoSliceMut::new(&mut memory)];
        if state
            .recv(UdpSockRef::from(socket), &mut slices, &mut metas)
            .is_err()
        {
            std::thread::yield_now();
        }
    }
}

fn each(all: Duration) -> Duration {
    all / (RUNS * u32::try_from(RUN).unwrap())
}

/// CPU time of this thread.
fn thread_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// CPU time of this process: all its threads, those that ended as well.
pub(crate) fn process_cpu() -> Duration {
    const TICKS_PER_SECOND: u64 = 100;
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_name, rest) = text.rsplit_once(") ").unwrap();
    let words: Vec<&str> = rest.split(' ').collect();
    let ticks: u64 = [11, 12]
        .iter()
        .map(|n| words[*n].parse::<u64>().unwrap())
        .sum();
    Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND)
}
