//! The client of RFC 2131, 4.4, without sockets and clocks: what to say when, and what an answer means.

use super::Lease;
use super::message::{Answer, Identity, Kind, Question};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// The shortest lease that is worth the talk, whatever the server says.
const SHORTEST: u32 = 10;
/// Where the server gives no time: its own business, but not for ever.
const DEFAULT: u32 = 3600;
/// Between two tries without an answer: doubled from the first to the last.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Asking who has an address to give.
    Selecting,
    /// Taking the one that was offered.
    Requesting {
        ip: Ipv4Addr,
        server: Ipv4Addr,
    },
    Bound,
    /// Half of the lease is over: asking its server.
    Renewing,
    /// Seven eighths are: asking any.
    Rebinding,
}

/// Something to send, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Saying {
    /// Without an address, or to whoever listens.
    Broadcast {
        from: Ipv4Addr,
        message: Vec<u8>,
    },
    Unicast {
        from: Ipv4Addr,
        to: Ipv4Addr,
        message: Vec<u8>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A lease, new or prolonged.
    Granted(Lease),
    /// The address must not be used any more.
    Lost,
}

#[derive(Debug)]
pub struct Client {
    who: Identity,
    xid: u32,
    state: State,
    lease: Option<Lease>,
    /// When the lease began.
    since: Instant,
    /// When it began to ask.
    began: Instant,
    wanted: Option<Ipv4Addr>,
    due: Instant,
    retry: Duration,
}

impl Client {
    /// Without an address; `wanted` is the one of its last life.
    pub fn new(who: Identity, xid: u32, wanted: Option<Ipv4Addr>, now: Instant) -> Client {
        Client {
            who,
            xid,
            state: State::Selecting,
            lease: None,
            since: now,
            began: now,
            wanted,
            due: now,
            retry: FIRST_RETRY,
        }
    }

    /// With a lease that is `age` old.
    pub fn bound(who: Identity, xid: u32, lease: Lease, age: Duration, now: Instant) -> Client {
        let mut client = Client::new(who, xid, Some(lease.ip), now);
        client.since = now.checked_sub(age).unwrap_or(now);
        client.state = State::Bound;
        client.due = client.since + Duration::from_secs(lease.renew.into());
        client.lease = Some(lease);
        client
    }

    /// When [`Client::turn`] has something to do.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Is it waiting for an answer, and by broadcast?
    pub fn listening(&self) -> Option<bool> {
        match self.state {
            State::Bound => None,
            State::Renewing => Some(false),
            State::Selecting | State::Requesting { .. } | State::Rebinding => Some(true),
        }
    }

    /// What the time says. Call when [`Client::due`] has come.
    pub fn turn(&mut self, now: Instant) -> (Option<Saying>, Option<Event>) {
        if now < self.due {
            return (None, None);
        }
        let mut event = None;
        if let Some(lease) = &self.lease {
            let age = now.saturating_duration_since(self.since);
            let over = |seconds: u32| age >= Duration::from_secs(seconds.into());
            if over(lease.seconds) {
                event = Some(self.lose(now));
            } else if over(lease.rebind) && self.state != State::Rebinding {
                self.ask_anew(State::Rebinding, now);
            } else if self.state == State::Bound {
                self.ask_anew(State::Renewing, now);
            }
        }
        // An offer that is not confirmed may be gone: look around again.
        if matches!(self.state, State::Requesting { .. }) && self.retry > 4 * FIRST_RETRY {
            self.ask_anew(State::Selecting, now);
        }
        let saying = self.say(now);
        self.schedule(now);
        (Some(saying), event)
    }

    fn lose(&mut self, now: Instant) -> Event {
        self.wanted = self.lease.take().map(|l| l.ip);
        self.ask_anew(State::Selecting, now);
        Event::Lost
    }

    fn ask_anew(&mut self, state: State, now: Instant) {
        self.state = state;
        self.xid = self.xid.wrapping_add(1);
        (self.began, self.retry, self.due) = (now, FIRST_RETRY, now);
    }

