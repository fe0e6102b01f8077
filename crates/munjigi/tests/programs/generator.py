"""Prints numbered lines at a steady rate while it takes what is typed; keeps both, so that a test can compare.

usage: generator.py OUT IN SECONDS RATE_KB: writes what it prints also to OUT and what it reads to IN, prints for at most
SECONDS, and ends when it has read the line "stop".
"""

import os
import select
import sys
import time
import zlib

out_path, in_path, seconds, rate = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]) * 1024
out_copy = open(out_path, "wb", buffering=0)
in_copy = open(in_path, "wb", buffering=0)
if os.isatty(0):
    import tty

    tty.setraw(0)


def put(data):
    """Prints all of it, and keeps exactly what was printed."""
    while data:
        count = os.write(1, data)
        out_copy.write(data[:count])
        data = data[count:]


start = time.monotonic()
sent = number = 0
typed = b""
put(b"begin\n")
while True:
    if typed.endswith(b"stop\n"):
        break
    now = time.monotonic() - start
    # After a pause (nobody took the output) the rate goes on from here, the lost time is not caught up with.
    due = min(now, seconds) * rate
    sent = max(sent, due - rate)
    while sent < due:
        body = b"%010d " % number + b"abcdefghijklmnopqrstuvwxyz" * 3
        line = body + b" %08x\n" % zlib.crc32(body)
        put(line)
        sent += len(line)
        number += 1
    readable, _, _ = select.select([0], [], [], 0.005)
    if readable:
        data = os.read(0, 65536)
        if not data:
            break
        in_copy.write(data)
        typed = (typed + data)[-64:]
put(b"end\n")
