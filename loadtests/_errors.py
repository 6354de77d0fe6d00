"""Why a load test cannot be run."""


class LoadTestError(Exception):
    """One line that says what is wrong, where, and what to do."""
