"""Variables whose value stands in a file, so that a secret is in no environment."""

import os
from pathlib import Path
from typing import Any

from pydantic_settings import EnvSettingsSource


class SettingsError(Exception):
    """A setting is wrong; the message is one line that names the variable."""


class FileVariants(EnvSettingsSource):
    """Reads ``NAME_FILE`` variables: each names a file that holds NAME's value."""

    def __call__(self) -> dict[str, Any]:
        fields = self.settings_cls.model_fields
        found = {field: value_from_file(field.upper()) for field in fields}
        return {field: value for field, value in found.items() if value is not None}


def value_from_file(name: str) -> str | None:
    """What the file holds that the variable ``name``_FILE names; ``None`` where it is not set.

    Raises ``SettingsError`` where the file cannot be read, or both variables are set.
    """
    path = os.environ.get(f"{name}_FILE")
    if path is None:
        return None
    if name in os.environ:
        raise SettingsError(
            f"{name} and {name}_FILE are both set: keep one, for example {name}_FILE={path}"
        )
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise SettingsError(
            f"{name}_FILE: cannot read {path} ({reason}): "
            f"name a readable file, for example /run/secrets/{name.lower()}"
        ) from error
