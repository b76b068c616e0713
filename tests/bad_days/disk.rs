//! Disks that are full or hold something else than was written, and starts with much to read.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use end_to_end::{Client, Finished, Program, Server, Sink, built, free_address, run, tool, until};
use serde_json::Value;

use crate::is_root;

const HOLD: &str = "[[route]]\nname = \"all\"\ndomains = [\"*\"]\nvia = \"hold\"\n";

/// Mail that cannot go now is tried again at once.
const HASTE: &str = "[queue]\nretry = [\"1s\"]\nretry-max = \"1s\"\njitter = 0\n\
                     destination-retry-min = \"1s\"\ndestination-retry-max = \"1s\"\n";

/// A small file system that only the programs started by it see, gone with the last of them.
struct Volume {
    holder: Program,
    /// Where it is mounted.
    path: PathBuf,
}

impl Volume {
    /// `mount` gets the directory as its `$1`, and says why when this host cannot do it.
    fn mount(server: &Server, mount: &str) -> Option<Self> {
        let path = server.place().join("volume");
        fs::create_dir(&path).unwrap();
        let mut command = Command::new(tool("unshare"));
        if !is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        let script = format!("cd / && ({mount}) && echo mounted && exec sleep 600 || echo impossible");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]).arg(&path);
        let holder = Program::start("volume", &mut command);
        let said = holder.wait_for("mounted or not", |line| {
            ["mounted", "impossible"].contains(&line).then(|| line.to_owned())
        });
        if said == "impossible" {
            eprintln!("not on this host: {mount}: {}", holder.lines().join(" "));
            return None;
        }
        Some(Self { holder, path })
    }

    /// What lets a command see it.
    fn words(&self) -> Vec<String> {
        let target = self.holder.pid().to_string();
        let mut words = vec!["nsenter".to_owned(), "--target".to_owned(), target, "--mount".to_owned()];
        if !is_root() {
            words.extend(["--user".to_owned(), "--preserve-credentials".to_owned()]);
        }
        words.push("--".to_owned());
        words
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        let words = self.words();
        let all: Vec<&str> = words[1..].iter().map(String::as_str).chain(arguments.iter().copied()).collect();
        run(&tool("nsenter"), &all, "")
    }

    fn serve(&self, server: &Server) -> Program {
        let words = self.words();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let program = Program::start("ringpost", &mut crate::through(&words, server));
        program.wait_for("it serves", |line| line.starts_with("and keeps ").then_some(()));
        program
    }
}

#[derive(Default)]
struct Mailbag {
    sent: u32,
    /// Those that got their 250.
    acknowledged: Vec<String>,
}

impl Mailbag {
    /// Sends one of some size; says the code of the reply that ended it, and whether the content was sent.
    fn send(&mut self, client: &mut Client) -> (u16, bool) {
        self.sent += 1;
        let subject = format!("number{}.", self.sent);
        client.put(b"MAIL FROM:<ann@example.org>\r\nRCPT TO:<bob@example.net>\r\nDATA\r\n");
        let codes = [client.reply().code, client.reply().code, client.reply().code];
        assert_eq!(codes[..2], [250, 250]);
        if codes[2] != 354 {
            assert_eq!(client.ask("RSET").code, 250);
            return (codes[2], false);
        }
        client.put(content(&subject).as_bytes());
        let reply = client.ask(".");
        if reply.code == 250 {
            self.acknowledged.push(subject);
        }
        (reply.code, true)
    }
}

fn content(subject: &str) -> String {
    format!("Subject: {subject}\r\n\r\n{}", format!("{subject} and so on\r\n").repeat(4000))
}

