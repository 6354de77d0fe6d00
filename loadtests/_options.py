"""The options that load tests add to locust's, and those whose defaults they change."""

from __future__ import annotations

import argparse
from typing import Any

from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import Runner

from loadtests import _objectives
from loadtests._errors import LoadTestError
from loadtests._profiles import SHAPES


def add(parser: LocustArgumentParser) -> None:
    """Add them."""
    parser.add_argument(
        "--objectives",
        metavar="FILE",
        default=str(_objectives.DEFAULT_FILE),
        help="TOML file with the times that are good enough; a missed one makes exit status 1",
    )
    parser.add_argument(
        "--shape",
        choices=sorted(SHAPES),
        include_in_web_ui=False,  # the picker has them
        help="Let the number of users change with time: --users at the most, --run-time long",
    )
    parser.add_argument(
        "--backlog",
        metavar="N",
        type=_positive,
        default=200,
        help="Messages that each user of a flood keeps waiting while it floods",
    )
    parser.add_argument(
        "--patience",
        metavar="SECONDS",
        type=_positive,
        default=10,
        help="How long what is under way at the end is waited for, before it is taken back",
    )
    parser.set_defaults(
        class_picker=True,
        # Anybody who reaches the page can send load to any host.
        web_host="127.0.0.1",
        # A user that a shape sends away finishes what it publishes. No longer: a worker is
        # away for so long after each test.
        stop_timeout="2",
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def choose_shape(environment: Environment, runner: Runner) -> None:
    """Take the shape that was asked for, or none. Raises ``LoadTestError``."""
    # Locust takes the first that it finds, whether or not anybody wants one.
    chosen = environment.parsed_options.shape  # type: ignore[union-attr]
    available: Any = environment.available_shape_classes or {}
    environment.shape_class = None
    if chosen is None:
        return
    name, profile = SHAPES[chosen]
    environment.shape_class = available.get(name)
    if environment.shape_class is None:
        raise LoadTestError("--shape needs loadtests/shapes.py: name the folder, -f loadtests")
    environment.shape_class.runner = runner
    options: Any = environment.parsed_options
    options.num_users = options.num_users or profile.users
