//! Who is not asked to come again, though it comes for the first time.

use config::{GreySpf, Greylist};
use trust::SpfResult;

use crate::names::Domains;

/// Who is excused.
#[derive(Clone, Debug)]
pub struct Excuses {
    pass: Domains,
    spf: GreySpf,
    /// Whether somebody is named whom SPF or a name could excuse.
    names_some: bool,
}

/// What is known of a stranger that nobody has seen yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newcomer<'a> {
    /// The domain of its reverse-path; with the null one, its name in EHLO.
    pub domain: &'a str,
    /// What SPF says of that domain and its address.
    pub spf: SpfResult,
    /// The name of its address, when it leads back to it.
    pub name: Option<&'a str>,
}

/// What becomes of a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treat {
    /// It goes on.
    Excused,
    /// It is remembered by the domain that sends from there.
    ByDomain,
    /// It is remembered by its network.
    ByNetwork,
}

impl Excuses {
    /// As the configuration has them.
    pub fn new(config: &Greylist) -> Self {
        Self { pass: Domains::new(&config.pass), spf: config.spf, names_some: !config.pass.is_empty() }
    }

    /// Whether it matters what SPF and the name of its address say.
    pub const fn want_facts(&self) -> bool {
        self.names_some || !matches!(self.spf, GreySpf::Ignore)
    }

    /// How a newcomer is treated.
    pub fn of(&self, newcomer: Newcomer<'_>) -> Treat {
        let Newcomer { domain, spf, name } = newcomer;
        let passes = spf == SpfResult::Pass;
        let is_named =
            passes && self.pass.contains(domain) || name.is_some_and(|name| self.pass.contains(name));
        match self.spf {
            _ if is_named => Treat::Excused,
            GreySpf::Pass if passes => Treat::Excused,
            GreySpf::Pool if passes => Treat::ByDomain,
            GreySpf::Pass | GreySpf::Pool | GreySpf::Ignore => Treat::ByNetwork,
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn treat(spf: GreySpf, domain: &str, result: SpfResult, name: Option<&str>) -> Treat {
        let excuses = Excuses::new(&Greylist { spf, ..Greylist::default() });
        excuses.of(Newcomer { domain, spf: result, name })
    }

    #[test]
    fn what_spf_and_names_are_good_for() {
        let (pass, fail) = (SpfResult::Pass, SpfResult::Fail);
        for (spf, by_domain) in [
            (GreySpf::Pool, Treat::ByDomain),
            (GreySpf::Pass, Treat::Excused),
            (GreySpf::Ignore, Treat::ByNetwork),
        ] {
            assert_eq!(treat(spf, "example.org", pass, None), by_domain, "{spf}");
            for result in
                [fail, SpfResult::None, SpfResult::TempError, SpfResult::PermError, SpfResult::SoftFail]
            {
                assert_eq!(treat(spf, "example.org", result, None), Treat::ByNetwork, "{spf} {result:?}");
                // Anybody can say that he is there.
                assert_eq!(treat(spf, "gmail.com", result, None), Treat::ByNetwork, "{spf} {result:?}");
            }
            assert_eq!(treat(spf, "gmail.com", pass, None), Treat::Excused, "{spf}");
            // Whose domain is served by a large one: the host is named.
            let host = Some("mail-sor-f41.google.com");
            assert_eq!(treat(spf, "example.org", fail, host), Treat::Excused, "{spf}");
            assert_eq!(
                treat(spf, "example.org", fail, Some("google.com.example")),
                Treat::ByNetwork,
                "{spf}"
            );
        }
    }

    #[test]
    fn nothing_is_looked_up_that_does_not_matter() {
        let want = |spf, pass| Excuses::new(&Greylist { spf, pass, ..Greylist::default() }).want_facts();
        let none = Vec::new;
        assert!(want(GreySpf::Pool, none()) && want(GreySpf::Pass, none()) && !want(GreySpf::Ignore, none()));
        assert!(want(GreySpf::Ignore, Greylist::default().pass));
    }
}
