//! Starts that cannot be: each says what is wrong and what to do, and leaves everything as it was.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    process::Command,
};

use end_to_end::{Finished, Place, Program, Server, built, run, tool};

use crate::{is_root, through};

const HOLD: &str = "[[route]]\nname = \"all\"\ndomains = [\"*\"]\nvia = \"hold\"\n";

fn ringpost(command: &str, server: &Server) -> Finished {
    let config = server.place().join("ringpost.toml");
    run(&built("ringpost"), &[command, "--config", config.to_str().unwrap()], "")
}

/// A start that is to fail, by a command of its own.
fn fails(command: Command) -> Finished {
    let arguments: Vec<_> = command.get_args().collect();
    let finished = run(Path::new(command.get_program()), &arguments, "");
    assert_eq!(finished.status.code(), Some(1), "{finished}");
    finished
}

#[track_caller]
fn says(finished: &Finished, words: &[&str]) {
    for words in words {
        assert!(finished.stderr.contains(words), "it does not say {words:?}: {finished}");
    }
}

/// `check` and `serve` say the same and end with 1.
#[track_caller]
fn refused(more: &str, words: &[&str]) {
    let server = Server::prepare(more);
    for command in ["check", "serve"] {
        let finished = ringpost(command, &server);
        assert_eq!(finished.status.code(), Some(1), "{command}: {finished}");
        says(&finished, words);
    }
}

