#!/usr/bin/env python3
"""Memory of a queue: messages of 1 KiB are held, and the resident memory is looked at before and after a checkpoint.

    held.py [--messages 100000] NAME=TOML|NAME=@FILE...

TOML is laid over a small configuration with one core as in compare.py. A reload saves a checkpoint, so that nobody has to
wait for `index.checkpoint-interval`; with a short one, checkpoints come while mail does. Prints MiB: idle, with the mail,
and the most and the least after the checkpoint. All is on this machine, on ports 3525 and 3080, in a directory of its
own, which is removed.
"""

import argparse, os, pathlib, re, shutil, signal, subprocess, sys, tempfile, time, urllib.request

HERE = pathlib.Path(__file__).resolve().parents[2]
RINGPOST = os.environ.get("RINGPOST", HERE / "target/release/ringpost")
LOADTEST = os.environ.get("LOADTEST", HERE / "target/release/loadtest")
BASE = """allow-root = true
hostname = "mx.example.test"
[cores]
count = 1
[[listener]]
name = "smtp"
address = ["127.0.0.1:3525"]
tls = "none"
[[route]]
name = "load"
domains = ["*"]
via = "hold"
[http]
address = ["127.0.0.1:3080"]
[log]
output = "log"
"""


def serves():
    try:
        with urllib.request.urlopen("http://127.0.0.1:3080/healthz", timeout=1):
            return True
    except OSError:
        return False


def memory(pid, field):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(field + r":\s+(\d+)", status)[1]) / 1024


def cpu(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def settle(pid):
    """Until it has done next to nothing for a second."""
    for _ in range(60):
        before = cpu(pid)
        time.sleep(1)
        if cpu(pid) - before < 5:
            return


def run(messages, extra, directory):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="held-", dir=directory))
    (folder / "conf.d").mkdir()
    (folder / "ringpost.toml").write_text(BASE)
    text = pathlib.Path(extra[1:]).read_text() if extra.startswith("@") else extra.replace(";", "\n")
    (folder / "conf.d/trial.toml").write_text(text)
    with open(folder / "errors", "w") as errors:
        config = ["--config", folder / "ringpost.toml"]
        server = subprocess.Popen([RINGPOST, "serve", *config], stdout=errors, stderr=errors)
        try:
            for _ in range(150):
                time.sleep(0.1)
                if server.poll() is not None:
                    sys.exit((folder / "errors").read_text()[-2000:])
                if serves():
                    break
            time.sleep(1)
            idle = memory(server.pid, "VmRSS")
            source = [LOADTEST, "source", "127.0.0.1:3525", "-q", "-l", "1k", "-n", str(messages), "-s", "50"]
            subprocess.run(source, stdout=errors, stderr=errors, timeout=50)
            with_mail = memory(server.pid, "VmRSS")
            subprocess.run([RINGPOST, "reload", *config], stdout=errors, stderr=errors, timeout=10)
            settle(server.pid)
            index = sum(file.stat().st_size for file in (folder / "data/index").rglob("*") if file.is_file())
            return idle, with_mail, memory(server.pid, "VmHWM"), memory(server.pid, "VmRSS"), index / 2**20
        finally:
            server.send_signal(signal.SIGKILL)
            server.wait()
            shutil.rmtree(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--directory", help="where the data directories go")
    parser.add_argument("cases", nargs="+", metavar="NAME=TOML|NAME=@FILE")
    options = parser.parse_args()
    for name, extra in (case.split("=", 1) for case in options.cases):
        idle, mail, most, least, index = run(options.messages, extra, options.directory)
        print(
            f"{name:16} idle {idle:.0f}  {options.messages} messages {mail:.0f}  "
            f"checkpoint {most:.0f}, after it {least:.0f} MiB; index {index:.0f} MiB on the disk",
            flush=True,
        )


main()
