//! What becomes of a stranger's mail, by what lists of the DNS and others say of it.

use config::{AuthAction, Strangers};
use smtp::{Refusal, Verdict};

/// What is done about mail of a stranger with this sum against it: the strictest for which it is enough.
pub fn screening(score: i32, rules: &Strangers) -> AuthAction {
    let steps = [
        (rules.refuse_at, AuthAction::Refuse),
        (rules.defer_at, AuthAction::Defer),
        (rules.quarantine_at, AuthAction::Quarantine),
        (rules.tag_at, AuthAction::Tag),
    ];
    let reached = steps.into_iter().find(|(at, _)| at.is_some_and(|at| score >= at));
    reached.map_or(AuthAction::Accept, |(_, action)| action)
}

/// May mail of which this is done go to a recipient?
///
/// # Errors
/// [`Refusal::Listed`] or [`Refusal::ListedDeferred`].
pub const fn screened(action: AuthAction) -> Verdict {
    match action {
        AuthAction::Refuse => Err(Refusal::Listed),
        AuthAction::Defer => Err(Refusal::ListedDeferred),
        AuthAction::Accept | AuthAction::Tag | AuthAction::Quarantine => Ok(()),
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn the_strictest_that_is_reached_counts() {
        let rules = |[refuse_at, defer_at, quarantine_at, tag_at]: [Option<i32>; 4]| Strangers {
            refuse_at,
            defer_at,
            quarantine_at,
            tag_at,
            ..Strangers::default()
        };
        let all = rules([Some(10), Some(7), Some(5), Some(2)]);
        for (score, expected) in [
            (i32::MIN, AuthAction::Accept),
            (1, AuthAction::Accept),
            (2, AuthAction::Tag),
            (5, AuthAction::Quarantine),
            (9, AuthAction::Defer),
            (10, AuthAction::Refuse),
            (i32::MAX, AuthAction::Refuse),
        ] {
            assert_eq!(screening(score, &all), expected, "{score}");
        }
        // Steps in another order than usual: the strictest one all the same.
        assert_eq!(screening(3, &rules([Some(3), Some(1), None, Some(2)])), AuthAction::Refuse);
        assert_eq!(screening(2, &rules([Some(3), None, None, Some(1)])), AuthAction::Tag);
        assert_eq!(screening(1000, &rules([None; 4])), AuthAction::Accept);
        assert_eq!(screening(0, &Strangers::default()), AuthAction::Accept);
    }

    #[test]
    fn what_clients_are_told() {
        let code = |action| screened(action).err().map(Refusal::code);
        assert_eq!(code(AuthAction::Refuse), Some(554));
        assert_eq!(code(AuthAction::Defer), Some(450));
        assert_eq!([AuthAction::Accept, AuthAction::Tag, AuthAction::Quarantine].map(code), [None; 3]);
    }
}
