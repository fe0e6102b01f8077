"""Processes that are started here and ended here, by id, and what the kernel knows about them."""

import atexit
import os
import selectors
import signal
import subprocess
import time
from pathlib import Path

_running = []


def start(argv, log, **options):
    """Starts a process whose messages go to the file `log`."""
    with open(log, "ab") as messages:
        process = subprocess.Popen(argv, stderr=messages, **options)
    _running.append(process)
    return process


def stop(process, patience=10):
    """Ends a process: SIGTERM, and SIGKILL if it does not listen."""
    if process in _running:
        _running.remove(process)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for stream in (process.stdin, process.stdout):
        if stream:
            try:
                stream.close()
            except BrokenPipeError:
                pass


@atexit.register
def stop_all():
    for process in list(reversed(_running)):
        stop(process, 5)


def line_of(process, beginning, limit=60):
    """Waits for a line on standard output that begins so, and returns it."""
    deadline = time.monotonic() + limit
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(max(0, deadline - time.monotonic())):
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"{process.args[:3]} ended while `{beginning}` was awaited; see its log")
            if line.startswith(beginning.encode()):
                return line.decode().strip()
    raise RuntimeError(f"{process.args[:3]} did not say `{beginning}` within {limit} s")


def family(pid, executable):
    """Returns the ids of a process and of those below it that run the same executable (not what they serve)."""
    below, mine = [pid], []
    while below:
        one = below.pop()
        try:
            if os.path.samefile(f"/proc/{one}/exe", executable):
                mine.append(one)
            below += children(one)
        except OSError:
            pass  # it has ended
    return mine


def resident(pids, field="Pss"):
    """Returns resident memory in KiB: `Pss` divides what processes share, `Rss` does not."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(field + ":"):
                total += int(line.split()[1])
    return total


def children(pid):
    """Returns the ids of the processes that a process started and has not yet reaped."""
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    return found


def descendants(pid):
    """Returns a process's id and those of all below it."""
    below, found = [pid], []
    while below:
        one = below.pop()
        found.append(one)
        try:
            below += children(one)
        except OSError:
            pass  # it has ended
    return found


def cpu_of(pids):
    """Returns the CPU time of processes with all their threads, exactly; one that has ended counts nothing."""
    total = 0.0
    for pid in pids:
        try:
            # The number of a process's CPU clock, as clock_getcpuclockid(3) makes it.
            total += time.clock_gettime((~pid << 3) | 2)
        except OSError:
            pass
    return total


def cpu_seconds(pid):
    """Returns the CPU time of a process with all its threads, to 10 ms."""
    # The name in brackets may hold anything; the fields after it are numbered from 3.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
