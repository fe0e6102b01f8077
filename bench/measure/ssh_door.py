"""The SSH door beside OpenSSH, straight and through a bastion: what people's own `ssh`, `scp`, `sftp` and `rsync` notice of
it. Recording is on, as always."""

import contextlib
import getpass
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from . import aws_door, copies, forwards, processes, sessions
from .forward import Measured, streams
from .report import Figures, Goal
from .systems import Munjigi, free_port, wait_for

# One connection to the server that names the node in the login; two, one inside the other, as `ssh -J` makes them; one
# over our client's link, as `munjigi ssh-config` prints it.
DOOR, DOOR_J, DOOR_LINK, DOOR_MUX = "door", "door-J", "door-link", "door-mux"
HOSTS = {DOOR: "near", DOOR_J: "near-inside", DOOR_LINK: "near.munjigi", DOOR_MUX: "near"}


def gate(bench, name, strangers=True):
    """Starts a server and a node whose OS user has an empty home: bash reads a person's `.bashrc` for a command that came by
    ssh, and sshd here is told otherwise (`SHLVL`)."""
    inside = {}
    if os.geteuid() == 0:
        line = 'mount -t tmpfs none "$HOME" && exec "$@"'
        inside["agent"] = ("unshare", "--mount", "sh", "-c", line, "sh")
    one = Munjigi(bench.binary, bench.probe, bench.directory / name, inside=inside, strangers=strangers)
    one.join("near")
    return one


class Door:
    """A server's SSH door and what OpenSSH's client needs for it: a key, what vouches for the server, a configuration."""

    def __init__(self, munjigi, directory):
        self.munjigi, self.directory = munjigi, directory
        directory.mkdir()
        self.user = getpass.getuser()
        self.identify()
        self.printed = self.run("ssh-config")
        (directory / "config").write_text(f"""
            Host near
                HostName {munjigi.address}
                Port {munjigi.port}
                User {self.user}%near
            Host gate
                HostName {munjigi.address}
                Port {munjigi.port}
            Host near-inside
                HostName near
                ProxyJump gate
                User {self.user}
            Host near near-inside gate
                IdentityFile {directory}/key
                IdentitiesOnly yes
                StrictHostKeyChecking no
                UserKnownHostsFile /dev/null
                GlobalKnownHostsFile /dev/null
                LogLevel ERROR
        """ + self.printed)
        self.master = None

    def identify(self):
        """Makes a key and registers it, as `aws iam upload-ssh-public-key` does."""
        key = self.directory / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        self.register(key.with_suffix(".pub").read_text())

    def register(self, key):
        """Lets the administrator log in with a public key."""
        aws_door.register_key(self.munjigi.environment, key)

    def run(self, *words):
        done = subprocess.run([self.munjigi.binary, *words], env=self.munjigi.environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"munjigi {words[0]}: {done.stderr.strip()}")
        return done.stdout

    def options(self, name):
        """Returns the options of OpenSSH's programs for one of the ways."""
        options = ["-F", str(self.directory / "config")]
        return options + (["-o", f"ControlPath={self.directory}/mux"] if name == DOOR_MUX else [])

    def command(self, name, line, terminal=False):
        return ["ssh", *self.options(name), "-tt" if terminal else "-T", HOSTS[name], line]

    @property
    def environment(self):
        # `munjigi` is found by the name under which it was asked for the configuration.
        path = f"{Path(self.munjigi.binary).parent}:{self.munjigi.environment.get('PATH', '')}"
        return self.munjigi.environment | {"PATH": path}

    def start_master(self):
        """Has one connection stand that others share."""
        self.master = processes.start(
            ["ssh", *self.options(DOOR_MUX), "-M", "-N", HOSTS[DOOR_MUX]], self.directory / "mux.log",
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=self.environment,
        )
        wait_for((self.directory / "mux").exists, "the ControlMaster to the door")

    def stop(self):
        if self.master:
            processes.stop(self.master)


