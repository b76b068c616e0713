//! Connections to several hosts at once, where the first one takes its time (RFC 8305, for mail hosts).
//!
//! ```text
//!  Connect(a) ── a while ──▶ rival ──▶ Connect(b), or questions about another host, or Await
//!     a is there ─────────▶ on_connected(a): b is spare, for when the session comes to nothing
//!     a is refused ───────▶ on_connect_failed(a): the next one at once, or Await, as long as b is on its way
//! ```
//!
//! Those at once are addresses of one host, and hosts with the same preference: one of lower preference is not asked before all
//! those above have failed (RFC 5321 §5.1). Hosts of a route stand in the order that the operator gave, so each is alone.

use super::{Attempt, ConnectFailure, Hop, Outcome, Status, Step, Waiting};

impl Attempt {
    /// The connection takes its time: what to connect to beside it.
    ///
    /// # Panics
    /// When nobody is being connected to.
    pub fn rival(&mut self) -> Step {
        match std::mem::replace(&mut self.waiting, Waiting::Race) {
            Waiting::Session(hop) => self.racing.push(hop),
            Waiting::Race => {}
            waiting @ (Waiting::Addresses(..) | Waiting::Alias(_) | Waiting::Tlsa(..)) => {
                self.waiting = waiting;
                return Step::Await;
            }
            waiting @ (Waiting::Start | Waiting::Mx(_) | Waiting::Policy(..) | Waiting::Ended) => {
                unreachable!("nobody is being connected to: {waiting:?}")
            }
        }
        self.next_rival()
    }

    /// There is a connection to this host: the session is with it, and the others are let go.
    ///
    /// # Panics
    /// When it was not asked for.
    pub fn on_connected(&mut self, hop: &Hop) {
        let before = std::mem::replace(&mut self.waiting, Waiting::Session(hop.clone()));
        match before {
            Waiting::Session(only) => assert_eq!(only.remote, hop.remote, "another connection was asked for"),
            Waiting::Race => {}
            // It is asked about again, should it come to its turn.
            Waiting::Addresses(_, host) => self.hosts.push_front(host),
            Waiting::Alias(located) | Waiting::Tlsa(located, _) => self.hosts.push_front(located.host),
            waiting @ (Waiting::Start | Waiting::Mx(_) | Waiting::Policy(..) | Waiting::Ended) => {
                unreachable!("nobody is being connected to: {waiting:?}")
            }
        }
        let others = std::mem::take(&mut self.racing).into_iter().filter(|other| other.remote != hop.remote);
        self.spare.extend(others);
    }

    /// There is no connection to this host.
    ///
    /// # Panics
    /// When it was not asked for.
    pub fn on_connect_failed(&mut self, hop: &Hop, failure: &ConnectFailure) -> Step {
        self.note(Outcome::deferred(Status(4, 4, 1), Some(hop.remote.clone()), failure));
        self.racing.retain(|other| other.remote != hop.remote);
        match std::mem::replace(&mut self.waiting, Waiting::Race) {
            Waiting::Session(only) => {
                assert_eq!(only.remote, hop.remote, "another connection was asked for");
                self.next()
            }
            Waiting::Race => self.next(),
            waiting @ (Waiting::Addresses(..) | Waiting::Alias(_) | Waiting::Tlsa(..)) => {
                self.waiting = waiting;
                Step::Await
            }
            waiting @ (Waiting::Start | Waiting::Mx(_) | Waiting::Policy(..) | Waiting::Ended) => {
                unreachable!("nobody is being connected to: {waiting:?}")
            }
        }
    }

    /// Another one that is as good, while connections are under way.
    pub(super) fn next_rival(&mut self) -> Step {
        self.waiting = Waiting::Race;
        let has_room = self.racing.len() < self.limits.connecting_max;
        while has_room && self.tried.len() < self.limits.connections_max {
            if let Some(remote) = self.addresses.pop_front() {
                let hop = self.hop(remote);
                self.racing.push(hop.clone());
                return Step::Connect(hop);
            }
            let Some(host) = self.hosts.pop_front_if(|host| host.preference == self.preference) else {
                break;
            };
            if let Some(step) = self.look_up(host) {
                return step;
            }
        }
        Step::Await
    }
}
