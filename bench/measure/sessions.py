"""Measuring one session, or many at once, through any system's command line."""

import os
import pty
import select
import selectors
import statistics
import subprocess
import time

LINE = "x" * 78


def run_once(argv, environment=None):
    """Runs a command line to its end and returns the milliseconds; another status than 0 is an error."""
    begun = time.perf_counter()
    done = subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    elapsed = time.perf_counter() - begun
    if done.returncode:
        raise RuntimeError(f"{argv[:2]} ended with {done.returncode}: {done.stderr.decode().strip()}")
    return elapsed * 1e3


class Terminal:
    """A client on a terminal of its own, whose other end is ours."""

    def __init__(self, argv, environment=None, prepare=None):
        self.end, client_end = pty.openpty()
        if prepare:
            prepare(client_end)
        self.process = subprocess.Popen(
            argv, env=environment, stdin=client_end, stdout=client_end, stderr=client_end, start_new_session=True
        )
        os.close(client_end)
        self._poll = select.poll()
        self._poll.register(self.end, select.POLLIN)

    def read(self, limit=30):
        """Reads what is there, waiting for the first byte; b"" at the end."""
        if not self._poll.poll(limit * 1000):
            raise RuntimeError("the terminal stayed silent")
        try:
            return os.read(self.end, 1 << 16)
        except OSError:
            return b""

    def read_until(self, marker):
        seen = b""
        while marker not in seen:
            more = self.read()
            if not more:
                raise RuntimeError(f"ended before {marker}: {seen[-300:]!r}")
            seen += more
        return seen

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # Closing the terminal is what a person's window does; the client must end by itself.
        os.close(self.end)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def echo(argv, environment, samples, prepare=None, limit=120):
    """Types one byte at a time into a raw far terminal that runs `echo_line`; returns each way there and back in µs.
    `prepare` is called with the near terminal before a client that does not see to it has it. An error after `limit`
    seconds."""
    times, deadline = [], time.monotonic() + limit
    with Terminal(argv, environment, prepare) as terminal:
        terminal.read_until(b"READY")
        time.sleep(0.3)
        while terminal._poll.poll(100):
            terminal.read()
        for _ in range(samples):
            begun = time.perf_counter_ns()
            os.write(terminal.end, b"x")
            got = terminal.read()
            times.append((time.perf_counter_ns() - begun) / 1e3)
            if got != b"x":
                raise RuntimeError(f"typed x, got {got!r}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{samples} keys took more than {limit} s")
        # The last byte of the far program's count: it ends.
        os.write(terminal.end, b"q")
        terminal.read()
    return times


def echo_line(samples):
    """The far program: gives back exactly as many bytes as will be typed, then ends, so that nothing stays behind."""
    return f"stty raw -echo; printf READY; exec dd bs=1 count={samples + 1} status=none"


def bulk_line(size):
    return f"printf READY; yes {LINE} | head -c {size}; printf DONE"


def bulk_terminal(argv, environment, size):
    """Returns MiB/s of a command's output from a far terminal to one here."""
    with Terminal(argv, environment) as terminal:
        tail = terminal.read_until(b"READY")
        begun = time.perf_counter()
        while b"DONE" not in tail:
            more = terminal.read()
            if not more:
                raise RuntimeError(f"the output ended early: {tail[-100:]!r}")
            tail = tail[-8:] + more
        return size / (time.perf_counter() - begun) / 2**20


def bulk_pipe(argv, environment, size):
    """The same from a pipe to a pipe."""
    process = subprocess.Popen(
        argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    begun, count = None, 0
    while more := os.read(process.stdout.fileno(), 1 << 18):
        begun = begun or time.perf_counter()
        count += len(more)
    elapsed = time.perf_counter() - begun
    process.stdout.close()
    if process.wait() or count != size + len("READYDONE"):
        raise RuntimeError(f"{argv[:2]}: {count} bytes came, {size} were sent")
    return size / elapsed / 2**20


def many(argv, environment, count, limit=180):
    """Starts `count` interactive sessions together. Returns sessions/s until all are ready, the median time to ready in
    seconds, and how many failed."""
    begun = time.perf_counter()
    clients, ready = [], {}
    with selectors.DefaultSelector() as selector:
        for _ in range(count):
            client = subprocess.Popen(
                argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            clients.append(client)
            selector.register(client.stdout, selectors.EVENT_READ, client)
        while selector.get_map() and time.perf_counter() - begun < limit:
            for key, _ in selector.select(1):
                # The marker is five bytes in one write; its first bytes are enough.
                if os.read(key.fd, 4096):
                    ready[key.data] = time.perf_counter() - begun
                selector.unregister(key.fileobj)
    for client in clients:
        try:
            client.stdin.write(b"\n")
            client.stdin.close()
        except BrokenPipeError:
            pass
    for client in clients:
        try:
            client.wait(30)
        except subprocess.TimeoutExpired:
            client.kill()
            client.wait()
        client.stdout.close()
    if not ready:
        raise RuntimeError(f"{argv[:2]}: none of {count} sessions started")
    return len(ready) / max(ready.values()), statistics.median(ready.values()), count - len(ready)


MANY_LINE = "echo READY; read line"
