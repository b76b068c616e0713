//! The systemd unit in `deploy/`: what systemd says of it, and that its limits are enough for every profile.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use config::Config;
use end_to_end::{Place, Server, built, run, tool, until};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn unit() -> String {
    fs::read_to_string(root().join("deploy/ringpost.service")).unwrap()
}

/// The values of a setting, in order.
fn settings<'a>(unit: &'a str, name: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect()
}

fn number(unit: &str, name: &str) -> u64 {
    let [value] = settings(unit, name)[..] else { panic!("one {name}=") };
    value.trim_end_matches('s').parse().unwrap()
}

fn installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    if !installed("systemd-analyze") {
        return eprintln!("systemd-analyze is not installed: the unit is not looked at");
    }
    let place = Place::new();
    // It wants to see the program, and what it is documented by.
    let program = place.write("ringpost", "");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let text = unit().replace("/usr/bin/ringpost", program.to_str().unwrap());
    let file = place.write("ringpost.service", text);
    let verified = run(&tool("systemd-analyze"), &["verify".as_ref(), file.as_os_str()], "").good();
    assert_eq!(verified.text(), "", "{verified}");
    // Of ten; most of it is the network, which is what a mail server is for.
    let arguments = ["security", "--offline=true", "--threshold=18", file.to_str().unwrap()];
    run(&tool("systemd-analyze"), &arguments, "").good();
}

/// The calls that the unit allows, by name, with this systemd's groups.
fn allowed_calls(unit: &str) -> BTreeSet<String> {
    let listed = run(&tool("systemd-analyze"), &["syscall-filter"], "").good().stdout;
    let mut groups = BTreeMap::<&str, Vec<&str>>::new();
    let mut group = "";
    for line in listed.lines() {
        match line.strip_prefix("    ") {
            None if line.starts_with('@') => group = line,
            Some(name) if !name.starts_with('#') => groups.entry(group).or_default().push(name),
            Some(_) | None => {}
        }
    }
    let expand = |names: &str| {
        let (mut names, mut calls) = (names.split(' ').collect::<Vec<_>>(), BTreeSet::new());
        while let Some(name) = names.pop() {
            match groups.get(name) {
                Some(members) => names.extend(members),
                None => _ = calls.insert(name.to_owned()),
            }
        }
        calls
    };
    // The first line makes it a list of what is allowed, the smallest set of calls included; later lines add and take away.
    let mut calls = expand("@default");
    for line in settings(unit, "SystemCallFilter") {
        match line.strip_prefix('~') {
            None => calls.append(&mut expand(line)),
            Some(names) => {
                let taken = expand(names);
                calls.retain(|call| !taken.contains(call));
            }
        }
    }
    calls
}

/// Their numbers, as far as this machine has them.
fn numbers(calls: &BTreeSet<String>) -> Vec<String> {
    let ask = |name| format!("#ifdef __NR_{name}\ncall __NR_{name}\n#endif\n");
    let source = "#include <sys/syscall.h>\n".to_owned() + &calls.iter().map(ask).collect::<String>();
    let answer = run(&tool("cc"), &["-E", "-P", "-x", "c", "-"], &source).good().stdout;
    // Some are told as a sum.
    let number = |line: &str| -> u32 {
        line.trim_matches(['(', ')']).split('+').map(|part| part.trim().parse::<u32>().unwrap()).sum()
    };
    answer
        .lines()
        .filter_map(|line| line.strip_prefix("call "))
        .map(|line| number(line).to_string())
        .collect()
}

/// All that the unit's filter leaves: enough to serve, to be hardened and to be upgraded.
#[test]
fn the_server_serves_hardens_and_is_upgraded_under_the_filter_of_the_unit() {
    if !installed("systemd-analyze") {
        return eprintln!("systemd-analyze is not installed: which calls the unit allows is not known");
    }
    // Perl is on every Debian, and can make system calls. What is not in the list fails with EPERM.
    const FILTER: &str = r#"
        my $prctl = `uname -m` =~ /x86_64/ ? 157 : 167;
        my @filter = (0x20, 0, 0, 0);
        while (($_ = shift) ne "--") { push @filter, 0x15, 0, 1, $_, 6, 0, 0, 0x7fff0000 }
        push @filter, 6, 0, 0, 0x50001;
        my $filter = pack "(SCCL)*", @filter;
        syscall($prctl, 38, 1, 0, 0, 0) == 0 or die "no_new_privs: $!";
        syscall($prctl, 22, 2, pack("S x6 P", @filter / 4, $filter)) == 0 or die "seccomp: $!";
        exec @ARGV or die "exec: $!";
    "#;
    assert_eq!(settings(&unit(), "SystemCallErrorNumber"), ["EPERM"]);
    let calls = numbers(&allowed_calls(&unit()));
    assert!(calls.len() > 200, "{calls:?}");
    let mut server = Server::prepare(
        "[journal]\nshards = 8\n[[route]]\nname = \"all\"\ndomains = [\"*\"]\nvia = \"hold\"\n",
    );
    let place = server.place().path().to_str().unwrap().to_owned();
    // The program may lie where only root can go.
    let program = server.place().join("ringpost");
    fs::copy(built("ringpost"), &program).unwrap();
    let mut words: Vec<String> = Vec::new();
    if rustix::process::geteuid().is_root() {
        run(&tool("chown"), &["--recursive", "65534:65534", &place], "").good();
        let rights = [
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--inh-caps=+net_bind_service",
            "--ambient-caps=+net_bind_service",
        ];
        words.push(tool("setpriv").display().to_string());
        words.extend(rights.map(str::to_owned));
        words.push("--".into());
    }
    words.extend([tool("perl").display().to_string(), "-e".into(), FILTER.into()]);
    words.extend(calls);
    words.extend(["--".into(), program.display().to_string()]);
    let config = server.place().join("ringpost.toml").display().to_string();
    let ringpost = |command: &str| {
        let arguments = [&words[1..], &[command.into(), "--config".into(), config.clone()]].concat();
        run(Path::new(&words[0]), &arguments, "").good()
    };

    ringpost("check");
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).args(server.command().get_args());
    server.resume_by(&mut command);
    server.client().send("ann@example.org", &["bob@example.net"], "Subject: x\r\n\r\nx\r\n");
    ringpost("reload");
    ringpost("upgrade");
    let _successor = server.successor(1);
    server.client().send("ann@example.org", &["bob@example.net"], "Subject: x\r\n\r\nx\r\n");
    let hardened =
        until("both are hardened", || Some(server.events("hardened")).filter(|told| told.len() == 2));
    for told in hardened {
        assert_eq!((&told["files"], &told["calls"]), (&"full".into(), &"full".into()));
    }
    let said = server.program().lines().join("\n");
    assert!(!said.contains("capabilities are kept"), "{said}");
}

