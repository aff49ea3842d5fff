//! The lite end of ICE (RFC 8445 2.5): answers the viewer's checks and sends where they nominate.
//!
//! Invariants
//! - Nothing is believed that does not carry the session's password.
//! - Once the connection stands, media moves to another address only when that has answered a
//!   check of ours: a forged source cannot direct it at somebody.
//! - Over a restart the old path lives until the new one is nominated.
//!
//! Not here: sockets; which datagram belongs to which session.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::stun::{self, Kind, Message, Transaction};

/// Addresses one viewer may speak from.
const ADDRESSES_MAX: usize = 16;
/// A check of ours is repeated with the viewer's own, but no faster.
const PROBE_EVERY: Duration = Duration::from_millis(50);

/// Name and password of one side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) ufrag: String,
    pub(crate) password: String,
}

/// What both sides are called until the next restart.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    local: Credentials,
    remote: Credentials,
    /// What the viewer's checks must say.
    inbound: String,
}

impl Names {
    pub(crate) fn new(local: Credentials, remote: Credentials) -> Self {
        let inbound = format!("{}:{}", local.ufrag, remote.ufrag);
        Self {
            local,
            remote,
            inbound,
        }
    }

    pub(crate) const fn local(&self) -> &Credentials {
        &self.local
    }

    pub(crate) const fn remote(&self) -> &Credentials {
        &self.remote
    }

    /// Our own name, by which checks find the session.
    pub(crate) fn ufrag(&self) -> &str {
        &self.local.ufrag
    }

    /// Whether they made this check.
    fn made(&self, message: &Message<'_>) -> bool {
        message.username == Some(self.inbound.as_str())
            && message.is_authentic(&self.local.password)
    }
}

/// Why a message was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// It is none, or asks for nothing.
    Useless,
    /// It does not prove to be the viewer's.
    Forged,
    /// The viewer speaks from too many addresses.
    TooMany,
}

#[derive(Clone, Copy, Debug)]
struct Address {
    addr: SocketAddr,
    /// True once something that needs a round trip came back from it.
    is_proven: bool,
}

/// A check of ours under way.
#[derive(Clone, Copy, Debug)]
struct Probe {
    to: SocketAddr,
    transaction: Transaction,
    sent: Instant,
    is_restart: bool,
}

/// The paths of one session.
#[derive(Debug)]
pub(crate) struct Lite {
    names: Names,
    /// Those of a restart that has not yet worked.
    next: Option<Names>,
    addresses: Vec<Address>,
    selected: Option<SocketAddr>,
    probe: Option<Probe>,
    /// True once the connection stands: then a path must prove itself before it is used.
    is_secure: bool,
    /// When something authenticated came last.
    pub(crate) heard: Instant,
}

impl Lite {
    pub(crate) fn new(names: Names, now: Instant) -> Self {
        Self {
            names,
            next: None,
            addresses: Vec::new(),
            selected: None,
            probe: None,
            is_secure: false,
            heard: now,
        }
    }

    /// The viewer restarts: its next checks come with these names. A restart before the last one
    /// worked takes its place.
    pub(crate) fn restart(&mut self, names: Names) {
        self.next = Some(names);
    }

    /// Where to send; before a nomination, where the viewer spoke from last.
    pub(crate) fn route(&self) -> Option<SocketAddr> {
        self.selected
            .or_else(|| self.addresses.last().map(|a| a.addr))
    }

    /// Whether what comes from there may be the viewer's.
    pub(crate) fn knows(&self, from: SocketAddr) -> bool {
        self.addresses.iter().any(|a| a.addr == from)
    }

    /// The connection stands, which proves the path it was made on.
    pub(crate) fn secure(&mut self) {
        self.is_secure = true;
        if let Some(route) = self.route() {
            self.prove(route);
            self.selected = Some(route);
        }
    }

