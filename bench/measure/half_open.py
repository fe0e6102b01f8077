"""Connections that never log in, kept half open from eight addresses; a program of its own, so that what it costs is not
in what is measured beside it.

    half_open.py HOST PORT COUNT SECONDS

COUNT places each have one connection at a time, of five kinds: nothing said; half of a TLS hello; TLS and then silence; an
SSH version line byte by byte, one in 9 s; an HTTP header inside TLS, a byte in 5 s. A connection that the server ends is
made again after a while, so that all places together make some hundred a second. It prints a line of JSON at the end.
"""

import heapq
import itertools
import json
import random
import selectors
import socket
import ssl
import sys
import time

KINDS = ("tcp", "half a hello", "tls", "ssh", "http")
ADDRESSES = [f"127.0.0.{last}" for last in range(2, 10)]
# About as many connections are made in a second by all places together.
RATE = 300
# No two timers are equal.
TICKETS = itertools.count()
SSH_LINE = b"SSH-2.0-" + b"slow" * 50 + b"\r\n"
HTTP_HEAD = b"GET /slow HTTP/1.1\r\nHost: x\r\nX-Slow: " + b"y" * 200


class Place:
    """One connection after another."""

    def __init__(self, number, target, selector, timers, pause):
        self.kind, self.source = KINDS[number % len(KINDS)], ADDRESSES[number % len(ADDRESSES)]
        self.target, self.selector, self.timers, self.pause = target, selector, timers, pause
        self.socket = self.tls = self.since = None

    def later(self, seconds, since):
        """Has the place do something: go on with the connection that began at `since`, or make one."""
        heapq.heappush(self.timers, (time.monotonic() + seconds, next(TICKETS), self, since))

    def open(self):
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.bind((self.source, 0))
        self.socket.connect_ex(self.target)
        self.selector.register(self.socket, selectors.EVENT_WRITE, self)
        self.since, self.said, self.answered = None, 0, False

    def ready(self):
        """Something happened to the socket; returns how long it stood, if it is gone."""
        if self.since is None:
            if self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                return self.close()
            self.since = time.monotonic()
            self.selector.modify(self.socket, selectors.EVENT_READ, self)
            return self.begin()
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return None
        except OSError:
            return self.close()
        if not data:
            return self.close()
        if self.tls:
            self.incoming.write(data)
            return self.shake()
        return None

    def begin(self):
        if self.kind in ("half a hello", "tls", "http"):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self.tls = context.wrap_bio(self.incoming, self.outgoing)
            if self.kind == "half a hello":
                self.shake(send=False)
                hello = self.outgoing.read()
                self.tls = None
                return self.send(hello[: len(hello) // 2])
            return self.shake()
        return self.drip() if self.kind == "ssh" else None

    def shake(self, send=True):
        """Goes on with the handshake; afterwards nothing is read."""
        try:
            self.tls.do_handshake()
            if not self.answered:
                self.answered = True
                if self.kind == "http":
                    self.drip()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            return self.close()
        return self.send(self.outgoing.read()) if send else None

    def drip(self):
        """Says one byte more."""
        if self.kind == "ssh":
            self.said, pause = self.said + 1, 9.0
            gone = self.send(SSH_LINE[self.said - 1 : self.said])
        else:
            self.tls.write(HTTP_HEAD[self.said : self.said + 1])
            self.said, pause = self.said + 1, 5.0
            gone = self.send(self.outgoing.read())
        if gone is None:
            self.later(pause, self.since)
        return gone

    def send(self, data):
        try:
            if data:
                self.socket.send(data)
        except BlockingIOError:
            pass
        except OSError:
            return self.close()
        return None

    def close(self):
        """Ends it here too; returns how long it stood."""
        self.selector.unregister(self.socket)
        self.socket.close()
        stood = time.monotonic() - self.since if self.since else 0.0
        self.socket = self.tls = self.since = None
        self.later(random.uniform(0.5, 1.5) * self.pause, None)
        return stood


def main(host, port, count, seconds):
    selector, timers = selectors.DefaultSelector(), []
    places = [Place(number, (host, port), selector, timers, count / RATE) for number in range(count)]
    begun = time.monotonic()
    for number, place in enumerate(places):
        # All of them once within the first ten seconds.
        place.later(10.0 * number / count, None)
    longest, ended = dict.fromkeys(KINDS, 0.0), 0
    while time.monotonic() < begun + seconds:
        now = time.monotonic()
        while timers and timers[0][0] <= now:
            _, _, place, since = heapq.heappop(timers)
            if since is None:
                place.open()
            elif since == place.since:
                place.drip()
        for key, _ in selector.select(max(0.0, min(0.1, (timers[0][0] if timers else now + 0.1) - now))):
            stood = key.data.ready()
            if stood is not None:
                ended += 1
                longest[key.data.kind] = max(longest[key.data.kind], stood)
    print(json.dumps({"ended": ended, "longest": longest}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
