//! Reputation over HTTP and as `ringpost reputation`: what is left of somebody's deeds, and what they weigh.

use std::{
    io::{self, Write},
    net::IpAddr,
    path::{Path, PathBuf},
};

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use clap::Args;
use config::ReputationUse;
use mail::{Address, Domain};
use serde::{Deserialize, Serialize};
use strangers::{Counts, Deed, Origin, Subject};

use crate::{
    CONTROL_SOCKET, ClientError, Operations, Problem,
    client::{Client, with_query},
    table,
};

/// Look at what a stranger has done, and what that weighs, through the running server.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ReputationArgs {
    /// The control socket [default: control.sock in the data directory]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Answer in JSON: one object a line
    #[arg(long)]
    pub json: bool,
    /// An IP address, a domain, or an address such as ann@example.org
    pub whose: String,
}

const EXAMPLES: &str = "\
Examples:
  ringpost reputation 192.0.2.1         the address, its network, and its autonomous system
  ringpost reputation AS64496           the autonomous system
  ringpost reputation example.org       the domain, as far as SPF or DMARC has proven it
  ringpost reputation ann@example.org   the sender";

/// The command failed.
#[derive(Debug, thiserror::Error)]
pub enum ReputationError {
    /// The server could not be asked, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The answer could not be printed.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

/// What is configured of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReputationRules {
    /// What is done with it.
    pub mode: ReputationUse,
    /// So many deeds weigh something.
    pub sample: u32,
    /// That much at most.
    pub weight_max: u32,
    /// Of an autonomous system, that much.
    pub asn_weight_max: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Whose {
    of: String,
}

/// What is known of somebody.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ReputationView {
    /// address, network, domain or sender; or the autonomous system, as AS64496.
    of: String,
    /// What is left of each of its deeds.
    deeds: Vec<(String, f64)>,
    /// What they weigh.
    weight: i32,
    /// Whether that counts: off, watch or score.
    mode: String,
}

pub(crate) async fn answer(
    State(operations): State<Operations>,
    query: Result<Query<Whose>, QueryRejection>,
) -> Result<Json<Vec<ReputationView>>, Problem> {
    let Query(Whose { of: whose }) = query.map_err(|rejection| Problem::Reputation(rejection.body_text()))?;
    let strangers = operations.strangers();
    let (reputation, rules) = (strangers.reputation(), operations.reputation_rules());
    let view = |of: &str, subject: Subject<'_>| {
        let counts = reputation.counts(reputation.key(subject), operations.now())?;
        Some(ReputationView::new(of, &counts, &rules))
    };
    let system = |number: u32| {
        let rules = ReputationRules { weight_max: rules.asn_weight_max, ..rules };
        let counts = reputation.counts(reputation.key(Subject::System(number)), operations.now())?;
        Some(ReputationView::new(&format!("AS{number}"), &counts, &rules))
    };
    let none =
        || Problem::Reputation(format!("{:?} is neither an address nor a domain", table::printable(&whose)));
    let views = if let Ok(address) = whose.parse::<IpAddr>() {
        let network = view("network", Subject::Client(strangers.origin(address)));
        let of_system = strangers.system(address).and_then(system);
        [view("address", Subject::Client(Origin::of(address, 32, 128))), network, of_system]
    } else if let Some(number) = system_number(&whose) {
        [system(number), None, None]
    } else if whose.contains('@') {
        let address = Address::parse(whose.as_bytes()).map_err(|_| none())?;
        [
            view("sender", Subject::Sender(&address)),
            view("domain", Subject::Domain(address.domain_str())),
            None,
        ]
    } else {
        let domain = Domain::parse(&whose).map_err(|_| none())?;
        [view("domain", Subject::Domain(domain.as_str())), None, None]
    };
    Ok(Json(views.into_iter().flatten().collect()))
}

/// `AS64496`
fn system_number(text: &str) -> Option<u32> {
    let (head, digits) = text.split_at_checked(2)?;
    head.eq_ignore_ascii_case("as").then_some(digits)?.parse().ok()
}

impl ReputationView {
    fn new(of: &str, counts: &Counts, rules: &ReputationRules) -> Self {
        let deeds = Deed::ALL.iter().zip(counts.0);
        Self {
            of: of.into(),
            deeds: deeds.map(|(deed, count)| (deed.as_str().into(), (count * 10.0).round() / 10.0)).collect(),
            weight: counts.weight(rules.sample, rules.weight_max.cast_signed()),
            mode: rules.mode.to_string(),
        }
    }
}

/// Prints what the server on this data directory knows of somebody.
///
/// # Errors
/// [`ReputationError`]; its text says what to do.
pub fn reputation(
    args: &ReputationArgs,
    data_dir: &Path,
    out: &mut dyn Write,
) -> Result<(), ReputationError> {
    let socket = args.socket.clone().unwrap_or_else(|| data_dir.join(CONTROL_SOCKET));
    let path = with_query("/api/v1/reputation", &[("of", Some(args.whose.clone()))]);
    let views: Vec<ReputationView> = Client::new(&socket).get(&path)?;
    if args.json {
        for view in &views {
            serde_json::to_writer(&mut *out, view).map_err(io::Error::from)?;
            writeln!(out)?;
        }
        return Ok(());
    }
    if views.is_empty() {
        writeln!(out, "nothing is known of {}", table::printable(&args.whose))?;
    }
    views.iter().try_for_each(|view| print(out, view))?;
    Ok(())
}

fn print(out: &mut dyn Write, view: &ReputationView) -> io::Result<()> {
    let ReputationView { of, deeds, weight, mode } = view;
    let deeds: Vec<_> = deeds.iter().map(|(deed, count)| format!("{deed} {count:.1}")).collect();
    let counts = match mode.as_str() {
        "score" => "",
        "watch" => ", which is only watched",
        _ => ", which counts nothing: reputation.mode is off",
    };
    let line = format!("{of:<8} weighs {weight:+}{counts}; left of what it did: {}", deeds.join(", "));
    writeln!(out, "{}", table::printable(&line))
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn as_people_read_it() {
        let rules =
            ReputationRules { mode: ReputationUse::Watch, sample: 10, weight_max: 5, asn_weight_max: 2 };
        let mut out = Vec::new();
        print(&mut out, &ReputationView::new("network", &Counts([2.04, 0.0, 0.0, 18.0, 0.0]), &rules))
            .unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "network  weighs +4, which is only watched; left of what it did: accepted 2.0, listed 0.0, unproven 0.0, unknown 18.0, bounced 0.0\n"
        );
    }
}