    fn say(&self, now: Instant) -> Saying {
        let seconds = now.saturating_duration_since(self.began).as_secs().min(u16::MAX.into()) as u16;
        let question = Question { kind: Kind::Request, xid: self.xid, seconds, own: None, wanted: None, server: None };
        let own = self.lease.as_ref().map(|l| l.ip);
        let from = own.unwrap_or(Ipv4Addr::UNSPECIFIED);
        let question = match self.state {
            State::Selecting => Question { kind: Kind::Discover, wanted: self.wanted, ..question },
            State::Requesting { ip, server } => Question { wanted: Some(ip), server: Some(server), ..question },
            State::Bound | State::Renewing | State::Rebinding => Question { own, ..question },
        };
        let message = question.encode(&self.who);
        match (self.state, &self.lease) {
            (State::Bound | State::Renewing, Some(lease)) => Saying::Unicast { from, to: lease.server, message },
            _ => Saying::Broadcast { from, message },
        }
    }

    /// The next try; never later than the lease allows.
    fn schedule(&mut self, now: Instant) {
        self.due = now + self.retry;
        self.retry = (self.retry * 2).min(LAST_RETRY);
        if let Some(lease) = &self.lease {
            let next = if self.state == State::Renewing { lease.rebind } else { lease.seconds };
            self.due = self.due.min(self.since + Duration::from_secs(next.into()));
        }
    }

    /// What an answer means. `unix` is the clock that outlives this process.
    pub fn hear(&mut self, answer: &Answer, unix: u64, now: Instant) -> Option<Event> {
        if answer.xid != self.xid || answer.mac != self.who.mac {
            return None;
        }
        match (self.state, answer.kind) {
            (State::Selecting, Kind::Offer) => {
                let server = answer.server.filter(|_| is_usable(answer.ip))?;
                self.state = State::Requesting { ip: answer.ip, server };
                (self.retry, self.due) = (FIRST_RETRY, now);
                None
            }
            (State::Requesting { ip, server }, Kind::Ack) if answer.ip == ip => self.grant(answer, server, unix, now),
            (State::Renewing | State::Rebinding, Kind::Ack) => {
                let known = self.lease.as_ref()?.server;
                if answer.ip != self.lease.as_ref()?.ip {
                    return None;
                }
                self.grant(answer, answer.server.unwrap_or(known), unix, now)
            }
            (State::Requesting { .. }, Kind::Nak) => {
                // What it had is not to be had any more: ask for any.
                self.wanted = None;
                self.ask_anew(State::Selecting, now);
                None
            }
            (State::Renewing | State::Rebinding, Kind::Nak) => Some(self.lose(now)),
            _ => None,
        }
    }

    fn grant(&mut self, answer: &Answer, server: Ipv4Addr, unix: u64, now: Instant) -> Option<Event> {
        let seconds = answer.seconds.unwrap_or(DEFAULT).max(SHORTEST);
        // Times that make no sense are replaced by the RFC's: half, and seven eighths.
        let rebind = answer.rebinding.filter(|t| (1..seconds).contains(t)).unwrap_or(seconds / 8 * 7);
        let renew = answer.renewal.filter(|t| (1..rebind).contains(t)).unwrap_or((seconds / 2).min(rebind));
        let lease = Lease {
            ip: answer.ip,
            prefix: answer.prefix.unwrap_or_else(|| by_class(answer.ip)),
            router: answer.router.filter(|r| is_usable(*r)),
            server,
            seconds,
            renew,
            rebind,
            since: unix,
        };
        (self.state, self.since) = (State::Bound, now);
        self.due = now + Duration::from_secs(renew.into());
        self.lease = Some(lease.clone());
        Some(Event::Granted(lease))
    }

    /// The last word: the address is free.
    pub fn release(&self) -> Option<Saying> {
        let lease = self.lease.as_ref()?;
        let question = Question {
            kind: Kind::Release,
            xid: self.xid.wrapping_add(1),
            seconds: 0,
            own: Some(lease.ip),
            wanted: None,
            server: Some(lease.server),
        };
        Some(Saying::Unicast { from: lease.ip, to: lease.server, message: question.encode(&self.who) })
    }
}

/// An address that an interface may have: a hostile server could hand out 127.0.0.1.
fn is_usable(ip: Ipv4Addr) -> bool {
    !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_broadcast() || ip.octets()[0] == 0)
}

