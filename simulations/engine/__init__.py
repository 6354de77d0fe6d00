"""A Celery deployment on virtual time: any app's, with the real parts of Celery and kombu."""

from simulations.engine.deployment import Deployment
from simulations.engine.pool import ServiceTime
from simulations.engine.worker import WorkerGroup

__all__ = ["Deployment", "ServiceTime", "WorkerGroup"]
