"""Forwarded ports beside OpenSSH and nginx (G8 to G12, G24), and a shell's echo beside a forward that is full."""

import subprocess
import time

from . import processes, sessions
from .compared import in_turn
from .forwards import DIRECT, MUNJIGI, RELAY, SSH, SSH_J, TLS1, TLS2, Target, load, standing
from .report import Figures, Goal

MIB = 1 << 20
# What Session Manager moves at most, in MB/s: 1024 bytes, then a millisecond.
CEILING = 0.93


class Measured:
    """Runs a measurement for each system in its turn. One that fails is noted, and left out once it has failed twice: a
    system that stalls must cost neither the others' figures nor the whole time."""

    def __init__(self):
        self.failed, self.why = {}, {}

    def round(self, names, number, run):
        values = {}
        for name in in_turn(names, number):
            if self.failed.get(name, 0) >= 2:
                continue
            try:
                values[name] = run(name)
            except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                self.failed[name] = self.failed.get(name, 0) + 1
                self.why[name] = str(error)
        return values

    def note(self):
        return "; ".join(f"{name} failed {count} times: {self.why[name][:200]}" for name, count in self.failed.items())


def ports(bench):
    """G8 to G12 and G24, and many connections of which two are never read."""
    target = Target(bench)
    try:
        with standing(bench, target, [DIRECT, RELAY, TLS1, TLS2, SSH, SSH_J, MUNJIGI]) as ways:
            return through(bench, ways)
    finally:
        target.close()


def through(bench, ways):
    size = (64 if bench.options.quick else 256) * MIB
    kinds = [("up", 1), ("down", 1), ("up", 8), ("down", 8), ("both", 1)]
    title = {kind: f"forward, {kind[0]}{' at once' if kind[0] == 'both' else ''}, {streams(kind[1])}" for kind in kinds}
    rates = {kind: Figures(title[kind], "MiB/s") for kind in kinds}
    costs = {kind: Figures(f"CPU, {title[kind]}", "s/GiB") for kind in kinds}
    opened, pinged = Figures("forward, connect to first byte", "us"), Figures("forward, there and back", "us")
    watch = {what: Measured() for what in [*kinds, "open", "ping"]}
    for number in range(bench.rounds(5)):
        for kind in kinds:
            spent = {}

            def run(name):
                way, before = ways[name], ways[name].cpu()
                done = load(bench, "move", way.address, 40, way=kind[0], streams=kind[1], bytes=size)
                moved = size * (2 if kind[0] == "both" else 1)
                if way.pids:
                    spent[name] = (way.cpu() - before) / moved * (1 << 30)
                return done["mib_per_second"]

            rates[kind].add(watch[kind].round(ways, number, run))
            costs[kind].add(spent)
        counted = lambda mode, count: lambda name: load(bench, mode, ways[name].address, 40, count=count)["p50_us"]  # noqa: E731
        opened.add(watch["open"].round(ways, number, counted("open", 100)))
        pinged.add(watch["ping"].round(ways, number, counted("ping", 500)))
    figures, goals = [*rates.values(), *costs.values(), opened, pinged], []
    for way in ("up", "down"):
        rate, eight, cost = rates[way, 1], rates[way, 8], costs[way, 1]
        note = watch[way, 1].note()
        goals += [
            Goal("G8", f"{title[way, 1]} / tls2", rate.ratio(MUNJIGI, TLS2), must=(">=", 0.8), aim=(">=", 1.0), note=note),
            Goal("G8", f"{title[way, 1]} / ssh -L", rate.ratio(MUNJIGI, SSH), must=(">=", 0.75), aim=(">=", 1.0)),
            Goal("G8", f"{title[way, 1]} / ssh -J -L", rate.ratio(MUNJIGI, SSH_J), must=(">=", 1.8)),
            Goal("G8", f"{title[way, 1]} / tls1", rate.ratio(MUNJIGI, TLS1), aim=(">=", 0.6)),
            Goal("G9", f"{title[way, 8]} / its own single one", together(rate, eight), must=(">=", 0.9), aim=(">=", 1.0),
                 note=watch[way, 8].note()),
            Goal("G10", f"CPU, {title[way, 1]} / tls2", cost.ratio(MUNJIGI, TLS2), must=("<=", 1.3), aim=("<=", 1.0)),
        ]
    both = rates["both", 1]
    slowest = sorted(min(values) for values in (rates[kind].of(MUNJIGI) for kind in kinds[:2]) if values)[:1]
    goals += [
        Goal("-", f"{title['both', 1]} / ssh -L", both.ratio(MUNJIGI, SSH), note=watch["both", 1].note()),
        Goal("G12", "connect to first byte / ssh -L", opened.ratio(MUNJIGI, SSH), must=("<=", 1.5), aim=("<=", 1.2),
             note=watch["open"].note()),
        Goal("G12", "connect to first byte / ssh -J -L", opened.ratio(MUNJIGI, SSH_J), must=("<=", 1.1)),
        Goal("-", "there and back / tls2", pinged.ratio(MUNJIGI, TLS2), note=watch["ping"].note()),
        Goal("-", "there and back / ssh -L", pinged.ratio(MUNJIGI, SSH)),
        Goal("G24", "slowest single stream / Session Manager's ceiling",
             slowest[0] * MIB / 1e6 / CEILING if slowest else None, must=(">=", 100), aim=(">=", 300),
             note=f"its ceiling is {CEILING} MB/s for a whole session, by construction"),
    ]
    more_figures, more_goals = crowd(bench, ways)
    return figures + more_figures, goals + more_goals


