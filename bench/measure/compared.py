"""The rows that are measured beside OpenSSH: G1 to G3, G5, G7 and G21. Each function returns figures and goals."""

import json
import os
import statistics

from . import sessions
from .relay import Relay
from .report import Figures, Goal
from .systems import SHELL


def in_turn(systems, round_number):
    """Returns the systems in an order that turns with the rounds."""
    names = list(systems)
    at = round_number % len(names)
    return names[at:] + names[:at]


def standing_run(probe):
    """Runs one command over the probe's standing link and returns the milliseconds."""
    probe.stdin.write(b"\n")
    probe.stdin.flush()
    return json.loads(probe.stdout.readline())["ms"]


def start_standing(munjigi, node="near", place=None):
    probe = munjigi.start_probe("standing", f"target={node}", f"shell={SHELL}", place=place)
    if not json.loads(probe.stdout.readline() or b"{}").get("ready"):
        raise RuntimeError("the probe could not dial; see its log")
    return probe


def execution(bench):
    """G1 and G2: `true` on the host, cold and over what stands."""
    ssh, munjigi = bench.ssh, bench.munjigi
    figures = Figures("exec host true", "ms")
    probe = start_standing(munjigi)
    systems = {name: (lambda name=name: sessions.run_once(ssh.command(name, "true")))
               for name in ("ssh", "ssh-x25519", "ssh-mux", "ssh-J")}
    systems["munjigi"] = lambda: sessions.run_once(munjigi.command("near", "true"), munjigi.environment)
    systems["munjigi-strict"] = lambda: sessions.run_once(bench.strict.command("near", "true"), bench.strict.environment)
    systems["munjigi-standing"] = lambda: standing_run(probe)
    systems["start of a client"] = lambda: sessions.run_once([munjigi.binary, "--version"], munjigi.environment)
    for run in systems.values():
        run()  # page cache, known hosts, first-use tables
    for number in range(bench.rounds(12)):
        values = {name: statistics.median(systems[name]() for _ in range(3)) for name in in_turn(systems, number)}
        values["munjigi-standing + client"] = values["munjigi-standing"] + values["start of a client"]
        figures.add(values)
    probe.stdin.close()
    probe.wait(10)
    against_x25519 = figures.ratio("munjigi", "ssh-x25519")
    goals = [
        Goal("G1", "cold / ssh", figures.ratio("munjigi", "ssh"), must=("<=", 0.6), aim=("<=", 0.15)),
        Goal("G1", "cold / ssh-x25519", against_x25519, must=("<=", 1.0)),
        Goal("G1", "cold / ssh-mux", figures.ratio("munjigi", "ssh-mux"), aim=("<=", 3)),
        Goal("G1", "cold, strict recording / ssh", figures.ratio("munjigi-strict", "ssh"), must=("<=", 0.6), aim=("<=", 0.15)),
        Goal("G2", "standing / ssh-mux", figures.ratio("munjigi-standing", "ssh-mux"), must=("<=", 1.5), aim=("<=", 1.0),
             note="from a client that runs already; ssh-mux starts a client process each time"),
        Goal("G2", "standing, with the start of a client / ssh-mux", figures.ratio("munjigi-standing + client", "ssh-mux"),
             must=("<=", 1.5), aim=("<=", 1.0), note="the time of `munjigi --version` in the same round is added"),
    ]
    return [figures], goals


def round_trips(bench):
    """G3: the same command over a path of 0 and of 100 ms, on the client's leg and on the agent's."""
    ssh, munjigi, path = bench.ssh, bench.munjigi, 0.1
    client, host, far = Relay(munjigi.port), Relay(ssh.port), Relay(munjigi.port)
    munjigi.join("far", f"https://127.0.0.1:{far.port}")
    place = munjigi.directory / "relayed"
    place.mkdir()
    for name in ("ca.pem", "admin.credentials"):
        os.symlink(munjigi.data / name, place / name)
    (place / "endpoint").write_text(f"https://127.0.0.1:{client.port}\n")
    relayed = munjigi.environment | {"AWS_ENDPOINT_URL": f"https://127.0.0.1:{client.port}"}
    on_client, on_agent = start_standing(munjigi, place=place), start_standing(munjigi, "far")
    legs = {
        "ssh": (host, lambda: sessions.run_once(ssh.command("ssh", "true", port=host.port))),
        "munjigi, client leg": (client, lambda: sessions.run_once(munjigi.command("near", "true"), relayed)),
        "munjigi, agent leg": (far, lambda: sessions.run_once(munjigi.command("far", "true"), munjigi.environment)),
        "munjigi-standing, client leg": (client, lambda: standing_run(on_client)),
        "munjigi-standing, agent leg": (far, lambda: standing_run(on_agent)),
    }
    figures = Figures("round trips of `exec host true`", "")
    for number in range(bench.rounds(4)):
        values = {}
        for name in in_turn(legs, number):
            relay, run = legs[name]
            relay.round_trip = 0.0
            short = statistics.median(run() for _ in range(3))
            relay.round_trip = path
            values[name] = (run() - short) / (path * 1e3)
            relay.round_trip = 0.0
        figures.add(values)
    for probe in (on_client, on_agent):
        probe.stdin.close()
        probe.wait(10)
    counted = {name: figures.spread(name) for name in legs}
    limits = {
        "munjigi, client leg": (("<=", 4.3), ("<=", 3.3)), "munjigi, agent leg": (("<=", 1.3), None),
        "munjigi-standing, client leg": (None, ("<=", 1.3)), "munjigi-standing, agent leg": (None, ("<=", 1.3)),
    }
    note = "time at 100 ms less time at 0 ms, in round trips; 0.3 is left for what the machine adds"
    goals = [
        Goal("G3", f"{name} (ssh {counted['ssh'][1]:.1f})", (middle, least, most), must=limits[name][0], aim=limits[name][1],
             note=note if name == "munjigi, client leg" else "")
        for name, (least, middle, most) in counted.items() if name in limits
    ]
    for relay in (client, host, far):
        relay.close()
    bench.stop_agent("far")
    return [figures], goals


