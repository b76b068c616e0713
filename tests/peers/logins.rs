//! Logging in at a smart host: Postfix with Cyrus SASL, by each mechanism, and when it does not let us in.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use end_to_end::{Place, Server, Sink, run, tool, until};

use crate::{outbound_tls::Authority, postfix::Postfix};

/// A Postfix that takes mail from those alone who log in, under TLS.
struct SmartHost {
    postfix: Postfix,
    authority: Authority,
    place: Place,
    _sink: Sink,
}

pub(crate) const USER: &str = "ringpost";
pub(crate) const PASSWORD: &str = "open, sesame = 1";

impl SmartHost {
    fn start() -> Self {
        let (sink, place) = (Sink::start(), Place::new());
        let authority = Authority::new(&["mx.postfix.test"]);
        let users = place.join("sasldb2");
        let users = users.to_str().unwrap();
        let arguments = ["-p", "-c", "-f", users, "-u", "mx.postfix.test", USER];
        run(&tool("saslpasswd2"), &arguments, PASSWORD).good();
        for path in [place.path().to_str().unwrap(), users] {
            run(&tool("chown"), &["postfix", path], "").good();
        }
        let postfix = Postfix::start(
            sink.address(),
            &format!(
                "smtpd_tls_security_level = may\nsmtpd_tls_chain_files = {}\nsmtpd_tls_auth_only = yes\n\
                 smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = cyrus\nsmtpd_sasl_path = smtpd\n\
                 smtpd_sasl_local_domain = mx.postfix.test\n\
                 smtpd_sasl_security_options = noanonymous\n\
                 mynetworks = 192.0.2.0/24\nsmtpd_relay_restrictions = permit_sasl_authenticated, reject\n",
                authority.chain().display(),
            ),
        );
        postfix.configure_sasl(&format!(
            "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {users}\n\
             mech_list: PLAIN LOGIN SCRAM-SHA-1 SCRAM-SHA-256\n"
        ));
        Self { postfix, authority, place, _sink: sink }
    }

    /// A route by way of it, and the credentials.
    fn configuration(&self, route: &str, credential: &str) -> String {
        let address = self.postfix.address();
        let (ip, port) = (address.ip(), address.port());
        format!(
            "[outbound-tls]\npublic-authorities = false\nauthorities = [\"{}\"]\n\
             [dns]\nhosts = {{ \"mx.postfix.test\" = [\"{ip}\"] }}\n\
             [queue]\nretry = [\"1s\"]\ndestination-retry-min = \"1s\"\n\
             [[route]]\nname = \"hop\"\ndomains = [\"*\"]\nvia = \"hop\"\nhosts = [\"mx.postfix.test:{port}\"]\n\
             idle = \"0s\"\n{route}\n\
             [[credential]]\nname = \"smarthost\"\nuser = \"{USER}\"\n{credential}\n",
            self.authority.certificate().display(),
        )
    }

    fn password(&self, text: &str) -> String {
        format!("password-file = \"{}\"", secret(&self.place, "password", text).display())
    }
}

/// A file that nobody else reads.
pub(crate) fn secret(place: &Place, name: &str, text: &str) -> PathBuf {
    let file = place.write(name, text);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    file
}

const ROUTE: &str = "tls = \"verified\"\ncredential = \"smarthost\"";

/// What became of a message.
fn send(server: &Server, recipient: &str) -> serde_json::Value {
    server.client().send("ann@example.org", &[recipient], "Subject: by way of it\r\n\r\n");
    server.event("outcome", |event| event["to"] == *recipient)
}

#[test]
fn a_smart_host_lets_us_in_by_each_mechanism() {
    let host = SmartHost::start();
    let password = host.password(&format!("{PASSWORD}\n"));
    let with = |mechanisms: &str| host.configuration(ROUTE, &format!("{password}\n{mechanisms}"));
    let server = Server::start(&with(""));
    for (number, (mechanisms, expected)) in [
        ("", "SCRAM-SHA-256"),
        ("mechanisms = [\"scram-sha-1\", \"plain\"]", "SCRAM-SHA-1"),
        ("mechanisms = [\"login\", \"plain\"]", "PLAIN"),
        ("mechanisms = [\"login\"]", "LOGIN"),
    ]
    .into_iter()
    .enumerate()
    {
        server.configure(&with(mechanisms));
        server.reload();
        let outcome = send(&server, &format!("bob{number}@example.net"));
        assert_eq!(outcome["result"], "delivered", "{mechanisms}: {outcome}");
        // A comma and the end of what Postfix says of the client.
        let line = host.postfix.logs(&format!("sasl_method={expected}, sasl_username={USER}"));
        assert!(line.contains("smtpd"), "{line}");
    }
    assert!(server.events("login_failed").is_empty());
    // Nothing of it is in our log.
    let lines = server.program().lines().concat();
    assert!(!lines.contains("sesame"), "the password is in the log");
}

