"""A deployment of real processes on this machine: the one place that starts and stops them.

The demo, the integration tests and the prove-once scripts stand on it. Import
from the modules: ``deployment`` for a whole one, or its parts, ``processes``,
``redis_server``, ``mail_catcher``, ``mailbox``, ``ports``.
"""
