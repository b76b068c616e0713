//! Keys for DKIM that the server renews by itself: Knot or BIND has the zone and takes updates, dkimpy and another server of ours verify.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use end_to_end::{Place, Program, Server, Sink, built, free_address, run, tool, until};
use serde_json::{Value, json};

use crate::authenticity::{MESSAGE, verified};

const SECRET: &str = "c2VjcmV0IG9mIHRoZSB0ZXN0LCAzMiBvY3RldHMgbG9uZw==";

/// What has the zone.
#[derive(Clone, Copy, Debug)]
enum Software {
    Knot,
    Bind,
}

/// A name server with the zone example.org, which takes updates from who knows the secret.
struct Primary {
    _program: Program,
    place: Place,
    address: SocketAddr,
}

impl Software {
    /// Where it can listen. BIND does only at addresses that an interface has, and so not at one of the test's own.
    fn address(self) -> SocketAddr {
        match self {
            Self::Knot => free_address(),
            Self::Bind => {
                // Below those of connections on their way out; both tests and servers of other processes begin elsewhere.
                let first = 10_000 + (std::process::id() % 9_000) as u16;
                let mut addresses = (first..20_000).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
                let is_free = |at: &SocketAddr| TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok();
                addresses.find(is_free).expect("a port is free")
            }
        }
    }

    fn start(self, place: &Place, address: SocketAddr) -> Program {
        let directory = place.path().display();
        let (ip, port) = (address.ip(), address.port());
        match self {
            Self::Knot => {
                let file = place.write(
                    "zone.conf",
                    format!(
                        "server:\n  listen: {ip}@{port}\n  rundir: {directory}\n\
                         database:\n  storage: {directory}\n\
                         log:\n  - target: stderr\n    any: info\n\
                         key:\n  - id: ringpost.example.org\n    algorithm: hmac-sha256\n    secret: {SECRET}\n\
                         acl:\n  - id: update\n    key: ringpost.example.org\n    action: update\n\
                         zone:\n  - domain: example.org\n    storage: {directory}\n    file: example.org.zone\n    acl: update\n"
                    ),
                );
                let mut command = Command::new(tool("knotd"));
                command.arg("-c").arg(file);
                let program = Program::start("knotd", &mut command);
                program.wait_for("it runs", |line| line.contains("server started").then_some(()));
                program
            }
            Self::Bind => {
                let file = place.write(
                    "named.conf",
                    format!(
                        "options {{\n  directory \"{directory}\";\n  pid-file none;\n  session-keyfile none;\n  recursion no;\n\
                         notify no;\n  dnssec-validation no;\n  listen-on port {port} {{ {ip}; }};\n  listen-on-v6 {{ none; }};\n}};\n\
                         controls {{ }};\n\
                         key \"ringpost.example.org\" {{\n  algorithm hmac-sha256;\n  secret \"{SECRET}\";\n}};\n\
                         zone \"example.org\" {{\n  type primary;\n  file \"example.org.zone\";\n\
                         update-policy {{ grant ringpost.example.org wildcard *._domainkey.example.org. TXT; }};\n}};\n"
                    ),
                );
                // AppArmor lets the one in its own path read nothing here.
                let named = place.join("named");
                std::fs::copy(tool("named"), &named).unwrap();
                let mut command = Command::new(named);
                command.args(["-g", "-n", "1", "-c"]).arg(file);
                let program = Program::start("named", &mut command);
                program.wait_for("it runs", |line| line.ends_with(" running").then_some(()));
                program
            }
        }
    }
}

impl Primary {
    fn start(software: Software) -> Self {
        let (place, address) = (Place::new(), software.address());
        place.write(
            "example.org.zone",
            "$ORIGIN example.org.\n$TTL 1\n@ SOA ns hostmaster 1 3600 600 86400 1\n@ NS ns\nns A 127.0.0.1\n",
        );
        let program = software.start(&place, address);
        Self { _program: program, place, address }
    }

    /// The texts of a name, each in one string.
    fn texts(&self, name: &str) -> Vec<String> {
        let (server, port) = (format!("@{}", self.address.ip()), self.address.port().to_string());
        let out =
            run(&tool("kdig"), &[&server, "-p", &port, "+short", "+tcp", name, "TXT"], "").good().stdout;
        out.lines().map(|line| line.split('"').skip(1).step_by(2).collect()).collect()
    }

