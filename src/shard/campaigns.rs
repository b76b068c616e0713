//! Which campaign a message is of: what its sender has written into a field that the operator has named, and who knows that.
//!
//! The value is read with the header section and kept with the message (`mail::Handling`). Its campaign is looked up when the
//! message comes into the queue, after a restart and after a reload: rules ask for that, and the queue is told of it by a lot
//! ([`crate::lots`]). So there are as many campaigns as `[[campaign]]`s, whatever senders write.

use std::rc::Rc;

use config::{CampaignValue, Config};
use mail::{CAMPAIGN_MAX, Handling, TenantId};
use message::HeaderSummary;
use policy::Standing;

use crate::intake::Intake;

/// What a configuration says of campaigns.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Campaigns {
    /// The field that says it.
    field: Option<Box<str>>,
    rules: Vec<Rule>,
}

#[derive(Debug, PartialEq, Eq)]
struct Rule {
    name: Rc<str>,
    values: Vec<CampaignValue>,
    /// Only mail of these; none: of anybody of ours.
    tenants: Vec<TenantId>,
}

impl Campaigns {
    pub(crate) fn new(config: &Config) -> Self {
        let rule = |campaign: &config::Campaign| Rule {
            name: campaign.name.as_str().into(),
            values: campaign.values.clone(),
            tenants: campaign.tenants.iter().map(|name| TenantId::of(name)).collect(),
        };
        Self {
            field: config.queue.campaign_header.as_deref().map(Into::into),
            rules: config.campaigns.iter().map(rule).collect(),
        }
    }

    /// What a message says whose header section is in memory. A stranger may write what it likes, and is not heard.
    pub(crate) fn read(
        &self,
        standing: Standing,
        intake: &Intake,
        summary: &HeaderSummary,
    ) -> Option<Box<str>> {
        let (Some(field), Standing::Own) = (&self.field, standing) else { return None };
        let header = message::content::gather(intake.content(), 0..summary.len);
        message::one_line(message::field(&header, field)?, CAMPAIGN_MAX)
    }

    /// The campaign that a message is of: the first whose it may be.
    pub(crate) fn of(&self, handling: &Handling) -> Option<&Rc<str>> {
        let value = handling.campaign.as_deref()?;
        let is_its = |rule: &&Rule| {
            (rule.tenants.is_empty() || rule.tenants.contains(&handling.tenant))
                && rule.values.iter().any(|pattern| pattern.fits(value))
        };
        self.rules.iter().find(is_its).map(|rule| &rule.name)
    }

    /// The names of all, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|rule| &*rule.name)
    }

    /// The campaign of this name, as it is written in the configuration.
    pub(crate) fn called(&self, name: &str) -> Option<&Rc<str>> {
        self.rules.iter().map(|rule| &rule.name).find(|known| known.eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn the_first_campaign_that_it_may_be() {
        let text = "[queue]\ncampaign-header = \"X-Campaign\"\n\
            [[campaign]]\nname = \"Receipts\"\nvalues = [\"receipt\", \"invoice-*\"]\ntenants = [\"shop\"]\n\
            [[campaign]]\nname = \"news\"\nvalues = [\"*\"]\n\
            [[tenant]]\nname = \"shop\"\nnetworks = [\"192.0.2.0/24\"]\n\
            [[listener]]\nname = \"l\"\naddress = [\"127.0.0.1:2525\"]\ntls = \"none\"\n";
        let source = config::Source { file: "c.toml".into(), text: text.into() };
        let loaded = config::Loaded::from_sources(&[source]).unwrap();
        let campaigns = Campaigns::new(&loaded.config);
        for (tenant, value, expected) in [
            ("shop", Some("INVOICE-17"), Some("Receipts")),
            ("shop", Some("receipt"), Some("Receipts")),
            // Whoever may not be of one is of the next.
            ("other", Some("receipt"), Some("news")),
            ("shop", Some("receipts"), Some("news")),
            ("shop", None, None),
        ] {
            let campaign = value.map(Into::into);
            let handling = Handling { tenant: TenantId::of(tenant), campaign, ..Handling::default() };
            assert_eq!(campaigns.of(&handling).map(|name| &**name), expected, "{tenant} {value:?}");
        }
        assert_eq!(campaigns.called("receipts").map(|name| &**name), Some("Receipts"));
        assert_eq!(campaigns.called("receipt"), None);
    }
}
