"""The AWS door beside the link and OpenSSH: our program as session-manager-plugin in both of its ways, and a client that
behaves like the unmodified plugin (1024 bytes and a sleep of a millisecond a message, each message acknowledged)."""

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
import tty
from pathlib import Path

from . import processes, sessions
from .compared import in_turn
from .report import Figures, Goal
from .systems import free_port, wait_for

MIB = 1 << 20
PROGRAMS = Path(__file__).resolve().parents[2] / "crates/munjigi/tests/programs"
INTERACTIVE, NON_INTERACTIVE = "AWS-StartInteractiveCommand", "AWS-StartNonInteractiveCommand"
FORWARD = "AWS-StartPortForwardingSession"
LINK, AWS, CONFORMING = "plugin, link", "plugin, AWS's protocol", "conforming client"


def python_with_boto3():
    """Finds a Python with boto3: the one that the tests use, or this one."""
    target = os.environ.get("CARGO_TARGET_DIR", str(PROGRAMS.parents[3] / "target"))
    for python in (os.environ.get("MUNJIGI_TEST_VENV", f"{target}/venv") + "/bin/python", sys.executable):
        with contextlib.suppress(FileNotFoundError):
            if not subprocess.run([python, "-c", "import boto3"], capture_output=True).returncode:
                return python
    return None


