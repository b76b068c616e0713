//! Logging in at next hops.

use std::{path::PathBuf, time::Duration};

use crate::{
    Config, Hop, Host, RouteTls, Via,
    notation::{FilePath, List, Maybe, Text, Time, Word},
    reader::Reader,
    schema::{Entry, choice, section},
};

const SECOND: u64 = 1_000;

choice! {
    /// A way to log in.
    pub enum LoginMechanism {
        /// SCRAM-SHA-256 (RFC 7677) tied to the TLS connection, so that nobody between can hand it on
        ScramSha256Plus = "scram-sha-256-plus",
        /// SCRAM-SHA-1 (RFC 5802) likewise
        ScramSha1Plus = "scram-sha-1-plus",
        /// SCRAM-SHA-256 (RFC 7677): neither side sees more of the password than it knew
        ScramSha256 = "scram-sha-256",
        /// SCRAM-SHA-1 (RFC 5802)
        ScramSha1 = "scram-sha-1",
        /// XOAUTH2, with the token of `token-file` or `token-program`
        XOAuth2 = "xoauth2",
        /// PLAIN (RFC 4616): the password as it is
        Plain = "plain",
        /// LOGIN: the same, in two steps
        Login = "login",
    }
}

choice! {
    /// What has to protect a login.
    pub enum Secrecy {
        /// TLS, with a certificate that is good for the host
        Verified = "verified",
        /// TLS, with any certificate: whoever can stand between may log in as us
        Tls = "tls",
        /// nothing: for hosts on the same machine
        None = "none",
    }
}

choice! {
    /// What becomes of mail when a login is refused for good.
    pub enum Refused {
        /// it waits, until somebody mends it or it is too old
        Defer = "defer",
        /// it comes back to its sender
        Fail = "fail",
    }
}

section! {
    /// As whom we log in at a next hop (AUTH, RFC 4954), for routes that name it. The secret is in a file or in the environment, and
    /// read each time that a connection is opened: a change takes no reload. Mail of a route with other credentials has other
    /// connections.
    pub struct Credential {
        /// By which routes name it; in logs too.
        name: String [Text] = String::new();
        /// As whom.
        user: Option<String> [Maybe<Text>] = None;
        /// The file of the password: one line. Others may not read it (`chmod 600`, or 640 for a group of its own), nor its group
        /// write it; else it is not used.
        password_file: Option<PathBuf> [Maybe<FilePath>] = None;
        /// Or the variable of the environment that has it.
        password_env: Option<String> [Maybe<Text>] = None;
        /// Or the file of a token for XOAUTH2, which whoever renews tokens writes anew; for its mode the same holds.
        token_file: Option<PathBuf> [Maybe<FilePath>] = None;
        /// Or a `[[program]]` that writes a token, and nothing else, for what takes longer to renew than to write a file: it is run when
        /// the last token is older than `token-lifetime`, or was refused.
        token_program: Option<String> [Maybe<Text>] = None;
        /// How long a token of `token-program` is used.
        token_lifetime: Duration [Time<{ SECOND }, { 24 * 3_600 * SECOND }>] = Duration::from_secs(1_800);
        /// How long `token-program` may take: mail waits meanwhile.
        token_timeout: Duration [Time<{ SECOND }, { 3_600 * SECOND }>] = Duration::from_secs(60);
        /// Which ways may be used. Of those that the next hop offers too, the strongest is, in the order of this list.
        mechanisms: Vec<LoginMechanism> [List<Word>] = vec![
            LoginMechanism::ScramSha256Plus,
            LoginMechanism::ScramSha1Plus,
            LoginMechanism::ScramSha256,
            LoginMechanism::ScramSha1,
            LoginMechanism::XOAuth2,
            LoginMechanism::Plain,
            LoginMechanism::Login,
        ];
        /// What has to stand before anything is said.
        secrecy: Secrecy [Word] = Secrecy::Verified;
        /// What becomes of mail when the next hop refuses the login for good (5yz). It is the operator's to mend and no fault of the
        /// mail's, so it waits; all else (a login that is refused for now, no secret, no TLS) delays mail in any case.
        refused: Refused [Word] = Refused::Defer;
    }
}

