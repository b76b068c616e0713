//! A server of a test's own: configured, started, asked, signalled, killed and started again.

use std::{
    net::SocketAddr,
    process::{Command, ExitStatus},
    sync::atomic::{AtomicUsize, Ordering},
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{Client, Finished, Place, Process, Program, built, free_address, run, until};

/// `ringpost serve` with a data directory and ports of its own.
#[derive(Debug)]
pub struct Server {
    // Before the place, so that it ends before its files go.
    program: Option<Program>,
    place: Place,
    smtp: SocketAddr,
    smtps: SocketAddr,
    submission: SocketAddr,
    http: SocketAddr,
    /// Lines of the log up to which [`Server::event`] has looked.
    read: AtomicUsize,
}

impl Drop for Server {
    /// Programs that have taken over are no children of the test, and would outlive it.
    fn drop(&mut self) {
        if self.program.is_none() {
            return;
        }
        let directory = self.place.path().to_string_lossy().into_owned();
        for pid in self.events("started").iter().filter_map(|event| event["pid"].as_u64()) {
            // The number of one that has ended may be another's.
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&command).contains(&directory) {
                drop(Process::of(pid));
            }
        }
    }
}

impl Server {
    /// Configures and starts it. `more` is TOML that adds to what every server of a test has, or changes it: it is a
    /// later file of the same configuration. Routes belong in there.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(more: &str) -> Self {
        let mut server = Self::prepare(more);
        server.resume();
        server
    }

    /// Configures it, and does not start it.
    ///
    /// # Panics
    /// When the files cannot be written.
    pub fn prepare(more: &str) -> Self {
        let [smtp, smtps, submission, http] = [(); 4].map(|()| free_address());
        let server = Self {
            program: None,
            place: Place::new(),
            smtp,
            smtps,
            submission,
            http,
            read: AtomicUsize::new(0),
        };
        let directory = server.place.path().to_str().unwrap();
        run(&built("ringpost"), &["init", "--directory", directory, "--hostname", "mx.ringpost.test"], "")
            .good();
        server.place.write("ringpost.toml", server.configuration());
        server.configure(more);
        server
    }

    /// What every server of a test has. Little, so that many fit on a small machine.
    fn configuration(&self) -> String {
        let Self { smtp, smtps, submission, http, .. } = self;
        format!(
            r#"hostname = "mx.ringpost.test"
allow-root = true
data-directory = "data"
[cores]
count = 2
pin = false
[buffers]
budget = "32MiB"
[journal]
shards = 4
segment-size = "8MiB"
reserve = "4MiB"
ready = 1
[[listener]]
name = "smtp"
address = ["{smtp}"]
tls = "starttls"
[[listener]]
name = "smtps"
address = ["{smtps}"]
tls = "implicit"
[[listener]]
name = "submission"
kind = "submission"
address = ["{submission}"]
tls = "starttls"
[[certificate]]
name = "own"
certificate = "certificate.pem"
key = "key.pem"
[http]
address = ["{http}"]
[log]
format = "json"
level = "debug"
[authentication]
verify = false
[shutdown]
grace = "10s"
"#
        )
    }

    /// Writes other additions to the configuration. They hold after [`Server::reload`] or the next start.
    pub fn configure(&self, more: &str) {
        self.place.write("conf.d/test.toml", more);
    }

    /// The command that starts it, for a start that is to go wrong.
    pub fn command(&self) -> Command {
        let mut command = Command::new(built("ringpost"));
        command.arg("serve").arg("--config").arg(self.place.join("ringpost.toml"));
        command
    }

    /// Starts it on what is there, and waits until it serves.
    ///
    /// # Panics
    /// When it does not.
    pub fn resume(&mut self) {
        self.resume_by(&mut self.command());
    }

    /// As [`Server::resume`], by a command that becomes [`Server::command`].
    ///
    /// # Panics
    /// When it does not.
    pub fn resume_by(&mut self, command: &mut Command) {
        self.launch_by(command);
        self.program().wait_for("it serves", |line| line.starts_with("and keeps ").then_some(()));
    }

    /// Starts it on what is there, and does not wait.
    ///
    /// # Panics
    /// When it runs already.
    pub fn launch(&mut self) {
        self.launch_by(&mut self.command());
    }

    fn launch_by(&mut self, command: &mut Command) {
        assert!(self.program.is_none(), "it runs already");
        self.read.store(0, Ordering::Relaxed);
        self.program = Some(Program::start("ringpost", command));
    }

    /// Ends it with SIGKILL, at once.
    pub fn kill(&mut self) -> Vec<String> {
        let mut program = self.program.take().expect("it runs");
        program.kill();
        program.lines()
    }

    /// Ends it with SIGTERM, and waits for that. Answers how it ended and its log.
    pub fn stop(&mut self) -> (ExitStatus, Vec<String>) {
        let mut program = self.program.take().expect("it runs");
        program.signal(Signal::TERM);
        let status = program.wait();
        let lines = program.lines();
        let unclosed = lines.iter().find(|line| line.contains("is not closed in time"));
        assert_eq!(unclosed, None, "it waited for what should have ended");
        (status, lines)
    }

    /// Stops it and starts it again on the same data.
    ///
    /// # Panics
    /// When it does not stop or start.
    #[must_use]
    pub fn restarted(mut self) -> Self {
        let (status, _) = self.stop();
        assert!(status.success(), "{status}");
        self.resume();
        self
    }

    /// Has it read its configuration again, and waits until it has. Answers the event that says so.
    pub fn reload(&self) -> Value {
        let said = self.program().lines().len();
        self.program().signal(Signal::HUP);
        let find = |line: &str| event(line, &["reloaded", "reload_refused"]);
        self.program().wait_from(said, "reloaded", find).1
    }

    /// `ringpost upgrade` with these arguments.
    pub fn upgrade(&self, arguments: &[&str]) -> Finished {
        let config = self.place.join("ringpost.toml");
        let all = [&["upgrade", "--config", config.to_str().unwrap()], arguments].concat();
        run(&built("ringpost"), &all, "")
    }

    /// The process that has taken over as the first, the second and so on, or is about to. What it says is in the same log.
    pub fn successor(&self, number: usize) -> Process {
        let told =
            until("a new program takes over", || self.events("handing_over").into_iter().nth(number - 1));
        Process::of(told["pid"].as_u64().unwrap())
    }

    /// The running process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn program(&self) -> &Program {
        self.program.as_ref().expect("it runs")
    }

    /// The running process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn program_mut(&mut self) -> &mut Program {
        self.program.as_mut().expect("it runs")
    }

    /// Its directory: the configuration, the certificate, and `data`.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Where it takes mail: STARTTLS.
    pub fn smtp(&self) -> SocketAddr {
        self.smtp
    }

    /// Where it takes mail: TLS from the first byte.
    pub fn smtps(&self) -> SocketAddr {
        self.smtps
    }

    /// Where it takes mail of users: STARTTLS.
    pub fn submission(&self) -> SocketAddr {
        self.submission
    }

    /// Where metrics are.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// A client that has said EHLO.
    pub fn client(&self) -> Client {
        Client::greeted(self.smtp)
    }

    /// The next event of that name in the log for which `matches` holds. Waits for it; what was logged before counts
    /// unless an earlier call has looked at it.
    ///
    /// # Panics
    /// When it does not come.
    pub fn event(&self, name: &str, mut matches: impl FnMut(&Value) -> bool) -> Value {
        let from = self.read.load(Ordering::Relaxed);
        let find = |line: &str| event(line, &[name]).filter(|event| matches(event));
        let (next, found) = self.program().wait_from(from, name, find);
        self.read.store(next, Ordering::Relaxed);
        found
    }

    /// All events of that name in the log so far.
    pub fn events(&self, name: &str) -> Vec<Value> {
        self.program().lines().iter().filter_map(|line| event(line, &[name])).collect()
    }

    /// `ringpost queue` with these arguments.
    pub fn queue(&self, arguments: &[&str]) -> Finished {
        let config = self.place.join("ringpost.toml");
        let all = [&["queue", "--config", config.to_str().unwrap()], arguments].concat();
        run(&built("ringpost"), &all, "")
    }

    /// `ringpost queue … --json`: one value for each line.
    ///
    /// # Panics
    /// When the command fails.
    pub fn queue_json(&self, arguments: &[&str]) -> Vec<Value> {
        let finished = self.queue(&[arguments, &["--json"]].concat()).good();
        finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What `ringpost queue why` says: of what, which cause, and what has set it.
    ///
    /// # Panics
    /// When the command fails.
    pub fn why(&self, subject: &str) -> Vec<(String, String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut told = Vec::new();
        for one in self.queue_json(&["why", subject]) {
            for why in one["reasons"].as_array().into_iter().flatten() {
                told.push((text(&one["subject"]), text(&why["cause"]), text(&why["set_by"])));
            }
        }
        told
    }

    /// `ringpost sources`.
    pub fn sources(&self) -> Finished {
        let config = self.place.join("ringpost.toml");
        run(&built("ringpost"), &["sources", "--config", config.to_str().unwrap()], "")
    }

    /// `ringpost sources --json`: one value for each source.
    ///
    /// # Panics
    /// When the command fails.
    pub fn sources_json(&self) -> Vec<Value> {
        let config = self.place.join("ringpost.toml");
        let all = ["sources", "--json", "--config", config.to_str().unwrap()];
        let finished = run(&built("ringpost"), &all, "").good();
        finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What an HTTP GET answers, with its header.
    pub fn get(&self, path: &str) -> String {
        let mut client = Client::connect(self.http);
        client.put(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes());
        client.rest()
    }

    /// The sum of a metric over all series that have these labels, such as `side="in"`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        metric(&self.get("/metrics"), name, labels)
    }
}

/// The sum of a metric in Prometheus text over all series that have these labels.
pub fn metric(text: &str, name: &str, labels: &[&str]) -> f64 {
    let of_name = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        rest.starts_with(['{', ' ']).then_some(rest)
    });
    let matching = of_name.filter(|rest| labels.iter().all(|label| rest.contains(label)));
    matching.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn event(line: &str, names: &[&str]) -> Option<Value> {
    let event: Value = serde_json::from_str(line).ok()?;
    names.contains(&event.get("event")?.as_str()?).then_some(event)
}
