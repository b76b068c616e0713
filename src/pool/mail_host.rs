//! A mail host is connected to, to see its TLS: greeting, EHLO, STARTTLS, handshake, and no mail.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use deliverability::{HostProbe, HostSeen};
use tls::{ClientConfig, Judge};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

/// How it is looked at.
#[derive(Clone, Debug)]
pub(crate) struct Looking {
    /// What is taken is any certificate.
    pub(crate) lenient: Arc<ClientConfig>,
    /// And this says what it is worth.
    pub(crate) judge: Judge,
    /// For all of it.
    pub(crate) patience: Duration,
    /// As what we greet.
    pub(crate) ehlo: String,
}

/// Nobody has more to say than so many lines of so many octets.
const LINES_MAX: usize = 100;
const LINE_MAX: u64 = 2048;
/// Certificates that end within so many days are told.
const DAYS_MAX: u16 = 30;
const DAY: Duration = Duration::from_secs(86_400);

/// Looks at the first of these addresses that answers.
pub(crate) async fn look(
    looking: &Looking,
    name: &str,
    addresses: &[SocketAddr],
    now: Duration,
) -> HostProbe {
    let mut probe = HostProbe::Unreachable("it has no address".into());
    let patience = looking.patience / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    for address in addresses {
        probe = match timeout(patience, look_at(looking, name, *address, now)).await {
            Ok(probe) => probe,
            Err(_) => HostProbe::Unreachable(format!("{address}: no answer within {} s", patience.as_secs())),
        };
        if !matches!(probe, HostProbe::Unreachable(_)) {
            break;
        }
    }
    probe
}

async fn look_at(looking: &Looking, name: &str, address: SocketAddr, now: Duration) -> HostProbe {
    let unreachable = |why: String| HostProbe::Unreachable(format!("{address}: {why}"));
    let stream = match TcpStream::connect(address).await {
        Ok(stream) => stream,
        Err(error) => return unreachable(error.to_string()),
    };
    let mut stream = BufReader::new(stream);
    match reply(&mut stream).await {
        Ok((220, _)) => {}
        Ok((code, lines)) => return unreachable(format!("it greets with {code} {}", lines.join(" "))),
        Err(why) => return unreachable(why),
    }
    // An address that is no name greets as a literal (RFC 5321 §4.1.4).
    let ehlo = looking.ehlo.parse::<IpAddr>().map_or_else(|_| looking.ehlo.clone(), |own| format!("[{own}]"));
    let offered = match ask(&mut stream, &format!("EHLO {ehlo}\r\n")).await {
        Ok((250, lines)) => lines.iter().skip(1).any(|line| line.trim().eq_ignore_ascii_case("STARTTLS")),
        Ok((code, lines)) => return unreachable(format!("it answers EHLO with {code} {}", lines.join(" "))),
        Err(why) => return unreachable(why),
    };
    if !offered {
        // What it says to that is not waited for: it may say nothing.
        drop(stream.write_all(b"QUIT\r\n").await);
        return HostProbe::NoStartTls;
    }
    match ask(&mut stream, "STARTTLS\r\n").await {
        Ok((220, _)) => {}
        Ok((code, lines)) => {
            return HostProbe::Broken(format!("it answers STARTTLS with {code} {}", lines.join(" ")));
        }
        Err(why) => return HostProbe::Broken(why),
    }
    // What came in clear behind the reply is not to be taken for what comes under TLS.
    if !stream.buffer().is_empty() {
        return HostProbe::Broken("it has said more in clear than that it is ready".into());
    }
    let Ok(server) = ServerName::try_from(name.to_owned()) else {
        return HostProbe::Broken("its name is none that a certificate could have".into());
    };
    let mut secure =
        match TlsConnector::from(looking.lenient.clone()).connect(server, stream.into_inner()).await {
            Ok(secure) => secure,
            Err(error) => return HostProbe::Broken(error.to_string()),
        };
    let (_, connection) = secure.get_ref();
    let chain = connection.peer_certificates().unwrap_or_default().to_vec();
    let version = match connection.protocol_version() {
        Some(tokio_rustls::rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        Some(_) | None => "TLSv1.3",
    };
    let good_at = |now| looking.judge.verify(&chain, name, now);
    let trusted = good_at(now).map_err(|error| error.to_string());
    let is_good_in = |days: u16| good_at(now + DAY * u32::from(days)).is_ok();
    let days_left = (trusted.is_ok() && !is_good_in(DAYS_MAX))
        .then(|| (0..DAYS_MAX).take_while(|days| is_good_in(days + 1)).count() as u16);
    let seen = HostSeen {
        version: version.into(),
        chain: chain.iter().map(|der| der.to_vec()).collect(),
        trusted,
        days_left,
    };
    drop(secure.write_all(b"QUIT\r\n").await);
    drop(secure.shutdown().await);
    HostProbe::Secure(seen)
}

async fn ask(stream: &mut BufReader<TcpStream>, line: &str) -> Result<(u16, Vec<String>), String> {
    stream.write_all(line.as_bytes()).await.map_err(|error| error.to_string())?;
    reply(stream).await
}

/// A reply: its code, and the text of each line (RFC 5321 §4.2).
async fn reply(stream: &mut BufReader<TcpStream>) -> Result<(u16, Vec<String>), String> {
    let mut lines = Vec::new();
    while lines.len() < LINES_MAX {
        let mut line = Vec::new();
        let read = stream.take(LINE_MAX).read_until(b'\n', &mut line).await;
        read.map_err(|error| error.to_string())?;
        if line.is_empty() {
            return Err("it has closed the connection".into());
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        let code = text.get(..3).and_then(|code| code.parse::<u16>().ok());
        let Some(code) = code.filter(|_| line.ends_with(b"\n")) else {
            return Err("it does not speak SMTP".into());
        };
        lines.push(text.get(4..).unwrap_or_default().to_owned());
        if text.as_bytes().get(3) != Some(&b'-') {
            return Ok((code, lines));
        }
    }
    Err("its reply does not end".into())
}

#[cfg(test)]
#[path = "mail_host_test.rs"]
mod test;
