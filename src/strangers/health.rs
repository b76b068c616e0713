//! Whether a list of the DNS can be believed now.
//!
//! ```text
//!           misses more often than not · refuses · knows everybody
//!  in use ────────────────────────────────────────────────────────▶ set aside
//!         ◀────────────────────────────────────────────────────────
//!              a probe: it answers, and does not know whom no list knows
//! ```

use std::{fmt, net::Ipv4Addr};

/// What is known of one list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListHealth {
    /// Goes up with each answer that does not come, and down with each that does.
    misses: u32,
    aside: Option<Ailment>,
}

/// Why a list cannot be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ailment {
    /// By this code it says that it does not answer us.
    Refuses(Ipv4Addr),
    /// Mostly no answer comes, or not in time.
    Silent,
    /// It has an entry for what no list may have one for (RFC 5782 §5): it is none any more.
    KnowsEverybody,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListEvent {
    /// It answered a question about a stranger.
    Answered,
    /// It did not, or not in time.
    Missed,
    /// It refused to.
    Refused(Ipv4Addr),
    /// A probe found nothing wrong.
    Sound,
    /// It has an entry for everything.
    KnowsEverybody,
}

/// How it stands from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is not asked.
    Aside(Ailment),
    /// It is, again.
    Back,
}

/// So many more answers that did not come than did.
const MISSES_MAX: u32 = 10;

impl ListHealth {
    /// Takes in what happened, and says how it stands, if not as before.
    pub fn on_event(&mut self, event: ListEvent) -> Option<Turn> {
        match (event, self.aside) {
            (ListEvent::Sound, Some(_)) => {
                *self = Self::default();
                return Some(Turn::Back);
            }
            // What was asked before it was set aside.
            (ListEvent::Answered | ListEvent::Missed | ListEvent::Sound, _) if self.aside.is_some() => None,
            (ListEvent::Answered | ListEvent::Sound, _) => {
                self.misses = self.misses.saturating_sub(1);
                None
            }
            (ListEvent::Missed, _) => {
                self.misses += 1;
                (self.misses >= MISSES_MAX).then_some(Ailment::Silent)
            }
            (ListEvent::Refused(code), _) => Some(Ailment::Refuses(code)),
            (ListEvent::KnowsEverybody, _) => Some(Ailment::KnowsEverybody),
        }
        .and_then(|ailment| {
            let was_aside = self.aside.replace(ailment).is_some();
            (!was_aside).then_some(Turn::Aside(ailment))
        })
    }

    /// Why it is set aside; none: it is in use.
    pub const fn aside(&self) -> Option<Ailment> {
        self.aside
    }

    /// Whether an answer that comes changes anything.
    pub const fn is_spotless(&self) -> bool {
        self.misses == 0 && self.aside.is_none()
    }
}

impl fmt::Display for Ailment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refuses(code) => write!(f, "it refuses to answer, by {code}"),
            Self::Silent => f.write_str("mostly no answer comes in time"),
            Self::KnowsEverybody => {
                f.write_str("it has an entry for what no list may have one for: it is no list any more")
            }
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    const CODE: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 254);

    #[test]
    fn a_list_that_fails_more_often_than_not_is_set_aside() {
        let mut health = ListHealth::default();
        for _ in 0..100 {
            assert_eq!(health.on_event(ListEvent::Missed), None);
            assert!(!health.is_spotless());
            assert_eq!(health.on_event(ListEvent::Answered), None);
            assert!(health.is_spotless());
        }
        let turns: Vec<_> = (0..MISSES_MAX).filter_map(|_| health.on_event(ListEvent::Missed)).collect();
        assert_eq!((turns, health.aside()), (vec![Turn::Aside(Ailment::Silent)], Some(Ailment::Silent)));
        // Questions that were under way change nothing, a probe that is answered does.
        assert_eq!(health.on_event(ListEvent::Missed), None);
        assert_eq!(health.on_event(ListEvent::Answered), None);
        assert_eq!(health.aside(), Some(Ailment::Silent));
        assert_eq!(health.on_event(ListEvent::Sound), Some(Turn::Back));
        assert_eq!((health.on_event(ListEvent::Sound), health.is_spotless()), (None, true));
    }

    #[test]
    fn one_that_refuses_or_knows_everybody_is_at_once() {
        for (event, ailment) in [
            (ListEvent::Refused(CODE), Ailment::Refuses(CODE)),
            (ListEvent::KnowsEverybody, Ailment::KnowsEverybody),
        ] {
            let mut health = ListHealth::default();
            assert_eq!(health.on_event(event), Some(Turn::Aside(ailment)));
            assert_eq!(health.on_event(event), None, "once is told");
            assert_eq!(health.on_event(ListEvent::Sound), Some(Turn::Back));
        }
    }
}
