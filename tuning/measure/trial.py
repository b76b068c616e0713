"""A server that one of these programs has started, on a small configuration and what a case lays over it.

It listens on ports 3525 (SMTP) and 3080 (metrics) of this machine and keeps its data in a directory of its own, which is removed.
`RINGPOST` and `LOADTEST` name other programs than those that are built here.
"""

import os, pathlib, re, shutil, signal, subprocess, sys, tempfile, time, urllib.request

HERE = pathlib.Path(__file__).resolve().parents[2]
RINGPOST = os.environ.get("RINGPOST", HERE / "target/release/ringpost")
LOADTEST = os.environ.get("LOADTEST", HERE / "target/release/loadtest")
BASE = """allow-root = true
hostname = "mx.example.test"
data-directory = "data"
[[listener]]
name = "smtp"
address = ["127.0.0.1:3525"]
tls = "none"
[http]
address = ["127.0.0.1:3080"]
[log]
output = "log"
[[route]]
name = "load"
domains = ["*"]
"""


def cases(options):
    """NAME=TOML or NAME=@FILE each."""
    return [case.split("=", 1) for case in options.cases]


def scrape():
    try:
        with urllib.request.urlopen("http://127.0.0.1:3080/metrics", timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return ""


def samples(metrics, name, label=""):
    """The lines of a metric."""
    return [line for line in metrics.splitlines() if re.match(name + r"[{ ]", line) and label in line]


def value(line):
    return float(line.rsplit(" ", 1)[1])


class Server:
    """`route` ends the section of the route for all mail; more sections may follow in it."""

    def __init__(self, route, extra, directory=None):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="trial-", dir=directory))
        (self.folder / "conf.d").mkdir()
        self.config = self.folder / "ringpost.toml"
        self.config.write_text(BASE + route)
        text = pathlib.Path(extra[1:]).read_text() if extra.startswith("@") else extra.replace(";", "\n")
        (self.folder / "conf.d/trial.toml").write_text(text)
        self.errors = open(self.folder / "errors", "w")
        self.others = []
        self.process = self.begin(RINGPOST, "serve", "--config", self.config)

    def __enter__(self):
        for _ in range(300):
            time.sleep(0.1)
            if self.process.poll() is not None:
                sys.exit((self.folder / "errors").read_text()[-2000:])
            if "ringpost_build_info" in scrape():
                break
        time.sleep(0.5)
        return self

    def __exit__(self, *_):
        for process in [self.process, *self.others]:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.errors.close()
        shutil.rmtree(self.folder)

    def begin(self, *command):
        return subprocess.Popen(command, stdout=self.errors, stderr=self.errors)

    def beside(self, *command):
        """A program that ends with the server."""
        self.others.append(self.begin(*command))

    def run(self, *command, timeout=60):
        subprocess.run(command, stdout=self.errors, stderr=self.errors, timeout=timeout)

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self, field):
        """MiB."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(field + r":\s+(\d+)", status)[1]) / 1024