fn full_disk(mount: &str) {
    let nobody = free_address();
    let route =
        format!("{HASTE}[[route]]\nname = \"r\"\ndomains = [\"*\"]\nvia = \"hop\"\nhosts = [\"{nobody}\"]\n");
    let server = Server::prepare(&format!(
        "{route}data-directory = \"volume/data\"\n[journal]\nshards = 2\nsegment-size = \"1MiB\"\nreserve = \"1MiB\"\nspill = \"256KiB\"\n"
    ));
    // A key at the top must stand before the sections.
    let more = fs::read_to_string(server.place().join("conf.d/test.toml")).unwrap();
    server.configure(&format!(
        "data-directory = \"volume/data\"\n{}",
        more.replace("data-directory = \"volume/data\"\n", "")
    ));
    let Some(volume) = Volume::mount(&server, mount) else { return };
    let ballast = volume.path.join("ballast");
    let ballast = ballast.to_str().unwrap();
    volume.run(&["dd", "if=/dev/zero", &format!("of={ballast}"), "bs=1M", "count=16", "status=none"]).good();
    let mut program = volume.serve(&server);

    // Both cores, until each has said that it is full often enough.
    let mut clients: Vec<_> = (0..8).map(|_| server.client()).collect();
    let mut bag = Mailbag::default();
    let (mut refused, mut after_content) = (0, 0);
    while refused < 40 {
        for client in &mut clients {
            let (code, sent) = bag.send(client);
            assert!([250, 452].contains(&code), "{code}");
            if code == 452 {
                refused += 1;
                after_content += u32::from(sent);
            } else {
                refused = 0;
            }
        }
        assert!(bag.sent < 2000, "it does not become full");
    }
    let kept = bag.acknowledged.len();
    eprintln!("{kept} messages taken, then 452; {after_content} of them only behind the content");
    assert!(kept > 0);
    // While a segment is being made, mail is waited with, not refused; when that fails, those who wait are told.
    assert!(after_content <= 16, "{after_content} clients sent their content in vain");
    let event = |line: &str, name: &str| line.contains(&format!("\"event\":\"{name}\""));
    program.wait_for("the operator is told", |line| event(line, "journal_full").then_some(()));
    let ready = until("readiness is told", || server.get("/readyz").lines().next().map(ToOwned::to_owned));
    eprintln!("readyz: {ready}");
    assert!(ready.contains("503"), "{ready}");

    // It can be killed and started when the disk is full, and is as full then.
    program.kill();
    let mut program = volume.serve(&server);
    let mut clients: Vec<_> = (0..8).map(|_| server.client()).collect();
    let taken = clients.iter_mut().map(|client| bag.send(client).0).filter(|code| *code == 250).count();
    // There may be room at the end of a segment that was sealed by the clock of the others.
    assert!(taken < 8, "the disk was full");
    assert!(program.is_running());

    // Space comes, without a restart.
    volume.run(&["rm", ballast]).good();
    until("mail is taken again", || clients.iter_mut().all(|client| bag.send(client).0 == 250).then_some(()));
    program.wait_for("the operator is told", |line| event(line, "journal_healthy").then_some(()));
    until("readiness is told", || server.get("/readyz").starts_with("HTTP/1.1 200").then_some(()));

    // All of it goes out, octet for octet.
    let sink = Sink::start_at(nobody);
    let mut arrived: HashMap<String, String> = HashMap::new();
    while arrived.len() < bag.acknowledged.len() {
        let mail = sink.mail();
        let (header, body) = mail.content.split_once("\r\n\r\n").unwrap();
        let subject = header.rsplit_once("Subject: ").unwrap().1.lines().next().unwrap().to_owned();
        arrived.insert(subject, body.to_owned());
    }
    for subject in &bag.acknowledged {
        let expected = content(subject);
        let (_, body) = expected.split_once("\r\n\r\n").unwrap();
        assert!(
            arrived.get(subject).is_some_and(|arrived| arrived == body),
            "{subject} is not as it was sent"
        );
    }
    program.signal(end_to_end::Signal::TERM);
    assert!(program.wait().success());
}

#[test]
fn a_full_disk() {
    full_disk("mount -t tmpfs -o size=40m none \"$1\"");
}

/// The same on a file system with a journal of its own and blocks that are given out late.
#[test]
fn a_full_disk_with_ext4() {
    full_disk(
        "test $(id -u) = 0 && head -c 44040192 /dev/zero >\"$1.img\" && mkfs.ext4 -q -m 0 \"$1.img\" \
         && mount -o loop \"$1.img\" \"$1\"",
    );
}