impl Credential {
    /// Whether it is a token, and no password.
    pub const fn is_token(&self) -> bool {
        self.token_file.is_some() || self.token_program.is_some()
    }
}

impl Entry for Credential {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn sample() -> Self {
        Self {
            name: "relay".into(),
            user: Some("ringpost@example.org".into()),
            password_file: Some("relay.password".into()),
            ..Self::default()
        }
    }
}

impl Config {
    /// The credential that a route names.
    pub fn credential(&self, name: &str) -> Option<&Credential> {
        self.credentials.iter().find(|credential| credential.name.eq_ignore_ascii_case(name))
    }

    pub(crate) fn check_credentials(&self, reader: &mut Reader<'_>) {
        for credential in &self.credentials {
            let key = format!("credential.{}", credential.name.to_ascii_lowercase());
            if credential.user.is_none() {
                reader.missing(&key, "user = \"ringpost@example.org\"", "say as whom");
            }
            let sources = [
                ("password-file", credential.password_file.is_some()),
                ("password-env", credential.password_env.is_some()),
                ("token-file", credential.token_file.is_some()),
                ("token-program", credential.token_program.is_some()),
            ];
            let mut given = sources.iter().filter(|(_, is_given)| *is_given).map(|(name, _)| *name);
            match (given.next(), given.next()) {
                (None, _) => {
                    reader.missing(&key, "password-file = \"relay.password\"", "say where the secret is")
                }
                (Some(_), None) => {}
                (Some(first), Some(second)) => {
                    let problem = format!("{first} and {second}: which of the two?");
                    reader.conflict(&[&format!("{key}.{second}")], problem, "leave one out");
                }
            }
            if let Some(name) = &credential.token_program
                && self.program(name).is_none()
            {
                let problem = format!("there is no `[[program]]` with the name {name}");
                reader.conflict(&[&format!("{key}.token-program")], problem, "name one that there is");
            }
            let is_token = credential.is_token();
            let fits = |mechanism: &LoginMechanism| (*mechanism == LoginMechanism::XOAuth2) == is_token;
            if !credential.mechanisms.iter().any(fits) {
                let what = if is_token { "a token" } else { "a password" };
                let remedy = if is_token { "add \"xoauth2\"" } else { "add \"scram-sha-256\" or \"plain\"" };
                let problem = format!("none of these takes {what}");
                reader.conflict(&[&format!("{key}.mechanisms")], problem, remedy);
            }
        }
        for route in &self.routes {
            let Some(name) = &route.credential else { continue };
            let key = format!("route.{}", route.name.to_ascii_lowercase());
            let at = format!("{key}.credential");
            let Some(credential) = self.credential(name) else {
                let problem = format!("there is no `[[credential]]` with the name {name}");
                reader.conflict(&[&at], problem, "name one that there is");
                continue;
            };
            // What the DNS says is no host that we have an account with.
            if !matches!(route.via, Via::Hop | Via::Lmtp) {
                let problem =
                    format!("one logs in at hosts that one has named, this is via = \"{}\"", route.via);
                reader.conflict(&[&at, &format!("{key}.via")], problem, "set via = \"hop\", or leave it out");
                continue;
            }
            let is_local = |hop: &Hop| matches!(hop.host, Host::Unix(_));
            let enough = route.hosts.iter().all(is_local)
                || match (credential.secrecy, route.tls) {
                    (Secrecy::None, _)
                    | (Secrecy::Verified, RouteTls::Verified | RouteTls::DaneRequired)
                    | (Secrecy::Tls, RouteTls::Verified | RouteTls::DaneRequired | RouteTls::Required) => {
                        true
                    }
                    (
                        Secrecy::Verified,
                        RouteTls::None | RouteTls::Opportunistic | RouteTls::Required | RouteTls::Dane,
                    )
                    | (Secrecy::Tls, RouteTls::None | RouteTls::Opportunistic | RouteTls::Dane) => false,
                };
            if !enough {
                let problem = format!(
                    "tls = \"{}\" is too little for a login that is to be secret (secrecy = \"{}\")",
                    route.tls, credential.secrecy
                );
                let remedy = "set tls = \"verified\"";
                reader.conflict(&[&format!("{key}.tls"), &at], problem, remedy);
            }
        }
    }
}
