//! A client that comes for the mail that is held for it, and is a next hop on the connection that it has made (RFC 2645).

use std::collections::BTreeMap;

use delivery::ConnectFailure;
use smtp::client::{ReplyClass, ReplyLimits, ReplyReader};

use crate::{
    hop::Hop,
    names,
    world::{CALM, Event, HOUR, LinkId, MINUTE, Party, Side, World},
};

pub(crate) struct Customer {
    number: usize,
    asking: BTreeMap<LinkId, Asking>,
    hop: Hop,
}

/// A connection on which it is the client still.
#[derive(Default)]
struct Asking {
    input: Vec<u8>,
    /// Replies so far.
    heard: usize,
}

/// It may come while it is being served: another program of its own, or the same that has lost its connection.
const VISITS_MAX: usize = 3;

impl Customer {
    pub(crate) fn new(number: usize, world: &mut World) -> Self {
        let first = world.within(MINUTE, 40 * MINUTE);
        world.at(first, Event::Fetch(number));
        Self { number, asking: BTreeMap::new(), hop: Hop::customer(world) }
    }

    pub(crate) fn come(&mut self, world: &mut World) {
        // What nobody wants, for its mailbox is full, would be held for ever.
        if world.now > CALM + HOUR {
            return;
        }
        let next = world.within(MINUTE / 2, 30 * MINUTE);
        world.after(next, Event::Fetch(self.number));
        let again = 1 + world.below(2) as usize;
        for _ in 0..again {
            if self.asking.len() + self.hop.open() < VISITS_MAX {
                let link = world.connect(Party::Customer(self.number), world.door.clone(), names::CUSTOMER);
                self.asking.insert(link, Asking::default());
            }
        }
    }

    pub(crate) fn on_connected(
        &mut self,
        world: &mut World,
        link: LinkId,
        outcome: &Result<(), ConnectFailure>,
    ) {
        if outcome.is_ok() {
            world.set_patience(link, Side::Caller, 10 * MINUTE);
        } else {
            self.on_closed(world, link);
        }
    }

    pub(crate) fn on_bytes(&mut self, world: &mut World, link: LinkId, bytes: &[u8]) {
        world.set_patience(link, Side::Caller, 10 * MINUTE);
        let Some(asking) = self.asking.get_mut(&link) else {
            return self.hop.on_bytes(world, link, bytes);
        };
        asking.input.extend_from_slice(bytes);
        let mut rest = &asking.input[..];
        let read = ReplyReader::new(ReplyLimits::default()).read(&mut rest);
        let Some(reply) = read.expect("our replies are replies") else { return };
        asking.input = rest.to_vec();
        assert!(asking.input.is_empty(), "more than a reply came");
        asking.heard += 1;
        let says = match (asking.heard, reply.class()) {
            (1, ReplyClass::Completion) => "EHLO customer.example",
            (2, ReplyClass::Completion) => world.pick(&names::CALLS),
            (3, ReplyClass::Completion) => {
                self.asking.remove(&link);
                world.note(format_args!("customer {} is served", self.number));
                return self.hop.on_visit(world, link);
            }
            _ => {
                world.send(link, Side::Caller, "QUIT\r\n");
                world.close(link, Side::Caller);
                self.asking.remove(&link);
                return;
            }
        };
        world.send(link, Side::Caller, format!("{says}\r\n"));
    }

    pub(crate) fn on_closed(&mut self, world: &mut World, link: LinkId) {
        self.asking.remove(&link);
        self.hop.on_closed(world, link);
    }

    pub(crate) fn on_timeout(&mut self, world: &mut World, link: LinkId) {
        world.close(link, Side::Caller);
        self.on_closed(world, link);
    }
}
