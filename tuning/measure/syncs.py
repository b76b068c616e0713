#!/usr/bin/env python3
"""How long a write with fdatasync takes, alone and beside other writing, and what it asks of the device.

    syncs.py DIRECTORY [DEVICE]

DEVICE is a name of /sys/block; with it, its flushes and bytes for each sync are told. Nothing else should use it meanwhile.
"""

import os, pathlib, subprocess, sys, time

directory, device = pathlib.Path(sys.argv[1]), (sys.argv[2:] or [None])[0]
BLOCK, BLOCKS = os.urandom(16384), 2048


def requests():
    if not device:
        return 0, 0
    fields = pathlib.Path(f"/sys/block/{device}/stat").read_text().split()
    return int(fields[6]) / 2, int(fields[15])


def measure(name, prepare, seconds=2.0, beside=None):
    path = directory / "syncs.probe"
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_TRUNC)
    prepare(descriptor)
    os.fsync(descriptor)
    other = beside and subprocess.Popen([sys.executable, "-c", beside, directory / "syncs.other"])
    before, began, times = requests(), time.monotonic(), []
    while time.monotonic() < began + seconds and not (other and other.poll() is not None):
        start = time.monotonic()
        os.pwrite(descriptor, BLOCK, len(times) % (BLOCKS if prepare is fill else 1 << 20) * len(BLOCK))
        os.fdatasync(descriptor)
        times.append(time.monotonic() - start)
    after = requests()
    if other:
        other.wait()
        (directory / "syncs.other").unlink()
    os.close(descriptor)
    path.unlink()
    count = len(times)
    at = sorted(times)
    text = f"{name:26} p50 {at[count // 2] * 1e6:.0f}  p99 {at[count * 99 // 100] * 1e6:.0f}  longest {at[-1] * 1e6:.0f} us"
    if device:
        text += f"  KiB {(after[0] - before[0]) / count:.1f}  flushes {(after[1] - before[1]) / count:.2f}"
    print(text, flush=True)


def fill(descriptor):
    for number in range(BLOCKS // 64):
        os.pwrite(descriptor, bytes(64 * len(BLOCK)), number * 64 * len(BLOCK))


def reserve(descriptor):
    os.posix_fallocate(descriptor, 0, 512 << 20)


LOG = "import sys,time;f=open(sys.argv[1],'wb',0)\nfor _ in range(100): f.write(bytes(100000));time.sleep(.02)"
SEGMENT = """import os,sys
f=open(sys.argv[1],'wb',0)
for _ in range(%d): f.write(bytes(1<<20))
os.fsync(f)"""

measure("filled before", fill)
measure("reserved", reserve)
measure("growing", lambda _: None)
measure("beside a log of 5 MB/s", fill, 5, LOG)
measure("beside 64 MiB of zeros", fill, 5, SEGMENT % 64)
measure("beside 256 MiB of zeros", fill, 5, SEGMENT % 256)
