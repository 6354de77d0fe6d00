"""Kinds of failure, by what helps against them."""


class TransientError(Exception):
    """It may work in a while: retried with backoff."""


class PermanentError(Exception):
    """It will never work: a dead letter at once."""
