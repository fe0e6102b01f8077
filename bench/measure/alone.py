"""The rows that need no other system beside them: memory, idle cost, starts, decisions (G17 to G20, G22, G23)."""

import json
import resource
import subprocess
import time

from . import processes
from .report import Figures, Goal
from .systems import SHELL, Munjigi


def answer(probe, limit_note="the probe ended"):
    line = probe.stdout.readline()
    if not line:
        raise RuntimeError(f"{limit_note}; see its log")
    return json.loads(line)


def until_online(probe):
    while (event := answer(probe))["event"] != "online":
        pass
    return event["seconds"]


def idle_agents(bench, count):
    """G17 and G20: agents that do nothing; then the server is restarted and all come back."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit < count + 200:
        return [], [Goal("G17", f"{count} idle agents", 0.0, note=f"not measured: at most {limit} descriptors here")]
    gate = Munjigi(bench.binary, bench.probe, bench.directory / f"gate-{count}")
    activations = [gate.activation(1000) for _ in range(0, count, 1000)]
    probe = gate.start_probe("agents", f"count={count}", "together=64")
    probe.stdin.write(json.dumps(activations).encode() + b"\n")
    probe.stdin.flush()
    registered = answer(probe)
    time.sleep(2)
    before = processes.resident([gate.server.pid], "Rss")
    probe.stdin.write(b"\n")
    probe.stdin.flush()
    connected = until_online(probe)
    time.sleep(5)
    memory = (processes.resident([gate.server.pid], "Rss") - before) / count
    window = 30
    cpu = processes.cpu_seconds(gate.server.pid)
    begun = time.monotonic()
    time.sleep(window)
    cpu = (processes.cpu_seconds(gate.server.pid) - cpu) / (time.monotonic() - begun) / count * 1e3
    gate.restart_server()
    begun = time.monotonic()
    until_online(probe)
    returned = time.monotonic() - begun
    processes.stop(probe)
    gate.stop()
    figures = Figures(f"{count} idle agents", "s")
    figures.add({"registered in": registered["seconds"], "connected in": connected, "back after a restart in": returned})
    return [figures], [
        Goal("agents", f"{count} agents all back after a restart of the server", returned, "s", must=("<=", 60)),
        Goal("G17", f"server memory per idle agent, {count} agents", memory, "KiB", must=("<=", 64), aim=("<=", 24)),
        Goal("G20", f"server CPU per idle agent and second, {count} agents", cpu, "ms", must=("<=", 0.05), aim=("<=", 0.01)),
    ]


# A node's link carries 512 streams.
SESSIONS_OF_A_NODE = 250


def idle_sessions(bench, count):
    """G18 and G19: sessions that do nothing, in the server and in the agents."""
    gate = Munjigi(bench.binary, bench.probe, bench.directory / f"gate-sessions-{count}")
    names = [f"near-{index}" for index in range(-(-count // SESSIONS_OF_A_NODE))]
    for name in names:
        gate.join(name)
    agents = lambda: [pid for name in names for pid in processes.family(gate.agents[name].pid, gate.binary)]  # noqa: E731
    time.sleep(2)
    idle = processes.resident(agents()) / len(names)
    for name in names:
        for _ in range(5):
            subprocess.run(gate.command(name, "true"), env=gate.environment, check=True, stdin=subprocess.DEVNULL)
    time.sleep(1)
    server_before = processes.resident([gate.server.pid], "Rss")
    agent_before = processes.resident(agents())
    probe = gate.start_probe("hold", f"target={','.join(names)}", f"shell={SHELL}", f"count={count}")
    opened = answer(probe)
    time.sleep(5)
    server = (processes.resident([gate.server.pid], "Rss") - server_before) / count
    family = agents()
    of_agent = (processes.resident(family) - agent_before) / count
    window = 20
    cpu = processes.cpu_seconds(gate.server.pid)
    time.sleep(window)
    cpu = (processes.cpu_seconds(gate.server.pid) - cpu) / window / count * 1e3
    processes.stop(probe)
    gate.stop()
    figures = Figures(f"{count} idle sessions on {len(names)} nodes", "")
    figures.add({"opened in, s": opened["seconds"], "server CPU per session and second, ms": cpu,
                 "processes of each agent": len(family) / len(names)})
    return [figures], [
        Goal("sessions", f"open at once of {count}", float(opened["open"]), must=(">=", count)),
        Goal("G18", f"server memory per idle session, {count} sessions", server, "KiB", must=("<=", 96), aim=("<=", 32)),
        Goal("G19", f"agent, both halves, idle (PSS, {len(names)} there)", idle / 1024, "MiB", must=("<=", 12), aim=("<=", 6)),
        Goal("G19", f"agent per session without the shell, {count} sessions (PSS)", of_agent, "KiB",
             must=("<=", 1024), aim=("<=", 128)),
    ]


def size(bench):
    """G19: the binary on disk; the design allows 15 MB."""
    return [], [Goal("G19", "binary on disk", bench.binary.stat().st_size / 1e6, "MB", must=("<=", 15))]


def decisions(bench):
    """G22: the policy engine alone, a thousand statements."""
    done = subprocess.run([bench.policy_speed], capture_output=True, text=True, check=True)
    figures, goals = Figures("policy decision, 1 000 statements, p50", "us"), []
    values = {}
    for line in done.stdout.splitlines():
        one = json.loads(line)
        values[one["mix"]] = one["p50_us"]
        goals.append(Goal("G22", f"decision p99, {one['mix']}", one["p99_us"], "us", must=("<=", 100)))
        goals.append(Goal("G22", f"decision p50, {one['mix']}", one["p50_us"], "us", aim=("<=", 10)))
    figures.add(values)
    return [figures], goals


def audited_calls(bench):
    """G23: a call that is decided and durably audited before its answer."""
    figures, goals = Figures("decided and audited call", "ms"), []
    for workers in (1, 8):
        p50, p99 = [], []
        for _ in range(bench.rounds(5)):
            times = bench.munjigi.run_probe("calls", "target=near", "count=300", f"workers={workers}")
            p50.append(times["times"]["p50_ms"])
            p99.append(times["times"]["p99_ms"])
            figures.add({f"p50, {workers} at once": p50[-1], f"p99, {workers} at once": p99[-1],
                         f"calls/s, {workers} at once": times["per_second"]})
        if workers == 1:
            middle = sorted(p99)[len(p99) // 2]
            goals.append(Goal("G23", "deciding + durable audit, p99", (middle, min(p99), max(p99)), "ms",
                              must=("<=", 5), aim=("<=", 1)))
    return [figures], goals


def starts(bench, seconds):
    """Session starts per second with durable audit, each to its end, none failed (design: 100/s for 60 s)."""
    done = bench.munjigi.run_probe(
        "starts", "target=near", f"shell={SHELL}", f"seconds={seconds}", "links=4", "workers=32"
    )
    figures = Figures("start to end of a session, 32 at once", "ms")
    figures.add({share: done["times"][f"{share}_ms"] for share in ("p50", "p95", "p99", "max")})
    note = f"{done['times']['count']} sessions in {done['seconds']:.0f} s, {done['failed']} failed"
    if done["why"]:
        note += f" ({done['why']})"
    return [figures], [
        Goal("starts", f"sessions/s, audited durably, {seconds} s", done["per_second"], "/s", must=(">=", 100), note=note),
        Goal("starts", "sessions that failed", float(done["failed"]), must=("<=", 0)),
    ]
