"""How fast a system's workers drain a backlog."""

from __future__ import annotations

from scripts.benchmarks.runs import rate
from scripts.benchmarks.stage import Stage, cpu_seconds, seconds_for
from scripts.benchmarks.systems import System


def drain(on: Stage, system: System, task: str, count: int) -> tuple[float, float]:
    """Tasks a second, and milliseconds of processor time a task, of one round.

    ``task`` is what the system's ``publish`` takes. Raises where a task ran twice.
    """
    on.clear()
    limit = seconds_for(count)
    on.publish(system, "publish", task, count, timeout=limit)
    with on.working(system, warm=False) as workers:
        warmed = max(1, count // 10)
        on.wait_for_runs(warmed, workers, timeout=limit)
        used, seen = cpu_seconds(workers), len(on.runs)
        found = on.wait_for_runs(count, workers, timeout=limit)
        cpu = 1000 * (cpu_seconds(workers) - used) / max(1, len(found) - seen)
    if len(found) != count:
        raise RuntimeError(f"{system.name}: {len(found)} runs of {count} tasks")
    return rate(found), cpu
