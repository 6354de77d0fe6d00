"""The only place that asks for randomness.

Production draws from the operating system, which stays right after a fork (a
forked ``random.Random`` would repeat its parent's numbers, and so its ids). A
replay puts a seeded generator here.
"""

from random import Random, SystemRandom

_source: Random = SystemRandom()


def rng() -> Random:
    """The generator in force."""
    return _source


def use(source: Random) -> Random:
    """Put ``source`` in force and return the one it replaces."""
    global _source
    replaced, _source = _source, source
    return replaced
