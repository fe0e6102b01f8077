"""Long paths: client, gateway and host in network namespaces of their own, joined by lines that delay (G4, G6, G13, G14)."""

import contextlib
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from . import processes, sessions
from .compared import in_turn
from .forward import Measured, filling
from .forwards import DIRECT, MUNJIGI, SSH, SSH_J, Target, Way, load, munjigi_forward, ssh_forward
from .report import Figures, Goal
from .systems import Munjigi, OpenSsh, wait_for

MIB = 1 << 20
# The gateway's address is the same for both legs; the packets of direct ssh pass through its kernel.
CLIENT, GATEWAY, HOST = "10.177.1.2", "10.177.1.1", "10.177.2.2"
GATEWAY_TO_HOST = "10.177.2.1"
# Both ends of a path that is to carry much are tuned so; the kernel's defaults stop at a few MiB under way.
TUNED = {"net.ipv4.tcp_rmem": "4096 131072 134217728", "net.ipv4.tcp_wmem": "4096 131072 134217728"}


class Net:
    """Three namespaces and two lines."""

    def __init__(self, directory):
        self.holders, self.lines = {}, {}
        for place in ("client", "gateway", "host"):
            self.holders[place] = processes.start(
                ["unshare", "--net", "sh", "-c", "echo ready; exec sleep 100000"], directory / "net.log",
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            )
            processes.line_of(self.holders[place], "ready")
        for line, ends in {"client": ("client", "gateway"), "host": ("gateway", "host")}.items():
            argv = [sys.executable, str(Path(__file__).with_name("delay.py"))]
            for end, name in zip(ends, (f"{line}-near", f"{line}-far")):
                argv += [str(self.holders[end].pid), name]
            self.lines[line] = processes.start(argv, directory / "delay.log", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            processes.line_of(self.lines[line], "ready")
        for place in self.holders:
            self._run(place, "ip link set lo up")
            for name, value in TUNED.items():
                self._run(place, f"echo {value} > /proc/sys/{name.replace('.', '/')}")
        self._device("client", "client-near", CLIENT, GATEWAY, "default")
        self._device("gateway", "client-far", GATEWAY, CLIENT)
        self._device("gateway", "host-near", GATEWAY_TO_HOST, HOST)
        self._device("host", "host-far", HOST, GATEWAY_TO_HOST, "default")
        self._run("gateway", "echo 1 > /proc/sys/net/ipv4/ip_forward")

    def _device(self, place, name, own, other, route=None):
        # The queue holds what a whole window may hand over at once.
        self._run(place, f"ip addr add {own} peer {other} dev {name} && ip link set {name} up txqueuelen 20000")
        if route:
            self._run(place, f"ip route add {route} dev {name}")

    def _run(self, place, command):
        done = subprocess.run([*self.inside(place), "sh", "-c", command], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{command}: {done.stderr.strip()}")

    def inside(self, place):
        """Returns what to put before a command line so that it runs there."""
        return ("nsenter", f"--net=/proc/{self.holders[place].pid}/ns/net", "--")

    def round_trips(self, client, host, rate=0):
        """Sets the round trips of both lines in seconds, and how many bytes a second the client's carries."""
        for line, seconds, limit in (("client", client, rate), ("host", host, 0)):
            self.lines[line].stdin.write(f"{seconds / 2} {limit}\n".encode())
            self.lines[line].stdin.flush()

    def close(self):
        for process in (*self.lines.values(), *self.holders.values()):
            processes.stop(process)


@contextlib.contextmanager
def systems(bench, net):
    """The systems across the lines, and every way from the client to one target on the host."""
    inside = {place: net.inside(place) for place in ("client", "gateway", "host")}
    directory = bench.directory / "wan"
    directory.mkdir(exist_ok=True)
    ssh = OpenSsh(directory / "ssh", HOST, GATEWAY,
                  {"client": inside["client"], "bastion": inside["gateway"], "host": inside["host"]})
    munjigi = Munjigi(bench.binary, bench.probe, directory / "munjigi", address=GATEWAY,
                      inside={"client": inside["client"], "server": inside["gateway"], "agent": inside["host"]})
    munjigi.join("near")
    target = Target(bench, inside["host"], "0.0.0.0:0")
    try:
        with contextlib.ExitStack() as stack:
            ways = {DIRECT: Way(f"{HOST}:{target.port}")}
            for name in (SSH, SSH_J):
                ways[name] = stack.enter_context(ssh_forward(bench, ssh, name, target.port, inside["client"]))
            ways[MUNJIGI] = stack.enter_context(munjigi_forward(munjigi, bench.directory / "wan.log", target.port))
            yield ssh, munjigi, ways
    finally:
        target.close()
        munjigi.stop()
        ssh.stop()


def far(bench):
    """Everything that is measured over long paths."""
    if os.geteuid() or not Path("/dev/net/tun").exists():
        return [], [Goal("wan", "long paths", None, note="needs root and /dev/net/tun for networks with a delay")]
    net = Net(bench.directory)
    figures, goals = [], []
    try:
        with systems(bench, net) as (ssh, munjigi, ways):
            inside = net.inside("client")
            for part in (
                lambda: short_things(bench, net, ssh, munjigi, ways, inside),
                lambda: bulk(bench, net, ways, inside, "20 + 20 ms", (0.02, 0.02)),
                lambda: bulk(bench, net, ways, inside, "100 + 0 ms", (0.1, 0.0)),
                lambda: narrow(bench, net, ssh, munjigi, ways, inside),
            ):
                more_figures, more_goals = part()
                figures += more_figures
                goals += more_goals
            net.round_trips(0, 0)
    finally:
        net.close()
    return figures, goals


def settle():
    """Lets what was on its way arrive under the old delay."""
    time.sleep(0.3)


def short_things(bench, net, ssh, munjigi, ways, inside):
    """A command, a key, and a connection's first byte at 20 + 20 ms."""
    net.round_trips(0.02, 0.02)
    settle()
    samples, line = 40, sessions.echo_line(40)
    ran, typed = Figures("`true` at 20 + 20 ms", "ms"), Figures("echo p50 at 20 + 20 ms, less the path", "ms")
    opened = Figures("forward at 20 + 20 ms, connect to first byte", "round trips")
    watch, path = Measured(), Figures("round trip", "ms")
    runs = {name: (lambda name=name: sessions.run_once(ssh.command(name, "true"))) for name in ("ssh", "ssh-J")}
    runs["munjigi"] = lambda: sessions.run_once(munjigi.command("near", "true"), munjigi.environment)
    shells = {name: (ssh.command(name, line, terminal=True), None) for name in ("ssh", "ssh-J")}
    shells["munjigi"] = (munjigi.command("near", line, terminal=True), munjigi.environment)
    for number in range(bench.rounds(4)):
        trip = load(bench, "ping", ways[DIRECT].address, inside=inside, count=20)["p50_us"] / 1e3
        path.add({"20 + 20 ms": trip})
        ran.add(watch.round(runs, number, lambda name: runs[name]()))
        typed.add(watch.round(shells, number, lambda name: statistics.median(
            sessions.echo(*shells[name], samples, limit=30)) / 1e3 - trip))
        opened.add(watch.round(ways, number, lambda name: load(
            bench, "open", ways[name].address, 30, inside, count=10)["p50_us"] / 1e3 / trip))
    goals = [
        Goal("G4", "`true` at 20 + 20 ms / ssh", ran.ratio("munjigi", "ssh"), must=("<=", 0.35), aim=("<=", 0.2),
             note=watch.note()),
        Goal("G4", "`true` at 20 + 20 ms / ssh-J", ran.ratio("munjigi", "ssh-J"), must=("<=", 0.25)),
        Goal("G6", "echo p50 at 20 + 20 ms, less the path", typed.middle("munjigi"), "ms", must=("<=", 1), aim=("<=", 0.5)),
        Goal("G13", "connect to first byte at 20 + 20 ms, in round trips", opened.middle(MUNJIGI), must=("<=", 1.1),
             note="ssh -L: " + shown(opened.middle(SSH))),
    ]
    return [path, ran, typed, opened], goals


def shown(value):
    return f"{value[0]:.2f}" if value else "not measured"


def bulk(bench, net, ways, inside, title, trips):
    """One stream for some seconds: what arrives in the second half of them, and what that means as a window."""
    net.round_trips(*trips)
    settle()
    figures, goals = [], []
    # Slow start and the way to a lane take a good second at 100 ms; the second half of the time shall be after that.
    seconds = (4 if sum(trips) < 0.05 else 6) - (1 if bench.options.quick else 0)
    names = [name for name in ways if name != SSH_J]
    for way in ("up", "down"):
        rate, watch = Figures(f"forward, {way}, at {title}", "MiB/s"), Measured()
        for number in range(bench.rounds(2, quick=1)):
            rate.add(watch.round(names, number, lambda name: load(
                bench, "flow", ways[name].address, seconds + 40, inside, way=way, seconds=seconds)["steady_mib_per_second"]))
        figures.append(rate)
        ours = rate.middle(MUNJIGI)
        goals.append(Goal("wan", f"forward, {way}, at {title} / ssh -L", rate.ratio(MUNJIGI, SSH), note=watch.note()))
        goals.append(Goal("wan", f"forward, {way}, at {title} / direct TCP", rate.ratio(MUNJIGI, DIRECT)))
        if sum(trips) >= 0.1:
            window = tuple(value * sum(trips) for value in ours) if ours else None
            reference = rate.middle(DIRECT)
            goals.append(Goal("G14", f"forward, {way}, at {title}: under way at once", window, "MiB", must=(">=", 16),
                              note=f"direct TCP here: {shown((reference[0] * sum(trips),) if reference else None)} MiB"))
    return figures, goals


def narrow(bench, net, ssh, munjigi, ways, inside):
    """Echo beside a forward that fills a line of 12.5 MB/s at 20 + 20 ms: what is queued before a key."""
    net.round_trips(0.02, 0.02, rate=12.5e6)
    settle()
    samples, line = 60, sessions.echo_line(60)
    shells = {"ssh": (ssh.command("ssh", line, terminal=True), None, SSH),
              "munjigi": (munjigi.command("near", line, terminal=True), munjigi.environment, MUNJIGI)}
    figures = {share: Figures(f"echo {share} beside a full line of 100 Mbit/s at 20 + 20 ms", "ms") for share in ("p50", "p95")}
    watch = Measured()
    for number in range(bench.rounds(2, quick=1)):
        values = {share: {} for share in figures}

        def run(name):
            argv, environment, forward = shells[name]
            with filling(bench, ways[forward].address, "up", inside):
                times = sorted(sessions.echo(argv, environment, samples, limit=40))
            values["p50"][name] = times[samples // 2] / 1e3
            values["p95"][name] = times[round((samples - 1) * 0.95)] / 1e3

        watch.round(shells, number, run)
        for share in figures:
            figures[share].add(values[share])
        time.sleep(0.5)
    net.round_trips(0.02, 0.02)
    return list(figures.values()), [
        Goal("beside", "echo p50 beside a full line of 100 Mbit/s / ssh", figures["p50"].ratio("munjigi", "ssh"), note=watch.note()),
        Goal("beside", "echo p95 beside a full line of 100 Mbit/s / ssh", figures["p95"].ratio("munjigi", "ssh")),
    ]
