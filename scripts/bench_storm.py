"""The morning storm: so many lessons are due for a reminder, how fast do the mails go out?

    python -m scripts.bench_storm                              20,000 lessons
    python -m scripts.bench_storm --n 1000 --rounds 1 --system ours --system dramatiq
    python -m scripts.bench_storm --database postgresql

From the publication of the task that looks for due lessons to the last mail's 250, in a real
SMTP server on loopback; each mail exactly once, or the run fails. Every system has two
processes with one slot each, the same Redis, the same tables and the same mail, byte for byte.
The peers run a task for each mail, once with a connection for each and once with one that
their process keeps.
"""

from __future__ import annotations

import multiprocessing
import socket
import sys
import time
from functools import partial
from statistics import median
from typing import Any

from scripts.arguments import run_command
from scripts.benchmarks import command
from scripts.benchmarks.command import Benchmark
from scripts.benchmarks.databases import KINDS
from scripts.benchmarks.due_lessons import move_in
from scripts.benchmarks.environment import KEEP_CONNECTION
from scripts.benchmarks.series import Series, alternating, compare, fastest, significant
from scripts.benchmarks.smtp_sink import Sink, running_sink
from scripts.benchmarks.stage import SLOTS, Stage, cpu_seconds, seconds_for, stage
from scripts.benchmarks.systems import OURS, STOCK, STORM_PEERS, System
from scripts.live.ports import HOST

TEMPLATE = "storm"
LEAST_SECONDS = 900.0
SINK_MAILS = 5000
FEWEST_SINK_MAILS = 1000
"""Fewer could all be there before the clock is read for the first time."""
SINK_CLIENTS = 2
OURS_NAME = "ours"
CONNECTIONS = {"new": "a connection for each mail", "kept": "kept connection"}

Variant = tuple[System, str]


def storm(on: Stage, sink: Sink, system: System, connection: str, count: int) -> dict[str, float]:
    """One round: ``per_second`` mails, ``cpu_ms`` a mail, and the share of a core that the
    sink took."""
    environment = {
        "SMTP_URL": f"smtp://{HOST}:{sink.port}",
        **({KEEP_CONNECTION: "1"} if connection == "kept" else {}),
    }
    with on.working(system, environment=environment) as workers:
        used, sink_used = cpu_seconds(workers), cpu_seconds([sink.process])
        began = on.publish(system, "start_storm")["began"]
        sink.wait_for(count, timeout=seconds_for(count, least=LEAST_SECONDS))
        time.sleep(0.5)  # for a mail too many
        seen = sink.arrived()
        used, sink_used = cpu_seconds(workers) - used, cpu_seconds([sink.process]) - sink_used
    if seen["distinct"] != count or seen["doubled"]:
        raise RuntimeError(
            f"{system.name}: {seen['distinct']} of {count} mails, {seen['doubled']} doubled"
        )
    seconds = seen["last_at"] - began
    return {
        "per_second": count / seconds,
        "cpu_ms": 1000 * used / count,
        "sink_core": sink_used / seconds,
        "connections": seen["connections"],
    }


