"""Which container images this machine uses: compose's rule, for who starts one without it."""

import os

from dotenv import dotenv_values

from scripts.live.deployment import REPOSITORY


def image_from(variable: str, public: str) -> str:
    """The image that the environment names, else ``.env``, else the public one."""
    chosen = os.environ.get(variable) or dotenv_values(REPOSITORY / ".env").get(variable)
    return chosen or public