/// A disk that is full of our own mail: when some of it is delivered, there is room again, without help.
#[test]
fn a_budget_used_up() {
    let nobody = free_address();
    let more = format!(
        "{HASTE}[[route]]\nname = \"r\"\ndomains = [\"*\"]\nvia = \"hop\"\nhosts = [\"{nobody}\"]\n\
         [journal]\nsegment-size = \"1MiB\"\nreserve = \"1MiB\"\nspill = \"256KiB\"\nsegments-max = 10\n\
         [limits]\nmessage-size-max = \"1MiB\"\n"
    );
    let server = Server::start(&more);
    let mut clients: Vec<_> = (0..4).map(|_| server.client()).collect();
    let mut bag = Mailbag::default();
    while clients.iter_mut().map(|client| bag.send(client).0).filter(|code| *code == 250).count() > 0 {
        assert!(bag.sent < 2000, "it does not become full");
    }
    let acknowledged = bag.acknowledged.len();
    let sink = Sink::start_at(nobody);
    for _ in 0..acknowledged {
        sink.mail();
    }
    until("mail is taken again", || clients.iter_mut().all(|client| bag.send(client).0 == 250).then_some(()));
}

/// One limit for all cores: one may use what the others leave, but not what is kept for them, and never more in all.
#[test]
fn a_disk_budget_of_all_cores() {
    const MIB: u64 = 1 << 20;
    let more = |disk_max: u64| {
        format!(
            "{HOLD}[journal]\nsegment-size = \"2MiB\"\nreserve = \"1MiB\"\nspill = \"256KiB\"\n\
             disk-max = \"{disk_max}MiB\"\n[limits]\nmessage-size-max = \"1MiB\"\n"
        )
    };
    let mut server = Server::start(&more(80));
    let used = |server: &Server| {
        let mut files = files(&server.place().join("data/segments"));
        files.retain(|file| file.extension().is_some_and(|extension| extension == "segment"));
        // One may go while it is looked at.
        files.iter().filter_map(|file| fs::metadata(file).ok()).map(|file| file.len()).sum::<u64>()
    };
    let mut bag = Mailbag::default();
    // Until it is full: sometimes a segment is not ready in time, which is 451.
    let fill = |server: &Server, client: &mut Client, bag: &mut Mailbag, limit: u64| {
        let before = bag.acknowledged.len();
        while bag.send(client).0 != 452 {
            assert!(used(server) <= limit * MIB, "{} bytes of {limit} MiB", used(server));
            assert!(bag.sent < 4000, "it does not become full");
        }
        let sizes = bag.acknowledged[before..].iter().map(|subject| content(subject).len() as u64);
        sizes.sum::<u64>() / MIB
    };
    // A connection is one core's. Of 40 segments 8 are the other's, and 3 are for what becomes of mail.
    let mut one = server.client();
    let first = fill(&server, &mut one, &mut bag, 80);
    assert!((50..=58).contains(&first), "{first} MiB");
    let event = server.event("journal_full", |_| true);
    assert!(
        event["error"].as_str().unwrap().contains("journal.disk-max is used up: 83886080 bytes"),
        "{event}"
    );
    // What is made is all that is counted, but for what is kept for the other core.
    let counted = |server: &Server| server.metric("ringpost_journal_disk_bytes", &[]) as u64;
    assert_eq!(server.metric("ringpost_journal_disk_max_bytes", &[]), 80.0 * MIB as f64);
    assert!(counted(&server) == 80 * MIB && used(&server) < 80 * MIB, "{}", counted(&server));
    // The other takes what is kept for it.
    let mut other = until("a connection to the other core", || {
        let mut client = server.client();
        (bag.send(&mut client).0 == 250).then_some(client)
    });
    let second = fill(&server, &mut other, &mut bag, 80);
    assert!((6..=10).contains(&second), "{second} MiB");
    assert!(used(&server) > 78 * MIB, "{} bytes", used(&server));
    // More of it is there after a reload, and less.
    server.configure(&more(100));
    let event = server.reload();
    assert_eq!((&event["event"], &event["pending"]), (&"reloaded".into(), &Value::Null), "{event}");
    until("mail is taken again", || (bag.send(&mut one).0 == 250).then_some(()));
    let third = fill(&server, &mut one, &mut bag, 100);
    assert!((15..=20).contains(&third), "{third} MiB");
    server.configure(&more(64));
    server.reload();
    assert_eq!(bag.send(&mut one).0, 452);
    // What is there counts at the next start, and goes with the mail.
    server = server.restarted();
    let all = server.queue_json(&["list", "--limit", "0"]).len();
    assert_eq!(all, bag.acknowledged.len());
    let before = used(&server);
    assert!(before > 90 * MIB);
    server.event("said", |event| {
        let text = event["text"].as_str().unwrap_or_default();
        text.contains("journal.disk-max: 64MiB, but segments take") && text.contains("conf.d/test.toml:")
    });
    // Segments that were ready may be filled, but none is made.
    let mut client = server.client();
    fill(&server, &mut client, &mut bag, 100);
    assert_eq!(used(&server), before);
    server.queue(&["remove", "--all", "--yes"]).good();
    until("mail is taken again", || (bag.send(&mut client).0 == 250).then_some(()));
    until("the files are gone", || (used(&server) <= 64 * MIB).then_some(()));
}

