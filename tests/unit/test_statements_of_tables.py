"""What is run for each task and each mail goes past the ORM."""

import pytest
from sqlalchemy import Executable

from app.models import EmailKind
from app.outbox import figures, guard, publish, pump
from app.services import email_claims, email_letters
from app.services.email_letters import lesson

STATEMENTS = {
    "is it still to be done": guard._STATE,
    "mark a run done": guard._FINISH,
    "publish": publish._of_unpublished(publish._BY_ID),
    "is anything to be published": pump._UNPUBLISHED,
    "what is in which list": pump._LISTS,
    "what has left a list": pump._LEFT_LIST,
    "which tasks are retrying": figures._RETRYING_TASKS,
    "with which errors they are retrying": figures._OLDEST_RETRYING,
    "claim a mail": email_claims._CLAIM[False],
    "is a mail still held": email_claims._HELD,
    "mark a mail sent": email_claims._MARK_SENT,
    "who reads a mail": email_letters._envelope(EmailKind.DIGEST),
    "what a mail is about": lesson._letter(EmailKind.REMINDER_24H),
}


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS)
def test_a_statement_of_tables_needs_nothing_of_the_orm(statement: Executable) -> None:
    # One attribute of a mapped class among its conditions is enough to make it the ORM's:
    # its plugin then compiles it, and looks for objects in the session to bring up to date.
    assert not statement._propagate_attrs
