//! Hosts that play a script. One that speaks TLS is in tests/peers/deliverability.rs.

use tls::{Authentication, Authorities, Public, Version};
use tokio::net::TcpListener;

use super::*;

/// What is seen of a host that says these, each after a line has come but for the first; an empty one closes.
async fn seen(script: &'static [&'static str]) -> String {
    seen_within(Duration::from_secs(60), script).await
}

async fn seen_within(patience: Duration, script: &'static [&'static str]) -> String {
    tls::install_provider();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let host = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut stream, mut heard) = (BufReader::new(stream), Vec::new());
        for (turn, text) in script.iter().enumerate() {
            if turn > 0 {
                // What is said is said at once, and only then is there an answer to it.
                let said = stream.fill_buf().await.unwrap().to_vec();
                stream.consume(said.len());
                heard.push(String::from_utf8_lossy(&said).into_owned());
            }
            if text.is_empty() {
                return heard;
            }
            stream.write_all(text.as_bytes()).await.unwrap();
        }
        // Whoever is not told anything more goes by himself.
        let _ = stream.fill_buf().await;
        heard
    });
    let nobody = Authorities::of(Public::Ignored);
    let looking = Looking {
        lenient: tls::client_config(Authentication::Opportunistic, Version::Tls12, 1).unwrap(),
        judge: Judge::new(&nobody),
        patience,
        ehlo: "mx.example.org".into(),
    };
    let probe = look(&looking, "host.example.org", &[address], Duration::from_secs(1)).await;
    let heard = host.await.unwrap();
    assert!(heard.first().is_none_or(|line| line == "EHLO mx.example.org\r\n"), "{heard:?}");
    match probe {
        HostProbe::Unreachable(why) => why.replace(&format!("{address}: "), "unreachable: "),
        HostProbe::NoStartTls => "no STARTTLS".into(),
        HostProbe::Broken(why) => format!("broken: {why}"),
        HostProbe::Secure(_) => "secure".into(),
    }
}

#[tokio::test]
async fn hosts_of_all_kinds() {
    assert_eq!(seen(&["220 hi\r\n", "250 hi\r\n", ""]).await, "no STARTTLS");
    // It is as it is, whatever it says to the last word.
    assert_eq!(seen(&["220 hi\r\n", "250 hi\r\n"]).await, "no STARTTLS");
    assert_eq!(seen(&["220 hi\r\n", "250-hi\r\n250 SIZE\r\n", ""]).await, "no STARTTLS");
    // A name is no extension.
    assert_eq!(seen(&["220 hi\r\n", "250 STARTTLS\r\n", ""]).await, "no STARTTLS");
    assert_eq!(seen(&["554-no\r\n554 not you\r\n"]).await, "unreachable: it greets with 554 no not you");
    assert_eq!(seen(&["220 hi\r\n", "550 no\r\n"]).await, "unreachable: it answers EHLO with 550 no");
    assert_eq!(seen(&[""]).await, "unreachable: it has closed the connection");
    assert_eq!(seen(&["HTTP/1.1 400 Bad Request\r\n"]).await, "unreachable: it does not speak SMTP");
    assert_eq!(seen_within(Duration::from_secs(1), &["220 cut"]).await, "unreachable: no answer within 1 s");
    assert_eq!(
        seen(&["220 hi\r\n", "250-hi\r\n250 starttls\r\n", "454 later\r\n"]).await,
        "broken: it answers STARTTLS with 454 later"
    );
    assert_eq!(
        seen(&["220 hi\r\n", "250-hi\r\n250 starttls\r\n", "220 go\r\n250 forged\r\n"]).await,
        "broken: it has said more in clear than that it is ready"
    );
    let garbage = seen(&["220 hi\r\n", "250-hi\r\n250 starttls\r\n", "220 go\r\n", "no TLS\r\n"]).await;
    assert!(garbage.starts_with("broken: "), "{garbage}");
}

/// However much a host says, it is read to a bound.
#[tokio::test]
async fn a_host_that_does_not_end() {
    const LINES: &str = "220-and so on\r\n";
    let many: &'static str = String::leak(LINES.repeat(LINES_MAX + 1));
    let script: &'static [&'static str] = vec![many].leak();
    assert_eq!(seen(script).await, "unreachable: its reply does not end");
    let long: &'static str = String::leak(format!("220 {}\r\n", "x".repeat(5000)));
    let script: &'static [&'static str] = vec![long].leak();
    assert_eq!(seen(script).await, "unreachable: it does not speak SMTP");
}
