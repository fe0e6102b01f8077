#!/usr/bin/env python3
"""A line between two network namespaces on which every packet takes its time, since not every kernel can delay by itself.

`delay.py PID INTERFACE PID INTERFACE` makes a TUN device in the namespace of each process and carries packets between
them. Each line on standard input, `SECONDS [BYTES_PER_SECOND]`, sets how long a packet takes one way and how much the
line carries (0: as much as comes); the end of standard input ends it. Segments come and go unsplit (TSO), so a line costs
little of the machine that is measured. It neither loses nor reorders, except that a line with a limit has a bounded queue.
"""

import collections
import ctypes
import fcntl
import os
import select
import struct
import sys
import time

CLONE_NEWNET = 0x40000000
TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
# Checksums may be left out, and segments of TCP over IPv4 and IPv6 need not be cut.
OFFLOADS = 0x01 | 0x02 | 0x04
# A packet as TSO leaves it, and the header before it.
LARGEST = 65536 + 64
# What may wait on a line without a limit; a tuned TCP keeps less on its way.
MOST_WAITING = 512 << 20
# What a limited line lets wait: this long.
QUEUE_SECONDS = 0.1


def device(pid, name):
    """Makes a TUN device in a process's network namespace and returns its descriptor."""
    libc = ctypes.CDLL(None, use_errno=True)
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    if libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
    os.close(namespace)
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI | IFF_VNET_HDR))
    fcntl.ioctl(tun, TUNSETOFFLOAD, OFFLOADS)
    return tun


class Direction:
    """What is on its way in one direction."""

    def __init__(self, source, sink):
        self.source, self.sink, self.line = source, sink, collections.deque()
        self.waiting, self.free_at = 0, 0.0

    def take(self, delay, rate):
        """Takes what has come."""
        for _ in range(64):
            try:
                packet = os.read(self.source, LARGEST)
            except BlockingIOError:
                return
            except OSError:
                return  # the device is not up yet
            now = time.monotonic()
            sent = now
            if rate:
                sent = max(now, self.free_at) + len(packet) / rate
                if sent - now > QUEUE_SECONDS:
                    continue
                self.free_at = sent
            if self.waiting + len(packet) <= MOST_WAITING:
                self.waiting += len(packet)
                self.line.append((sent + delay, packet))

    def give(self, now):
        """Hands over what has arrived; returns when the next one will."""
        while self.line and self.line[0][0] <= now:
            packet = self.line.popleft()[1]
            self.waiting -= len(packet)
            try:
                os.write(self.sink, packet)
            except OSError:
                pass  # a full or missing device loses packets, as a wire does
        return self.line[0][0] if self.line else None


def main():
    first, second = device(sys.argv[1], sys.argv[2]), device(sys.argv[3], sys.argv[4])
    ways = {first: Direction(first, second), second: Direction(second, first)}
    delay, rate, commands = 0.0, 0.0, b""
    print("ready", flush=True)
    while True:
        now = time.monotonic()
        due = [at for at in (way.give(now) for way in ways.values()) if at is not None]
        wait = max(0.0, min(due) - time.monotonic()) if due else None
        for source in select.select([*ways, 0], [], [], wait)[0]:
            if source:
                ways[source].take(delay, rate)
                continue
            more = os.read(0, 4096)
            if not more:
                return
            *whole, commands = (commands + more).split(b"\n")
            for line in whole:
                delay, rate = (*map(float, line.split()), 0.0)[:2]


main()