#[test]
fn a_mistake_in_the_configuration_is_pointed_at() {
    // File, line, column, key, and what was expected.
    let cases: &[(&str, &[&str])] = &[
        (
            "[limits]\nmesage-size-max = \"1MiB\"\n",
            &[
                "conf.d/test.toml:2:1: limits.mesage-size-max: unknown key",
                "did you mean `message-size-max`?",
            ],
        ),
        ("\n[limts]\n", &["conf.d/test.toml:2:", "limts", "unknown"]),
        (
            "[limits]\nmessage-size-max = \"25 megabytes\"\n",
            &[
                "conf.d/test.toml:2:20: limits.message-size-max: expected a size",
                "MiB",
                "found \"25 megabytes\"",
            ],
        ),
        (
            "[timeouts.inbound]\ncommand = \"5 minutes\"\n",
            &[
                "conf.d/test.toml:2:11: timeouts.inbound.command: expected a length of time",
                "the units are ms, s, m",
            ],
        ),
        ("[timeouts.inbound]\ncommand = 300\n", &["conf.d/test.toml:2:11:", "write \"300s\" for seconds"]),
        (
            "[queue]\nretry = [\"5m\", \"1 GiB\"]\n",
            &["conf.d/test.toml:2:", "queue.retry", "a length of time"],
        ),
        (
            "[limits]\nrecipients-max = 5\n",
            &[
                "conf.d/test.toml:2:18: limits.recipients-max: expected a whole number from 100",
                "found the number 5",
            ],
        ),
        (
            "[[listener]]\nname = \"smtp\"\naddress = [\"127.0.0.1\"]\n",
            &["conf.d/test.toml:3:12: listener.smtp.address", "the port is missing"],
        ),
        (
            "[[listener]]\nname = \"smtp\"\ntls = \"sometimes\"\n",
            &[
                "conf.d/test.toml:3:7: listener.smtp.tls: expected \"none\", \"starttls\"",
                "found \"sometimes\"",
            ],
        ),
        ("[relay]\nnetworks = [\"0.0.0.0/0\"]\n", &["conf.d/test.toml:2:", "relay.networks", "open relay"]),
        ("[limits\n", &["conf.d/test.toml:1:8: limits: not TOML"]),
        ("\"\u{0}\" = 1\n", &["conf.d/test.toml:1:"]),
    ];
    for (more, words) in cases {
        refused(more, words);
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    refused("[limits]\na = 1\nb = 2\n[queue]\njitter = 99\n", &["limits.a", "limits.b", "queue.jitter"]);
}

#[test]
fn no_configuration_at_all() {
    let place = Place::new();
    let missing = place.join("ringpost.toml");
    for command in ["check", "serve"] {
        let finished = run(&built("ringpost"), &[command, "--config", missing.to_str().unwrap()], "");
        assert_eq!(finished.status.code(), Some(1), "{finished}");
        says(&finished, &["ringpost.toml", "No such file", "ringpost init"]);
    }
}

#[test]
fn check_ends_with_0_when_the_server_would_start() {
    let server = Server::prepare(HOLD);
    let finished = ringpost("check", &server).good();
    assert!(finished.stdout.contains("ringpost.toml: good"), "{finished}");
    // What is not an option is no configuration.
    let finished = run(&built("ringpost"), &["check", "--nonsense"], "");
    assert_eq!(finished.status.code(), Some(2), "{finished}");
}

#[test]
fn a_certificate_that_cannot_be_used() {
    let own = |keys: &str| format!("{HOLD}[[certificate]]\nname = \"own\"\n{keys}");
    let other = Place::new();
    run(&built("ringpost"), &["init", "--directory", other.path().to_str().unwrap()], "").good();
    let other_key = format!("key = \"{}\"\n", other.join("key.pem").display());
    let cases: &[(&str, &[&str])] = &[
        (
            "certificate = \"gone.pem\"\n",
            &[
                "conf.d/test.toml:7:1: certificate.own.certificate: cannot read",
                "/gone.pem: No such file",
                "this user may read it",
            ],
        ),
        ("certificate = \"conf.d\"\n", &["cannot read", "/conf.d: Is a directory"]),
        ("certificate = \"ringpost.toml\"\n", &["ringpost.toml holds no certificate", "BEGIN CERTIFICATE"]),
        ("key = \"certificate.pem\"\n", &["certificate.pem holds no private key", "BEGIN PRIVATE KEY"]),
        (
            &other_key,
            &[
                "conf.d/test.toml:7:1: certificate.own.key",
                "key.pem is not the key of the first certificate in",
                "the key it was issued for",
            ],
        ),
    ];
    for (keys, words) in cases {
        refused(&own(keys), words);
    }
}

#[test]
fn a_port_in_use_is_named() {
    let mut server = Server::prepare(HOLD);
    let occupant = TcpListener::bind(server.smtp()).unwrap();
    let address = server.smtp().to_string();
    let finished = fails(server.command());
    let words = [&format!("cannot listen on {address}"), "another program listens there"];
    says(&finished, &["ringpost.toml:", ":1: listener.smtp.address: listener `smtp`"]);
    says(&finished, &words);
    let finished = ringpost("check", &server);
    assert_eq!(finished.status.code(), Some(1), "{finished}");
    says(&finished, &["error: ", "ringpost.toml:", ":1: listener.smtp.address: cannot listen"]);
    says(&finished, &words);
    drop(occupant);
    let occupant = TcpListener::bind(server.http()).unwrap();
    says(&fails(server.command()), &["ringpost.toml:", ":1: http.address: ", &server.http().to_string()]);
    says(&ringpost("check", &server), &[":1: http.address: ", &server.http().to_string()]);
    drop(occupant);
    // Nothing is left of the starts that failed.
    server.resume();
    // Its own ports are no other program's.
    let checked = ringpost("check", &server).good();
    assert!(checked.stdout.contains("a server runs on this data directory"), "{checked}");
    server.client().send("a@example.org", &["b@example.net"], "Subject: x\r\n\r\nx\r\n");
    assert!(server.stop().0.success());
}

/// The ports are shared by the shards of one server (SO_REUSEPORT), and the kernel lets any process of the same user
/// join: a second server with a data directory of its own started without a word and took half of the mail.
#[test]
fn a_port_of_another_ringpost_is_in_use_too() {
    let first = Server::start(HOLD);
    let second =
        Server::prepare(&format!("{HOLD}[[listener]]\nname = \"smtp\"\naddress = [\"{}\"]\n", first.smtp()));
    let finished = fails(second.command());
    says(&finished, &["listener `smtp`", "another program listens there"]);
    for _ in 0..8 {
        first.client().send("a@example.org", &["b@example.net"], "Subject: x\r\n\r\nx\r\n");
    }
}

/// Where the server could write, listen and become somebody else only if the host were another one.
#[test]
fn what_the_host_does_not_have_is_named() {
    let root: &[(&str, &[&str])] = &[
        (
            "user = \"nobody-of-that-name\"\n",
            &["conf.d/test.toml:1:1: user: there is no user", "useradd --system"],
        ),
        (
            "user = \"nobody\"\ngroup = \"nobody-of-that-name\"\n",
            &["conf.d/test.toml:2:1: group: there is no group", "groupadd --system"],
        ),
    ];
    let cases: &[(&str, &[&str])] = &[
        (
            "[log]\noutput = \"/nonexistent/ringpost.log\"\n",
            &["conf.d/test.toml:2:1: log.output: ", "/nonexistent", "o such file or directory"],
        ),
        (
            "[[listener]]\nname = \"smtp\"\naddress = [\"192.0.2.1:2525\"]\n",
            &[
                "conf.d/test.toml:3:1: listener.smtp.address: ",
                "cannot listen on 192.0.2.1:2525",
                "no such address",
            ],
        ),
        (
            "[[listener]]\nname = \"local\"\ntls = \"none\"\naddress = [\"unix:/nonexistent/smtp\"]\n",
            &["conf.d/test.toml:4:1: listener.local.address: ", "/nonexistent"],
        ),
        (
            "[cores]\ncount = \"all\"\n[journal]\ndisk-max = \"64MiB\"\n[limits]\nmessage-size-max = \"1MiB\"\n",
            &["journal.disk-max: 64MiB is too little: each of 2 cores needs 8 segments of 8MiB"],
        ),
    ];
    for (more, words) in cases.iter().chain(root.iter().filter(|_| is_root())) {
        if more.contains("\"all\"") && std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() != 2)
        {
            continue;
        }
        refused(&format!("{more}{HOLD}"), words);
    }
}

