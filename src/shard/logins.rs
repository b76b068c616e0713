//! Logging in at next hops: where the secrets are, and what comes of it.
//!
//! A secret is read when a connection is about to be opened, and forgotten with it: so the latest holds, and none lies in the
//! configuration or is shown by what prints settings.

use std::{
    cell::RefCell,
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use bridge::{Authorization, Hidden, PoolErrand, Saying};
use config::LoginMechanism;
use delivery::{Hearing, RefusedLogin};
use sasl::{BindingType, ChannelBinding, Credentials, Derivation, Mechanism, Salted, Secret};
use smtp::client::{Login, NoLogin, Secrecy, TlsLevel};
use tokio::sync::oneshot;
use watch::events::LoginFailed;

use crate::{settings::Settings, shard::Shard, socket::Socket};

/// Passwords that were hashed with the salts of servers: a server has one for each account, so few are worth to be kept.
#[derive(Default)]
pub(crate) struct Derived(RefCell<HashMap<Derivation, Salted>>);

/// What programs have said, by their names, and until when it is used.
#[derive(Default)]
pub(crate) struct Tokens(RefCell<HashMap<Box<str>, (Hidden, Duration)>>);

/// Then all are forgotten: work, and no harm.
const DERIVED_MAX: usize = 64;

/// What the client logs in by on one connection.
pub(crate) async fn login(shard: &Shard, credential: &config::Credential) -> Result<Login, NoLogin> {
    let credentials = credentials(shard, credential).await;
    let nonce = [(); 3].map(|()| format!("{:016x}", shard.resolve.random())).concat();
    Ok(Login {
        credentials: credentials.map_err(|why| NoLogin::NoSecret(why.into()))?,
        mechanisms: credential.mechanisms.iter().map(|one| mechanism(*one)).collect(),
        secrecy: match credential.secrecy {
            config::Secrecy::Verified => Secrecy::Verified,
            config::Secrecy::Tls => Secrecy::Tls,
            config::Secrecy::None => Secrecy::None,
        },
        nonce: nonce.into(),
        binding: None,
    })
}

/// What a login is tied to, when it goes over this connection, to a host that is held to this level.
pub(crate) fn binding(socket: &Socket, level: TlsLevel) -> Option<ChannelBinding> {
    Some(match socket.tls_binding()? {
        tls::Binding::Exporter(exported) => ChannelBinding::new(BindingType::TlsExporter, exported),
        // Where any certificate does, nobody has looked whether the host has the key of the one that it shows.
        tls::Binding::ServerEndPoint(hash) => match level {
            TlsLevel::Verified | TlsLevel::Demanded => {
                ChannelBinding::new(BindingType::TlsServerEndPoint, hash)
            }
            TlsLevel::None | TlsLevel::Opportunistic | TlsLevel::Required => return None,
        },
    })
}

/// What becomes of mail of a route with this login, when it is refused.
pub(crate) fn when_refused(settings: &Settings, login: Option<&str>) -> RefusedLogin {
    match login.and_then(|name| settings.credentials.get(name)).map(|credential| credential.refused) {
        Some(config::Refused::Fail) => RefusedLogin::Fails,
        Some(config::Refused::Defer) | None => RefusedLogin::Defers,
    }
}

/// Hashes a password, unless it was hashed so before.
pub(crate) async fn derive(shard: &Shard, derivation: Derivation) -> Salted {
    let derived = &shard.hops.derived.0;
    if let Some(salted) = derived.borrow().get(&derivation) {
        return salted.clone();
    }
    let work = derivation.clone();
    // Milliseconds, or up to a second where the server would have it so: the core has other things to do.
    let salted = ring::blocking(move || work.derive()).await;
    let mut derived = derived.borrow_mut();
    if derived.len() >= DERIVED_MAX {
        derived.clear();
    }
    derived.insert(derivation, salted.clone());
    salted
}

/// Tells whoever runs this that we are not let in.
pub(crate) fn tell(shard: &Shard, credential: &str, host: &str, why: &NoLogin) {
    let named = shard.settings().credentials.get(credential).and_then(|named| named.token_program.clone());
    if let Some(program) = named {
        // The next connection has another one.
        shard.hops.tokens.0.borrow_mut().remove(&*program);
    }
    shard.metrics.outbound.logins.failed.one();
    LoginFailed { host, credential, error: &why.to_string() }.emit(ring::clock::unix_micros());
}

/// As whom a request by HTTP is made.
pub(crate) async fn authorization(
    shard: &Shard,
    credential: &config::Credential,
) -> Result<Authorization, String> {
    let (secret, place) = secret(shard, credential).await?;
    let user = credential.user.as_deref().unwrap_or_default();
    // What cannot be sent in a line is told here.
    Credentials::new(user, secret.clone()).map_err(|error| format!("{place}: {error}"))?;
    Ok(match secret {
        Secret::Token(token) => Authorization::Bearer(Hidden::new(token)),
        Secret::Password(password) => {
            Authorization::Basic { user: user.into(), password: Hidden::new(password) }
        }
    })
}

/// The one line of a file that holds a secret.
pub(crate) async fn secret_line(file: PathBuf) -> Result<Hidden, String> {
    let line = ring::blocking(move || {
        config::secret_line(&file).map_err(|error| format!("{}: {error}", file.display()))
    });
    Ok(Hidden::new(line.await?))
}

async fn credentials(shard: &Shard, credential: &config::Credential) -> Result<Credentials, String> {
    let (secret, place) = secret(shard, credential).await?;
    let user = credential.user.as_deref().unwrap_or_default();
    Credentials::new(user, secret).map_err(|error| format!("{place}: {error}"))
}

/// The secret, and where it is from.
async fn secret(shard: &Shard, credential: &config::Credential) -> Result<(Secret, String), String> {
    if let Some(program) = &credential.token_program {
        let token = token(shard, program, credential).await?;
        return Ok((Secret::Token(token.expose().into()), program.clone()));
    }
    let source = credential.clone();
    // A file may lie on a disk that is slow, or on a network.
    ring::blocking(move || stored(&source)).await
}

/// What a program says, or has said a while ago.
async fn token(shard: &Shard, program: &str, credential: &config::Credential) -> Result<Hidden, String> {
    let tokens = &shard.hops.tokens.0;
    let now = ring::clock::now();
    if let Some((token, until)) = tokens.borrow().get(program)
        && now < *until
    {
        return Ok(token.clone());
    }
    let (said, saying) = oneshot::channel();
    let name = program.to_ascii_lowercase();
    let hearing = shard.settings().token_programs.get(&*name).copied().ok_or("it is gone")?;
    let hearing = Hearing { timeout: credential.token_timeout, ..hearing };
    let errand = Saying { program: name.into(), hearing, said };
    shard.deliveries.send(PoolErrand::Say(errand)).await.map_err(|gone| gone.to_string())?;
    let token = saying.await.unwrap_or_else(|_| Err("the server stops".into()));
    let token = token.map_err(|why| format!("the program {program}: {why}"))?;
    tokens.borrow_mut().insert(program.into(), (token.clone(), now + credential.token_lifetime));
    Ok(token)
}

fn stored(credential: &config::Credential) -> Result<(Secret, String), String> {
    let text =
        |file: &Path| config::secret_line(file).map_err(|error| format!("{}: {error}", file.display()));
    Ok(match (&credential.password_file, &credential.token_file, &credential.password_env) {
        (Some(file), ..) => (Secret::Password(text(file)?.into()), file.display().to_string()),
        (None, Some(file), _) => (Secret::Token(text(file)?.into()), file.display().to_string()),
        (None, None, Some(name)) => {
            let value = std::env::var(name).map_err(|_| format!("{name} is not in the environment"))?;
            (Secret::Password(value.into()), name.clone())
        }
        (None, None, None) => return Err("the credential names no secret".into()),
    })
}

const fn mechanism(mechanism: LoginMechanism) -> Mechanism {
    match mechanism {
        LoginMechanism::ScramSha256Plus => Mechanism::ScramSha256Plus,
        LoginMechanism::ScramSha1Plus => Mechanism::ScramSha1Plus,
        LoginMechanism::ScramSha256 => Mechanism::ScramSha256,
        LoginMechanism::ScramSha1 => Mechanism::ScramSha1,
        LoginMechanism::XOAuth2 => Mechanism::XOAuth2,
        LoginMechanism::Plain => Mechanism::Plain,
        LoginMechanism::Login => Mechanism::Login,
    }
}

#[cfg(test)]
mod test {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_is_one_line_of_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        let set_mode = |mode| {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let of = |credential: config::Credential| {
            let credential = config::Credential { user: Some("ann".into()), ..credential };
            let (secret, place) = stored(&credential)?;
            Credentials::new("ann", secret).map_err(|error| format!("{place}: {error}"))
        };
        let password = |text: &str| {
            std::fs::write(&file, text).unwrap();
            set_mode(0o640);
            of(config::Credential { password_file: Some(file.clone()), ..Default::default() })
        };
        let expected = |text: &str| Credentials::new("ann", Secret::Password(text.into()));
        for (text, known) in [("pencil", "pencil"), ("pencil\n", "pencil"), (" a b \r\n", " a b ")] {
            assert_eq!(password(text), Ok(expected(known).unwrap()), "{text:?}");
        }
        for (text, why) in [("", "empty"), ("\n", "empty"), ("a\nb\n", "several lines"), ("a\n\n", "several")]
        {
            let error = password(text).unwrap_err();
            assert!(error.contains(why) && error.contains("secret: "), "{error}");
        }
        std::fs::write(&file, "ya29\n").unwrap();
        let token = of(config::Credential { token_file: Some(file.clone()), ..Default::default() });
        assert_eq!(token, Ok(Credentials::new("ann", Secret::Token("ya29".into())).unwrap()));
        for mode in [0o644, 0o660, 0o601] {
            set_mode(mode);
            let open = of(config::Credential { token_file: Some(file.clone()), ..Default::default() });
            assert!(open.unwrap_err().contains("others may read"), "{mode:o}");
        }
        set_mode(0o600);
        std::fs::write(&file, [0xff]).unwrap();
        assert!(of(config::Credential { password_file: Some(file), ..Default::default() }).is_err());
        let name = Some("RINGPOST_NO_SUCH_VARIABLE".to_owned());
        let absent = of(config::Credential { password_env: name, ..Default::default() });
        assert_eq!(absent.unwrap_err(), "RINGPOST_NO_SUCH_VARIABLE is not in the environment");
    }
}