/// The prefix that an address had in the days when no netmask was needed.
fn by_class(ip: Ipv4Addr) -> u8 {
    match ip.octets()[0] {
        ..128 => 8,
        128..192 => 16,
        192.. => 24,
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::tests::{answer, identity};
    use super::*;

    fn hear(c: &mut Client, kind: Kind, xid: u32, seconds: u32, now: Instant) -> Option<Event> {
        let m = answer(kind, xid, &[(1, &[255, 255, 255, 0]), (3, &[192, 0, 2, 1]), (51, &seconds.to_be_bytes())]);
        c.hear(&Answer::decode(&m).expect("an answer"), 1_000, now)
    }

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    fn kind(saying: &Saying) -> u8 {
        match saying {
            Saying::Broadcast { message, .. } | Saying::Unicast { message, .. } => message[242],
        }
    }

    /// A client with a lease of 800 seconds that began at `start`.
    fn bound(start: Instant) -> Client {
        let mut c = Client::new(identity(), 5, None, start);
        assert_eq!(c.turn(start).0.map(|s| kind(&s)), Some(Kind::Discover as u8));
        assert_eq!(hear(&mut c, Kind::Offer, 6, 800, start), None, "an answer to somebody else");
        assert_eq!(hear(&mut c, Kind::Ack, 5, 800, start), None, "nothing was asked for yet");
        assert_eq!(hear(&mut c, Kind::Offer, 5, 800, start), None);
        let (saying, _) = c.turn(start);
        assert_eq!(saying.map(|s| kind(&s)), Some(Kind::Request as u8));
        let event = hear(&mut c, Kind::Ack, 5, 800, start);
        let Some(Event::Granted(lease)) = event else { panic!("{event:?}") };
        assert_eq!((lease.ip, lease.prefix), ([192, 0, 2, 77].into(), 24));
        assert_eq!((lease.renew, lease.rebind, lease.seconds, lease.since), (400, 700, 800, 1_000));
        c
    }

    #[test]
    fn a_lease_is_renewed_by_its_server_and_then_by_any() {
        let start = Instant::now();
        let mut c = bound(start);
        assert_eq!((c.listening(), c.turn(at(start, 399)).0), (None, None));
        let saying = c.turn(at(start, 400)).0;
        assert!(matches!(saying, Some(Saying::Unicast { to, .. }) if to == Ipv4Addr::new(192, 0, 2, 1)), "{saying:?}");
        assert_eq!((c.listening(), c.due()), (Some(false), at(start, 401)));
        let mut now = at(start, 401);
        while now < at(start, 700) {
            assert!(matches!(c.turn(now).0, Some(Saying::Unicast { .. })), "{now:?}");
            now = c.due();
        }
        assert_eq!(now, at(start, 700));
        let (saying, event) = c.turn(now);
        assert!(matches!(saying, Some(Saying::Broadcast { from, .. }) if from == Ipv4Addr::new(192, 0, 2, 77)));
        assert_eq!((event, c.listening()), (None, Some(true)));
        let xid = c.xid;
        assert!(matches!(hear(&mut c, Kind::Ack, xid, 60, at(start, 710)), Some(Event::Granted(_))));
        assert_eq!((c.listening(), c.due()), (None, at(start, 740)));
    }

    #[test]
    fn a_lease_that_is_over_or_denied_is_lost_and_asked_for_again() {
        let start = Instant::now();
        let mut c = bound(start);
        c.turn(at(start, 400));
        let (saying, event) = c.turn(at(start, 800));
        assert_eq!((saying.map(|s| kind(&s)), event), (Some(Kind::Discover as u8), Some(Event::Lost)));
        assert!(c.lease.is_none() && c.release().is_none());
        let mut c = bound(start);
        c.turn(at(start, 400));
        let xid = c.xid;
        assert_eq!(hear(&mut c, Kind::Nak, xid, 1, at(start, 401)), Some(Event::Lost));
    }

    #[test]
    fn a_server_that_falls_silent_is_asked_from_the_start() {
        let start = Instant::now();
        let mut c = Client::new(identity(), 5, None, start);
        c.turn(start);
        hear(&mut c, Kind::Offer, 5, 60, start);
        let kinds: Vec<u8> = (0..5).filter_map(|_| c.turn(c.due()).0).map(|s| kind(&s)).collect();
        assert_eq!(kinds, [3, 3, 3, 1, 1]);
    }

    #[test]
    fn a_new_monitor_goes_on_where_the_last_one_stopped() {
        let start = Instant::now();
        let lease = bound(start).lease.expect("a lease");
        let c = Client::bound(identity(), 9, lease.clone(), Duration::from_secs(100), start);
        assert!(c.due() <= at(start, 300) && c.due() > at(start, 298));
        let Some(Saying::Unicast { from, to, message }) = c.release() else { panic!("a release") };
        assert_eq!((from, to, message[242]), (lease.ip, lease.server, Kind::Release as u8));
    }
}
