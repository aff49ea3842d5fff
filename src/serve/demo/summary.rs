//! What the demo prints: for people, or as one line of JSON.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::Serialize;

use super::Print;
use super::seed::Seed;
use crate::app::Bound;

/// The addresses and secrets of the demo. The keys of its JSON are a contract.
#[derive(Serialize)]
pub(super) struct Summary {
    http: String,
    rtmp: String,
    whip: String,
    whep: String,
    hls: String,
    room: String,
    stream_key: String,
    operator_token: String,
    #[serde(skip)]
    has_publisher: bool,
}

impl Summary {
    pub(super) fn new(bound: Bound, seed: &Seed, has_publisher: bool) -> Self {
        let room = seed.room.to_string();
        let http = format!("http://{}", reachable(bound.http));
        Self {
            rtmp: format!("rtmp://{}/live", reachable(bound.rtmp)),
            whip: format!("{http}/whip"),
            whep: format!("{http}/whep/{room}"),
            hls: format!("{http}/hls/{room}/index.m3u8"),
            http,
            room,
            stream_key: seed.stream_key.clone(),
            operator_token: seed.operator_token.clone(),
            has_publisher,
        }
    }

    pub(super) fn render(&self, print: Print) -> String {
        match print {
            Print::Json => {
                let line = serde_json::to_string(self).expect("a summary is plain text");
                format!("{line}\n")
            }
            Print::Text => self.text(),
        }
    }

    fn text(&self) -> String {
        let Self {
            http,
            rtmp,
            whep,
            hls,
            room,
            stream_key,
            operator_token,
            ..
        } = self;
        let obs = if self.has_publisher {
            "The test pattern is on air and steps aside for you. In OBS > Settings > Stream\n  \
             choose Custom and put in:"
        } else {
            "The room waits for you. In OBS > Settings > Stream choose Custom and put in:"
        };
        format!(
            "\n  Lamplight is on.\n\
             \n  Watch\n    {http}/rooms/{room}\n\
             \n  Go on air\n  {obs}\n    \
             Server      {rtmp}\n    \
             Stream key  {stream_key}\n\
             \n  Players of your own\n    \
             WHEP        {whep}\n    \
             LL-HLS      {hls}\n\
             \n  Operator token (keep it to yourself)\n    {operator_token}\n\
             \n  Put a card on the next frame\n    \
             curl {http}/api/v1/media/broadcasts/{room}/cues \\\n      \
             -H 'Authorization: Bearer {operator_token}' \\\n      \
             -H 'Content-Type: application/json' \\\n      \
             -d '{{\"class\":\"note\",\"kind\":\"passing\",\"data\":\"hello\"}}'\n\
             \n  Ctrl-C stops it.\n\n"
        )
    }
}

/// An address one can type: a wildcard is this machine.
pub(super) fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) | IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            Ipv4Addr::LOCALHOST.into()
        }
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}