/// Mail that waits for a next hop that is not there; `damage` is done while the server is down. Answers the server,
/// started again, and what arrived when the next hop came back.
fn damaged(count: usize, stop: fn(&mut Server), damage: impl FnOnce(&Server)) -> (Server, Sink) {
    let nobody = free_address();
    let more = format!(
        "{HASTE}[[route]]\nname = \"r\"\ndomains = [\"*\"]\nvia = \"hop\"\nhosts = [\"{nobody}\"]\n\
         [cores]\ncount = 1\n[journal]\nshards = 1\n"
    );
    let mut server = Server::start(&more);
    let mut client = server.client();
    for number in 0..count {
        client.send(
            "ann@example.org",
            &[&format!("r{number:03}@example.net")],
            &format!("Subject: number{number:03}.\r\n\r\nbody of number{number:03}.\r\n"),
        );
    }
    stop(&mut server);
    damage(&server);
    server.resume();
    (server, Sink::start_at(nobody))
}

/// Every message but these arrives.
fn arrives(sink: &Sink, count: usize, but: &[usize]) {
    let mut missing: Vec<_> = (0..count).filter(|number| !but.contains(number)).collect();
    while !missing.is_empty() {
        let content = sink.mail().content;
        let of = |number: &usize| content.contains(&format!("body of number{number:03}."));
        assert!(!but.iter().any(of), "a damaged message was sent: {content}");
        missing.retain(|number| !of(number));
    }
}

fn kill(server: &mut Server) {
    server.kill();
}

fn stop(server: &mut Server) {
    assert!(server.stop().0.success());
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

fn rebuild(server: &Server) -> Finished {
    let config = server.place().join("ringpost.toml");
    run(&built("ringpost"), &["index", "--config", config.to_str().unwrap(), "rebuild"], "")
}

fn index(server: &Server) -> PathBuf {
    let path = server.place().join("data/index");
    assert!(path.is_dir());
    path
}

#[test]
fn without_an_index() {
    const COUNT: usize = 30;
    for rebuilt in [true, false] {
        let (server, sink) = damaged(COUNT, stop, |server| {
            fs::remove_dir_all(index(server)).unwrap();
            if rebuilt {
                let finished = rebuild(server).good();
                assert!(finished.stdout.contains(&format!("{COUNT} messages")), "{finished}");
                assert!(finished.stdout.contains("0 damaged places"), "{finished}");
                assert!(!files(&index(server)).is_empty());
            }
        });
        let recovered = server.event("recovered", |_| true);
        assert_eq!(recovered["messages"], Value::from(COUNT), "{recovered}");
        arrives(&sink, COUNT, &[]);
    }
}

type Damage<'a> = &'a dyn Fn(&Server);

#[test]
fn with_an_index_of_rubbish() {
    const COUNT: usize = 20;
    let overwrite = |server: &Server, change: &dyn Fn(&mut Vec<u8>)| {
        for file in files(&index(server)) {
            let mut bytes = fs::read(&file).unwrap();
            change(&mut bytes);
            fs::write(&file, bytes).unwrap();
        }
    };
    let damages: [(&str, Damage<'_>); 7] = [
        ("noise", &|server| {
            overwrite(server, &|bytes| {
                bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at * 131 % 251) as u8)
            });
        }),
        ("a bit in each file", &|server| {
            overwrite(server, &|bytes| {
                let middle = bytes.len() / 2;
                bytes.iter_mut().skip(middle).take(1).for_each(|byte| *byte ^= 1);
            });
        }),
        ("empty files", &|server| overwrite(server, &|bytes| bytes.clear())),
        ("half files", &|server| {
            overwrite(server, &|bytes| bytes.truncate(bytes.len() / 2));
        }),
        ("one file gone", &|server| {
            let files = files(&index(server));
            fs::remove_file(files.iter().find(|file| file.ends_with("db")).unwrap()).unwrap();
        }),
        ("a file where the directory was", &|server| {
            let index = index(server);
            fs::remove_dir_all(&index).unwrap();
            fs::create_dir(&index).unwrap();
            fs::write(index.join("0000"), "rubbish").unwrap();
        }),
        ("rubbish, and made anew", &|server| {
            overwrite(server, &|bytes| bytes.fill(0xff));
            rebuild(server).good();
        }),
    ];
    for (name, damage) in damages {
        let (mut server, sink) = damaged(COUNT, stop, damage);
        eprintln!("{name}");
        arrives(&sink, COUNT, &[]);
        until("the queue is empty", || server.queue_json(&["list"]).is_empty().then_some(()));
        // And what was made in its place serves the next start.
        stop(&mut server);
        server.resume();
        assert!(server.queue_json(&["list"]).is_empty(), "{name}");
    }
}

