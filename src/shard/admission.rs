//! Whether a client may connect, and the counts that its connection is in until it ends.

use std::{
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use policy::{Connections, Listing, Pace, Turned};
use ring::{Peer, Stream};
use smtp::Refusal;
use watch::{ConnectionRefusal, Counted as _, events::ConnectionRefused};

use crate::{
    accept::client_address,
    balance::Seat,
    caller::Caller,
    crowd::{Bucket, Place, UsedUp},
    settings::Door,
    shard::Shard,
};

/// The counts that a connection is in, until it is dropped.
pub(crate) struct Admitted {
    open: Arc<AtomicU32>,
    shard: Rc<Shard>,
    session: u64,
    /// Connections on the listener, this one included.
    listener: u32,
    _seat: Seat,
}

impl Admitted {
    /// Counts it on its listener.
    pub(crate) fn new(shard: &Rc<Shard>, open: Arc<AtomicU32>, seat: Seat, stream: &Rc<Stream>) -> Self {
        let listener = open.fetch_add(1, Relaxed) + 1;
        shard.metrics.inbound.open.up();
        shard.metrics.inbound.connections.one();
        let session = shard.enter_session(stream);
        Self { open, shard: shard.clone(), session, listener, _seat: seat }
    }

    /// A stop does not wake it any more, for what it does ends well by itself.
    pub(crate) fn leave_alone(&self) {
        self.shard.leave_alone(self.session);
    }

    /// Whether there is no room for it on the listener, whoever it is.
    pub(crate) fn is_one_too_many(&self, door: &Door) -> bool {
        self.listener > door.limits.connections_max
    }

    /// Now that it is known who it is: its place among all who are connected to this host, and whether it may go on.
    pub(crate) fn judge(&self, door: &Door, caller: Caller) -> (Place, Result<(), Turned>) {
        let shard = &self.shard;
        let address = caller.peer.ip();
        let settings = shard.settings();
        let listing = caller.listing(&settings.policy);
        let stranger = match listing {
            Listing::Unlisted => address,
            // A client that is denied needs no counting.
            Listing::Spared | Listing::Denied => None,
        };
        let now = ring::clock::now();
        let place = shard.crowd.enter(stranger, settings.prefixes, now);
        if !place.is_tracked() {
            shard.metrics.inbound.untracked.one();
        }
        let (host, listener) = (place.host, self.listener);
        let connections = Connections { host, listener, client: place.client, network: place.network };
        let judge = |pace| settings.policy.connect(listing, connections, pace, &door.limits);
        // Who is turned away for another reason uses up no rate.
        let verdict = judge(Pace::Steady).and_then(|()| match listing {
            Listing::Unlisted => judge(pace(shard, door, &place)),
            Listing::Spared | Listing::Denied => Ok(()),
        });
        (place, verdict)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Relaxed);
        self.shard.metrics.inbound.open.down();
        self.shard.leave_session(self.session);
    }
}

/// Takes the connection out of the rates it counts against.
fn pace(shard: &Shard, door: &Door, place: &Place) -> Pace {
    let now = ring::clock::now();
    match place.take(Bucket::Connections, door.connection_rates(), 1, now) {
        Err(UsedUp::Client) => Pace::ClientOver,
        Err(UsedUp::Network) => Pace::NetworkOver,
        Ok(()) if shard.crowd.take_of_host(shard.settings().connection_rate, now) => Pace::Steady,
        Ok(()) => Pace::HostOver,
    }
}

/// Counts and logs a client that is turned away.
pub(crate) fn note_turned(shard: &Shard, client: Peer, turned: Turned) {
    let cause = match turned {
        Turned::Denied => ConnectionRefusal::Policy,
        Turned::Host => ConnectionRefusal::HostLimit,
        Turned::Listener => ConnectionRefusal::Limit,
        Turned::Client => ConnectionRefusal::ClientLimit,
        Turned::Network => ConnectionRefusal::NetworkLimit,
        Turned::HostRate => ConnectionRefusal::HostRate,
        Turned::ClientRate => ConnectionRefusal::ClientRate,
        Turned::NetworkRate => ConnectionRefusal::NetworkRate,
    };
    note_refused(shard, client, turned.refusal(), cause);
}

/// Counts and logs a client that gets no greeting.
pub(crate) fn note_refused(shard: &Shard, client: Peer, refusal: Refusal, cause: ConnectionRefusal) {
    shard.metrics.inbound.refused.of(cause).one();
    ConnectionRefused { client: client_address(client), reason: refusal.label(), cause: cause.label() }
        .emit(ring::clock::unix_micros());
}