def streams(count):
    return f"{count} stream{'' if count == 1 else 's'}"


def together(one, many):
    """Ratio of many streams to one, of our own, round by round."""
    pairs = [(a[MUNJIGI], b[MUNJIGI]) for a, b in zip(one.rounds, many.rounds) if MUNJIGI in a and MUNJIGI in b]
    figures = Figures("", "")
    for single, several in pairs:
        figures.add({"many": several, "one": single})
    return figures.ratio("many", "one")


def crowd(bench, ways):
    """200 connections both ways at once: one is never read here, one never at the target."""
    names = [name for name in (TLS2, SSH, MUNJIGI) if name in ways]
    count, share = (50, MIB // 4) if bench.options.quick else (200, MIB)
    rate, watch = Figures(f"{count} streams both ways, two never read", "MiB/s each way"), Measured()
    for number in range(bench.rounds(3)):
        rate.add(watch.round(names, number, lambda name: load(
            bench, "crowd", ways[name].address, 60, streams=count, bytes=share)["mib_per_second"]))
    failed = watch.failed.get(MUNJIGI, 0)
    return [rate], [
        Goal("T-95", f"{count} streams, two never read, / ssh -L", rate.ratio(MUNJIGI, SSH), note=watch.note()),
        Goal("T-95", f"{count} streams, two never read: rounds that stalled or failed", float(failed), must=("<=", 0)),
    ]


def beside(bench):
    """Echo of a shell while a forward carries all it can both ways; over the same connection for ssh-mux."""
    samples = 200 if bench.options.quick else 500
    line = sessions.echo_line(samples)
    target = Target(bench)
    shells = {
        "ssh": (bench.ssh.command("ssh", line, terminal=True), None, SSH),
        "munjigi": (bench.munjigi.command("near", line, terminal=True), bench.munjigi.environment, MUNJIGI),
    }
    shares = {"p50": 0.5, "p99": 0.99}
    found = {(share, state): Figures(f"echo {share}, forward {state}", "us") for share in shares for state in ("idle", "full")}
    watch = Measured()
    try:
        with standing(bench, target, [SSH, MUNJIGI]) as ways:
            for number in range(bench.rounds(5)):
                kept = {key: {} for key in found}

                def run(name):
                    argv, environment, forward = shells[name]
                    times = {"idle": sorted(sessions.echo(argv, environment, samples, limit=30))}
                    with filling(bench, ways[forward].address):
                        times["full"] = sorted(sessions.echo(argv, environment, samples, limit=30))
                    for (share, state), values in kept.items():
                        values[name] = times[state][round((samples - 1) * shares[share])]

                watch.round(shells, number, run)
                for key, values in kept.items():
                    found[key].add(values)
    finally:
        target.close()
    goals = []
    for name in shells:
        for share in shares:
            pair = Figures("", "")
            for idle, full in zip(found[share, "idle"].rounds, found[share, "full"].rounds):
                if name in idle and name in full:
                    pair.add({"idle": idle[name], "full": full[name]})
            must = ("<=", 2) if (name, share) == ("munjigi", "p99") else None
            goals.append(Goal("beside", f"{name}: echo {share} beside a full forward / idle", pair.ratio("full", "idle"),
                              must=must, note=watch.note() if must else ""))
    full = found["p99", "full"]
    goals.append(Goal("beside", "echo p99 beside a full forward / ssh", full.ratio("munjigi", "ssh")))
    return list(found.values()), goals


class filling:
    """Keeps a forward full, both ways, as long as it lasts."""

    def __init__(self, bench, address, way="both", inside=()):
        self.argv = [*inside, str(bench.load), "flow", address, f"way={way}", "seconds=45", "limit=60"]
        self.log = bench.directory / "filling.log"

    def __enter__(self):
        self.process = processes.start(self.argv, self.log, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        time.sleep(1)  # until it is as full as it gets
        return self

    def __exit__(self, kind, *_):
        ended = self.process.poll()
        processes.stop(self.process)
        if ended is not None and kind is None:
            raise RuntimeError("the forward that should have been full broke; see filling.log")