/// The place of these bytes in the segments: the file and the offset.
fn find(server: &Server, bytes: &[u8]) -> (PathBuf, usize) {
    let segments = files(&server.place().join("data/segments"));
    let mut found = segments.into_iter().filter_map(|file| {
        let content = fs::read(&file).unwrap();
        let at = content.windows(bytes.len()).position(|window| window == bytes)?;
        Some((file, at))
    });
    found.next().unwrap()
}

fn flip(file: &Path, at: usize) {
    let mut content = fs::read(file).unwrap();
    content[at] ^= 0x20;
    fs::write(file, content).unwrap();
}

#[test]
fn a_byte_changed_in_the_midst_of_a_segment() {
    const COUNT: usize = 20;
    const VICTIM: usize = 10;
    /// Where in the record of the victim.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Place {
        Magic,
        Length,
        Envelope,
        Content,
    }
    for place in [Place::Magic, Place::Length, Place::Envelope, Place::Content] {
        for with_index in [true, false] {
            let case = format!("{place:?}, with an index: {with_index}");
            eprintln!("{case}");
            let mut where_to = (0, 0);
            let (server, sink) = damaged(COUNT, if with_index { stop } else { kill }, |server| {
                let (file, body) = find(server, format!("body of number{VICTIM:03}.").as_bytes());
                let content = fs::read(&file).unwrap();
                let record = content[..body].windows(4).rposition(|window| window == b"RPr1").unwrap();
                let envelope = record
                    + content[record..]
                        .windows(4)
                        .position(|w| w == format!("r{VICTIM:03}").as_bytes())
                        .unwrap();
                flip(
                    &file,
                    match place {
                        Place::Magic => record,
                        Place::Length => record + 14,
                        Place::Envelope => envelope,
                        Place::Content => body,
                    },
                );
                let number: u64 = file.file_stem().unwrap().to_str().unwrap().parse().unwrap();
                where_to = (number, record as u64);
                if !with_index {
                    fs::remove_dir_all(index(server)).unwrap();
                }
                // Offline it is found in any case.
                let config = server.place().join("ringpost.toml");
                let verify = ["journal", "--config", config.to_str().unwrap(), "verify"];
                let finished = run(&built("ringpost"), &verify, "");
                assert_eq!(finished.status.code(), Some(1), "{case}: {finished}");
            });
            arrives(&sink, COUNT, &[VICTIM]);
            // It is told of: at the start where the records were read, else when it was to be sent.
            if !with_index && place != Place::Content {
                let damage = server.event("damaged", |_| true);
                assert_eq!(
                    (&damage["segment"], &damage["offset"]),
                    (&where_to.0.into(), &where_to.1.into()),
                    "{damage}"
                );
            } else {
                let outcome = server.event("outcome", |event| {
                    event["reply"].as_str().is_some_and(|reply| reply.contains("cannot be read"))
                });
                assert_eq!(
                    (&outcome["result"], &outcome["status"]),
                    (&"deferred".into(), &"4.3.0".into()),
                    "{outcome}"
                );
                let reply = outcome["reply"].as_str().unwrap();
                assert!(reply.contains(&format!("segment {}", where_to.0)), "{outcome}");
            }
            // Mail goes on.
            server.client().send(
                "ann@example.org",
                &["bob@example.net"],
                "Subject: x\r\n\r\nafter the damage\r\n",
            );
            assert!(sink.mail().content.ends_with("after the damage\r\n"));
        }
    }
}