    /// Takes a STUN message; gives what is to be sent back.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<Vec<Vec<u8>>, Dropped> {
        let message = stun::read(datagram).ok_or(Dropped::Useless)?;
        match message.kind {
            Kind::Request => self.check(now, from, &message),
            Kind::Success => self.proof(now, from, &message).map(|()| Vec::new()),
            Kind::Other => Err(Dropped::Useless),
        }
    }

    /// The viewer's check of a path.
    fn check(
        &mut self,
        now: Instant,
        from: SocketAddr,
        message: &Message<'_>,
    ) -> Result<Vec<Vec<u8>>, Dropped> {
        let is_restart = self.next.as_ref().is_some_and(|next| next.made(message));
        if !is_restart && !self.names.made(message) {
            return Err(Dropped::Forged);
        }
        if !self.knows(from) {
            if self.addresses.len() >= ADDRESSES_MAX {
                return Err(Dropped::TooMany);
            }
            self.addresses.push(Address {
                addr: from,
                is_proven: false,
            });
        }
        self.heard = now;
        let names = self.next.as_ref().filter(|_| is_restart);
        let names = names.unwrap_or(&self.names);
        let answer = stun::success(message.transaction, from, &names.local.password);
        let mut out = vec![answer];
        let is_news = is_restart || self.selected != Some(from);
        if message.is_nomination && is_news {
            let is_proven = self.addresses.iter().any(|a| a.addr == from && a.is_proven);
            if is_proven || !self.is_secure {
                self.select(from, is_restart);
            } else {
                out.extend(self.ask(now, from, is_restart));
            }
        }
        Ok(out)
    }

    /// A check of ours to an address that the viewer nominates.
    fn ask(&mut self, now: Instant, to: SocketAddr, is_restart: bool) -> Option<Vec<u8>> {
        let is_due = self.probe.is_none_or(|probe| {
            probe.to != to || now.saturating_duration_since(probe.sent) >= PROBE_EVERY
        });
        let mut transaction = [0; 12];
        if !is_due || getrandom::fill(&mut transaction).is_err() {
            return None;
        }
        self.probe = Some(Probe {
            to,
            transaction,
            sent: now,
            is_restart,
        });
        let names = self.next.as_ref().filter(|_| is_restart);
        let names = names.unwrap_or(&self.names);
        let username = format!("{}:{}", names.remote.ufrag, names.local.ufrag);
        Some(stun::request(
            transaction,
            &username,
            &names.remote.password,
        ))
    }

    /// The answer to a check of ours.
    fn proof(
        &mut self,
        now: Instant,
        from: SocketAddr,
        message: &Message<'_>,
    ) -> Result<(), Dropped> {
        let is_ours = |probe: &Probe| probe.to == from && probe.transaction == message.transaction;
        let probe = self.probe.filter(is_ours).ok_or(Dropped::Useless)?;
        let names = self.next.as_ref().filter(|_| probe.is_restart);
        let names = names.unwrap_or(&self.names);
        if !message.is_authentic(&names.remote.password) {
            return Err(Dropped::Forged);
        }
        self.heard = now;
        self.probe = None;
        self.prove(from);
        self.select(from, probe.is_restart);
        Ok(())
    }

    fn select(&mut self, addr: SocketAddr, is_restart: bool) {
        self.selected = Some(addr);
        if is_restart && let Some(names) = self.next.take() {
            self.names = names;
        }
    }

    fn prove(&mut self, addr: SocketAddr) {
        for known in self.addresses.iter_mut().filter(|a| a.addr == addr) {
            known.is_proven = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webrtc::stun::tests::check;

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn credentials(name: &str) -> Credentials {
        Credentials {
            ufrag: name.into(),
            password: format!("the password of {name}"),
        }
    }

    fn names(generation: u8) -> Names {
        let name = |side| credentials(&format!("{side}{generation}"));
        Names::new(name("ours"), name("them"))
    }

    fn lite() -> Lite {
        Lite::new(names(1), moment(0))
    }

    /// So many milliseconds after a start.
    fn moment(ms: u64) -> Instant {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        let start = START.get_or_init(|| tokio::time::Instant::now().into_std());
        *start + Duration::from_millis(ms)
    }

    fn heard(lite: &mut Lite, generation: u8, from: u16, is_nomination: bool) -> usize {
        let (ours, them) = (format!("ours{generation}"), format!("them{generation}"));
        let password = credentials(&ours).password;
        let check = check(&format!("{ours}:{them}"), &password, is_nomination);
        let now = moment(u64::from(from));
        lite.receive(now, addr(from), &check).unwrap().len()
    }

    /// The viewer's answer to the check that was sent to it.
    fn answer(lite: &mut Lite, generation: u8, from: u16) -> Result<Vec<Vec<u8>>, Dropped> {
        let transaction = lite.probe.unwrap().transaction;
        let password = credentials(&format!("them{generation}")).password;
        let answer = stun::success(transaction, addr(1), &password);
        lite.receive(moment(0), addr(from), &answer)
    }

    #[test]
    fn checks_are_answered_and_the_nominated_path_is_taken() {
        let mut lite = lite();
        assert_eq!(lite.route(), None);
        assert_eq!(heard(&mut lite, 1, 1, false), 1);
        assert_eq!(heard(&mut lite, 1, 2, false), 1);
        assert_eq!(
            lite.route(),
            Some(addr(2)),
            "the newest until one is nominated"
        );
        heard(&mut lite, 1, 1, true);
        heard(&mut lite, 1, 2, false);
        assert_eq!(lite.route(), Some(addr(1)));
        lite.secure();
        assert_eq!(lite.route(), Some(addr(1)));
    }

    #[test]
    fn what_does_not_carry_the_password_changes_nothing() {
        let mut lite = lite();
        let good = credentials("ours1").password;
        let cases = [
            ("ours1:them1", "another password", Dropped::Forged),
            ("ours1:them2", &good, Dropped::Forged),
            ("ours2:them1", &good, Dropped::Forged),
        ];
        for (username, password, expected) in cases {
            let check = check(username, password, true);
            let got = lite.receive(moment(9_000), addr(1), &check);
            assert_eq!(got, Err(expected), "{username}");
        }
        let nothing = lite.receive(moment(9_000), addr(1), b"\0\x01nothing");
        assert_eq!(nothing, Err(Dropped::Useless));
        assert_eq!((lite.route(), lite.heard), (None, moment(0)));
    }

    #[test]
    fn a_seventeenth_address_is_not_listened_to() {
        let mut lite = lite();
        for port in 1..=16 {
            heard(&mut lite, 1, port, true);
        }
        let check = check("ours1:them1", &credentials("ours1").password, true);
        assert_eq!(
            lite.receive(moment(0), addr(17), &check),
            Err(Dropped::TooMany)
        );
        assert!(lite.knows(addr(16)) && !lite.knows(addr(17)));
        assert_eq!(heard(&mut lite, 1, 3, true), 1, "a known one still is");
    }

    /// Anyone who is admitted could otherwise have his stream sent to another.
    #[test]
    fn media_moves_only_to_an_address_that_answers() {
        let mut lite = lite();
        heard(&mut lite, 1, 1, true);
        lite.secure();
        assert_eq!(
            heard(&mut lite, 1, 2, true),
            2,
            "an answer and a check of ours"
        );
        assert_eq!(lite.route(), Some(addr(1)));
        assert_eq!(
            answer(&mut lite, 1, 3),
            Err(Dropped::Useless),
            "from elsewhere"
        );
        assert_eq!(answer(&mut lite, 9, 2), Err(Dropped::Forged));
        assert_eq!(lite.route(), Some(addr(1)));
        answer(&mut lite, 1, 2).unwrap();
        assert_eq!(lite.route(), Some(addr(2)));
        // Back again needs no proof.
        assert_eq!(heard(&mut lite, 1, 1, true), 1);
        assert_eq!(lite.route(), Some(addr(1)));
    }

    #[test]
    fn over_a_restart_the_old_path_lives_until_the_new_one_works() {
        let mut lite = lite();
        heard(&mut lite, 1, 1, true);
        lite.secure();
        lite.restart(names(2));
        assert_eq!(heard(&mut lite, 1, 1, true), 1, "the old names still count");
        assert_eq!(heard(&mut lite, 2, 2, false), 1);
        assert_eq!(lite.route(), Some(addr(1)));
        assert_eq!(heard(&mut lite, 2, 2, true), 2);
        assert_eq!(lite.route(), Some(addr(1)));
        answer(&mut lite, 2, 2).unwrap();
        assert_eq!(lite.route(), Some(addr(2)));
        let old = check("ours1:them1", &credentials("ours1").password, true);
        let got = lite.receive(moment(0), addr(1), &old);
        assert_eq!(got, Err(Dropped::Forged), "the old names are gone");
    }

    #[test]
    fn a_restart_on_the_same_path_needs_no_other() {
        let mut lite = lite();
        heard(&mut lite, 1, 1, true);
        lite.secure();
        lite.restart(names(2));
        lite.restart(names(3));
        heard(&mut lite, 3, 1, true);
        assert_eq!(lite.route(), Some(addr(1)));
        assert!(lite.next.is_none());
    }
}
