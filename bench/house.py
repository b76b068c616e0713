"""A server of its own for a benchmark of the queue, with loadtest at both ends; everything on the loopback."""

import json, os, re, shutil, signal, socket, subprocess, sys, tempfile, time, urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
RINGPOST = os.environ.get("RINGPOST", str(HERE / "target/release/ringpost"))
TOKEN = "0123456789abcdef"
LOADTEST = os.environ.get("LOADTEST", str(HERE / "target/release/loadtest"))


def route(name, domains, host):
    listed = ", ".join(f'"{domain}"' for domain in domains)
    return f'[[route]]\nname = "{name}"\ndomains = [{listed}]\nvia = "hop"\nhosts = ["{host}"]\ntls = "none"\n'


class Source:
    """`loadtest source`, under way."""

    def __init__(self, port, *options):
        command = [LOADTEST, "--json", "-q", "source", f"127.0.0.1:{port}", *map(str, options)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)

    def report(self):
        return json.loads(self.process.communicate()[0])


class Sink:
    """`loadtest sink`, until it is stopped."""

    def __init__(self, listen, *options):
        self.process = subprocess.Popen(
            [LOADTEST, "--json", "-q", "sink", "-l", listen, *map(str, options)], stdout=subprocess.PIPE
        )

    def report(self):
        self.process.send_signal(signal.SIGINT)
        return json.loads(self.process.communicate()[0])


class Server:
    """`ringpost serve` with a configuration of its own."""

    def __init__(self, more, port=2551, http=8051, directory=None, cores=1):
        self.directory = Path(directory or tempfile.mkdtemp(prefix="ringpost-bench-"))
        self.port, self.http = port, http
        self.directory.mkdir(parents=True, exist_ok=True)
        if not (self.directory / "key.pem").exists():
            command = [RINGPOST, "init", "--directory", self.directory, "--hostname", "mx.bench.test"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        self.config = self.directory / "bench.toml"
        by_root = "true" if os.getuid() == 0 else "false"
        self.config.write_text(
            f'allow-root = {by_root}\nhostname = "mx.bench.test"\ndata-directory = "data"\n'
            f'[[listener]]\nname = "smtp"\naddress = ["127.0.0.1:{port}"]\ntls = "none"\n'
            f'[cores]\ncount = {cores}\n[http]\naddress = ["127.0.0.1:{http}"]\ntoken = "{TOKEN}"\n{more}'
        )
        self.start()

    def start(self):
        log = open(self.directory / "log", "ab")
        self.began = time.monotonic()
        self.process = subprocess.Popen([RINGPOST, "serve", "--config", self.config], stdout=log, stderr=log)
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=60) as client:
                    if client.recv(3) == b"220":
                        return time.monotonic() - self.began
            except OSError:
                if self.process.poll() is not None:
                    sys.exit(f"the server has ended: {self.directory}/log")
                time.sleep(0.01)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self, keep=False):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        if not keep:
            shutil.rmtree(self.directory)

    def ask(self, method, path, body=None):
        """What the operator's API answers."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http}{path}", method=method, data=body and json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def metric(self, name, label=""):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        found = [line for line in lines if re.match(rf"{name}[ {{]", line) and label in line]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)

    def cpu(self):
        """CPU time that it has taken, in seconds."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self):
        """Resident memory, in octets."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024

    def disk(self):
        """Octets on the disk: of the data directory, and of that in records that are still needed."""
        files = [file.stat().st_blocks * 512 for file in (self.directory / "data").rglob("*") if file.is_file()]
        return sum(files), self.metric("ringpost_journal_live_bytes")


def wait_for(what, look, patience=7200, pause=0.5):
    """Looks again and again until there is an answer."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if (found := look()) not in (None, False):
            return found
        time.sleep(pause)
    sys.exit(f"waited for {what} in vain")
