//! Whose mail it is: what rules that are for some tenants or campaigns alone ask of it.

/// Whose mail it is, by the names that the operator has given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner<'a> {
    /// The tenant; none: nobody's in particular.
    pub tenant: Option<&'a str>,
    /// The campaign that it is of, if it is of one.
    pub campaign: Option<&'a str>,
}

/// Whose mail a rule is for. An empty list is everybody's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    /// One of these tenants'.
    pub tenants: Vec<Box<str>>,
    /// Of one of these campaigns.
    pub campaigns: Vec<Box<str>>,
}

impl Owners {
    /// Whether this one's mail is meant; the case of letters does not count.
    pub fn has(&self, owner: Owner<'_>) -> bool {
        fn has(list: &[Box<str>], wanted: Option<&str>) -> bool {
            list.is_empty()
                || wanted.is_some_and(|wanted| list.iter().any(|name| name.eq_ignore_ascii_case(wanted)))
        }
        has(&self.tenants, owner.tenant) && has(&self.campaigns, owner.campaign)
    }

    /// As what a site counts this one's mail for itself: for each tenant and each campaign that a rule tells apart. Empty where it
    /// is for everybody.
    pub(crate) fn mark(&self, owner: Owner<'_>) -> String {
        let mut mark = String::new();
        for (kind, list, name) in
            [(TENANT, &self.tenants, owner.tenant), (CAMPAIGN, &self.campaigns, owner.campaign)]
        {
            if let (false, Some(name)) = (list.is_empty(), name) {
                mark.extend([kind, &name.to_ascii_lowercase()]);
            }
        }
        mark
    }
}

/// In the name of a site, before the tenant that it is counted for. No rule for a site has a comma in its name.
const TENANT: &str = ",tenant=";
/// And before the campaign.
const CAMPAIGN: &str = ",campaign=";

/// A site's name without whose mail it is counted for.
pub fn without_owner(site: &str) -> &str {
    // The hosts of a site that no rule names are parted by commas as well.
    let end = [TENANT, CAMPAIGN].iter().filter_map(|mark| site.find(mark)).min();
    &site[..end.unwrap_or(site.len())]
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_rule_is_for_tenants_and_campaigns() {
        let owners = |tenants: &[&str], campaigns: &[&str]| {
            let list = |names: &[&str]| names.iter().map(|name| Box::from(*name)).collect();
            Owners { tenants: list(tenants), campaigns: list(campaigns) }
        };
        let owner = |tenant, campaign| Owner { tenant, campaign };
        let (nobody, shop) = (owner(None, None), owner(Some("Shop"), None));
        let (news, own) = (owner(None, Some("news")), owner(Some("shop"), Some("NEWS")));
        for (rule, mail, expected, mark) in [
            (owners(&[], &[]), nobody, true, ""),
            (owners(&[], &[]), own, true, ""),
            (owners(&["shop", "office"], &[]), shop, true, ",tenant=shop"),
            (owners(&["shop"], &[]), own, true, ",tenant=shop"),
            (owners(&["office"], &[]), own, false, ",tenant=shop"),
            (owners(&["shop"], &[]), nobody, false, ""),
            (owners(&[], &["news"]), own, true, ",campaign=news"),
            (owners(&[], &["news"]), news, true, ",campaign=news"),
            (owners(&[], &["news"]), shop, false, ""),
            (owners(&["shop"], &["news"]), own, true, ",tenant=shop,campaign=news"),
            (owners(&["shop"], &["news"]), news, false, ",campaign=news"),
        ] {
            assert_eq!(rule.has(mail), expected, "{rule:?} {mail:?}");
            if expected {
                assert_eq!(rule.mark(mail), mark, "{rule:?} {mail:?}");
            }
        }
    }

    #[test]
    fn whose_mail_it_is_can_be_taken_off_a_sites_name() {
        for (site, expected) in [
            ("site:google,tenant=shop,campaign=news", "site:google"),
            ("a@site:google,campaign=news", "a@site:google"),
            ("site:google", "site:google"),
            ("hosts:mx1.example,mx2.example>backup.example", "hosts:mx1.example,mx2.example>backup.example"),
        ] {
            assert_eq!(without_owner(site), expected);
        }
    }
}
