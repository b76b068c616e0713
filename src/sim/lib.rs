//! The other driver: same machines, virtual disk, network, DNS and clock.
//!
//! One life is some hours of a server, from its seed: clients submit mail, next hops take it, refuse it, hang and
//! vanish, the power fails in the middle of a write, a sync fails, the disk fills up, operators interfere. Then there
//! is calm, and time passes until nothing is queued. What the engines are told and asked here is what `shard` tells
//! and asks them; only the waiting is done by events.
//!
//! - `life`      the loop, the troubles, the end
//! - `world`     clock, network, disk, and what is still to happen
//! - `names`     who there is, and the DNS servers that say so
//! - `visitor`   a client with mail for us; `hop` a next hop in a mood; `customer` a client that comes for held mail
//! - `serving`   the server's end of a connection; `calling` the client's
//! - `server`    one run of our server
//! - `ledger`    what must be true, at every step and at the end
//!
//! Beside that, `day` is a day of a queue of millions: the queue and the throttles alone, with thousands of sites.
//!
//! `cargo run -p sim -- 17` lives the life of seed 17; `cargo run --release -p sim -- day 1 10000000` a day of ten million.

mod calling;
mod customer;
mod day;
mod hop;
mod ledger;
mod life;
mod names;
mod server;
mod serving;
mod visitor;
mod world;

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

pub use day::{Day, Ways, day};
pub use ledger::Figures;
pub use life::live;

/// The last things that happened, for the report of a failure.
#[derive(Clone, Debug, Default)]
pub struct Trail(Rc<RefCell<VecDeque<String>>>);

const LINES_MAX: usize = 400;

impl Trail {
    fn note(&self, line: String) {
        let mut lines = self.0.borrow_mut();
        if lines.len() >= LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// The last `count` lines.
    pub fn last(&self, count: usize) -> Vec<String> {
        let lines = self.0.borrow();
        lines.iter().skip(lines.len().saturating_sub(count)).cloned().collect()
    }
}

#[cfg(test)]
mod test {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn lives() {
        let seeds = match std::env::var("SEED") {
            Ok(seed) => seed.parse().map(|seed: u64| seed..seed + 1).expect("SEED is a number"),
            Err(_) => 0..60,
        };
        let mut all = Figures::default();
        for seed in seeds {
            let trail = Trail::default();
            match catch_unwind(AssertUnwindSafe(|| live(seed, &trail))) {
                Ok(figures) => all += figures,
                Err(_) => {
                    panic!("{}\nSEED={seed} cargo test -p sim", trail.last(60).join("\n"))
                }
            }
        }
        println!("{all}");
        if std::env::var("SEED").is_err() {
            assert!(
                all.taken_meanwhile > 0 && all.tried_meanwhile > 0,
                "nobody came while a queue came back"
            );
            assert!(all.returned < all.starts, "no run ended before all were back");
            assert!(all.called_for > 0 && all.fetched > 0, "nobody came for mail");
            assert!(all.visits_at_once > 0, "nobody came while another was served");
        }
    }
}