#[test]
fn a_second_start_on_the_same_data_directory() {
    let mut server = Server::start(HOLD);
    server.client().send("a@example.org", &["b@example.net"], "Subject: x\r\n\r\nx\r\n");
    let pid = server.program().pid();
    // Elsewhere as far as ports go.
    let other = Server::prepare(&format!(
        "{HOLD}\n[cores]\ncount = 1\n[index]\ncache = \"1MiB\"\n[log]\nlevel = \"info\"\n"
    ));
    let data = server.place().join("data");
    let with_data = fs::read_to_string(other.place().join("ringpost.toml"))
        .unwrap()
        .replace("data-directory = \"data\"", &format!("data-directory = \"{}\"", data.display()));
    other.place().write("ringpost.toml", with_data);
    for command in [server.command(), other.command()] {
        let finished = fails(command);
        says(&finished, &[data.to_str().unwrap(), &pid.to_string()]);
    }
    let rebuild = run(
        &built("ringpost"),
        &["index", "--config", server.place().join("ringpost.toml").to_str().unwrap(), "rebuild"],
        "",
    );
    assert_eq!(rebuild.status.code(), Some(1), "{rebuild}");
    says(&rebuild, &[&pid.to_string()]);
    // The first goes on as if nothing had been.
    server.client().send("a@example.org", &["b@example.net"], "Subject: x\r\n\r\nx\r\n");
    server.kill();
    // A lock does not outlive its process, however that ends.
    server.resume();
    assert_eq!(server.queue_json(&["list"]).len(), 2);
}

#[test]
fn another_number_of_journal_shards() {
    let mut server = Server::start(HOLD);
    server.client().send("a@example.org", &["b@example.net"], "Subject: x\r\n\r\nx\r\n");
    assert!(server.stop().0.success());
    for shards in ["2", "8"] {
        server.configure(&format!("{HOLD}[journal]\nshards = {shards}\n"));
        let finished = fails(server.command());
        says(&finished, &["journal.shards is", shards, "was made with 4", "set it to 4"]);
    }
    server.configure(HOLD);
    server.resume();
    assert_eq!(server.queue_json(&["list"]).len(), 1);
}

