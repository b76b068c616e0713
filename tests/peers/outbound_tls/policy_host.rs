//! The hosts `mta-sts.…`: one HTTPS server, with a policy for each name that it is asked by. It takes reports as well.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use end_to_end::{Place, Program, free_address, tool};

pub(crate) struct PolicyHost {
    program: Option<Program>,
    place: Place,
    address: SocketAddr,
    certificate: (PathBuf, PathBuf),
}

/// What it says for a name lies in the file of that name: the status, then the media type, then the body.
const SCRIPT: &str = r#"
import gzip, http.server, os, ssl, sys
ip, port, certificate, key, directory = sys.argv[1:]
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        name = self.headers["Host"].split(":")[0]
        path = os.path.join(directory, name)
        if self.path != "/.well-known/mta-sts.txt" or not os.path.exists(path):
            return self.send_error(404)
        status, kind, body = open(path).read().split("\n", 2)
        body = body.encode()
        self.send_response(int(status))
        self.send_header("Content-Type", kind)
        self.send_header("Location", "https://mta-sts.elsewhere.test/")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        print("gave", name, flush=True)
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        report = gzip.decompress(body).decode()
        print("report", self.headers["Host"].split(":")[0], self.path, self.headers["Content-Type"], report, flush=True)
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()
server = http.server.ThreadingHTTPServer((ip, int(port)), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
print("it serves", flush=True)
server.serve_forever()
"#;

impl PolicyHost {
    pub(crate) fn start(certificate: (PathBuf, PathBuf)) -> Self {
        let mut host = Self { program: None, place: Place::new(), address: free_address(), certificate };
        host.resume();
        host
    }

    pub(crate) fn resume(&mut self) {
        let script = self.place.write("policies.py", SCRIPT);
        let mut command = Command::new(tool("python3"));
        let (ip, port) = (self.address.ip().to_string(), self.address.port().to_string());
        command.arg(script).args([ip, port]).arg(&self.certificate.0).arg(&self.certificate.1);
        command.arg(self.place.path());
        let program = Program::start("policies", &mut command);
        program.wait_for("it serves", |line| line.contains("it serves").then_some(()));
        self.program = Some(program);
    }

    /// Nobody is there any more.
    pub(crate) fn stop(&mut self) {
        self.program = None;
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it gives for this domain from now on.
    pub(crate) fn says(&self, domain: &str, answer: &str) -> &Path {
        self.place.write(&format!("mta-sts.{domain}"), answer);
        self.place.path()
    }

    /// Waits for a report that was sent there: what it was sent to and as, and the report.
    pub(crate) fn report(&self) -> (String, serde_json::Value) {
        let line = self
            .program
            .as_ref()
            .unwrap()
            .wait_for("a report comes", |line| line.strip_prefix("report ").map(str::to_owned));
        let (head, json) = line.split_at(line.find('{').unwrap());
        (head.trim().to_owned(), serde_json::from_str(json).unwrap())
    }

    /// How often it gave the policy of a domain.
    pub(crate) fn count(&self, domain: &str) -> usize {
        let said = format!("gave mta-sts.{domain}");
        let lines = self.program.as_ref().unwrap().stdout();
        lines.lines().filter(|line| *line == said).count()
    }
}