    /// Changes the zone by hand.
    fn update(&self, line: &str) {
        let (ip, port) = (self.address.ip(), self.address.port());
        let script = format!(
            "server {ip} {port}\nzone example.org\nkey hmac-sha256:ringpost.example.org {SECRET}\n{line}\nsend\nquit\n"
        );
        run(&tool("knsupdate"), &[] as &[&str], &script).good();
    }

    fn add(&self, name: &str, text: &str) {
        let strings: Vec<_> = text
            .as_bytes()
            .chunks(200)
            .map(|string| format!("\"{}\"", String::from_utf8_lossy(string)))
            .collect();
        self.update(&format!("update add {name}. 1 TXT {}", strings.join(" ")));
    }

    fn remove(&self, name: &str) {
        self.update(&format!("update delete {name}. TXT"));
    }

    /// What a server has in its configuration to renew keys, with more lines for the entry.
    fn rotation(&self, entry: &str) -> String {
        format!(
            "[dns]\nservers = [\"{}\"]\ntimeout = \"1s\"\nfailure-ttl = \"0s\"\n\
             [dkim-rotation]\ninterval = \"1s\"\nsettle = \"2s\"\nretire = \"3s\"\nrevoke = \"2s\"\n\
             [[dkim]]\nname = \"org\"\ndomain = \"example.org\"\nselector = \"rp-{{date}}-{{algorithm}}\"\n{entry}\n",
            self.address
        )
    }

    /// The same, and the name server is told by the server itself.
    fn publishing(&self, server: &Server, entry: &str) -> String {
        secret(server, SECRET);
        let provider = format!(
            "[[dns-provider]]\nname = \"primary\"\nserver = \"{}\"\ntsig-name = \"ringpost.example.org\"\n\
             secret-file = \"{}\"\nttl = \"1s\"\n",
            self.address,
            server.place().join("update.secret").display()
        );
        self.rotation(&format!("publish = \"primary\"\n{entry}")) + &provider
    }
}

