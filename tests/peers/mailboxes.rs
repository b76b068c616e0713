//! Mail that ends here: by LMTP and by dovecot-lda into Dovecot's mailboxes, into programs, to services that speak HTTP.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
};

use end_to_end::{Place, Program, Server, free_address, run, tool, until};
use rustix::process::getuid;
use serde_json::Value;

/// Debian's Python, whose library has the server.
const PYTHON: &str = "/usr/bin/python3";
/// Whoever keeps mailboxes here.
const NOBODY: u32 = 65534;

/// A Dovecot with mailboxes for ann, bob and carl, whose mailbox is full.
struct Dovecot {
    _program: Program,
    place: Place,
    tcp: SocketAddr,
}

impl Dovecot {
    fn start() -> Self {
        assert!(getuid().is_root(), "Dovecot is started by root: run this test as root");
        let (place, tcp) = (Place::new(), free_address());
        let (base, ip, port) = (place.path().display().to_string(), tcp.ip(), tcp.port());
        for name in ["mail", "state"] {
            fs::create_dir(place.join(name)).unwrap();
            chown(place.join(name), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        // Whoever looks users up is another user.
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let users = ["ann", "bob", "carl"].map(|name| {
            let quota = if name == "carl" { "userdb_quota_rule=*:storage=1B" } else { "" };
            format!("{name}@example.net:{{PLAIN}}x:{NOBODY}:{NOBODY}::{base}/mail/{name}::{quota}\n")
        });
        let users = place.write("users", users.concat());
        fs::set_permissions(users, fs::Permissions::from_mode(0o644)).unwrap();
        let file = place.write(
            "dovecot.conf",
            format!(
                "base_dir = {base}/run\nstate_dir = {base}/state\nlog_path = /dev/stderr\nprotocols = lmtp\nssl = no\n\
                 listen = {ip}\nfirst_valid_uid = {NOBODY}\nfirst_valid_gid = {NOBODY}\n\
                 mail_location = maildir:~/Maildir\nmail_plugins = quota\n\
                 default_internal_user = dovecot\ndefault_login_user = dovenull\n\
                 passdb {{\n  driver = passwd-file\n  args = {base}/users\n}}\n\
                 userdb {{\n  driver = passwd-file\n  args = {base}/users\n}}\n\
                 plugin {{\n  quota = maildir:all\n  quota_status_overquota = 552 5.2.2 full\n}}\n\
                 protocol lmtp {{\n  postmaster_address = postmaster@example.net\n  mail_plugins = quota\n}}\n\
                 protocol lda {{\n  postmaster_address = postmaster@example.net\n  mail_plugins = quota\n}}\n\
                 service lmtp {{\n  unix_listener {base}/lmtp {{\n    mode = 0666\n  }}\n  \
                 inet_listener lmtp {{\n    address = {ip}\n    port = {port}\n  }}\n}}\n\
                 service auth {{\n  unix_listener auth-userdb {{\n    mode = 0666\n  }}\n}}\n\
                 service stats {{\n  unix_listener stats-writer {{\n    mode = 0666\n  }}\n}}\n"
            ),
        );
        let mut command = Command::new(tool("dovecot"));
        command.arg("-F").arg("-c").arg(file);
        let program = Program::start("dovecot", &mut command);
        until("Dovecot listens", || place.join("lmtp").exists().then_some(()));
        Self { _program: program, place, tcp }
    }

    fn socket(&self) -> PathBuf {
        self.place.join("lmtp")
    }

    /// What is in a mailbox.
    fn mailbox(&self, name: &str) -> Vec<String> {
        let folder = self.place.join(&format!("mail/{name}/Maildir/new"));
        let Ok(files) = fs::read_dir(folder) else { return Vec::new() };
        files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect()
    }
}

fn route(more: &str) -> String {
    format!(
        "[cores]\ncount = 1\n[queue]\nretry = [\"1s\"]\ndestination-retry-min = \"1s\"\n\
         [[route]]\nname = \"in\"\ndomains = [\"*\"]\nidle = \"0s\"\n{more}"
    )
}

/// What became of somebody's mail, whichever way the others went first.
fn outcome(server: &Server, to: &str) -> Value {
    found(server, |event| event["to"] == *to)
}

fn found(server: &Server, mut is_meant: impl FnMut(&Value) -> bool) -> Value {
    until("its outcome", || server.events("outcome").into_iter().find(&mut is_meant))
}

const CONTENT: &str = "Subject: for your mailbox\r\n\r\nhello\r\n.\r\nFrom here on\r\n";

#[test]
fn mail_goes_into_mailboxes_by_lmtp() {
    let dovecot = Dovecot::start();
    let ways = [format!("unix:{}", dovecot.socket().display()), dovecot.tcp.to_string()];
    for (count, host) in (1..).zip(ways) {
        let server = Server::start(&route(&format!("via = \"lmtp\"\nhosts = [\"{host}\"]\n")));
        let recipients = ["ann@example.net", "nobody@example.net", "carl@example.net", "bob@example.net"];
        let reply = server.client().send("eve@example.org", &recipients, CONTENT);
        assert!(reply.is_positive(), "{reply:?}");
        for name in ["ann", "bob"] {
            let told = outcome(&server, &format!("{name}@example.net"));
            assert_eq!(told["result"], "delivered", "{told}");
            let mailbox = dovecot.mailbox(name);
            assert_eq!(mailbox.len(), count, "{name}: {mailbox:?}");
            let mail = &mailbox[count - 1];
            assert!(
                mail.contains("Return-Path: <eve@example.org>") && mail.contains("From here on"),
                "{mail}"
            );
        }
        // One is told at RCPT, the other behind the content: each has a reply of its own.
        let absent = outcome(&server, "nobody@example.net");
        assert_eq!((&absent["result"], &absent["status"]), (&"failed".into(), &"5.1.1".into()), "{absent}");
        let full = outcome(&server, "carl@example.net");
        assert!(
            full["result"] != "delivered" && full["status"].as_str().unwrap().ends_with(".2.2"),
            "{full}"
        );
        assert!(dovecot.mailbox("carl").is_empty());
    }
}

#[test]
fn a_mailbox_is_the_end_of_the_way() {
    let dovecot = Dovecot::start();
    let host = format!("via = \"lmtp\"\nhosts = [\"unix:{}\"]\n", dovecot.socket().display());
    let server = Server::start(&route(&host));
    let mut client = server.client();
    client.ask("EHLO x.test");
    client.ask("MAIL FROM:<ann@example.net>");
    assert!(client.ask("RCPT TO:<bob@example.net> NOTIFY=SUCCESS").is_positive());
    client.say("DATA");
    client.expect(354);
    client.put(b"Subject: x\r\n\r\nx\r\n.\r\n");
    client.expect(250);
    // The report goes by the same route, into the mailbox of the sender.
    let report = until("the report is there", || dovecot.mailbox("ann").pop());
    assert!(report.contains("Action: delivered"), "{report}");
    assert!(!report.contains("Remote-MTA"), "{report}");
    // Who is not there is waited for.
    fs::rename(dovecot.socket(), dovecot.place.join("elsewhere")).unwrap();
    server.client().send("ann@example.net", &["bob@example.net"], CONTENT);
    let later = found(&server, |event| event["result"] == "deferred");
    assert_eq!(later["status"], "4.4.1", "{later}");
    fs::rename(dovecot.place.join("elsewhere"), dovecot.socket()).unwrap();
    until("both are there", || (dovecot.mailbox("bob").len() == 2).then_some(()));
}

/// A route into a program.
fn pipe(program: &str) -> String {
    route(&format!("via = \"pipe\"\nprogram = \"p\"\n[[program]]\nname = \"p\"\n{program}"))
}

/// A script of the shell that others can run.
fn script(place: &Place, text: &str) -> PathBuf {
    let file = place.write("script.sh", format!("#!/bin/sh\n{text}\n"));
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    file
}

#[test]
fn mail_goes_into_mailboxes_by_dovecot_lda() {
    let dovecot = Dovecot::start();
    let conf = dovecot.place.join("dovecot.conf");
    fs::set_permissions(&conf, fs::Permissions::from_mode(0o644)).unwrap();
    let command = format!(
        "command = [\"/usr/lib/dovecot/dovecot-lda\", \"-c\", \"{}\", \"-f\", \"{{sender}}\", \"-d\", \"{{recipient}}\", \"-e\"]\n\
         user = \"nobody\"\n",
        conf.display()
    );
    let server = Server::start(&pipe(&command));
    let recipients = ["ann@example.net", "nobody@example.net", "bob@example.net"];
    server.client().send("eve@example.org", &recipients, CONTENT);
    for name in ["ann", "bob"] {
        let told = outcome(&server, &format!("{name}@example.net"));
        assert_eq!(told["result"], "delivered", "{told}");
        let mailbox = dovecot.mailbox(name);
        let [mail] = &mailbox[..] else { panic!("{mailbox:?}") };
        assert!(mail.starts_with("Return-Path: <eve@example.org>\n"), "{mail}");
        assert!(mail.contains(&format!("Delivered-To: {name}@example.net\n")), "{mail}");
        assert!(mail.ends_with("hello\n.\nFrom here on\n"), "{mail}");
    }
    let absent = outcome(&server, "nobody@example.net");
    assert_eq!((&absent["result"], &absent["status"]), (&"failed".into(), &"5.1.1".into()), "{absent}");
}

#[test]
fn how_a_program_ends_decides() {
    let place = Place::new();
    let script = script(
        &place,
        "cat > /dev/null\ncase \"$1\" in\n\
         done) echo taken; exit 0;;\n full) echo '5.2.2 mailbox is full'; exit 77;;\n \
         later) echo '4.2.2 come again' >&2; exit 75;;\n flaw) no-such-command; exit $?;;\n \
         hangs) sleep 1000 & sleep 1000;;\n killed) kill -9 $$;;\n esac",
    );
    let command = format!("command = [\"{}\", \"{{local-part}}\"]\ntimeout = \"1s\"\n", script.display());
    let server = Server::start(&pipe(&command).replace("retry = [\"1s\"]", "retry = [\"1h\"]"));
    for (name, result, status, reply) in [
        ("done", "delivered", "2.0.0", "taken"),
        ("full", "failed", "5.2.2", "mailbox is full"),
        ("later", "deferred", "4.2.2", "come again"),
        ("flaw", "deferred", "4.3.0", "127"),
        ("hangs", "deferred", "4.3.0", "took more than 1 s"),
        ("killed", "deferred", "4.3.0", "signal 9"),
    ] {
        let to = format!("{name}@example.net");
        server.client().send("eve@example.org", &[&to], CONTENT);
        let told = outcome(&server, &to);
        assert_eq!((&told["result"], &told["status"]), (&result.into(), &status.into()), "{told}");
        assert!(told["reply"].as_str().unwrap().contains(reply), "{told}");
    }
    // Whoever looks like an option is not given to a program.
    server.client().send("eve@example.org", &["-rf@example.net"], CONTENT);
    let told = outcome(&server, "-rf@example.net");
    assert_eq!((&told["status"], &told["category"]), (&"5.1.3".into(), &"bad-mailbox".into()), "{told}");
    server.client().send("-rf@example.org", &["ann@example.net"], CONTENT);
    let told = outcome(&server, "ann@example.net");
    assert_eq!((&told["status"], &told["category"]), (&"5.1.7".into(), &"message-format".into()), "{told}");
    // What goes in a circle comes back.
    let circle = format!("Delivered-To: done@example.net\r\n{CONTENT}");
    server.client().send("eve@example.org", &["done@example.net"], &circle);
    let told = found(&server, |event| event["result"] == "failed" && event["to"] == "done@example.net");
    assert_eq!(told["status"], "5.4.6", "{told}");
}

#[test]
fn a_program_is_what_the_configuration_says() {
    let place = Place::new();
    let script = script(
        &place,
        "cat >&2; id -un; echo \"$SENDER $RECIPIENT $HOME $EXTRA\"; grep NoNewPrivs /proc/self/status",
    );
    let with = |more: &str| {
        format!(
            "command = [\"{}\"]\nuser = \"nobody\"\nenvironment = [\"EXTRA=a b\"]\nreturn-path = false\n\
                 delivered-to = false\n{more}",
            script.display()
        )
    };
    let server = Server::start(&pipe(&with("")));
    server.client().send("eve@example.org", &["ann@example.net"], "Subject: x\r\n\r\ny\r\n");
    let told = outcome(&server, "ann@example.net");
    let reply = told["reply"].as_str().unwrap();
    assert!(reply.contains("Subject: x y nobody eve@example.org ann@example.net"), "{reply}");
    assert!(reply.contains("a b NoNewPrivs: 1"), "{reply}");
    // `check` sees what others could exchange, and what is not there.
    fs::set_permissions(&script, fs::Permissions::from_mode(0o777)).unwrap();
    let absent = "[[program]]\nname = \"q\"\ncommand = [\"/no/such/program\"]\nuser = \"no-such-user\"\n";
    server.configure(&(pipe(&with("")) + absent));
    let config = server.place().join("ringpost.toml");
    let checked =
        run(&end_to_end::built("ringpost"), &["check", "--config", config.to_str().unwrap()], "").good();
    for part in
        ["program.p.command: ", "has mode 777", "program.q.command: ", "program.q.user: there is no user"]
    {
        assert!(checked.stderr.contains(part), "{part}: {}", checked.stderr);
    }
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    // A change holds from the reload on.
    server.configure(&pipe(&with("new-privileges = true\n")));
    server.reload();
    server.client().send("eve@example.org", &["bob@example.net"], "Subject: x\r\n\r\ny\r\n");
    let told = outcome(&server, "bob@example.net");
    assert!(told["reply"].as_str().unwrap().contains("NoNewPrivs: 0"), "{told}");
}

#[test]
fn the_first_program_takes_a_restart() {
    let mut server = Server::start(&route("via = \"discard\"\n"));
    let with = pipe("command = [\"/bin/true\"]\n");
    server.configure(&with);
    let refused = run(
        &end_to_end::built("ringpost"),
        &["reload", "--config", server.place().join("ringpost.toml").to_str().unwrap()],
        "",
    );
    assert!(refused.text().contains("takes a restart"), "{}", refused.text());
    server = server.restarted();
    server.client().send("eve@example.org", &["ann@example.net"], CONTENT);
    assert_eq!(outcome(&server, "ann@example.net")["result"], "delivered");
}

#[test]
fn a_server_that_dies_while_a_program_runs_has_the_mail_still() {
    let place = Place::new();
    let script = script(&place, "echo once >> \"$1\"; sleep 1; exit 0");
    let file = place.join("runs");
    let command = format!("command = [\"{}\", \"{}\"]\n", script.display(), file.display());
    let mut server = Server::start(&pipe(&command));
    server.client().send("eve@example.org", &["ann@example.net"], CONTENT);
    until("it runs", || file.exists().then_some(()));
    server.kill();
    server.resume();
    assert_eq!(outcome(&server, "ann@example.net")["result"], "delivered");
    assert_eq!(fs::read_to_string(&file).unwrap(), "once\nonce\n");
    // An orderly stop waits for it.
    server.client().send("eve@example.org", &["bob@example.net"], CONTENT);
    until("it runs again", || (fs::read_to_string(&file).unwrap().lines().count() == 3).then_some(()));
    let (status, lines) = server.stop();
    assert!(status.success(), "{lines:?}");
    let delivered = lines.iter().any(|line| line.contains("bob@example.net") && line.contains("delivered"));
    assert!(delivered, "{lines:#?}");
}

#[test]
fn a_program_says_the_token() {
    let place = Place::new();
    let script = script(&place, "echo \"token-$(wc -l < \"$1\")\"; echo >> \"$1\"");
    let count = place.write("count", "");
    let service = Service::start(&place, "401 who");
    let config = route(&format!(
        "via = \"http\"\nendpoint = \"e\"\n[[endpoint]]\nname = \"e\"\nurl = \"http://{}/in\"\ncredential = \"c\"\n\
         [[credential]]\nname = \"c\"\nuser = \"x\"\ntoken-program = \"t\"\n\
         [[program]]\nname = \"t\"\ncommand = [\"{}\", \"{}\"]\n",
        service.address,
        script.display(),
        count.display(),
    ));
    let server = Server::start(&config);
    for name in ["ann", "bob"] {
        server.client().send("eve@example.org", &[&format!("{name}@example.net")], CONTENT);
        outcome(&server, &format!("{name}@example.net"));
    }
    let said: Vec<_> = service.requests().iter().map(|request| request["authorization"].clone()).collect();
    assert_eq!(said[..2], ["Bearer token-0", "Bearer token-0"], "{said:?}");
}

/// A service by Python's library, which answers all that it is asked in the same way and writes it down.
struct Service {
    _program: Program,
    file: PathBuf,
    address: SocketAddr,
}

impl Service {
    /// `204`, `503 busy`; with `Retry-After` behind a semicolon.
    fn start(place: &Place, answer: &str) -> Self {
        let (address, file) = (free_address(), place.write("requests", ""));
        let answers = place.write("answer", answer);
        let code = format!(
            "import http.server, json\n\
             class Handler(http.server.BaseHTTPRequestHandler):\n    \
                 protocol_version = 'HTTP/1.1'\n    \
                 def do_POST(self):\n        \
                     body = self.rfile.read(int(self.headers['Content-Length']))\n        \
                     told = {{name.lower(): value for name, value in self.headers.items()}}\n        \
                     told['to'] = self.headers.get_all('Rcpt-To')\n        \
                     told['body'], told['path'] = body.decode('latin-1'), self.path\n        \
                     told['from'] = self.client_address[1]\n        \
                     open({file:?}, 'a').write(json.dumps(told) + '\\n')\n        \
                     answer, _, wait = open({answers:?}).read().partition(';')\n        \
                     status, _, text = answer.partition(' ')\n        \
                     self.send_response(int(status))\n        \
                     if wait: self.send_header('Retry-After', wait)\n        \
                     self.send_header('Content-Length', str(len(text)))\n        \
                     self.end_headers()\n        \
                     self.wfile.write(text.encode())\n    \
                 def log_message(self, *_): pass\n\
             server = http.server.ThreadingHTTPServer(({ip:?}, {port}), Handler)\n\
             print('it runs', flush=True)\n\
             server.serve_forever()\n",
            file = file.display().to_string(),
            answers = answers.display().to_string(),
            ip = address.ip().to_string(),
            port = address.port(),
        );
        let mut command = Command::new(Path::new(PYTHON));
        command.arg("-c").arg(code);
        let program = Program::start("service", &mut command);
        program.wait_for("it runs", |line| line.contains("it runs").then_some(()));
        Self { _program: program, file, address }
    }

    fn requests(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.file).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn to_service(service: &Service, more: &str) -> String {
    route(&format!(
        "via = \"http\"\nendpoint = \"e\"\n[[endpoint]]\nname = \"e\"\nurl = \"http://{}/in?x=y\"\n{more}",
        service.address
    ))
}

#[test]
fn mail_goes_to_a_service() {
    let place = Place::new();
    let service = Service::start(&place, "200 kept");
    let secret = place.write("secret", "whsec_c2VzYW1l\n");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let more = format!("headers = [\"X-House: a b\"]\nsecret-file = \"{}\"\n", secret.display());
    let mut server = Server::start(&to_service(&service, &more));
    server.client().send("eve@example.org", &["ann@example.net", "bob@example.net"], CONTENT);
    for name in ["ann", "bob"] {
        let told = outcome(&server, &format!("{name}@example.net"));
        assert_eq!(told["result"], "delivered", "{told}");
        assert!(told["reply"].as_str().unwrap().contains("HTTP 200: kept"), "{told}");
    }
    let requests = service.requests();
    let [first, second] = &requests[..] else { panic!("{requests:#?}") };
    assert_eq!(first["path"], "/in?x=y");
    assert_eq!(first["mail-from"], "<eve@example.org>");
    assert_eq!(
        (&first["to"][0], &second["to"][0]),
        (&"<ann@example.net>".into(), &"<bob@example.net>".into())
    );
    assert_eq!((&first["content-type"], &first["x-house"]), (&"message/rfc822".into(), &"a b".into()));
    let body = first["body"].as_str().unwrap();
    assert!(body.starts_with("Received: ") && body.ends_with(CONTENT), "{body}");
    assert!(first["idempotency-key"] != second["idempotency-key"]);
    // One connection for both.
    assert_eq!(first["from"], second["from"]);
    // Whoever knows the secret sees that it is from us.
    let check = "import sys, json, hmac, hashlib, base64\n\
         told = json.loads(sys.stdin.read())\n\
         signed = f\"{told['webhook-id']}.{told['webhook-timestamp']}.\".encode() + told['body'].encode('latin-1')\n\
         mac = base64.b64encode(hmac.new(b'sesame', signed, hashlib.sha256).digest()).decode()\n\
         print(told['webhook-signature'] == 'v1,' + mac)\n";
    let checked = run(Path::new(PYTHON), &["-c", check], &first.to_string()).good();
    assert_eq!(checked.stdout.trim(), "True");
    // As JSON, for both at once.
    server.configure(&to_service(&service, "body = \"json\"\nrecipients-max = 10\n"));
    server.reload();
    server.client().send("", &["ann@example.net", "carl@example.net"], CONTENT);
    outcome(&server, "carl@example.net");
    let last = service.requests().pop().unwrap();
    let object: Value = serde_json::from_str(last["body"].as_str().unwrap()).unwrap();
    assert_eq!(object["to"], serde_json::json!(["ann@example.net", "carl@example.net"]));
    assert_eq!(object["from"], "");
    assert!(object["message"].as_str().unwrap().ends_with(CONTENT), "{object}");
    let (status, _) = server.stop();
    assert!(status.success());
}

#[test]
fn what_a_service_answers_decides() {
    let place = Place::new();
    let service = Service::start(&place, "503 busy;1000");
    let server = Server::start(&to_service(&service, ""));
    let send = |name: &str| {
        let to = format!("{name}@example.net");
        server.client().send("eve@example.org", &[&to], CONTENT);
        outcome(&server, &to)
    };
    let later = send("ann");
    assert_eq!((&later["result"], &later["retry"]), (&"deferred".into(), &"retry-after".into()), "{later}");
    // As long as it has said, or a little longer.
    assert!(later["next"].as_f64().is_some_and(|next| (1000.0..1200.0).contains(&next)), "{later}");
    for (answer, result, status) in [
        ("410 gone", "failed", "5.1.1"),
        ("422 what is that", "failed", "5.6.0"),
        ("404 nowhere", "deferred", "4.3.0"),
        ("301 elsewhere", "deferred", "4.3.0"),
        ("202", "delivered", "2.0.0"),
    ] {
        place.write("answer", answer);
        let told = send(answer.split(' ').next().unwrap());
        assert_eq!((&told["result"], &told["status"]), (&result.into(), &status.into()), "{answer}: {told}");
    }
}

#[test]
fn a_service_that_is_not_there_is_waited_for() {
    let place = Place::new();
    let service = Service::start(&place, "204");
    let config = to_service(&service, "");
    let address = service.address;
    drop(service);
    let server = Server::start(&config);
    server.client().send("eve@example.org", &["ann@example.net"], CONTENT);
    let told = outcome(&server, "ann@example.net");
    assert_eq!((&told["result"], &told["status"]), (&"deferred".into(), &"4.4.1".into()), "{told}");
    assert!(told["reply"].as_str().unwrap().contains(&address.to_string()), "{told}");
}
