#!/usr/bin/env python3
"""Memory of a queue: messages of 1 KiB are held, and the resident memory is looked at before and after a checkpoint.

    held.py [--messages 100000] NAME=TOML|NAME=@FILE...

TOML is laid over a small configuration with one core as in compare.py. A reload saves a checkpoint, so that nobody has to
wait for `index.checkpoint-interval`; with a short one, checkpoints come while mail does. Prints MiB: idle, with the mail,
and the most and the least after the checkpoint. All is on this machine, on ports 3525 and 3080, in a directory of its
own, which is removed.
"""

import argparse, time

from trial import LOADTEST, RINGPOST, Server, cases

ROUTE = 'via = "hold"\n[cores]\ncount = 1\n'


def settle(server):
    """Until it has done next to nothing for a second."""
    for _ in range(60):
        before = server.cpu_seconds()
        time.sleep(1)
        if server.cpu_seconds() - before < 0.05:
            return


def run(messages, extra, directory):
    with Server(ROUTE, extra, directory) as server:
        idle = server.memory("VmRSS")
        server.run(LOADTEST, "source", "127.0.0.1:3525", "-q", "-l", "1k", "-n", str(messages), "-s", "50", timeout=50)
        with_mail = server.memory("VmRSS")
        server.run(RINGPOST, "reload", "--config", server.config, timeout=10)
        settle(server)
        index = sum(file.stat().st_size for file in (server.folder / "data/index").rglob("*") if file.is_file())
        return idle, with_mail, server.memory("VmHWM"), server.memory("VmRSS"), index / 2**20


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--directory", help="where the data directories go")
    parser.add_argument("cases", nargs="+", metavar="NAME=TOML|NAME=@FILE")
    options = parser.parse_args()
    for name, extra in cases(options):
        idle, mail, most, least, index = run(options.messages, extra, options.directory)
        print(
            f"{name:16} idle {idle:.0f}  {options.messages} messages {mail:.0f}  "
            f"checkpoint {most:.0f}, after it {least:.0f} MiB; index {index:.0f} MiB on the disk",
            flush=True,
        )


main()
