"""An id that stands in a message or in a key means one row for ever."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete
from sqlalchemy.orm import Session

from app import db
from app.models import Broadcast, EmailKind, EmailMessage, EmailState, PasswordReset
from tests.builders import NOON, a_student


def a_mail(session: Session) -> EmailMessage:
    return EmailMessage(
        kind=EmailKind.DIGEST,
        subject_id=20260302,
        recipient_id=a_student(session).id,
        state=EmailState.SENT,
        created_at=NOON,
    )


def a_broadcast(_session: Session) -> Broadcast:
    return Broadcast(title="News", body="None", created_at=NOON)


def a_reset(session: Session) -> PasswordReset:
    return PasswordReset(
        user_id=a_student(session).id,
        token_hash="0" * 64,
        created_at=NOON,
        expires_at=NOON + timedelta(hours=1),
    )


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("build", [a_mail, a_broadcast, a_reset])
def test_the_id_of_a_deleted_row_is_not_given_out_again(build: Any) -> None:
    with db.transaction() as session:
        row = build(session)
        session.add(row)
        session.flush()
        deleted = row.id
        session.execute(delete(type(row)))
        session.expunge_all()
        new = build(session)
        session.add(new)
        session.flush()
        assert new.id > deleted
