#!/usr/bin/env python3
"""Connections at once to a listener that accepts none for 100 ms: what somaxconn and the backlog do.

    unshare -n sh -c 'ip link set lo up; sysctl -qw net.core.somaxconn=128; tuning/measure/connects.py 4096 2000'

BACKLOG and the number of connections; in a network namespace of its own, so that nothing else is changed.
"""

import pathlib, select, socket, sys, threading, time

backlog, count = int(sys.argv[1]), int(sys.argv[2])
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(backlog)


def accept():
    time.sleep(0.1)
    kept = [listener.accept() for _ in range(count)]
    time.sleep(10 + len(kept))


threading.Thread(target=accept, daemon=True).start()
poll, sockets, times = select.epoll(), {}, []
began = time.monotonic()
for _ in range(count):
    client = socket.socket()
    client.setblocking(False)
    client.connect_ex(listener.getsockname())
    poll.register(client, select.EPOLLOUT)
    sockets[client.fileno()] = client
while len(times) < count and time.monotonic() < began + 9:
    for descriptor, events in poll.poll(0.5):
        poll.unregister(descriptor)
        if not events & (select.EPOLLERR | select.EPOLLHUP):
            times.append(time.monotonic() - began)
somaxconn = pathlib.Path("/proc/sys/net/core/somaxconn").read_text().strip()
late = sum(taken > 0.9 for taken in times)
print(f"backlog {backlog}, somaxconn {somaxconn}: of {count} connections {late} took a second or more,", end=" ")
print(f"the slowest {max(times):.2f} s, {count - len(times)} were not made")