fn secret(server: &Server, secret: &str) {
    let file = server.place().write("update.secret", format!("{secret}\n"));
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn dkim(server: &Server, arguments: &[&str]) -> end_to_end::Finished {
    let config = server.place().join("ringpost.toml");
    run(&built("ringpost"), &[&["dkim"], arguments, &["--config", config.to_str().unwrap()]].concat(), "")
}

/// The keys of the entry, with the rotation they are of.
fn keys(server: &Server) -> Vec<(String, Value)> {
    let finished = dkim(server, &["status", "--json"]).good();
    let mut keys = Vec::new();
    for line in finished.stdout.lines() {
        let view: Value = serde_json::from_str(line).unwrap();
        let algorithm = view["algorithm"].as_str().unwrap().to_owned();
        keys.extend(view["keys"].as_array().unwrap().iter().map(|key| (algorithm.clone(), key.clone())));
    }
    keys
}

fn text(key: &Value, name: &str) -> String {
    key[name].as_str().unwrap().to_owned()
}

/// The selectors that are in a state.
fn selectors(server: &Server, state: &str) -> Vec<String> {
    keys(server)
        .into_iter()
        .filter(|(_, key)| key["state"] == state)
        .map(|(_, key)| text(&key, "selector"))
        .collect()
}

/// Waits until a key of each of so many algorithms signs that is none of these; answers their selectors.
fn signing(server: &Server, count: usize, before: &[String]) -> Vec<String> {
    until("new keys sign", || {
        let found = selectors(server, "signing");
        (found.len() == count && found.iter().all(|one| !before.contains(one))).then_some(found)
    })
}

/// Sends a message and says what dkimpy makes of its signatures, by what the zone has now.
fn said(server: &Server, sink: &Sink, zone: &Primary) -> (String, String) {
    server.client().send("ann@example.org", &["bob@example.net"], MESSAGE);
    let content = sink.mail().content;
    (judged(&content, zone), content)
}

fn judged(content: &str, zone: &Primary) -> String {
    // Of all selectors in it.
    let named = content.split("; s=").skip(1).filter_map(|rest| rest.split(';').next());
    let records: BTreeMap<String, String> = named
        .map(|selector| format!("{selector}._domainkey.example.org"))
        .filter_map(|name| Some((name.clone(), zone.texts(&name).pop()?)))
        .collect();
    let records: Vec<_> = records.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    verified(content, &records)
}

/// What dkimpy says where all of these have signed.
fn all_good(said: &str, selectors: &[String]) -> bool {
    let lines: Vec<_> = said.lines().collect();
    lines.len() == selectors.len()
        && selectors.iter().all(|selector| lines.contains(&format!("example.org {selector} True").as_str()))
}

#[test]
fn keys_are_made_published_switched_and_retired_with_knot() {
    keys_are_made_published_switched_and_retired(Software::Knot);
}

/// Whose key may change what is below `_domainkey`, and nothing else.
#[test]
fn keys_are_made_published_switched_and_retired_with_bind() {
    keys_are_made_published_switched_and_retired(Software::Bind);
}

fn keys_are_made_published_switched_and_retired(software: Software) {
    let (zone, sink) = (Primary::start(software), Sink::start());
    let mut server = Server::prepare("");
    let entry = "rotate = \"30d\"\nalgorithms = [\"rsa2048\", \"ed25519\"]\n";
    let configuration = format!("{}{}", zone.publishing(&server, entry), sink.route());
    server.configure(&configuration);
    server.resume();
    // Before the DNS has shown a key, nothing is signed with it: here it cannot.
    let first = signing(&server, 2, &[]);
    for event in server.events("dkim_key") {
        assert_eq!((&event["key"], &event["domain"]), (&json!("org"), &json!("example.org")), "{event}");
    }
    let (said_first, content) = said(&server, &sink, &zone);
    assert!(all_good(&said_first, &first), "{said_first} {first:?}");

    // Another server of ours takes it, as from a stranger, and believes it.
    let taker = Sink::start();
    let receiver = Server::start(&format!(
        "[dns]\nservers = [\"{}\"]\n[authentication]\nverify = true\n[relay]\nnetworks = [\"192.0.2.0/24\"]\n\
         [[domain]]\nname = \"example.net\"\n{}",
        zone.address,
        taker.route()
    ));
    receiver.client().send("ann@example.org", &["bob@example.net"], &content);
    let taken = taker.mail().content;
    let results = &taken[taken.find("Authentication-Results:").unwrap()..];
    assert_eq!(results.split("DKIM-Signature").next().unwrap().matches("dkim=pass").count(), 2, "{taken}");

    // Nobody else reads the private keys, and what lies there is what is needed.
    let files = || {
        let files = std::fs::read_dir(server.place().join("data/dkim")).unwrap();
        files.map(|file| file.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(files().len(), 2);
    for file in files() {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
    }

    // A new key before its time. Until it signs the old one does, and its record stays for a while.
    dkim(&server, &["rotate", "org"]).good();
    let second = signing(&server, 2, &first);
    let (said_second, _) = said(&server, &sink, &zone);
    assert!(all_good(&said_second, &second), "{said_second} {second:?}");
    assert!(all_good(&judged(&content, &zone), &first), "what is under way can be verified");
    let old = format!("{}._domainkey.example.org", first[0]);
    until("it is revoked", || (zone.texts(&old) == ["v=DKIM1; p="]).then_some(()));
    until("it is gone", || zone.texts(&old).is_empty().then_some(()));
    until("all of it is forgotten", || (keys(&server).len() == 2).then_some(()));
    assert_eq!(files().len(), 2);
    assert_eq!(server.metric("ringpost_dkim_keys", &["key=\"org\"", "state=\"signing\""]), 2.0);
    assert_eq!(server.metric("ringpost_dkim_key_published", &["key=\"org\""]), 1.0);
    assert!(server.metric("ringpost_dkim_updates_total", &["result=\"done\""]) >= 8.0);
    let states: Vec<_> = server
        .events("dkim_key")
        .into_iter()
        .filter(|event| event["selector"] == *first[0])
        .map(|event| text(&event, "state"))
        .collect();
    let order = ["published", "shown", "signing", "retiring", "revoked", "leaving", "forgotten"];
    assert_eq!(states, order);

    // A record that somebody takes away is told of, and published again.
    let missing = format!("{}._domainkey.example.org", second[0]);
    zone.remove(&missing);
    let event = server.event("dkim_key_unpublished", |_| true);
    assert_eq!((&event["name"], &event["level"]), (&json!(missing), &json!("error")), "{event}");
    until("it is there again", || (zone.texts(&missing).len() == 1).then_some(()));
    until("it is seen", || (server.metric("ringpost_dkim_key_published", &[]) == 1.0).then_some(()));
    // What somebody else puts in its place is left there.
    zone.remove(&missing);
    zone.add(&missing, "v=DKIM1; p=abcd");
    let event = server.event("dkim_key_unpublished", |event| event["found"].is_string());
    assert_eq!(event["found"], "v=DKIM1; p=abcd");
    assert_eq!(server.metric("ringpost_dkim_key_published", &[]), 0.0);
    assert_eq!(zone.texts(&missing), ["v=DKIM1; p=abcd"]);

    // Without the secret nothing goes on, and mail is signed as before; with it, it goes on.
    secret(&server, "d3Jvbmc=");
    dkim(&server, &["rotate", "org"]).good();
    let failed = server.event("dkim_rotation_failed", |event| event["task"] == "publish");
    assert!(failed["error"].as_str().unwrap().contains("NOTAUTH"), "{failed}");
    assert_eq!(selectors(&server, "signing"), second);
    let refused = dkim(&server, &["rotate", "nobody"]);
    assert!(refused.stderr.contains("no [[dkim]] with `rotate` is called"), "{refused:?}");
    let troubled = dkim(&server, &["status"]).good().stdout;
    assert!(troubled.contains("failed, and is tried again: publish: primary: "), "{troubled}");
    secret(&server, SECRET);
    let third = signing(&server, 2, &second);
    assert!(server.events("dkim_rotation_failed").len() <= 4, "once for each key, and once for each reason");

    // Without its private key one would not sign after the next start: another takes its place before that.
    let lost = std::fs::read_dir(server.place().join("data/dkim")).unwrap();
    let lost = lost.map(|file| file.unwrap().path()).filter(|file| {
        third
            .iter()
            .any(|selector| file.file_name().unwrap().to_str().unwrap().starts_with(&format!("{selector}.")))
    });
    let lost: Vec<_> = lost.collect();
    assert_eq!(lost.len(), 2);
    lost.iter().for_each(|file| std::fs::remove_file(file).unwrap());
    let check = || {
        let config = server.place().join("ringpost.toml");
        run(&built("ringpost"), &["check", "--config", config.to_str().unwrap()], "")
    };
    let checked = check();
    assert!(
        checked.stderr.contains("dkim.org.rotate") && checked.stderr.contains("restore it"),
        "{checked:?}"
    );
    let event = server.event("dkim_rotation_failed", |event| event["task"] == "sign");
    assert!(event["error"].as_str().unwrap().contains("a new one is made"), "{event}");
    let fourth = signing(&server, 2, &third);
    let (good, _) = said(&server, &sink, &zone);
    assert!(all_good(&good, &fourth), "{good} {fourth:?}");
    let checked = check();
    assert!(!checked.stderr.contains("dkim.org"), "{checked:?}");
}

/// Somebody else has the zone: he is told what to publish, and it goes on when it is seen. The server is killed in each state.
#[test]
fn by_hand_and_killed_in_each_state() {
    let (zone, sink) = (Primary::start(Software::Knot), Sink::start());
    let mut server = Server::prepare("");
    let entry = "rotate = \"30d\"\nalgorithms = [\"ed25519\"]\n";
    server.configure(&format!("{}{}", zone.rotation(entry), sink.route()));
    server.resume();
    let wanted = server.event("dkim_by_hand", |_| true);
    assert_eq!((&wanted["task"], &wanted["key"]), (&json!("publish"), &json!("org")), "{wanted}");
    let (name, record) = (text(&wanted, "name"), text(&wanted, "record"));
    let shown = dkim(&server, &["status"]).good().stdout;
    assert!(shown.contains(&record) && shown.contains("to publish by hand"), "{shown}");
    assert_eq!(server.metric("ringpost_dkim_records_by_hand", &["key=\"org\""]), 1.0);
    // What the DNS does not show signs nothing.
    let (unsigned, _) = said(&server, &sink, &zone);
    assert_eq!(unsigned, "");

    server.kill();
    server.resume();
    // The same key goes on.
    let again = server.event("dkim_by_hand", |_| true);
    assert_eq!(again["record"], *record);
    zone.add(&name, &record);
    server.event("dkim_key", |event| event["state"] == "shown");
    server.kill();
    server.resume();
    let first = signing(&server, 1, &[]);
    assert!(name.starts_with(&format!("{}.", first[0])));
    server.kill();
    server.resume();
    // It signs from the first message on.
    let (good, content) = said(&server, &sink, &zone);
    assert!(all_good(&good, &first), "{good}");

    dkim(&server, &["rotate", "org"]).good();
    let wanted = server.event("dkim_by_hand", |event| event["record"] != *record);
    server.kill();
    server.resume();
    zone.add(&text(&wanted, "name"), &text(&wanted, "record"));
    let second = signing(&server, 1, &first);
    server.kill();
    server.resume();
    let (good, _) = said(&server, &sink, &zone);
    assert!(all_good(&good, &second), "{good}");
    assert!(all_good(&judged(&content, &zone), &first), "the old record is for a man to take away");
    server.event("dkim_by_hand", |event| event["record"] == "v=DKIM1; p=" && event["name"] == *name);
    server.kill();
    server.resume();
    let remove = server.event("dkim_by_hand", |event| event["task"] == "remove");
    assert_eq!(remove["name"], *name);
    assert_eq!(std::fs::read_dir(server.place().join("data/dkim")).unwrap().count(), 1);
    zone.remove(&name);
    server.event("dkim_key", |event| event["state"] == "forgotten");
    assert_eq!(keys(&server).len(), 1);
}

/// Killed at moments drawn by chance, with a new key every few seconds: no mail is ever signed with a key that the DNS does not show.
#[test]
fn killed_at_any_moment() {
    let (zone, sink) = (Primary::start(Software::Knot), Sink::start());
    let mut server = Server::prepare("");
    let entry = "rotate = \"2s\"\nalgorithms = [\"ed25519\"]\n";
    server.configure(&format!("{}{}", zone.publishing(&server, entry), sink.route()));
    server.resume();
    signing(&server, 1, &[]);
    let mut random = u64::from(std::process::id());
    eprintln!("SEED={random}");
    let mut signed = std::collections::BTreeSet::new();
    for _ in 0..12 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Not a wait for anything: the moment is what is tried.
        thread::sleep(Duration::from_millis((random >> 33) % 3_000));
        server.kill();
        server.resume();
        let (good, content) = said(&server, &sink, &zone);
        assert!(good.lines().count() == 1 && good.ends_with("True\n"), "{good}{content}");
        signed.insert(good);
    }
    assert!(signed.len() > 1, "keys were renewed meanwhile: {signed:?}");
    // One signs; others come and go, and none is left over.
    until("few are there", || (keys(&server).len() <= 5).then_some(()));
    let files = std::fs::read_dir(server.place().join("data/dkim")).unwrap().count();
    assert!(files <= 6, "{files} private keys");
}

/// Two processes in an upgrade: one renews, both sign with what it has.
#[test]
fn over_an_upgrade_one_process_renews() {
    let (zone, sink) = (Primary::start(Software::Knot), Sink::start());
    let mut server = Server::prepare("");
    let entry = "rotate = \"30d\"\nalgorithms = [\"ed25519\"]\n";
    let journals = "[journal]\nshards = 8\n";
    server.configure(&format!("{journals}{}{}", zone.publishing(&server, entry), sink.route()));
    server.resume();
    let first = signing(&server, 1, &[]);
    // Two sessions, one on each core: so the old program stays whole.
    let mut old = [server.client(), server.client()];
    server.upgrade(&["--no-wait"]).good();
    let successor = server.successor(1);
    let good = until("the new one renews keys", || {
        let finished = dkim(&server, &["rotate", "org"]);
        finished.status.success().then_some(finished)
    });
    assert!(good.stdout.contains("a new key is begun"), "{good:?}");
    let second = signing(&server, 1, &first);
    let (said_new, _) = said(&server, &sink, &zone);
    assert!(all_good(&said_new, &second), "{said_new} {second:?}");
    // The old one has followed, or is about to.
    until("the old one signs with it", || {
        old[0].send("ann@example.org", &["bob@example.net"], MESSAGE);
        let said_old = judged(&sink.mail().content, &zone);
        assert!(said_old.ends_with("True\n"), "{said_old}");
        all_good(&said_old, &second).then_some(())
    });
    // It was one new key.
    let made: Vec<_> = server
        .events("dkim_key")
        .into_iter()
        .filter(|event| event["state"] == "signing")
        .map(|event| text(&event, "selector"))
        .collect();
    assert_eq!(made, [first[0].clone(), second[0].clone()]);
    drop(old);
    assert!(server.program_mut().wait().success());
    successor.signal(end_to_end::Signal::TERM);
    successor.wait();
}

/// The API of Cloudflare, as far as it is needed; what is written there is in Knot's zone.
struct Api {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    /// Says that it has published, and has not.
    lies: Arc<AtomicBool>,
}

impl Api {
    fn start(zone: &Arc<Primary>) -> Self {
        let listener = TcpListener::bind(free_address()).unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let lies = Arc::new(AtomicBool::new(false));
        let lying = lies.clone();
        // The thread does not end: it is not to keep Knot from ending with the test.
        let (log, zone) = (asked.clone(), Arc::downgrade(zone));
        thread::spawn(move || {
            let mut records: BTreeMap<String, (String, String)> = BTreeMap::new();
            for stream in listener.incoming() {
                let (mut stream, Some(zone)) = (stream.unwrap(), zone.upgrade()) else { return };
                let (line, body) = request(&mut stream);
                log.lock().unwrap().push(line.clone());
                let answer = match lying.load(Ordering::Relaxed) && line.starts_with("POST") {
                    true => json!({"success": true, "errors": [], "result": {}}),
                    false => answer(&line, &body, &mut records, &zone),
                };
                let text = answer.to_string();
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
                let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n{text}", text.len());
            }
        });
        Self { address, asked, lies }
    }

    /// What a server has in its configuration to publish by it.
    fn publishing(&self, server: &Server, zone: &Primary, entry: &str) -> String {
        let token = server.place().write("token", "token-of-the-test\n");
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
        let provider = format!(
            "[[dns-provider]]\nname = \"cf\"\nkind = \"cloudflare\"\nurl = \"http://{}/client/v4\"\nsecret-file = \"{}\"\n\
             ttl = \"60s\"\n",
            self.address,
            token.display()
        );
        zone.rotation(&format!("publish = \"cf\"\n{entry}")) + &provider
    }
}

/// The first line of a request, and its body. It must bear the token.
fn request(stream: &mut impl std::io::Read) -> (String, Value) {
    let mut reader = BufReader::new(stream);
    let (mut first, mut length, mut token) = (String::new(), 0, false);
    reader.read_line(&mut first).unwrap();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(": ").unwrap();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "authorization" => token = value == "Bearer token-of-the-test",
            _ => {}
        }
    }
    assert!(token, "the token is missing");
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (first.trim_end().to_owned(), serde_json::from_slice(&body).unwrap_or_default())
}