/// Many messages in the queue: the start reads no bodies, and takes moments.
#[test]
fn a_start_with_many_messages() {
    const COUNT: u64 = 20_000;
    let mut server = Server::start(HOLD);
    let count = COUNT.to_string();
    let target = server.smtp().to_string();
    let arguments = ["source", &target, "-n", &count, "-s", "20", "-l", "1k", "-p", "deep", "--quiet"];
    run(&built("loadtest"), &arguments, "").good();
    for how in ["SIGTERM", "SIGKILL", "SIGKILL without an index"] {
        match how {
            "SIGTERM" => stop(&mut server),
            _ => kill(&mut server),
        }
        if how.ends_with("index") {
            fs::remove_dir_all(index(&server)).unwrap();
        }
        server.resume();
        // Lines of the log come a moment after what they tell of.
        let recovered = until("both shards say so", || {
            Some(server.events("recovered")).filter(|recovered| recovered.len() == 2)
        });
        let sum = |field: &str| recovered.iter().filter_map(|event| event[field].as_u64()).sum::<u64>();
        let took = recovered.iter().filter_map(|event| event["took"].as_f64()).fold(0.0, f64::max);
        eprintln!("{COUNT} messages after {how}: {} records read in {took:.3} s", sum("records"));
        assert_eq!(sum("messages"), COUNT, "{how}");
        assert_eq!(sum("recipients"), COUNT, "{how}");
        assert!(took < 20.0, "{how}: {took}");
        let summary = server.queue_json(&["summary"]);
        assert_eq!(summary[0]["messages"], Value::from(COUNT), "{how}: {summary:?}");
    }
}

/// A file that cannot be read for a while: a checkpoint of the index was written all the same, without the message
/// whose state had just changed and behind the record that told so. The next start did not know of the change.
#[test]
fn a_file_that_cannot_be_read_for_a_while() {
    let sink = Sink::start();
    sink.refuse_recipients("450 4.2.1 not now");
    let more = format!(
        "{}[cores]\ncount = 1\n[journal]\nshards = 1\nsegment-size = \"1MiB\"\nreserve = \"1MiB\"\nspill = \"256KiB\"\n",
        sink.route()
    );
    let mut server = Server::start(&more);
    let mut client = server.client();
    let mut bag = Mailbag::default();
    // So many that the first lies in another segment than the one that is written to.
    for _ in 0..20 {
        assert_eq!(bag.send(&mut client).0, 250);
    }
    until("all are deferred", || {
        (server.queue_json(&["list", "--state", "deferred"]).len() == 20).then_some(())
    });
    let listed = server.queue_json(&["list"]);
    let id = listed.iter().filter_map(|entry| entry["id"].as_str()).min().unwrap();
    stop(&mut server);
    // With an index in place, no file is opened before it is needed.
    server.resume();
    let (segment, _) = find(&server, b"Subject: number1.");
    assert_ne!(segment, find(&server, b"Subject: number20.").0);
    let away = server.place().join("away");
    fs::rename(&segment, &away).unwrap();
    server.queue(&["hold", id]).good();
    let (status, lines) = server.stop();
    assert!(status.success());
    assert!(lines.iter().any(|line| line.contains("cannot be read")), "{lines:#?}");
    fs::rename(&away, &segment).unwrap();
    server.resume();
    let held = server.queue_json(&["list", "--state", "held"]);
    assert_eq!(held.len(), 1, "{held:?}");
    assert_eq!(held[0]["id"], id);
    assert_eq!(server.queue_json(&["list"]).len(), 20);
}
