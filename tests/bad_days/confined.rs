//! What a server can still do once it serves, should somebody take it over: little.

use std::{fs, os::unix::process::ExitStatusExt as _};

use end_to_end::{Server, Signal, built, run, tool};
use rustix::process::{Resource, getrlimit};

use crate::{is_root, through};

const HOLD: &str = "[[route]]\nname = \"all\"\ndomains = [\"*\"]\nvia = \"hold\"\n";

/// A line of what the kernel says of each thread; all must say the same.
fn of_threads(pid: u32, what: &str) -> String {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|entry| entry.unwrap().path());
    let mut said: Vec<String> = tasks
        .filter_map(|task| {
            // A thread may end in between.
            let status = fs::read_to_string(task.join("status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':')).unwrap();
            Some(line.trim().to_owned())
        })
        .collect();
    said.sort();
    said.dedup();
    assert_eq!(said.len(), 1, "{what}: {said:?}");
    said.remove(0)
}

#[test]
fn what_a_server_gives_up() {
    let server = Server::start(HOLD);
    let pid = server.program().pid();
    let hardened = server.event("hardened", |_| true);
    assert_eq!(hardened["files"], "full", "the tests need a kernel with landlock");
    assert_eq!(hardened["calls"], "full");
    assert_eq!((of_threads(pid, "NoNewPrivs"), of_threads(pid, "Seccomp")), ("1".into(), "2".into()));
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(cores.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{cores}");

    server.configure(&format!("{HOLD}[hardening]\nfiles = false\ncalls = false\ncore-dumps = true\n"));
    let server = server.restarted();
    let hardened = server.event("hardened", |_| true);
    assert_eq!((&hardened["files"], &hardened["calls"]), (&"off".into(), &"off".into()));
    assert_eq!(of_threads(server.program().pid(), "Seccomp"), "0");
}

/// A core file would show the mail that was in memory when the server crashed, and its keys.
#[test]
fn a_crash_leaves_no_core_file() {
    // Where core files go to the folder that a program was started in, one is looked for when they are allowed: else
    // there would be none to be seen to be missing.
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let seen = !pattern.starts_with(['|', '/']) && getrlimit(Resource::Core).maximum.is_none();
    for allowed in [false, true] {
        let mut server =
            Server::prepare(&format!("{HOLD}[hardening]\ncore-dumps = {allowed}\nfiles = false\n"));
        let mut command = through(&["sh", "-c", "ulimit -c unlimited; exec \"$@\"", "sh"], &server);
        server.resume_by(command.current_dir(server.place().path()));
        let mut client = server.client();
        client.send("ann@example.org", &["bob@example.net"], "Subject: secret\r\n\r\nsecret\r\n");
        server.program().signal(Signal::ABORT);
        let status = server.program_mut().wait();
        assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{status}");
        let dumped = status.core_dumped();
        assert!(!dumped || allowed, "{status}");
        assert!(dumped || !allowed || !seen, "{status}");
    }
}

#[test]
fn what_a_start_needed_is_given_back() {
    if !is_root() {
        return eprintln!("not root: nobody to start it who has more than it needs");
    }
    let mut server = Server::prepare(HOLD);
    // The program may lie where only root can go.
    let program = server.place().join("ringpost");
    fs::copy(built("ringpost"), &program).unwrap();
    let place = server.place().path().display().to_string();
    assert!(run(&tool("chown"), &["--recursive", "65534:65534", &place], "").status.success());
    let mut command = std::process::Command::new(tool("setpriv"));
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .args(["--inh-caps=+net_bind_service,+ipc_lock", "--ambient-caps=+net_bind_service,+ipc_lock", "--"])
        .arg(&program)
        .args(server.command().get_args());
    server.resume_by(&mut command);
    let pid = server.program().pid();
    // Locked memory is counted for as long as it runs.
    const IPC_LOCK: &str = "0000000000004000";
    for (set, left) in [("CapEff", IPC_LOCK), ("CapPrm", IPC_LOCK), ("CapAmb", "0000000000000000")] {
        assert_eq!(of_threads(pid, set), left, "{set}");
    }
    // Not even the same user can look into it, as a debugger would.
    for file in ["environ", "mem"] {
        let path = format!("/proc/{pid}/{file}");
        let by = ["--reuid=65534", "--regid=65534", "--clear-groups", "--", "head", "--bytes=1", &path];
        let looked = run(&tool("setpriv"), &by, "");
        assert!(looked.stderr.contains("Permission denied"), "{looked}");
    }
    let mut client = server.client();
    client.ask("MAIL FROM:<ann@example.org>");
}

#[test]
fn folders_that_a_reload_names_first_are_out_of_reach() {
    let server = Server::start(HOLD);
    let elsewhere = tempfile::tempdir().unwrap();
    for name in ["certificate.pem", "key.pem"] {
        fs::copy(server.place().join(name), elsewhere.path().join(name)).unwrap();
    }
    let folder = elsewhere.path().display();
    let own = format!(
        "{HOLD}[[certificate]]\nname = \"own\"\ncertificate = \"{folder}/certificate.pem\"\nkey = \"{folder}/key.pem\"\n"
    );
    server.configure(&own);
    let refused = server.reload();
    assert_eq!(refused["event"], "reload_refused");
    let error = refused["error"].as_str().unwrap();
    assert!(error.contains("certificate.own.") && error.contains("or restart"), "{error}");
    let server = server.restarted();
    assert_eq!(server.reload()["event"], "reloaded");
}

#[test]
fn root_serves_nothing_unless_told() {
    if !is_root() {
        return eprintln!("not root: root cannot be refused");
    }
    let server = Server::prepare(HOLD);
    let config = server.place().join("ringpost.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("allow-root = true\n", "")).unwrap();
    for command in ["check", "serve"] {
        let finished = run(&built("ringpost"), &[command, "--config", config.to_str().unwrap()], "");
        assert_eq!(finished.status.code(), Some(1), "{command}: {finished}");
        assert!(finished.stderr.contains("user: root does not serve mail"), "{command}: {finished}");
    }
}