def measured(bench, wanted=None):
    """This section: all of it, or some of its [`PARTS`]. All but one share a door."""
    chosen = [name for name in PARTS if wanted is None or name in wanted]
    figures, goals = [], []
    server = door = None
    try:
        for name in chosen:
            begun = time.monotonic()
            if name == IDLE:
                more_figures, more_goals = idle(bench)
            else:
                if not door:
                    server = gate(bench, "ssh-gate")
                    door = Door(server, bench.directory / "ssh-door")
                    door.start_master()
                more_figures, more_goals = PARTS[name](bench, door)
            figures += more_figures
            goals += more_goals
            print(f"bench: ssh/{name} took {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    finally:
        if door:
            door.stop()
        if server:
            server.stop()
    return figures, goals


def ways(bench, door, line, ssh_names, door_names, terminal=False):
    """Returns a command line and its environment for every way."""
    both = {name: (bench.ssh.command(name, line, terminal), None) for name in ssh_names}
    return both | {name: (door.command(name, line, terminal), door.environment) for name in door_names}


def connecting(bench, door):
    """`ssh HOST true`, cold and over a connection that stands."""
    figures, watch = Figures("ssh host true", "ms"), Measured()
    runs = ways(bench, door, "true", ("ssh", "ssh-x25519", "ssh-J", "ssh-mux"), (DOOR, DOOR_J, DOOR_LINK, DOOR_MUX))
    runs["munjigi run"] = (door.munjigi.command("near", "true"), door.munjigi.environment)
    for name in runs:
        watch.round([name], 0, lambda name: sessions.run_once(*runs[name]))  # page cache, first-use tables
    for number in range(bench.rounds(10)):
        figures.add(watch.round(runs, number, lambda name: statistics.median(
            sessions.run_once(*runs[name]) for _ in range(3))))
    return [figures], [
        Goal("ssh", "connect and run, cold / ssh-J", figures.ratio(DOOR, "ssh-J"), must=("<=", 1.1), note=watch.note()),
        Goal("ssh", "connect and run, cold, ssh -J / ssh-J", figures.ratio(DOOR_J, "ssh-J")),
        Goal("ssh", "connect and run, cold, over our link / ssh-J", figures.ratio(DOOR_LINK, "ssh-J")),
        Goal("ssh", "connect and run, cold / ssh", figures.ratio(DOOR, "ssh")),
        Goal("ssh", "connect and run, ControlMaster / ssh-mux", figures.ratio(DOOR_MUX, "ssh-mux")),
    ]


def typing(bench, door):
    """One byte typed and echoed by a program on a raw terminal."""
    samples = 500
    shells = ways(bench, door, sessions.echo_line(samples), ("ssh", "ssh-J"), (DOOR, DOOR_LINK), terminal=True)
    shares = {"p50": 0.5, "p99": 0.99}
    figures, watch = {share: Figures(f"echo {share} through the door", "us") for share in shares}, Measured()
    for number in range(bench.rounds(6)):
        times = watch.round(shells, number, lambda name: sorted(sessions.echo(*shells[name], samples)))
        for share, at in shares.items():
            figures[share].add({name: one[round((samples - 1) * at)] for name, one in times.items()})
    p50, p99 = figures["p50"], figures["p99"]
    return [p50, p99], [
        Goal("ssh", "echo p50 / ssh", p50.ratio(DOOR, "ssh"), must=("<=", 1.3), note=watch.note()),
        Goal("ssh", "echo p50 / ssh-J", p50.ratio(DOOR, "ssh-J")),
        Goal("ssh", "echo p99 / ssh", p99.ratio(DOOR, "ssh")),
        Goal("ssh", "echo p50, over our link / ssh", p50.ratio(DOOR_LINK, "ssh")),
    ]


def output(bench, door):
    """Output in bulk from a far terminal, and from pipe to pipe."""
    size = (8 if bench.options.quick else 32) << 20
    results, goals = [], []
    for title, measure, terminal in (("terminal", sessions.bulk_terminal, True), ("command", sessions.bulk_pipe, False)):
        figures, watch = Figures(f"{title} output through the door", "MiB/s"), Measured()
        runs = ways(bench, door, sessions.bulk_line(size), ("ssh", "ssh-J"), (DOOR,), terminal)
        for number in range(bench.rounds(4)):
            figures.add(watch.round(runs, number, lambda name: measure(*runs[name], size)))
        results.append(figures)
        goals += [Goal("ssh", f"{title} output / {other}", figures.ratio(DOOR, other), note=watch.note() if other == "ssh" else "")
                  for other in ("ssh", "ssh-J")]
    return results, goals


def files(bench, door):
    """One large file by `scp` (both protocols) and `sftp`, many small ones by `rsync`, each way."""
    quick = bench.options.quick
    room = copies.Room(bench, (64 if quick else 512) << 20, 500 if quick else 5000)
    try:
        results, goals = [], []
        programs = {"scp": lambda *way: scp(*way), "scp -O": lambda *way: scp(*way, "-O"), "sftp": sftp}
        for program, argv in programs.items():
            for way in ("put", "get"):
                figures, watch = Figures(f"one file of {room.bytes >> 20} MiB, {program}, {way}", "MiB/s"), Measured()
                for number in range(bench.rounds(3)):
                    figures.add(watch.round(("ssh", "ssh-J", DOOR), number, lambda name: room.bytes / copies.MIB / copies.timed(
                        room, room.large, argv(bench, door, name, room, way), door.environment)))
                results.append(figures)
                must = (">=", 0.8) if program == "scp" else None
                goals.append(Goal("ssh", f"{program}, {way} / ssh", figures.ratio(DOOR, "ssh"), must=must, note=watch.note()))
                goals.append(Goal("ssh", f"{program}, {way} / ssh-J", figures.ratio(DOOR, "ssh-J")))
        for way in ("put", "get") if shutil.which("rsync") else ():
            figures, watch = Figures(f"{room.files} small files, rsync, {way}", "files/s"), Measured()
            for number in range(bench.rounds(3)):
                figures.add(watch.round(("ssh", "ssh-J", DOOR), number, lambda name: room.files / copies.timed(
                    room, room.tree, rsync(bench, door, name, room, way), door.environment)))
            results.append(figures)
            goals.append(Goal("ssh", f"rsync, {way} / ssh", figures.ratio(DOOR, "ssh"), note=watch.note()))
            goals.append(Goal("ssh", f"rsync, {way} / ssh-J", figures.ratio(DOOR, "ssh-J")))
    finally:
        room.close()
    return results, goals


def reaching(bench, door, name):
    """Returns the options of OpenSSH's programs for a system, without the port's, and what it calls the host."""
    if name in HOSTS:
        return door.options(name), HOSTS[name]
    options = bench.ssh.way(name)[1:]
    at = options.index("-p")
    return options[:at] + ["-o", f"Port={options[at + 1]}"] + options[at + 2:], "target"


def ends(room, way, host, source, to):
    """Returns from where and to where something goes."""
    return (f"{host}:{source}", str(to)) if way == "get" else (str(source), f"{host}:{to}")


def scp(bench, door, name, room, way, *more):
    options, host = reaching(bench, door, name)
    return ["scp", "-q", *more, *options, *ends(room, way, host, room.large, room.to / "large")]


def sftp(bench, door, name, room, way):
    options, host = reaching(bench, door, name)
    batch = room.path / "batch"
    batch.write_text(f"{way} {room.large} {room.to}/large\n")
    return ["sftp", "-q", *options, "-b", str(batch), host]


def rsync(bench, door, name, room, way):
    options, host = reaching(bench, door, name)
    return ["rsync", "-a", "-e", " ".join(["ssh", *options]), *ends(room, way, host, room.tree, f"{room.to}/")]


def forwarding(bench, door):
    """`ssh -L` to one target: bulk both ways, a connection to its first byte, and a byte there and back."""
    target = forwards.Target(bench)
    names = ("ssh", "ssh-J", DOOR, DOOR_LINK)
    size = (64 if bench.options.quick else 256) << 20
    kinds = [("up", 1), ("down", 1), ("down", 8)]
    rates = {kind: Figures(f"ssh -L, {kind[0]}, {streams(kind[1])}", "MiB/s") for kind in kinds}
    opened, pinged = Figures("ssh -L, connect to first byte", "us"), Figures("ssh -L, there and back", "us")
    watch = {what: Measured() for what in [*kinds, "open", "ping"]}
    try:
        with contextlib.ExitStack() as standing:
            ways = {name: standing.enter_context(forward(bench, door, name, target.port)) for name in names}
            load = lambda mode, name, **settings: forwards.load(bench, mode, ways[name], 40, **settings)  # noqa: E731
            for number in range(bench.rounds(4)):
                for kind in kinds:
                    rates[kind].add(watch[kind].round(ways, number, lambda name: load(
                        "move", name, way=kind[0], streams=kind[1], bytes=size)["mib_per_second"]))
                for mode, count, found in (("open", 100, opened), ("ping", 500, pinged)):
                    found.add(watch[mode].round(ways, number, lambda name: load(mode, name, count=count)["p50_us"]))
    finally:
        target.close()
    goals = []
    for what, found in [*rates.items(), ("open", opened), ("ping", pinged)]:
        goals.append(Goal("ssh", f"{found.title} / ssh", found.ratio(DOOR, "ssh"), note=watch[what].note()))
        goals.append(Goal("ssh", f"{found.title} / ssh-J", found.ratio(DOOR, "ssh-J")))
    return [*rates.values(), opened, pinged], goals


@contextlib.contextmanager
def forward(bench, door, name, target):
    """Has `ssh -L` stand; gives where it begins."""
    port = free_port()
    argv = ["ssh", *door.options(name), HOSTS[name]] if name in HOSTS else [*bench.ssh.way(name), "target"]
    argv[1:1] = ["-N", "-L", f"{port}:127.0.0.1:{target}"]
    process = processes.start(argv, bench.directory / f"ssh-forward-{name}.log", stdin=subprocess.DEVNULL, env=door.environment)
    try:
        wait_for(lambda: aws_door.listens(port), f"ssh -L over {name} to listen")
        yield f"127.0.0.1:{port}"
    finally:
        processes.stop(process)


def many(bench, door):
    """Logins at once, to the first output of each."""
    count = bench.many
    logins = ways(bench, door, sessions.MANY_LINE, ("ssh", "ssh-J"), (DOOR,), terminal=True)
    rate, ready = Figures(f"{count} logins at once", "logins/s"), Figures(f"{count} logins at once: median time to ready", "s")
    failed, watch = dict.fromkeys(logins, 0), Measured()
    for number in range(bench.rounds(2)):
        done = watch.round(logins, number, lambda name: sessions.many(*logins[name], count))
        rate.add({name: one[0] for name, one in done.items()})
        ready.add({name: one[1] for name, one in done.items()})
        for name, one in done.items():
            failed[name] += one[2]
    lost = "logins that failed: " + ", ".join(f"{name} {number}" for name, number in failed.items())
    return [rate, ready], [
        Goal("ssh", f"{count} logins at once, per second / ssh", rate.ratio(DOOR, "ssh"), note=f"{lost}; {watch.note()}".rstrip("; ")),
        Goal("ssh", f"{count} logins at once, per second / ssh-J", rate.ratio(DOOR, "ssh-J")),
    ]


def idle(bench):
    """What an idle login costs the server: each with a connection of its own, and all over one. Each has a server of its
    own, as memory that was used once is used again."""
    goals = []
    for what, name in (("a connection each", DOOR), ("over one connection", DOOR_MUX)):
        server = gate(bench, f"ssh-idle-{name}")
        door = Door(server, bench.directory / f"ssh-idle-{name}-door")
        try:
            if name == DOOR_MUX:
                door.start_master()
            goals += idle_logins(door, name, what, bench.many)
        finally:
            door.stop()
            server.stop()
    return [], goals


def idle_logins(door, name, what, count):
    server = door.munjigi.server.pid
    sessions.run_once(door.command(name, "true"), door.environment)
    time.sleep(2)
    before = processes.resident([server], "Rss")
    clients = hold(door, name, count)
    time.sleep(3)
    memory = (processes.resident([server], "Rss") - before) / count
    cpu, begun = processes.cpu_seconds(server), time.monotonic()
    time.sleep(10)
    cpu = (processes.cpu_seconds(server) - cpu) / (time.monotonic() - begun) / count * 1e3
    for client in clients:
        # A master without a terminal of its own asks for one in which nothing is a key, so the end of input would be none.
        client.stdin.write(b"\n")
        client.stdin.close()
    for client in clients:
        client.wait(60)
        client.stdout.close()
    return [Goal("ssh", f"server memory per idle login, {what}, {count} of them", memory, "KiB"),
            Goal("ssh", f"server CPU per idle login and second, {what}", cpu, "ms")]


def hold(door, name, count):
    """Starts logins and waits until each of them is in."""
    line = sessions.MANY_LINE
    clients = [subprocess.Popen(door.command(name, line, terminal=True), env=door.environment, stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for _ in range(count)]
    for client in clients:
        if not client.stdout.read(5):
            raise RuntimeError("a login was refused")
    return clients


# What `--only ssh/PART` measures. The last one has servers of its own.
IDLE = "idle"
PARTS = {"connect": connecting, "echo": typing, "output": output, "forward": forwarding, "files": files, "many": many, IDLE: idle}