def terminals(bench, line):
    """Returns each system's command line for a command with a terminal, and its environment."""
    ways = {name: (bench.ssh.command(name, line, terminal=True), None) for name in ("ssh", "ssh-J")}
    for name, system in (("munjigi", bench.munjigi), ("munjigi-strict", bench.strict)):
        ways[name] = (system.command("near", line, terminal=True), system.environment)
    return ways


def typing(bench):
    """G5: one byte typed and echoed by a program on a raw terminal."""
    samples = 500
    ways = terminals(bench, sessions.echo_line(samples))
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    figures = {share: Figures(f"echo {share}", "us") for share in shares}
    for number in range(bench.rounds(6)):
        values = {share: {} for share in shares}
        for name in in_turn(ways, number):
            times = sorted(sessions.echo(*ways[name], samples))
            for share, at in shares.items():
                values[share][name] = times[round((len(times) - 1) * at)]
        for share in shares:
            figures[share].add(values[share])
    p50, p99 = figures["p50"], figures["p99"]
    goals = [
        Goal("G5", "echo p50 / ssh", p50.ratio("munjigi", "ssh"), must=("<=", 1.6), aim=("<=", 1.3)),
        Goal("G5", "echo p50 / ssh-J", p50.ratio("munjigi", "ssh-J"), must=("<=", 1.0)),
        Goal("G5", "echo p99 / ssh", p99.ratio("munjigi", "ssh"), aim=("<=", 1.5)),
        Goal("G5", "echo p50, strict recording / ssh", p50.ratio("munjigi-strict", "ssh"), must=("<=", 1.6), aim=("<=", 1.3),
             note="strict shows a byte only after fdatasync: the disk's time is in each echo"),
    ]
    return list(figures.values()), goals


def bulk(bench):
    """G7: output in bulk, from a far terminal to one here, and through pipes."""
    size = 32 << 20
    line = sessions.bulk_line(size)
    terminal_ways = terminals(bench, line)
    pipe_ways = {name: (bench.ssh.command(name, line), None) for name in ("ssh", "ssh-J")}
    for name, system in (("munjigi", bench.munjigi), ("munjigi-strict", bench.strict)):
        pipe_ways[name] = (system.command("near", line), system.environment)
    results, goals = [], []
    for title, measure, ways in (
        ("terminal output", sessions.bulk_terminal, terminal_ways), ("command output", sessions.bulk_pipe, pipe_ways)
    ):
        figures = Figures(title, "MiB/s")
        for number in range(bench.rounds(5)):
            figures.add({name: measure(*ways[name], size) for name in in_turn(ways, number)})
        results.append(figures)
        must, aim = ((">=", 0.7), (">=", 0.9)) if measure is sessions.bulk_terminal else (None, None)
        goals += [
            Goal("G7", f"{title}, recorded / ssh", figures.ratio("munjigi", "ssh"), must=must, aim=aim),
            Goal("G7", f"{title}, strict recording / ssh", figures.ratio("munjigi-strict", "ssh"), must=must, aim=aim),
        ]
    return results, goals


def many(bench):
    """G21: many interactive sessions at once."""
    count = bench.many
    line = sessions.MANY_LINE
    ways = {"ssh": (bench.ssh.command("ssh", line, terminal=True), None),
            "munjigi": (bench.munjigi.command("near", line, terminal=True), bench.munjigi.environment)}
    rate, ready = Figures(f"{count} sessions at once", "sessions/s"), Figures(f"{count} at once: median time to ready", "s")
    failed = dict.fromkeys(ways, 0)
    for number in range(bench.rounds(2)):
        rates, times = {}, {}
        for name in in_turn(ways, number):
            rates[name], times[name], lost = sessions.many(*ways[name], count)
            failed[name] += lost
        rate.add(rates)
        ready.add(times)
    note = "sessions that did not start: " + ", ".join(f"{name} {lost}" for name, lost in failed.items())
    return [rate, ready], [
        Goal("G21", f"{count} at once, sessions/s / ssh", rate.ratio("munjigi", "ssh"), must=(">=", 3), aim=(">=", 8), note=note)
    ]