#[test]
fn the_socket_unit_is_for_a_listener_that_there_can_be() {
    let socket = fs::read_to_string(root().join("deploy/ringpost.socket")).unwrap();
    let [name] = settings(&socket, "FileDescriptorName")[..] else { panic!("one name") };
    assert!(socket.contains(&format!("address = [\"systemd:{name}\"]")), "the example is of another name");
    let place = Place::new();
    if !installed("systemd-analyze") {
        return eprintln!("systemd-analyze is not installed: the unit is not looked at");
    }
    let program = place.write("ringpost", "");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    place.write("ringpost.service", unit().replace("/usr/bin/ringpost", program.to_str().unwrap()));
    let file = place.write("ringpost.socket", socket);
    let verified = run(&tool("systemd-analyze"), &["verify".as_ref(), file.as_os_str()], "").good();
    assert_eq!(verified.text(), "", "{verified}");
}

#[test]
fn the_unit_calls_what_there_is() {
    let unit = unit();
    for (name, command) in [("ExecStartPre", "check"), ("ExecStart", "serve"), ("ExecReload", "reload")] {
        let [line] = settings(&unit, name)[..] else { panic!("one {name}=") };
        let [program, first, rest @ ..] = &line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        assert_eq!((*program, *first), ("/usr/bin/ringpost", command));
        // It is there, and takes these arguments; the configuration is not.
        let finished = run(&built("ringpost"), &[&[*first], rest].concat(), "");
        assert_eq!(finished.status.code(), Some(1), "{finished}");
        assert!(finished.stderr.contains("/etc/ringpost/ringpost.toml"), "{finished}");
    }
    // Transactions are finished before systemd loses its patience.
    let grace = Config::default().shutdown.grace.as_secs();
    assert!(number(&unit, "TimeoutStopSec") > grace + 30);
    for (name, value) in [("LogsDirectory", "ringpost"), ("StateDirectory", "ringpost"), ("LimitCORE", "0")] {
        assert_eq!(settings(&unit, name), [value], "{name}");
    }
}

#[test]
fn the_limits_of_the_unit_are_enough_for_every_profile() {
    let files = number(&unit(), "LimitNOFILE");
    let wide = run(&tool("prlimit"), &[&format!("--nofile={files}:{files}"), "true"], "");
    if !wide.status.success() {
        return eprintln!("this user may not open {files} files: {}", wide.stderr);
    }
    for (profile, cores) in [("small-vps", 1), ("relay-2-cores", 2), ("relay-16-cores", 15)] {
        let place = Place::new();
        run(&built("ringpost"), &["init", "--directory", place.path().to_str().unwrap()], "").good();
        let text = fs::read_to_string(root().join(format!("tuning/{profile}.toml"))).unwrap();
        place.write("conf.d/50-profile.toml", text);
        // As on the host that the profile is for; the ports may be taken here.
        let here = format!("[cores]\ncount = {cores}\n[http]\naddress = []\n");
        let ports = "[[listener]]\nname = \"NAME\"\naddress = [\"127.0.0.1:0\"]\n";
        let ports = ["smtp", "submissions"].map(|name| ports.replace("NAME", name)).concat();
        place.write("conf.d/60-here.toml", here + &ports);
        let config = place.join("ringpost.toml");
        let check = |files: u64| {
            let limits = [format!("--nofile={files}:{files}"), "--memlock=unlimited:unlimited".into()];
            let program = [built("ringpost").display().to_string(), "check".into(), "--config".into()];
            let words = [&limits[..], &program, &[config.display().to_string()]].concat();
            run(&tool("prlimit"), &words, "").good().stderr
        };
        let said = check(files);
        assert!(!said.contains("open files") && !said.contains("memlock"), "{profile}: {said}");
        // It would say so.
        assert!(check(4096).contains("warning: open files: 4096 files may be open"), "{profile}");
    }
}