fn answer(
    line: &str,
    body: &Value,
    records: &mut BTreeMap<String, (String, String)>,
    zone: &Primary,
) -> Value {
    let [method, path, _] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
    let path = path.strip_prefix("/client/v4").unwrap();
    let good = |result: Value| json!({"success": true, "errors": [], "result": result});
    let content = || body["content"].as_str().unwrap().split('"').skip(1).step_by(2).collect::<String>();
    match (method, path.split('?').next().unwrap()) {
        ("GET", "/zones") => {
            assert_eq!(path, "/zones?name=example.org");
            good(json!([{"id": "zone-1", "name": "example.org"}]))
        }
        ("GET", "/zones/zone-1/dns_records") => {
            let name = path.split("&name=").nth(1).unwrap();
            let found = records.iter().filter(|(_, (other, _))| other == name);
            good(found.map(|(id, (name, text))| json!({"id": id, "name": name, "type": "TXT", "content": format!("\"{text}\"")})).collect())
        }
        ("POST", "/zones/zone-1/dns_records") => {
            assert_eq!((&body["type"], &body["ttl"]), (&json!("TXT"), &json!(60)), "{body}");
            let (name, text) = (body["name"].as_str().unwrap().to_owned(), content());
            zone.add(&name, &text);
            records.insert(format!("record-{}", records.len()), (name, text));
            good(json!({}))
        }
        ("PUT", path) => {
            let record = records.get_mut(path.rsplit('/').next().unwrap()).unwrap();
            record.1 = content();
            zone.remove(&record.0);
            zone.add(&record.0, &record.1);
            good(json!({}))
        }
        ("DELETE", path) => {
            let (name, _) = records.remove(path.rsplit('/').next().unwrap()).unwrap();
            zone.remove(&name);
            good(json!({}))
        }
        other => json!({"success": false, "errors": [{"message": format!("no {other:?}")}], "result": null}),
    }
}