#[test]
fn a_data_directory_that_cannot_be_written_to() {
    let server = Server::prepare(HOLD);
    let data = server.place().join("data");
    fs::remove_dir_all(&data).unwrap();
    // A file where the directory should be.
    fs::write(&data, "").unwrap();
    says(&fails(server.command()), &["the data directory", data.to_str().unwrap()]);
    fs::remove_file(&data).unwrap();
    fs::create_dir(&data).unwrap();

    // Mounted read-only, in a world of its own.
    let mount = "mount -t tmpfs -o ro none \"$1\" && shift && exec \"$@\"";
    let unshare: &[&str] = if is_root() {
        &["unshare", "--mount"]
    } else {
        &["unshare", "--user", "--map-root-user", "--mount"]
    };
    let words = [unshare, &["sh", "-c", mount, "sh", data.to_str().unwrap()]].concat();
    let finished = fails(through(&words, &server));
    says(
        &finished,
        &["ringpost.toml:3:1: data-directory: cannot write to", data.to_str().unwrap(), "read-only"],
    );
    let checking = through(&words, &server);
    let mut arguments: Vec<_> = checking.get_args().collect();
    let serve = arguments.iter().position(|word| *word == "serve").unwrap();
    arguments[serve] = "check".as_ref();
    let finished = run(&tool(words[0]), &arguments, "");
    assert_eq!(finished.status.code(), Some(1), "{finished}");
    says(&finished, &["ringpost.toml:3:1: data-directory: ", "Read-only file system; mount it for writing"]);

    // Somebody else's.
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    if !is_root() {
        return eprintln!("not root: a data directory of somebody else cannot be made");
    }
    const NOBODY: u32 = 65534;
    for name in ["ringpost.toml", "certificate.pem", "key.pem", "conf.d/test.toml"] {
        chown(server.place().join(name), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    // The program may lie where only root can go.
    let program = server.place().join("ringpost");
    fs::copy(built("ringpost"), &program).unwrap();
    let config = server.place().join("ringpost.toml");
    let as_nobody = |command: &str| {
        let words = ["--reuid=65534", "--regid=65534", "--clear-groups", "--"];
        let program = [program.to_str().unwrap(), command, "--config", config.to_str().unwrap()];
        run(&tool("setpriv"), &[&words[..], &program].concat(), "")
    };
    for command in ["check", "serve"] {
        let finished = as_nobody(command);
        assert_eq!(finished.status.code(), Some(1), "{command}: {finished}");
        says(&finished, &["ringpost.toml:3:1: data-directory: ", data.to_str().unwrap(), "belongs to"]);
    }
    // And a key that this user may not read.
    chown(&data, Some(NOBODY), Some(NOBODY)).unwrap();
    chown(server.place().join("key.pem"), Some(0), Some(0)).unwrap();
    for command in ["check", "serve"] {
        let finished = as_nobody(command);
        assert_eq!(finished.status.code(), Some(1), "{command}: {finished}");
        says(&finished, &["key.pem: Permission denied", "this user may read it"]);
    }
}

/// As in a container whose profile forbids it. Perl is on every Debian, and can make system calls.
#[test]
fn without_io_uring_there_is_no_start_and_the_reason_is_told() {
    const FILTER: &str = r#"
        my ($prctl, $errno) = (`uname -m` =~ /x86_64/ ? 157 : 167, shift);
        # Load the number of the call; if it is io_uring_setup, fail with that error; else allow.
        my $filter = pack("(SCCL)*", 0x20, 0, 0, 0, 0x15, 0, 1, 425, 6, 0, 0, 0x50000 | $errno, 6, 0, 0, 0x7fff0000);
        my $program = pack("S x6 P", 4, $filter);
        syscall($prctl, 38, 1, 0, 0, 0) == 0 or die "no_new_privs: $!";
        syscall($prctl, 22, 2, $program) == 0 or die "seccomp: $!";
        exec @ARGV or die "exec: $!";
    "#;
    let server = Server::prepare(HOLD);
    for (errno, words) in [("1", "seccomp filter"), ("38", "Linux 5.15 or later")] {
        let wrapped = ["perl", "-e", FILTER, errno];
        says(&fails(through(&wrapped, &server)), &["io_uring", words]);
        let config = server.place().join("ringpost.toml");
        let program = built("ringpost");
        let check = [program.to_str().unwrap(), "check", "--config", config.to_str().unwrap()];
        let finished = run(&tool("perl"), &[&wrapped[1..], &check].concat(), "");
        assert_eq!(finished.status.code(), Some(1), "{finished}");
        says(&finished, &["error: io_uring: ", words, "the server would not start"]);
    }
}

/// Where too little memory may be locked, the runtime would panic; here it is said before.
#[test]
fn without_locked_memory_there_is_no_start_and_the_reason_is_told() {
    let server = Server::prepare(HOLD);
    let program = tool("prlimit");
    let finished = fails(through(&[program.to_str().unwrap(), "--memlock=65536:65536"], &server));
    says(&finished, &["locked in memory", "LimitMEMLOCK"]);
}

/// A process that ends in the midst of a start leaves nothing that stops the next one.
#[test]
fn killed_while_starting() {
    let mut server = Server::start(HOLD);
    server.client().send("a@example.org", &["b@example.net"], "Subject: x\r\n\r\nx\r\n");
    server.kill();
    for _ in 0..5 {
        let mut program = Program::start("ringpost", &mut server.command());
        program.wait_for("it starts", |line| line.contains("started").then_some(()));
        program.kill();
    }
    server.resume();
    assert_eq!(server.queue_json(&["list"]).len(), 1);
}