def sink_alone(on: Stage, mails: int) -> float:
    """Mails a second that the sink takes from clients that only send what they have ready."""
    with running_sink(on.folder) as sink:
        each = -(-mails // SINK_CLIENTS)
        spawn = multiprocessing.get_context("spawn")
        clients = [
            spawn.Process(target=_send_prepared, args=(sink.port, number, each))
            for number in range(SINK_CLIENTS)
        ]
        for client in clients:
            client.start()
        sink.wait_for(1, timeout=60)
        began, before = time.time(), sink.arrived()["accepted"]
        seen = sink.wait_for(each * SINK_CLIENTS, timeout=60)
        for client in clients:
            client.join()
        return float((seen["accepted"] - before) / max(1e-9, seen["last_at"] - began))


def _send_prepared(port: int, client: int, count: int) -> None:
    body = b"x" * 76 + b"\r\n"
    with socket.create_connection((HOST, port)) as server:
        server.recv(1000)
        for number in range(count):
            for line in (b"MAIL FROM:<a@b.example>", b"RCPT TO:<c@d.example>", b"DATA"):
                server.sendall(line + b"\r\n")
                server.recv(1000)
            head = b"Message-ID: <%d.%d@b.example>\r\n\r\n" % (client, number)
            server.sendall(head + body * 40 + b".\r\n")
            server.recv(1000)


def variants(names: list[str]) -> list[Variant]:
    """The chosen systems; a peer twice."""
    found: list[Variant] = [(OURS, "chunks")] if OURS_NAME in names else []
    found += [(peer, kind) for peer in STORM_PEERS if peer.name in names for kind in CONNECTIONS]
    return found


def name_of(variant: Variant) -> str:
    system, connection = variant
    if system is OURS:
        return "ours, a connection for a chunk"
    return f"{system.name}, {CONNECTIONS[connection]}"


def measure(options: Any) -> Benchmark:
    """All rounds."""
    chosen = variants(options.system)
    series = {name_of(each): Series(name_of(each), "mails/s") for each in chosen}
    cpu: dict[str, list[float]] = {name: [] for name in series}
    attempts = command.Attempts()
    busiest = 0.0
    with stage(database=options.database) as on:
        alone = sink_alone(on, max(FEWEST_SINK_MAILS, min(SINK_MAILS, 2 * options.n)))
        sizes = sorted({_size(each[0], options.n) for each in chosen})
        for size in sizes:
            on.databases.make(f"{TEMPLATE}{size}", partial(move_in, size))
        for variant in alternating(chosen, options.rounds):
            system, connection = variant
            size = _size(system, options.n)
            name = name_of(variant)
            found = attempts.measure(
                name, partial(_round, on, system, connection, size), ours=system is OURS
            )
            if found is None:
                continue
            series[name].values.append(found["per_second"])
            series[name].notes["n"] = size
            series[name].notes["connections"] = int(found["connections"])
            cpu[name].append(found["cpu_ms"])
            busiest = max(busiest, found["sink_core"])
    series = attempts.kept(series)
    for name, each in series.items():
        each.notes["cpu_ms_per_mail"] = significant(median(cpu[name]))
    said = _said(series, options, alone=alone, busiest=busiest)
    said.notes.extend(attempts.notes)
    return said


def _round(on: Stage, system: System, connection: str, size: int) -> dict[str, float]:
    on.clear(template=f"{TEMPLATE}{size}")
    with running_sink(on.folder) as sink:
        return storm(on, sink, system, connection, size)


def _size(system: System, n: int) -> int:
    return max(2, int(n * system.share))


def _said(series: dict[str, Series], options: Any, *, alone: float, busiest: float) -> Benchmark:
    ours = next((each for name, each in series.items() if name.startswith(OURS_NAME)), None)
    figures: dict[str, Any] = {
        "sink_alone_mails_per_second": round(alone),
        "sink_share_of_a_core_at_most": round(busiest, 2),
    }
    baselines: dict[str, Series | None] = {}
    for connection, words in CONNECTIONS.items():
        peers = [each for name, each in series.items() if name.endswith(words)]
        stock = [each for each in peers if each.name.startswith(STOCK.name)]
        baselines[f"ratio_to_fastest_peer_{connection}"] = fastest(peers)
        baselines[f"ratio_to_stock_celery_{connection}"] = fastest(stock)
    if ours is not None:
        compare([ours], baselines)
        figures |= {key: round(value, 2) for key, value in ours.ratios.items()}
        # The bare keys are the harder comparison: peers that keep their connections.
        for key in ("ratio_to_fastest_peer", "ratio_to_stock_celery"):
            figures[key] = figures.get(f"{key}_kept")
    kept = baselines["ratio_to_fastest_peer_kept"]
    verdict = (
        f"{ours.median:,.0f} mails a second, "
        f"{figures['ratio_to_fastest_peer']:.1f} times the fastest peer ({kept.name})"
        if ours is not None and kept is not None and figures["ratio_to_fastest_peer"]
        else "only some of the systems were measured"
    )
    return Benchmark(
        name="storm",
        title=f"A storm of {options.n:,} reminders, on {options.database}",
        series=list(series.values()),
        options={
            "n": options.n,
            "rounds": options.rounds,
            "slots": SLOTS,
            "database": options.database,
        },
        verdict=verdict,
        figures=figures,
        notes=[
            f"The sink alone takes {alone:,.0f} mails a second from {SINK_CLIENTS} clients that "
            f"only send, and was busy for at most {busiest:.0%} of a core in any round. It shares "
            "the machine with what is measured.",
            "Each mail arrived exactly once in every round, or there would be no table.",
            "All systems render the mail with the same function, and mark each mail sent with a "
            "commit of its own; ours also leases each mail, so that two deliveries at the same "
            "time do not send it twice.",
            "A peer runs a task for each mail and sends it with the standard library's smtplib, "
            "as their guides do; ours runs a task for each hundred, and gives the server MAIL, "
            "RCPT and DATA in one packet.",
        ],
    )


def main() -> int:
    every = [OURS_NAME, *(peer.name for peer in STORM_PEERS)]
    parser = command.parser("bench_storm", __doc__, n=20_000, what="lessons that are due")
    parser.add_argument(
        "--system", action="append", choices=every, default=None, help="all by default"
    )
    parser.add_argument("--database", choices=KINDS, default="sqlite")
    options = parser.parse_args()
    options.system = options.system or every
    command.tell(measure(options), as_json=options.json)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
