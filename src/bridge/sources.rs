//! What is known of our sources, as people and programs read it.

use std::net::{IpAddr, SocketAddr};

use delivery::egress::Standing;
use mail::Timestamp;
use serde::{Deserialize, Serialize};

use crate::text;

/// A source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceView {
    /// Its name.
    pub name: String,
    /// As which addresses the world sees it, as far as we know.
    pub addresses: Vec<IpAddr>,
    /// Who connects for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<SocketAddr>,
    /// Pools that it is in.
    pub pools: Vec<String>,
    /// Whether it is fit for use.
    pub standing: SourceStanding,
    /// Why it is not, or has less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when.
    #[serde(with = "text::time_option", default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// The lists that its addresses are on, in words.
    pub listings: Vec<String>,
    /// Its connections, where there is a bound on them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// How it comes into use.
    pub plans: Vec<PlanView>,
}

/// Whether a source is fit for use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceStanding {
    /// It has its part.
    In,
    /// It has a quarter of it.
    Lowered,
    /// It is not used.
    Out,
}

/// A warm-up plan, and what was done by it today.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanView {
    /// Its name.
    pub name: String,
    /// The site that it is for; none: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// Which day of the plan it is, the first being 1; none before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day: Option<u32>,
    /// Messages that may leave today; none: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap: Option<u32>,
    /// Messages that have left today, or are about to.
    pub sent: u32,
    /// Messages answered since midnight, or the last pause.
    pub answered: u32,
    /// Those of them that were refused for what we are.
    pub refused: u32,
    /// Complaints.
    pub complaints: u32,
    /// Until when nothing leaves by it.
    #[serde(with = "text::time_option", default, skip_serializing_if = "Option::is_none")]
    pub paused_until: Option<Timestamp>,
}

impl From<Standing> for SourceStanding {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::In => Self::In,
            Standing::Lowered => Self::Lowered,
            Standing::Out => Self::Out,
        }
    }
}

impl SourceStanding {
    /// One word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::In => "in use",
            Self::Lowered => "lowered",
            Self::Out => "out",
        }
    }
}
