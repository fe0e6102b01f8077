"""Transactions of pgbench: directly, over a plain forward, and with eyes, where the gateway reads and records each statement."""

import contextlib
import os
import pwd
import re
import subprocess
import tempfile
import time
from pathlib import Path

from . import processes
from .report import Figures, Goal
from .systems import free_port

PASSWORD = "bench-password"
DIRECT, PLAIN, EYES = "direct", "munjigi, plain", "munjigi, with eyes"
MODES = ["simple", "prepared"]
CLIENTS = 4


def program(name):
    """Returns where a program of PostgreSQL's is; its servers are in no PATH on Debian."""
    places = [Path("/usr/bin"), *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    for place in places:
        if (place / name).exists():
            return str(place / name)
    raise RuntimeError(f"there is no {name}: `scripts/deps test` installs it")


class Postgres:
    """A server with data of its own. It refuses root, so it is somebody else then."""

    def __init__(self, bench):
        self.user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self.directory = Path(tempfile.mkdtemp(prefix="munjigi-bench-pg-"))
        if self.user:
            os.chown(self.directory, self.user.pw_uid, self.user.pw_gid)
        self.port, data = free_port(), self.directory / "data"
        log = bench.directory / "postgres.log"
        self.run([program("initdb"), "-D", data, "-U", "admin", "-N", "--auth-local=trust", "--auth-host=scram-sha-256"])
        settings = ["fsync=off", "max_connections=100", "listen_addresses=127.0.0.1"]
        options = [word for setting in settings for word in ("-c", setting)]
        argv = [program("postgres"), "-D", data, "-k", self.directory, "-p", str(self.port), *options]
        self.process = processes.start(argv, log, stdin=subprocess.DEVNULL, **self.as_user())
        deadline = time.monotonic() + 60
        while self.run([program("pg_isready"), "-q", "-h", self.directory, "-p", str(self.port)], check=False).returncode:
            if time.monotonic() > deadline:
                raise RuntimeError("PostgreSQL does not start; see its log")
            time.sleep(0.1)
        for statement in (f"create role app login password '{PASSWORD}'", "create database bench owner app"):
            self.run([program("psql"), "-h", self.directory, "-p", str(self.port), "-U", "admin", "-d", "postgres",
                      "-qc", statement])

    def as_user(self):
        return {"user": self.user.pw_uid, "group": self.user.pw_gid, "cwd": self.directory} if self.user else {}

    def run(self, argv, check=True):
        return subprocess.run(argv, check=check, stdin=subprocess.DEVNULL, capture_output=True, **self.as_user())

    def close(self):
        processes.stop(self.process)
        # Its files belong to that user; whoever made the directory may remove it.
        subprocess.run(["rm", "-rf", self.directory], check=False)


def forward(bench, name):
    """Keeps a forward to a target open and returns its process and port."""
    munjigi = bench.munjigi
    process = processes.start([munjigi.binary, "db", name, "--print", "--port", "0"], bench.directory / "db.log",
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=munjigi.environment)
    line = processes.line_of(process, "")  # the command line of psql, with its variables
    return process, int(re.search(r"PGPORT='?(\d+)", line)[1])


def pgbench(port, *arguments):
    environment = {"PATH": os.environ["PATH"], "PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "app",
                   "PGPASSWORD": PASSWORD, "PGSSLMODE": "disable"}
    done = subprocess.run([program("pgbench"), *arguments, "bench"], env=environment, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=180)
    if done.returncode:
        raise RuntimeError(f"pgbench ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


def transactions(bench):
    """Measures reading transactions a second: one statement each, so that the way counts most."""
    seconds = 2 if bench.options.quick else 8
    with contextlib.ExitStack() as stack:
        postgres = Postgres(bench)
        stack.callback(postgres.close)
        common = {"Address": f"localhost:{postgres.port}", "Kind": "postgres", "Through": ["near"], "Database": "bench"}
        eyes = {"Inspect": True, "Credential": {"UserName": "app", "Password": PASSWORD}}
        ports = {DIRECT: postgres.port}
        for system, name, more in ((PLAIN, "bench-plain", {}), (EYES, "bench-eyes", eyes)):
            bench.munjigi.call("Munjigi.PutTarget", {"Name": name, **common, **more})
            process, ports[system] = forward(bench, name)
            stack.callback(processes.stop, process)
        pgbench(postgres.port, "-i", "-q", "-s", "2")
        figures, goals = [], []
        for mode in MODES:
            figure = Figures(f"pgbench -S -M {mode}, {CLIENTS} clients", "transactions/s")
            for _ in range(bench.rounds(3)):
                values = {}
                for system, port in ports.items():
                    said = pgbench(port, "-S", "-n", "-M", mode, "-c", str(CLIENTS), "-j", "2", "-T", str(seconds))
                    values[system] = float(re.search(r"^tps = ([\d.]+)", said, re.MULTILINE)[1])
                figure.add(values)
            figures.append(figure)
            # No goal is set for it: the ratios say what reading and recording each statement costs.
            goals.append(Goal("-", f"pgbench ({mode}) with eyes, of a plain forward", figure.ratio(EYES, PLAIN), "×"))
            goals.append(Goal("-", f"pgbench ({mode}) over a plain forward, of none", figure.ratio(PLAIN, DIRECT), "×"))
        return figures, goals
