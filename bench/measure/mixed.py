"""Starts of every kind at a fixed rate (R-41 of the reliability figures)."""

import getpass
import json
import subprocess

from . import aws_door, processes
from .report import Figures, Goal
from .ssh_door import gate
from .systems import SHELL

# Starts in a second, and how many of them are logins at the SSH door; of the others the probe makes shells, commands and
# forwards, four to three to two.
RATE, LOGINS = 100, 10
# Real agents: shells and commands are programs, and what they cost this machine is inside.
NODES = ["near", "near-2", "near-3", "near-4"]
# Seconds after which each is ended.
HOLD = 2


def starts(bench):
    """Sessions begun at their moments, whatever became of those before: shells, commands, forwards, logins at the SSH door."""
    seconds = bench.options.seconds or (10 if bench.options.quick else 60)
    server = gate(bench, "mix-gate")
    try:
        for name in NODES[1:]:
            server.join(name)
        key = subprocess.run([bench.ssh_logins, "key"], check=True, capture_output=True, text=True).stdout
        aws_door.register_key(server.environment, key)
        # The first of each kind is not measured.
        run(bench, server, rate=10, seconds=2)
        times, failures = run(bench, server, RATE, seconds)
    finally:
        server.stop()
    figures = Figures(f"{RATE} starts a second for {seconds} s, each ended after {HOLD} s", "ms")
    whole = sorted(time for of_kind in times.values() for time in of_kind)
    for kind, of_kind in [*times.items(), ("all", whole)]:
        of_kind = sorted(of_kind)
        figures.add({f"{kind}, p50": share(of_kind, 0.5), f"{kind}, p99": share(of_kind, 0.99), f"{kind}, max": of_kind[-1]})
    wanted = RATE * seconds
    note = f"{len(whole)} of {wanted}" + (f"; {failures[0]}" if failures else "")
    return [figures], [
        Goal("R-41", "starts that failed", float(wanted - len(whole)), must=("<=", 0), note=note),
        Goal("R-41", "start, p50", share(whole, 0.5), "ms", must=("<=", 100)),
        Goal("R-41", "start, p99", share(whole, 0.99), "ms", must=("<=", 500)),
        Goal("R-41", "start, slowest", whole[-1] / 1e3, "s", must=("<=", 2)),
    ]


def run(bench, server, rate, seconds):
    """Returns the milliseconds of each kind, and what failed."""
    logins = max(1, rate * LOGINS // RATE)
    by_ssh = subprocess.Popen(
        [bench.ssh_logins, "run", f"{server.address}:{server.port}", f"{getpass.getuser()}%near",
         str(logins), str(seconds), str(HOLD)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
    )
    try:
        mixed = server.run_probe("mix", f"target={','.join(NODES)}", f"shell={SHELL}", f"rate={rate - logins}",
                                 f"seconds={seconds}", f"hold={HOLD}")
        of_ssh = json.loads(by_ssh.stdout.read())
    finally:
        processes.stop(by_ssh)
        by_ssh.stdout.close()
    return mixed["times_ms"] | {"ssh": of_ssh["times_ms"]}, mixed["failures"] + of_ssh["failures"]


def share(times, part):
    return times[round((len(times) - 1) * part)]
