"""Which worker is stuck, and which is only idle, busy, out of reach or asleep."""

from dataclasses import replace

from app.tasks.watchdog import Look, Suspicion, suspect

GAP = 20.0  # seconds
STUCK = Look(at=100.0, progress=7, free_slots=1, waiting=3)


def after(*looks: Look) -> Suspicion | None:
    suspicion = None
    for look in looks:
        suspicion = suspect(suspicion, look, longest_gap=GAP)
    return suspicion


def later(look: Look, seconds: float = 5, **changed: int) -> Look:
    return replace(look, at=look.at + seconds, **changed)


def test_work_that_waits_for_free_slots_is_suspicious_since_it_was_first_seen() -> None:
    second = later(STUCK)
    assert after(STUCK, second, later(second)) == Suspicion(STUCK.at, later(second))


def test_an_idle_worker_is_not_stuck() -> None:
    assert after(STUCK, later(STUCK, waiting=0)) is None


def test_a_worker_that_is_busy_with_long_tasks_is_not_stuck() -> None:
    assert after(STUCK, later(STUCK, free_slots=0)) is None


def test_a_worker_whose_redis_is_away_or_whose_queues_are_paused_is_not_stuck() -> None:
    """Both have nothing waiting that it could take."""
    assert after(later(STUCK, waiting=0), later(STUCK, 10, waiting=0)) is None


def test_a_worker_that_began_anything_is_suspected_anew() -> None:
    began = later(STUCK, progress=8)
    assert after(STUCK, began) == Suspicion(began.at, began)


def test_a_machine_that_slept_does_not_make_its_worker_stuck() -> None:
    within, beyond = later(STUCK, GAP), later(STUCK, GAP + 1)
    assert after(STUCK, within) == Suspicion(STUCK.at, within)
    assert after(STUCK, beyond) == Suspicion(beyond.at, beyond)
