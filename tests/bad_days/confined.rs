//! What a server can still do once it serves, should somebody take it over: little.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::ExitStatusExt as _,
    },
};

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

/// Root that stays root needs no more than files: keys may be somebody else's, and so may the data directory.
#[test]
fn root_gives_up_what_it_does_not_need() {
    if !is_root() {
        return eprintln!("not root: nothing to give up");
    }
    // Nor has root in a container all of them.
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("CapPrm:")).unwrap();
    let own = u64::from_str_radix(own.trim(), 16).unwrap();
    const DAC_OVERRIDE_AND_IPC_LOCK: u64 = 1 << 1 | 1 << 14;
    let kept = format!("{:016x}", own & DAC_OVERRIDE_AND_IPC_LOCK);
    let server = Server::start(HOLD);
    let pid = server.program().pid();
    for (set, left) in [("CapEff", &kept[..]), ("CapPrm", &kept), ("CapInh", "0000000000000000")] {
        assert_eq!(of_threads(pid, set), left, "{set}");
    }
    let other = |name: &str| {
        let path = server.place().join(name);
        run(&tool("chown"), &["--recursive", "65534:65534", path.to_str().unwrap()], "").good();
    };
    ["key.pem", "certificate.pem", "ringpost.toml", "data"].iter().copied().for_each(other);
    assert_eq!(server.reload()["event"], "reloaded");
    let server = server.restarted();
    server.client().send("ann@example.org", &["bob@example.net"], "Subject: x\r\n\r\nx\r\n");
    assert_eq!(server.queue_json(&["list"]).len(), 1);
}

/// Whatever the umask says: what the server keeps is for its own user. The files of the index are sled's, in a directory that
/// is ours.
#[test]
fn what_is_kept_is_kept_from_others() {
    let mut server = Server::prepare(HOLD);
    let mut command = through(&["sh", "-c", "umask 0; exec \"$@\"", "sh"], &server);
    server.resume_by(&mut command);
    server.client().send("ann@example.org", &["bob@example.net"], "Subject: x\r\n\r\nx\r\n");
    let data = server.place().join("data");
    let (mut open, mut files) = (Vec::new(), 0);
    let mut folders = vec![data.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap()) {
            let (path, found) = (entry.path(), entry.metadata().unwrap());
            if found.permissions().mode() & 0o77 != 0 {
                open.push(format!("{} {:o}", path.display(), found.permissions().mode()));
            }
            files += usize::from(found.is_file());
            // As far as somebody else would get.
            if found.is_dir() && path.parent().and_then(|parent| parent.file_name()) != Some("index".as_ref())
            {
                folders.push(path);
            }
        }
    }
    assert!(open.is_empty() && files > 4, "{files} files, open to others: {open:#?}");
}

/// What root has given up nobody gets back who is started by the server, were there a way to start somebody.
#[test]
fn nothing_is_left_to_get_back() {
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    const SETPCAP: u64 = 1 << 8;
    if u64::from_str_radix(own.trim(), 16).unwrap() & SETPCAP == 0 {
        return eprintln!("not root, or not all of it: the bounding set stays as it is");
    }
    const NONE: &str = "0000000000000000";
    let server = Server::start(HOLD);
    assert_eq!(of_threads(server.program().pid(), "CapBnd"), NONE);
    let mut server = Server::prepare(&format!("user = \"nobody\"\n{HOLD}"));
    for file in ["certificate.pem", "key.pem", "ringpost.toml"] {
        chown(server.place().join(file), Some(65534), None).unwrap();
    }
    server.resume();
    for set in ["CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb"] {
        assert_eq!(of_threads(server.program().pid(), set), NONE, "{set}");
    }
}

/// At the start root reads them for everybody. The server that it becomes has to read them again.
#[test]
fn what_the_user_cannot_read_again_is_named_before_it_matters() {
    if !is_root() {
        return eprintln!("not root: nobody who becomes another user");
    }
    const NOBODY: u32 = 65534;
    let mut server = Server::prepare(&format!("user = \"nobody\"\n{HOLD}"));
    let path = |name: &str| server.place().join(name);
    let check = |server: &Server| {
        let config = server.place().join("ringpost.toml");
        run(&built("ringpost"), &["check", "--config", config.to_str().unwrap()], "").good().stderr
    };
    let give = |file: &std::path::Path, mode: u32| {
        chown(file, Some(0), Some(NOBODY)).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
    };
    let (config, certificate, key) = (path("ringpost.toml"), path("certificate.pem"), path("key.pem"));
    let key_told = format!(
        "certificate.own.key: {} cannot be read again by user `nobody`: Permission denied",
        key.display()
    );
    let config_told = format!(
        "reload: user `nobody` will not be able to: cannot be read: {}: Permission denied",
        config.display()
    );
    let said = check(&server);
    for told in [&key_told, &config_told] {
        assert!(said.contains(told) && said.contains("warning: "), "{told:?} is not in {said}");
    }
    give(&config, 0o640);
    give(&certificate, 0o640);
    let said = check(&server);
    assert!(said.contains(&key_told) && !said.contains("reload: user"), "{said}");
    server.resume();
    let said = server.program().lines().join("\n");
    assert!(said.contains(&key_told) && !said.contains("reload: user"), "{said}");
    let refused = server.reload();
    let error = refused["error"].as_str().unwrap();
    assert!(error.contains("key.pem") && error.contains("this user may read it"), "{error}");
    assert!(!error.contains("no key named"), "{error}");
    give(&key, 0o640);
    assert_eq!(server.reload()["event"], "reloaded");
    let said = check(&server);
    assert!(!said.contains("cannot be read again"), "{said}");
}

/// Where a filter forbids to give anything up, the server serves all the same, and says what to allow.
#[test]
fn what_cannot_be_given_up_is_no_reason_not_to_serve() {
    // As under a unit that knows neither: capset, seccomp and the calls of landlock fail with EPERM.
    const FILTER: &str = r#"
        my ($prctl, $capset, $seccomp) = `uname -m` =~ /x86_64/ ? (157, 126, 317) : (167, 91, 277);
        my @filter = (0x20, 0, 0, 0);
        push @filter, 0x15, 0, 1, $_, 6, 0, 0, 0x50001 for $capset, $seccomp, 444, 445, 446;
        push @filter, 6, 0, 0, 0x7fff0000;
        my $filter = pack "(SCCL)*", @filter;
        syscall($prctl, 38, 1, 0, 0, 0) == 0 or die "no_new_privs: $!";
        syscall($prctl, 22, 2, pack("S x6 P", @filter / 4, $filter)) == 0 or die "seccomp: $!";
        exec @ARGV or die "exec: $!";
    "#;
    let mut server = Server::prepare(HOLD);
    let mut command = through(&[tool("perl").to_str().unwrap(), "-e", FILTER], &server);
    server.resume_by(&mut command);
    let hardened = server.event("hardened", |_| true);
    assert_eq!((&hardened["files"], &hardened["calls"]), (&"none".into(), &"none".into()));
    let said = server.program().lines().join("\n");
    for words in ["hardening.files: nothing came of it", "hardening.calls: nothing came of it"] {
        assert!(said.contains(words), "it does not say {words:?}");
    }
    assert_eq!(said.contains("warning: capabilities are kept"), is_root(), "{said}");
    server.client().send("ann@example.org", &["bob@example.net"], "Subject: x\r\n\r\nx\r\n");
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
