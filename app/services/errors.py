"""What any use case may raise."""

from app.domain.errors import PermanentError


class MissingRowError(PermanentError, LookupError):
    """A row that the work is about does not exist; the message names its table and id."""
