//! The systemd unit in `deploy/`: what systemd says of it, and that its limits are enough for every profile.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use config::Config;
use end_to_end::{Place, built, run, tool};

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
