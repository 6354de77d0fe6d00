"""How long to wait before a retry."""

from random import Random


def backoff_delay(retries: int, *, base: float, cap: float, rng: Random) -> float:
    """Seconds to wait before retry number ``retries`` (0-based): equal jitter.

    Uniform in [d/2, d] with d = min(cap, base * 2**retries); ``base`` and ``cap`` are in
    seconds and positive. Raises ``ValueError`` for bounds that are not.
    Source: M. Brooker, "Exponential Backoff and Jitter" (AWS Architecture Blog, 2015).
    """
    if retries < 0 or not base > 0 or not cap > 0:
        raise ValueError(f"retries={retries}, base={base}, cap={cap}: want >= 0, > 0, > 0")
    try:
        full = min(cap, base * 2.0**retries)
    except OverflowError:
        full = cap
    return rng.uniform(full / 2, full)