#[test]
fn by_the_api_of_cloudflare() {
    let (zone, sink) = (Arc::new(Primary::start(Software::Knot)), Sink::start());
    let api = Api::start(&zone);
    let mut server = Server::prepare("");
    let entry = "rotate = \"30d\"\nalgorithms = [\"rsa2048\"]\n";
    server.configure(&format!("{}{}", api.publishing(&server, &zone, entry), sink.route()));
    server.resume();
    let first = signing(&server, 1, &[]);
    let (good, _) = said(&server, &sink, &zone);
    assert!(all_good(&good, &first), "{good}");
    dkim(&server, &["rotate", "org"]).good();
    let second = signing(&server, 1, &first);
    until("the old one is forgotten", || (keys(&server).len() == 1).then_some(()));
    assert!(zone.texts(&format!("{}._domainkey.example.org", first[0])).is_empty());
    let (good, _) = said(&server, &sink, &zone);
    assert!(all_good(&good, &second), "{good}");
    let asked = api.asked.lock().unwrap();
    let count = |method: &str| asked.iter().filter(|line| line.starts_with(method)).count();
    assert_eq!((count("POST"), count("PUT"), count("DELETE")), (2, 1, 1), "{asked:?}");
    assert!(zone.place.path().exists());
}

/// A provider that says that all is well, and a record that never comes: told, with what to look at, and signed as before meanwhile.
#[test]
fn a_record_that_is_published_and_not_seen() {
    let (zone, sink) = (Arc::new(Primary::start(Software::Knot)), Sink::start());
    let api = Api::start(&zone);
    let mut server = Server::prepare("");
    let entry = "rotate = \"30d\"\nalgorithms = [\"ed25519\"]\n";
    let configuration =
        api.publishing(&server, &zone, entry).replace("revoke =", "overdue = \"3s\"\nrevoke =");
    server.configure(&format!("{configuration}{}", sink.route()));
    server.resume();
    let first = signing(&server, 1, &[]);
    api.lies.store(true, Ordering::Relaxed);
    dkim(&server, &["rotate", "org"]).good();
    let event = server.event("dkim_record_overdue", |_| true);
    assert_eq!(
        (&event["key"], &event["by"], &event["level"]),
        (&json!("org"), &json!("cf"), &json!("error")),
        "{event}"
    );
    assert!(event["remedy"].as_str().unwrap().contains("dig TXT") && event["found"].is_null(), "{event}");
    let metric = || server.metric("ringpost_dkim_records_overdue", &["key=\"org\""]);
    until("the metric says so", || (metric() == 1.0).then_some(()));
    let shown = dkim(&server, &["status"]).good().stdout;
    assert!(shown.contains("overdue: the DNS has not shown it for "), "{shown}");
    let (good, _) = said(&server, &sink, &zone);
    assert!(all_good(&good, &first), "{good}");
    api.lies.store(false, Ordering::Relaxed);
    let second = signing(&server, 1, &first);
    assert!(
        event["name"].as_str().unwrap().starts_with(&second[0]),
        "the same one, published again: {event}"
    );
    until("and not any more", || (metric() == 0.0).then_some(()));
    assert_eq!(server.events("dkim_record_overdue").len(), 1);
}
