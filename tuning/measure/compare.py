#!/usr/bin/env python3
"""Runs the server with several configurations in turn, under the bundled load, and compares them.

    compare.py [--work accept|relay] [--rounds 3] [--time 3s] [--source ARGS] [--sink ARGS] NAME=TOML|NAME=@FILE...

TOML is laid over a small configuration as a file of conf.d; ";" ends a line in it, so that
`compare.py 'now=' 'one=[cores];count = 1' small=@tuning/small-vps.toml` compares the defaults with a single core and with a profile. With `accept` mail is made durable and
then discarded by its route; with `relay` it goes to the sink. All is on this machine, on ports 3525, 3600 and 3080, in a
directory of its own, which is removed. Each value is the median of the rounds, [least..most] beside it.
"""

import argparse, json, shlex, statistics, subprocess, time

from trial import LOADTEST, Server, cases, samples, scrape, value

ROUTE = {"accept": 'via = "discard"\n', "relay": 'tls = "none"\nvia = "hop"\nhosts = ["127.0.0.1:3600"]\n'}


def total(metrics, name, label=""):
    return sum(map(value, samples(metrics, name, label)))


def run(options, extra):
    with Server(ROUTE[options.work], extra, options.directory) as server:
        if options.work == "relay":
            server.beside(LOADTEST, "sink", "-q", "-l", "127.0.0.1:3600", "--no-verify", *shlex.split(options.sink))
            time.sleep(0.3)
        source = [LOADTEST, "source", "127.0.0.1:3525", "-q", "--json", *shlex.split(options.source), "-t"]
        try:
            # To warm up: the first segment, the pool of buffers, the connections out.
            server.run(*source, "500ms", timeout=10)
            time.sleep(0.5)
            before, used, began = scrape(), server.cpu_seconds(), time.monotonic()
            told = json.loads(subprocess.run([*source, options.time], capture_output=True, timeout=60).stdout)
        except subprocess.TimeoutExpired:
            return None
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
            "CPU us": 1e6 * (server.cpu_seconds() - used) / max(count, 1),
            "p50 ms": told["latency_p50_ms"],
            "p99 ms": told["latency_p99_ms"],
            "group": grown("ringpost_journal_group_records_sum") / max(grown("ringpost_journal_group_records_count"), 1),
            "waits": grown("ringpost_buffer_waits_total"),
            "MiB": server.memory("VmHWM"),
        }


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
    trials = cases(options)
    results = {name: [] for name, _ in trials}
    for number in range(options.rounds):
        # There and back again, so that what changes with time does not favour one.
        for name, extra in trials if number % 2 == 0 else trials[::-1]:
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
