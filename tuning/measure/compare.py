#!/usr/bin/env python3
"""Runs the server with several configurations in turn, under the bundled load, and compares them.

    compare.py [--work accept|relay] [--rounds 3] [--time 3s] [--source ARGS] [--sink ARGS] NAME=TOML|NAME=@FILE...

TOML is laid over a small configuration as a file of conf.d; ";" ends a line in it, so that
`compare.py 'now=' 'one=[cores];count = 1' small=@tuning/small-vps.toml` compares the defaults with a single core and with a profile. With `accept` mail is made durable and
then discarded by its route; with `relay` it goes to the sink. All is on this machine, on ports 3525, 3600 and 3080, in a
directory of its own, which is removed. Each value is the median of the rounds, [least..most] beside it.
"""

import argparse, json, os, pathlib, re, shlex, shutil, signal, statistics, subprocess, sys, tempfile, time, urllib.request

HERE = pathlib.Path(__file__).resolve().parents[2]
RINGPOST = os.environ.get("RINGPOST", HERE / "target/release/ringpost")
LOADTEST = os.environ.get("LOADTEST", HERE / "target/release/loadtest")
ROUTE = {"accept": 'via = "discard"', "relay": 'via = "hop"\nhosts = ["127.0.0.1:3600"]'}
BASE = """allow-root = true
hostname = "mx.example.test"
data-directory = "data"
[[listener]]
name = "smtp"
address = ["127.0.0.1:3525"]
tls = "none"
[[route]]
name = "load"
domains = ["*"]
tls = "none"
{route}
[http]
address = ["127.0.0.1:3080"]
[log]
output = "log"
"""


def scrape():
    try:
        with urllib.request.urlopen("http://127.0.0.1:3080/metrics", timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return ""


def total(metrics, name, label=""):
    lines = (line for line in metrics.splitlines() if re.match(name + r"[{ ]", line) and label in line)
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_memory(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


def run(options, extra):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="compare-", dir=options.directory))
    (folder / "conf.d").mkdir()
    (folder / "ringpost.toml").write_text(BASE.format(route=ROUTE[options.work]))
    text = pathlib.Path(extra[1:]).read_text() if extra.startswith("@") else extra.replace(";", "\n")
    (folder / "conf.d/trial.toml").write_text(text)
    errors = open(folder / "errors", "w")
    server = subprocess.Popen([RINGPOST, "serve", "--config", folder / "ringpost.toml"], stdout=errors, stderr=errors)
    sink = None
    try:
        for _ in range(150):
            time.sleep(0.1)
            if server.poll() is not None:
                sys.exit((folder / "errors").read_text()[-2000:])
            if "ringpost_build_info" in scrape():
                break
        time.sleep(0.5)
        if options.work == "relay":
            command = [LOADTEST, "sink", "-q", "-l", "127.0.0.1:3600", "--no-verify", *shlex.split(options.sink)]
            sink = subprocess.Popen(command, stdout=errors, stderr=errors)
            time.sleep(0.3)
        source = [LOADTEST, "source", "127.0.0.1:3525", "-q", "--json", *shlex.split(options.source), "-t"]
        # To warm up: the first segment, the pool of buffers, the connections out.
        subprocess.run([*source, "500ms"], stdout=subprocess.DEVNULL, stderr=errors, timeout=10)
        time.sleep(0.5)
        before, used, began = scrape(), cpu_seconds(server.pid), time.monotonic()
        told = json.loads(subprocess.run([*source, options.time], capture_output=True, timeout=60).stdout)
        accepted_at, after = time.monotonic(), scrape()
        while options.work == "relay" and total(after, "ringpost_queue_messages") and time.monotonic() < accepted_at + 10:
            time.sleep(0.05)
            after = scrape()
        ended = time.monotonic()
        grown = lambda name, label="": total(after, name, label) - total(before, name, label)
        count = grown("ringpost_messages_total", 'side="in"')
        return {
            "in/s": count / (accepted_at - began),
            "out/s": grown("ringpost_messages_total", 'side="out"') / (ended - began),
            "CPU us": 1e6 * (cpu_seconds(server.pid) - used) / max(count, 1),
            "p50 ms": told["latency_p50_ms"],
            "p99 ms": told["latency_p99_ms"],
            "group": grown("ringpost_journal_group_records_sum") / max(grown("ringpost_journal_group_records_count"), 1),
            "waits": grown("ringpost_buffer_waits_total"),
            "MiB": peak_memory(server.pid),
        }
    except subprocess.TimeoutExpired:
        return None
    finally:
        for process in filter(None, [server, sink]):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        errors.close()
        shutil.rmtree(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", choices=ROUTE, default="accept")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--time", default="3s", help="of one run of the load")
    parser.add_argument("--source", default="", help="more for `loadtest source`, in one word: '-l 100k -s 50'")
    parser.add_argument("--sink", default="", help="more for `loadtest sink`")
    parser.add_argument("--directory", help="where the data directories go: the disk that is meant")
    parser.add_argument("cases", nargs="+", metavar="NAME=TOML|NAME=@FILE")
    options = parser.parse_args()
    cases = [case.split("=", 1) for case in options.cases]
    results = {name: [] for name, _ in cases}
    for number in range(options.rounds):
        # There and back again, so that what changes with time does not favour one.
        for name, extra in cases if number % 2 == 0 else cases[::-1]:
            results[name].append(run(options, extra))
    for name, runs in results.items():
        whole = [result for result in runs if result]
        cells = []
        for column in whole[0] if whole else []:
            values = [result[column] for result in whole]
            cells.append(f"{column} {statistics.median(values):.4g} [{min(values):.4g}..{max(values):.4g}]")
        lost = len(runs) - len(whole)
        print(f"{name:16}", "  ".join(cells), f"  {lost} runs did not end" if lost else "")


main()
