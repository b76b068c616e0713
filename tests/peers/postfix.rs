//! An instance of Postfix, and its smtp-source and smtp-sink.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path, process::Command};

use end_to_end::{Finished, Place, Program, Signal, free_address, listens, run, tool, until};
use rustix::process::getuid;

/// A Postfix that relays everything to one next hop. Nothing of it lies outside its own directory.
pub(crate) struct Postfix {
    program: Program,
    place: Place,
    address: SocketAddr,
}

impl Postfix {
    /// Starts it, with these settings in addition, and waits until it listens.
    pub(crate) fn start(next_hop: SocketAddr, settings: &str) -> Self {
        assert!(getuid().is_root(), "Postfix changes its user, which only root may: run this test as root");
        let (place, address) = (Place::new(), free_address());
        let base = place.path().display();
        let (ip, port) = (next_hop.ip(), next_hop.port());
        for name in ["conf", "spool", "data"] {
            fs::create_dir(place.join(name)).unwrap();
        }
        run(&tool("chown"), &["postfix", place.join("data").to_str().unwrap()], "").good();
        place.write(
            "conf/main.cf",
            format!(
                "compatibility_level = 3.6\n\
                 queue_directory = {base}/spool\n\
                 data_directory = {base}/data\n\
                 command_directory = /usr/sbin\n\
                 daemon_directory = /usr/lib/postfix/sbin\n\
                 shlib_directory = /usr/lib/postfix\n\
                 meta_directory = /etc/postfix\n\
                 mail_owner = postfix\n\
                 setgid_group = postdrop\n\
                 maillog_file = /dev/stdout\n\
                 maillog_file_prefixes = /dev/stdout\n\
                 myhostname = mx.postfix.test\n\
                 mydestination =\n\
                 local_recipient_maps =\n\
                 alias_maps =\n\
                 alias_database =\n\
                 mynetworks = 127.0.0.0/8\n\
                 inet_interfaces = 127.0.0.1\n\
                 inet_protocols = ipv4\n\
                 smtpd_relay_restrictions = permit_mynetworks, reject\n\
                 smtpd_peername_lookup = no\n\
                 disable_dns_lookups = yes\n\
                 smtp_host_lookup = native\n\
                 relayhost = [{ip}]:{port}\n\
                 {settings}"
            ),
        );
        let mut services = format!("{address} inet n - n - - smtpd\n");
        for (name, kind, process) in [
            ("pickup", "unix n - n 60 1", "pickup"),
            ("cleanup", "unix n - n - 0", "cleanup"),
            ("qmgr", "unix n - n 300 1", "qmgr"),
            ("tlsmgr", "unix - - n 1000? 1", "tlsmgr"),
            ("rewrite", "unix - - n - -", "trivial-rewrite"),
            ("bounce", "unix - - n - 0", "bounce"),
            ("defer", "unix - - n - 0", "bounce"),
            ("trace", "unix - - n - 0", "bounce"),
            ("verify", "unix - - n - 1", "verify"),
            ("flush", "unix n - n 1000? 0", "flush"),
            ("proxymap", "unix - - n - -", "proxymap"),
            ("smtp", "unix - - n - -", "smtp"),
            ("relay", "unix - - n - -", "smtp"),
            ("showq", "unix n - n - -", "showq"),
            ("error", "unix - - n - -", "error"),
            ("retry", "unix - - n - -", "error"),
            ("discard", "unix - - n - -", "discard"),
            ("anvil", "unix - - n - 1", "anvil"),
            ("scache", "unix - - n - 1", "scache"),
            ("postlog", "unix-dgram n - n - 1", "postlogd"),
        ] {
            services.push_str(&format!("{name} {kind} {process}\n"));
        }
        place.write("conf/master.cf", services);
        let conf = place.join("conf");
        // Makes the directories of the queue.
        run(&tool("postfix"), &["-c".as_ref(), conf.as_os_str(), "check".as_ref()], "").good();
        // In the foreground, and the only process to be ended: it takes its children along.
        let mut command = Command::new(tool("master"));
        command.arg("-s").arg("-c").arg(&conf).env("MAIL_CONFIG", &conf);
        let program = Program::start("postfix", &mut command);
        program.wait_for("it runs", |line| line.contains("daemon started").then_some(()));
        Self { program, place, address }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How SASL is done, for those of its processes that are yet to start: Debian's looks beside `main.cf`, and nowhere else.
    pub(crate) fn configure_sasl(&self, text: &str) {
        self.place.write("conf/sasl/smtpd.conf", text);
    }

    /// Waits for a line of its log.
    pub(crate) fn logs(&self, text: &str) -> String {
        self.program.wait_for(text, |line| line.contains(text).then(|| line.to_owned()))
    }

    /// Whether this stands in its log by now.
    pub(crate) fn has_logged(&self, text: &str) -> bool {
        self.program.lines().iter().any(|line| line.contains(text))
    }
}

impl Postfix {
    /// Waits until its queue is empty.
    pub(crate) fn drained(&self) {
        until("Postfix's queue is empty", || {
            let mut queues = ["maildrop", "incoming", "active", "deferred"].iter();
            queues.all(|name| is_bare(&self.place.join("spool").join(name))).then_some(())
        });
    }
}

/// Whether there is no file in a directory or in those beneath it.
fn is_bare(directory: &Path) -> bool {
    let Ok(entries) = fs::read_dir(directory) else { return true };
    entries.flatten().all(|entry| entry.path().is_dir() && is_bare(&entry.path()))
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if self.program.is_running() {
            self.program.signal(Signal::TERM);
            self.program.wait();
        }
    }
}

/// Postfix's smtp-sink, which writes each message to a file.
pub(crate) struct SmtpSink {
    _program: Program,
    place: Place,
    address: SocketAddr,
}

impl SmtpSink {
    pub(crate) fn start() -> Self {
        let (place, address) = (Place::new(), free_address());
        let directory = place.join("mail");
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, PermissionsExt::from_mode(0o777)).unwrap();
        let mut command = Command::new(tool("smtp-sink"));
        if getuid().is_root() {
            command.args(["-u", "nobody"]);
        }
        command.arg("-d").arg(directory.join("mail.")).args([&address.to_string(), "100"]);
        let program = Program::start("smtp-sink", &mut command);
        until("smtp-sink listens", || listens(address).then_some(()));
        Self { _program: program, place, address }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until so many messages have come and are written. Each begins with lines on the session and the envelope.
    pub(crate) fn messages(&self, count: usize) -> Vec<String> {
        let read =
            |entry: fs::DirEntry| String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned();
        let mut before = Vec::new();
        until(&format!("{count} messages"), || {
            let entries = fs::read_dir(self.place.join("mail")).unwrap();
            let now: Vec<_> = entries.map(|entry| read(entry.unwrap())).collect();
            // A file is there before its message.
            let whole = now.len() >= count && now == before && now.iter().all(|message| !message.is_empty());
            before = now;
            whole.then_some(())
        });
        before
    }

    /// How many messages have come.
    pub(crate) fn count(&self) -> usize {
        fs::read_dir(self.place.join("mail")).unwrap().count()
    }
}

/// Runs Postfix's smtp-source: `messages` over ten sessions.
pub(crate) fn smtp_source(server: SocketAddr, messages: usize, arguments: &[&str]) -> Finished {
    let (server, messages) = (server.to_string(), messages.to_string());
    let common = ["-s", "10", "-m", &messages, "-f", "ann@example.org", "-t", "bob@example.net"];
    run(&tool("smtp-source"), &[&common, arguments, &[&server]].concat(), "")
}
