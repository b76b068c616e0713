#!/usr/bin/env python3
"""How long connections are spread over shards, and what comes of it.

    spread.py kernel [--trials 300]                what the kernel does with connections to several sockets of one port: by
                                                   its hash, by a random number, by the CPU they come to (SO_ATTACH_REUSEPORT_CBPF)
    spread.py server [--trials 20] [--connections 2,4,8,16,64] NAME=TOML...
                                                   what the server does with them, with several configurations
    spread.py load [--trials 10] [--source ARGS] NAME=TOML...
                                                   messages a second, by how many connections each shard had

TOML is laid over a small configuration, ";" ends a line in it: `'off=[cores];count = 2;balance = false'`. All is on this machine,
on ports 3525 and 3080, in a directory of its own, which is removed. What is taken in is made durable and then discarded.
"""

import argparse, collections, ctypes, json, re, shlex, socket, statistics, struct, subprocess, time

from trial import LOADTEST, Server, cases, samples, scrape, value

ROUTE = 'via = "discard"\n'
SO_ATTACH_REUSEPORT_CBPF = 51


def summary(trials, shards, connections):
    count = len(trials)
    busiest = statistics.mean(map(max, trials)) / (connections / shards)
    idle = sum(min(trial) == 0 for trial in trials) / count
    even = sum(max(trial) - min(trial) <= 1 for trial in trials) / count
    return f"the busiest shard has {busiest:.2f} times its part, at most {max(map(max, trials))}; one has none in {idle:.0%}; even in {even:.0%}"


def steer(listener, shards, how):
    """Lets a program of three instructions choose the socket: load a number, take the remainder, answer it."""
    ancillary = {"random": 56, "CPU": 36}[how]
    program = [(0x20, 0, 0, 0xFFFFF000 + ancillary), (0x94, 0, 0, shards), (0x16, 0, 0, 0)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    filter = struct.pack("@HP", len(program), ctypes.addressof(code))
    listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, filter)


def kernel_trial(shards, connections, how):
    listeners, port = [], 0
    for _ in range(shards):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", port))
        port = listener.getsockname()[1]
        listener.listen(256)
        listener.setblocking(False)
        listeners.append(listener)
    if how != "hash":
        steer(listeners[0], shards, how)
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
    counts = []
    for listener in listeners:
        count = 0
        while True:
            try:
                listener.accept()[0].close()
                count += 1
            except BlockingIOError:
                break
        counts.append(count)
    for one in clients + listeners:
        one.close()
    return counts


def kernel(options):
    for how in ("hash", "random", "CPU"):
        for shards in (2, 4):
            for connections in options.connections:
                trials = [kernel_trial(shards, connections, how) for _ in range(options.trials)]
                print(f"{how:7}{shards} sockets, {connections:3} connections:", summary(trials, shards, connections))


def by_shard(metrics, name, label=""):
    counts = collections.Counter()
    for line in samples(metrics, name, label):
        counts[int(re.search(r'shard="(\d+)"', line)[1])] += value(line)
    return [counts[shard] for shard in sorted(counts)]


def open_by_shard():
    return [int(count) for count in by_shard(scrape(), "ringpost_connections_open", 'side="in"')]


def until_idle():
    while sum(open_by_shard()):
        time.sleep(0.01)
    # Who opened many is forgotten.
    time.sleep(2.5)


def server(options):
    for name, extra in cases(options):
        with Server(ROUTE, extra, options.directory):
            for connections in options.connections:
                trials = []
                for _ in range(options.trials):
                    until_idle()
                    # All at once: nobody waits for the greeting of another.
                    clients = []
                    for _ in range(connections):
                        client = socket.socket()
                        client.setblocking(False)
                        client.connect_ex(("127.0.0.1", 3525))
                        clients.append(client)
                    for client in clients:
                        client.setblocking(True)
                        client.recv(100)
                    trials.append(open_by_shard())
                    for client in clients:
                        client.close()
                shards = len(trials[0])
                print(f"{name:7}{shards} shards, {connections:3} connections:", summary(trials, shards, connections), flush=True)


def load(options):
    results = collections.defaultdict(list)
    source = [LOADTEST, "source", "127.0.0.1:3525", "-q", "--json", *shlex.split(options.source), "-t", options.time]
    for name, extra in cases(options):
        with Server(ROUTE, extra, options.directory) as running:
            running.run(*source[:-1], "500ms")
            for _ in range(options.trials):
                until_idle()
                before, used = scrape(), running.cpu_seconds()
                loading = subprocess.Popen(source, stdout=subprocess.PIPE, stderr=running.errors)
                time.sleep(0.3)
                counts = tuple(sorted(open_by_shard(), reverse=True))
                told = json.loads(loading.communicate(timeout=120)[0])
                after = scrape()
                grown = lambda metric, label="": sum(by_shard(after, metric, label)) - sum(by_shard(before, metric, label))
                count = grown("ringpost_messages_total", 'side="in"')
                handed = grown("ringpost_connections_handed_over_total", 'direction="out"')
                cpu = 1e6 * (running.cpu_seconds() - used) / max(count, 1)
                rate = count / told["seconds"]
                key = (name, "/".join(map(str, counts)) if options.by_count else "all")
                results[key].append((rate, cpu, told["latency_p50_ms"], told["latency_p99_ms"], handed))
    for (name, counts), runs in sorted(results.items()):
        columns = zip(*runs)
        cells = [
            f"{column} {statistics.median(values):.4g} [{min(values):.4g}..{max(values):.4g}]"
            for column, values in zip(("messages/s", "CPU us", "p50 ms", "p99 ms", "handed over"), columns)
        ]
        print(f"{name:7}{counts:9}{len(runs):3} runs:", "  ".join(cells))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("kernel", "server", "load"))
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--connections", default="2,4,8,16,64")
    parser.add_argument("--source", default="", help="more for `loadtest source`, in one word: '-s 8 -p deep'")
    parser.add_argument("--time", default="3s", help="of one run of the load")
    parser.add_argument("--together", dest="by_count", action="store_false", help="whatever the connections of each shard were")
    parser.add_argument("--directory", help="where the data directories go: the disk that is meant")
    parser.add_argument("cases", nargs="*", metavar="NAME=TOML")
    options = parser.parse_intermixed_args()
    options.connections = [int(count) for count in options.connections.split(",")]
    {"kernel": kernel, "server": server, "load": load}[options.what](options)


main()