#[test]
fn a_wrong_password_delays_mail_and_the_right_one_sends_it() {
    let host = SmartHost::start();
    let password = host.password("wrong\n");
    let server = Server::start(&host.configuration(ROUTE, &password));
    let outcome = send(&server, "bob@example.net");
    assert_eq!(outcome["result"], "deferred", "{outcome}");
    assert!(outcome["reply"].as_str().unwrap().contains("does not take our login"), "{outcome}");
    let failed = server.event("login_failed", |event| event["credential"] == "smarthost");
    let error = failed["error"].as_str().unwrap();
    assert!(error.contains("SCRAM-SHA-256") && error.contains("535"), "{failed}");
    // Whoever would rather have it back says so. What waits already is not to be tried by that.
    until("it is held", || {
        server.queue(&["hold", "--all"]).good();
        let listed = server.queue_json(&["list"]);
        (listed[0]["recipients"][0]["state"] == "held").then_some(())
    });
    server.configure(&host.configuration(ROUTE, &format!("{password}\nrefused = \"fail\"")));
    server.reload();
    let outcome = send(&server, "dan@example.net");
    assert_eq!((&outcome["result"], &outcome["status"]), (&"failed".into(), &"5.7.8".into()), "{outcome}");
    server.configure(&host.configuration(ROUTE, &password));
    server.reload();
    server.queue(&["release", "--all"]).good();
    // The file is read anew: nothing has to be reloaded.
    host.password(PASSWORD);
    server.event("outcome", |event| event["to"] == "bob@example.net" && event["result"] == "delivered");
}

#[test]
fn no_password_goes_where_it_should_not() {
    let host = SmartHost::start();
    let password = host.password(PASSWORD);
    // Such a configuration does not start.
    let careless = host.configuration("tls = \"dane\"\ncredential = \"smarthost\"", &password);
    let server = Server::prepare(&careless);
    let output = server.command().output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("route.hop.tls") && said.contains("is too little for a login"), "{said}");

    // A host that others speak for, by its certificate: no connection, no login.
    let stranger = Authority::new(&["mx.postfix.test"]);
    let text = host.configuration(ROUTE, &password);
    let believed = host.authority.certificate().display().to_string();
    let server = Server::start(&text.replace(&believed, &stranger.certificate().display().to_string()));
    let outcome = send(&server, "bob@example.net");
    assert_eq!(outcome["result"], "deferred", "{outcome}");
    assert!(outcome["reply"].as_str().unwrap().contains("certificate"), "{outcome}");
    assert!(!host.postfix.has_logged("sasl_method"), "it was given the password");

    // A file that others may read is no secret, and is not used.
    drop(server);
    let file = host.place.join("password");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let server = Server::start(&text);
    let outcome = send(&server, "dan@example.net");
    assert_eq!(outcome["result"], "deferred", "{outcome}");
    assert!(outcome["reply"].as_str().unwrap().contains("chmod 600"), "{outcome}");
    assert!(!host.postfix.has_logged("sasl_method"), "it was given the password");

    // A file that is not there is told, and nothing is bounced.
    drop(server);
    fs::remove_file(host.place.join("password")).unwrap();
    let server = Server::start(&text);
    let outcome = send(&server, "carl@example.net");
    assert_eq!(outcome["result"], "deferred", "{outcome}");
    let failed = server.event("login_failed", |_| true);
    assert!(failed["error"].as_str().unwrap().contains("password: "), "{failed}");
}

#[test]
fn a_token_from_a_file_and_what_the_host_says_of_it() {
    // A host of our own: Postfix has no XOAUTH2.
    let (sink, place) = (Sink::start(), Place::new());
    let token = secret(&place, "token", "old\n");
    let expected = "AUTH XOAUTH2 dXNlcj1yaW5ncG9zdAFhdXRoPUJlYXJlciBuZXcBAQ==";
    let mut tried = false;
    sink.answer(move |command| match command {
        command if command.starts_with("EHLO") => Some("250-sink.test\r\n250 AUTH XOAUTH2".to_owned()),
        command if command == expected => Some("235 2.7.0 in".to_owned()),
        command if command.starts_with("AUTH") => {
            tried = true;
            Some("334 eyJzdGF0dXMiOiI0MDEifQ==".to_owned())
        }
        "" if tried => Some("535 5.7.8 not in".to_owned()),
        command if command.starts_with("MAIL") => {
            (!command.ends_with(" AUTH=<>")).then(|| "503 who?".to_owned())
        }
        _ => None,
    });
    let server = Server::start(&format!(
        "{}idle = \"0s\"\ntls = \"none\"\ncredential = \"mailbox\"\n\
         [queue]\nretry = [\"1s\"]\ndestination-retry-min = \"1s\"\n\
         [[credential]]\nname = \"mailbox\"\nuser = \"{USER}\"\ntoken-file = \"{}\"\nsecrecy = \"none\"\n",
        sink.route(),
        token.display()
    ));
    let outcome = send(&server, "bob@example.net");
    assert_eq!(outcome["result"], "deferred", "{outcome}");
    let failed = server.event("login_failed", |_| true);
    assert!(failed["error"].as_str().unwrap().contains("it said {\"status\":\"401\"}"), "{failed}");
    place.write("token", "new");
    server.event("outcome", |event| event["to"] == "bob@example.net" && event["result"] == "delivered");
    assert!(sink.mail().mail.ends_with("AUTH=<>"));
}
