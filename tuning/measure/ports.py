#!/usr/bin/env python3
"""Connects to one address and closes at once, until there is no port left: what the range of ports and tcp_tw_reuse do.

    unshare -n sh -c 'ip link set lo up; sysctl -qw net.ipv4.ip_local_port_range="20000 29999" net.ipv4.tcp_tw_reuse=0
        tuning/measure/ports.py'
"""

import socket, threading, time

listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(4096)


def accept():
    while True:
        peer, _ = listener.accept()
        peer.recv(1)
        peer.close()


threading.Thread(target=accept, daemon=True).start()
count, began, outcome = 0, time.monotonic(), "no failure"
try:
    while time.monotonic() < began + 8:
        client = socket.socket()
        client.connect(listener.getsockname())
        client.close()
        count += 1
except OSError as error:
    outcome = str(error)
print(f"{count} connections in {time.monotonic() - began:.1f} s: {outcome}")
