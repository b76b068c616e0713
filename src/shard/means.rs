//! Programs and services of the configuration, as mail leaves by them.

use std::{collections::BTreeMap, sync::Arc};

use config::{Config, EndpointBody, ProgramLines};
use delivery::{Hearing, LineEnds, Means, Program, ProgramContent, Service, ServiceBody, ServiceUrl};

use crate::settings;

/// By what mail of a route leaves, where that is no connection of ours.
pub(crate) fn of(config: &Config, route: &config::Route) -> Option<Arc<Means>> {
    let means = match route.via {
        config::Via::Pipe => Means::Program(program(config.program(route.program.as_ref()?)?)),
        config::Via::Http => Means::Service(service(config.endpoint(route.endpoint.as_ref()?)?)?),
        config::Via::Mx | config::Via::Hop | config::Via::Lmtp | config::Via::Discard | config::Via::Hold => {
            return None;
        }
    };
    Some(Arc::new(means))
}

/// The programs that say tokens, by name.
pub(crate) fn of_tokens(config: &Config) -> BTreeMap<Box<str>, Hearing> {
    let named = config.credentials.iter().filter_map(|credential| credential.token_program.as_deref());
    let found = named.filter_map(|name| config.program(name));
    found.map(|program| (program.name.to_ascii_lowercase().into(), hearing(program))).collect()
}

fn hearing(program: &config::Program) -> Hearing {
    Hearing {
        timeout: program.timeout,
        grace: program.grace,
        linger: program.linger,
        output_max: settings::to_usize(program.output_max),
    }
}

fn program(program: &config::Program) -> Program {
    Program {
        name: program.name.to_ascii_lowercase().into(),
        shape: ProgramContent {
            line_ends: match program.line_ends {
                ProgramLines::Lf => LineEnds::Lf,
                ProgramLines::CrLf => LineEnds::CrLf,
            },
            return_path: program.return_path,
            delivered_to: program.delivered_to,
            mbox_from: program.mbox_from,
        },
        recipients_max: program.recipients_max as usize,
        hearing: hearing(program),
        permanent: program.permanent.clone(),
    }
}

fn service(endpoint: &config::Endpoint) -> Option<Service> {
    let url = endpoint.url.as_ref()?;
    let headers = endpoint.headers.iter().filter_map(|header| header.split_once(':'));
    Some(Service {
        name: endpoint.name.to_ascii_lowercase().into(),
        url: ServiceUrl {
            secure: url.secure,
            host: settings::place(&url.host)?,
            port: url.port,
            path: url.path.as_str().into(),
        },
        body: match endpoint.body {
            EndpointBody::Message => ServiceBody::Message,
            EndpointBody::Json => ServiceBody::Json,
        },
        headers: headers.map(|(name, value)| (name.into(), value.trim().into())).collect(),
        login: endpoint.credential.as_ref().map(|name| name.to_ascii_lowercase().into()),
        secret: endpoint.secret_file.clone(),
        recipients_max: endpoint.recipients_max as usize,
        timeout: endpoint.timeout,
        permanent: endpoint.permanent.clone(),
    })
}