def register_key(environment, key):
    """Registers an SSH key for the administrator, as `aws iam upload-ssh-public-key` does."""
    python = python_with_boto3()
    if not python:
        raise RuntimeError("no Python with boto3, which registers the key: see scripts/deps test")
    call = "import boto3, sys; boto3.client('iam').upload_ssh_public_key(UserName='admin', SSHPublicKeyBody=sys.argv[1])"
    done = subprocess.run([python, "-c", call, key], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the key could not be registered: {done.stderr.strip()}")


class Ways:
    """The three clients of one server."""

    def __init__(self, munjigi):
        self.munjigi = munjigi
        self.plugin = munjigi.directory / "session-manager-plugin"
        if not self.plugin.is_symlink():
            self.plugin.symlink_to(munjigi.binary)
        self.python = python_with_boto3()
        self.sessions = 0

    def names(self):
        return [LINK, AWS] + ([CONFORMING] if self.python else [])

    def prepared(self, way, document, parameters):
        """Returns a command line and its environment for a session; a plugin's session is prepared by this call."""
        # The server answers the very same request within a second with the same session: each says another reason.
        self.sessions += 1
        request = {"Target": "near", "DocumentName": document, "Parameters": parameters,
                   "Reason": f"bench {id(self)} {self.sessions}"}
        if way == CONFORMING:
            argv = [self.python, str(PROGRAMS / "aws_client.py"), "--ca", str(self.munjigi.data / "ca.pem"),
                    "--request", json.dumps(request)]
            return argv, self.munjigi.environment
        answer = self.munjigi.call("AmazonSSM.StartSession", request)
        argv = [str(self.plugin), json.dumps(answer), self.munjigi.environment["AWS_REGION"], "StartSession", "",
                json.dumps(request), self.munjigi.endpoint]
        return argv, self.munjigi.environment | {"MUNJIGI_PLUGIN_MODE": "link" if way == LINK else "aws"}


def starting(bench):
    """From the call of StartSession to the end of `true`, cold."""
    ways = Ways(bench.munjigi)

    def run(way):
        begun = time.perf_counter()
        sessions.run_once(*ways.prepared(way, NON_INTERACTIVE, {"command": ["true"]}))
        return (time.perf_counter() - begun) * 1e3

    systems = {way: (lambda way=way: run(way)) for way in (LINK, AWS)}
    systems["ssh"] = lambda: sessions.run_once(bench.ssh.command("ssh", "true"))
    systems["munjigi run"] = lambda: sessions.run_once(bench.munjigi.command("near", "true"), bench.munjigi.environment)
    figures = Figures("StartSession and `true`", "ms")
    for number in range(bench.rounds(8)):
        figures.add({name: systems[name]() for name in in_turn(systems, number)})
    return [figures], [
        Goal("AWS", f"start, {way} / ssh", figures.ratio(way, "ssh"),
             note="with a process that makes the call, as `aws` would but without Python" if way == LINK else "")
        for way in (LINK, AWS)
    ]


def typing(bench):
    """One byte typed and echoed by a program on a raw terminal."""
    samples, ways = 300, Ways(bench.munjigi)
    line = sessions.echo_line(samples)
    figures = Figures("echo p50", "us")

    def run(name):
        if name == "ssh":
            return sessions.echo(bench.ssh.command("ssh", line, terminal=True), None, samples)
        return sessions.echo(*ways.prepared(name, INTERACTIVE, {"command": [line]}), samples, prepare=tty.setraw)

    names = dict.fromkeys(["ssh", *ways.names()])
    for number in range(bench.rounds(4)):
        figures.add({name: sorted(run(name))[samples // 2] for name in in_turn(names, number)})
    return [figures], goals("echo p50", figures, ways, "ssh")


def bulk(bench):
    """Output in bulk, from a far terminal to one here."""
    size, ways = 32 * MIB, Ways(bench.munjigi)
    line = sessions.bulk_line(size)
    figures = Figures("terminal output", "MiB/s")

    def run(name):
        if name == "ssh":
            return sessions.bulk_terminal(bench.ssh.command("ssh", line, terminal=True), None, size)
        return sessions.bulk_terminal(*ways.prepared(name, INTERACTIVE, {"command": [line]}), size)

    names = dict.fromkeys(["ssh", *ways.names()])
    for number in range(bench.rounds(3)):
        figures.add({name: run(name) for name in in_turn(names, number)})
    return [figures], goals("terminal output", figures, ways, "ssh")


def goals(what, figures, ways, peer):
    """Ratios to the peer and to the link, for each way of AWS's protocol."""
    found = [Goal("AWS", f"{what}, {LINK} / {peer}", figures.ratio(LINK, peer))]
    for way in ways.names()[1:]:
        found.append(Goal("AWS", f"{what}, {way} / {peer}", figures.ratio(way, peer)))
        found.append(Goal("AWS", f"{what}, {way} / {LINK}", figures.ratio(way, LINK)))
    return found


class Ends:
    """What a forwarded port leads to: a source that sends and closes, and a sink that takes and then says so."""

    def __init__(self):
        self.piece = os.urandom(MIB // 4)
        self.wanted = 0
        self.source, self.sink = self._serve(self._send), self._serve(self._take)

    def _serve(self, handle):
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=handle, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return listener

    def _send(self, connection):
        with connection, contextlib.suppress(OSError):
            left = self.wanted
            while left:
                left -= connection.send(self.piece[:min(left, len(self.piece))])

    def _take(self, connection):
        # Somebody who only looks whether the port is there sends nothing.
        with connection, contextlib.suppress(OSError, RuntimeError):
            receive(connection, self.wanted)
            connection.sendall(b"!")

    def close(self):
        self.source.close()
        self.sink.close()


def receive(connection, count):
    buffer = bytearray(MIB // 4)
    while count:
        got = connection.recv_into(buffer, min(count, len(buffer)))
        if not got:
            raise RuntimeError(f"the connection ended {count} bytes early")
        count -= got


def transfer(port, streams, size, ends, down):
    """Moves `size` bytes in all over so many connections at a time; returns MiB/s."""
    share, failures = size // streams, []
    ends.wanted = share

    def one():
        try:
            with socket.create_connection(("127.0.0.1", port), 60) as connection:
                connection.settimeout(120)
                if down:
                    receive(connection, share)
                    return
                left = share
                while left:
                    left -= connection.send(ends.piece[:min(left, len(ends.piece))])
                receive(connection, 1)
        except (OSError, RuntimeError) as error:
            failures.append(error)

    threads = [threading.Thread(target=one) for _ in range(streams)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError(f"{len(failures)} of {streams} connections failed: {failures[0]}")
    return share * streams / (time.perf_counter() - begun) / MIB


@contextlib.contextmanager
def forwarded(bench, ways, name, target):
    """Forwards a local port to the target's by `ssh -L` or one of the clients; gives the local one."""
    log = bench.directory / "forward.log"
    if name == "ssh -L":
        port = free_port()
        argv = bench.ssh.client() + ["-N", "-L", f"{port}:127.0.0.1:{target}", "target"]
        process = processes.start(argv, log, stdin=subprocess.DEVNULL)
        wait_for(lambda: listens(port), "ssh -L to listen")
    else:
        argv, environment = ways.prepared(name, FORWARD, {"portNumber": [str(target)], "localPortNumber": ["0"]})
        process = processes.start(argv, log, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        sign = "listening " if name == CONFORMING else "Port "
        port = int(said(process, sign).split()[1])
        # What it says later must not fill the pipe.
        threading.Thread(target=lambda: [None for _ in process.stdout], daemon=True).start()
    try:
        yield port
    finally:
        if name == CONFORMING:
            process.stdin.close()  # its way of ending the session
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
        processes.stop(process)


def said(process, beginning, limit=60):
    """Waits for a line on standard output that begins so, among others that come with it, and returns it."""
    deadline, seen = time.monotonic() + limit, b""
    while select.select([process.stdout], [], [], max(0, deadline - time.monotonic()))[0]:
        more = os.read(process.stdout.fileno(), 4096)
        if not more:
            raise RuntimeError(f"a forward ended before it said `{beginning}`: {seen[-300:]!r}")
        seen += more
        for line in seen.split(b"\n")[:-1]:
            if line.startswith(beginning.encode()):
                return line.decode()
    raise RuntimeError(f"a forward did not say `{beginning}` within {limit} s: {seen[-300:]!r}")


def listens(port):
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def ports(bench):
    """Forwarded ports: down and up, one connection and eight."""
    ways, ends = Ways(bench.munjigi), Ends()
    names = dict.fromkeys(["ssh -L", *ways.names()])
    results, found = [], []
    for down in (True, False):
        for streams in (1, 8):
            what = f"forward, {'down' if down else 'up'}, {streams} {'stream' if streams == 1 else 'streams'}"
            figures = Figures(what, "MiB/s")
            for number in range(bench.rounds(3)):
                values = {}
                for name in in_turn(names, number):
                    target = (ends.source if down else ends.sink).getsockname()[1]
                    # A client that sleeps a millisecond after each KiB needs no more to show it.
                    size = (2 if name == CONFORMING and not down else 64) * MIB
                    with forwarded(bench, ways, name, target) as port:
                        values[name] = transfer(port, streams, size, ends, down)
                figures.add(values)
            results.append(figures)
            found += goals(what, figures, ways, "ssh -L")
            if down and ways.python:
                found.append(Goal("AWS", f"{what}, {CONFORMING}", tuple(figures.spread(CONFORMING)[at] for at in (1, 0, 2)),
                                  "MiB/s", must=(">=", 4.77), note="5 MB/s; AWS's service gives about 0.8"))
    ends.close()
    return results, found
