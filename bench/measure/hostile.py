"""The server and its SSH door while others mean no good (R-50 and R-52 of the reliability figures): what they may hold, what that costs,
and whether somebody who works notices."""

import collections
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from . import half_open, processes, sessions
from .report import Figures, Goal
from .ssh_door import DOOR, Door, gate

# Its own program: what it costs is not in what is measured beside it.
HALF_OPEN = Path(half_open.__file__)
# From where somebody comes who has nothing to do with it.
NINTH = "127.0.0.10"
# Connections of an attack by mutated packets, at a time.
AT_ONCE = 50
SHARES = {"p50": 0.5, "p99": 0.99}


def under_attack(bench):
    """Both attacks, one after the other, on a server with the limits that it has unless told otherwise."""
    server = gate(bench, "hostile-gate", strangers=False)
    server.join("far")
    door = Door(server, bench.directory / "hostile-door")
    figures, goals = [], []
    try:
        sessions.run_once(door.command(DOOR, "true"), door.environment)
        base = echo(door, 500)
        log_in(door)
        quiet = [log_in(door) for _ in range(5)]
        for part in (strangers, packets, frames, messages):
            begun = time.monotonic()
            more_figures, more_goals = part(bench, door, base, quiet)
            figures += more_figures
            goals += more_goals
            print(f"bench: hostile, {part.__name__} took {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    finally:
        door.stop()
        server.stop()
    return figures, goals


def echo(door, samples):
    """Returns ways of a key there and back, µs, in order."""
    line = sessions.echo_line(samples)
    return sorted(sessions.echo(door.command(DOOR, line, terminal=True), door.environment, samples))


def share(times, name):
    return times[round((len(times) - 1) * SHARES[name])]


def log_in(door):
    """Returns the milliseconds of a login and a command, from an address of its own."""
    command = door.command(DOOR, "true")
    return sessions.run_once([command[0], "-o", f"BindAddress={NINTH}", *command[1:]], door.environment)


class Watch:
    """The server's resident memory and the connections that it holds, looked at twice a second in a thread of its own."""

    def __init__(self, server):
        self.server, self.over = server, threading.Event()
        self.base = self.most = self.now()
        self.held = self.held_of_one = 0
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def now(self):
        return processes.resident([self.server.server.pid], "Rss")

    def watch(self):
        before = set()
        while not self.over.wait(0.5):
            self.most = max(self.most, self.now())
            now = set(self.taken())
            # Those that are about to be turned away are not there the next time.
            of = collections.Counter(address for address, _ in now & before if address in half_open.ADDRESSES)
            before = now
            self.held, self.held_of_one = max(self.held, of.total()), max([self.held_of_one, *of.values()])

    def taken(self):
        """Returns from which addresses and ports the server has connections: those that the kernel keeps for it until it takes them have no
        inode yet."""
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, remote, state, *_, inode = line.split()[:10]
            if int(local.split(":")[1], 16) == self.server.port and state in ("01", "08") and inode != "0":
                address, port = remote.split(":")
                yield socket.inet_ntoa(bytes.fromhex(address)[::-1]), port

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    @property
    def growth(self):
        """KiB."""
        return self.most - self.base


def strangers(bench, door, base, quiet):
    """Connections of five kinds from eight addresses that never log in."""
    quick = bench.options.quick
    count, seconds = (1200, 40) if quick else (12000, 600)
    server = door.munjigi
    with Watch(server) as watch:
        attack = processes.start(
            [sys.executable, HALF_OPEN, server.address, str(server.port), str(count), str(seconds)],
            bench.directory / "half-open.log", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        )
        # All places have been filled once.
        time.sleep(12)
        logins, keys, returns = [], [], []
        until = time.monotonic() + seconds - 25
        while not logins or time.monotonic() < until:
            logins.append(log_in(door))
            keys += echo(door, 200)
            returns.append(server.restart_agent("far"))
        if attack.wait(seconds + 60):
            raise RuntimeError("the attack ended early; see half-open.log")
        outcome = json.loads(attack.stdout.read())
    keys.sort()
    figures = Figures(f"{count} places of half-open connections from 8 addresses, {seconds} s", "")
    figures.add({
        "held at once": watch.held, "held of one address": watch.held_of_one, "ended by the server": outcome["ended"],
        "growth, MiB": watch.growth / 1024,
        "login of a ninth, ms, quiet": max(quiet), "login of a ninth, ms": max(logins), "logins": len(logins),
        "agent back in, ms": max(returns) * 1e3,
        "echo p50, us, quiet": share(base, "p50"), "echo p50, us": share(keys, "p50"),
        "echo p99, us, quiet": share(base, "p99"), "echo p99, us": share(keys, "p99"),
        **{f"longest {kind}, s": longest for kind, longest in outcome["longest"].items()},
    })
    name = f"{count} half open"
    return [figures], [
        Goal("R-50", f"{name}, held of one address", watch.held_of_one, must=("<=", 64)),
        Goal("R-50", f"{name}, held at once", watch.held, must=("<=", 1024)),
        Goal("R-50", f"{name}, longest of any", max(outcome["longest"].values()), "s", must=("<=", 15)),
        Goal("R-50", f"{name}, memory of each", watch.growth / max(1, watch.held), "KiB", must=("<=", 64)),
        Goal("R-50", f"{name}, memory in all", watch.growth / 1024, "MiB", must=("<=", 128)),
        Goal("R-50", f"{name}, slowest login of a ninth address", max(logins) / 1e3, "s", must=("<=", 2)),
        Goal("R-50", f"{name}, slowest return of an agent", max(returns), "s", must=("<=", 5)),
        Goal("R-50", f"{name}, echo p99 / quiet", share(keys, "p99") / share(base, "p99"), must=("<=", 2)),
    ]


def packets(bench, door, base, _quiet):
    """Mutated packets at the SSH door, over 50 connections at a time: in the clear, before a login, and after one."""
    server = door.munjigi
    key = subprocess.run([bench.hostile_peer, "key"], check=True, capture_output=True, text=True).stdout
    door.register(key)
    words = ["packets", f"{server.address}:{server.port}", f"{door.user}%near", size(bench), str(AT_ONCE)]
    return mutated(bench, door, base, "packets at the SSH door", words)


def frames(bench, door, base, _quiet):
    """Mutated frames at the link: requests of nobody, and WebSocket, multiplexer and streams of agents and clients."""
    agents = [str(door.munjigi.enrol(f"hostile-{number}")) for number in range(AT_ONCE)]
    return mutated(bench, door, base, "frames at the link", ["frames", str(door.munjigi.data), size(bench), *agents])


def messages(bench, door, base, _quiet):
    """Mutated messages on data channels of AWS's protocol: of nobody, and of who started the session."""
    words = ["messages", str(door.munjigi.data), "near", size(bench), str(AT_ONCE)]
    return mutated(bench, door, base, "messages on data channels", words)


def size(bench):
    return str(50_000 if bench.options.quick else 1_000_000)


def mutated(bench, door, base, what, words):
    """Runs an attack, and works beside it; `words` say which."""
    server = door.munjigi
    log = server.directory / "server.log"
    before = len(log.read_bytes().splitlines())
    with Watch(server) as watch:
        attack = subprocess.Popen([bench.hostile_peer, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        try:
            keys, logins = [], []
            while attack.poll() is None or not keys:
                keys += echo(door, 100)
                logins.append(log_in(door))
            if attack.returncode:
                raise RuntimeError(f"the attack by {what} ended with {attack.returncode}")
            outcome = json.loads(attack.stdout.read())
        finally:
            attack.kill()
            attack.wait()
            attack.stdout.close()
    if server.server.poll() is not None:
        raise RuntimeError(f"the server ended by {what}; see its log")
    keys.sort()
    lines = (len(log.read_bytes().splitlines()) - before) / outcome["seconds"]
    panics = log.read_text(errors="replace").count("panicked")
    name = f"{outcome['packets']} mutated {what}"
    figures = Figures(f"{name}, {AT_ONCE} connections at a time", "")
    figures.add({
        "connections": outcome["connections"], "logins": outcome["logins"],
        "turned away": outcome["turned_away"], "a second": outcome["packets"] / outcome["seconds"],
        "longest after the last, ms": outcome["longest_ms"], "growth, MiB": watch.growth / 1024, "log lines/s": lines,
        "login of a ninth, ms": max(logins), "echo p99, us, quiet": share(base, "p99"), "echo p99, us": share(keys, "p99"),
    })
    return [figures], [
        Goal("R-52", f"{name}, panics", float(panics), must=("<=", 0)),
        Goal("R-52", f"{name}, bad connections end within", outcome["longest_ms"] / 1e3, "s", must=("<=", 1)),
        Goal("R-52", f"{name}, memory", watch.growth / 1024, "MiB", must=("<=", 64)),
        Goal("R-52", f"{name}, lines of the log", lines, "/s", must=("<=", 10)),
        Goal("R-52", f"{name}, slowest login of a ninth address", max(logins) / 1e3, "s"),
        Goal("R-52", f"{name}, echo p99 / quiet", share(keys, "p99") / share(base, "p99")),
    ]
