from pathlib import Path

import pytest
from sqlalchemy import Engine

from app import db
from app.adapters.maildir import MaildirMailer
from app.adapters.mailer import MailerNotReadyError, MailServerUnavailableError
from app.db import NetworkInTransactionError
from scripts.live.mailbox import Mailbox

MESSAGE = b"Message-ID: <1@lessons>\r\nSubject: Guitar\r\n\r\nHello\r\n"


def send(folder: Path, *, proceed: bool = True) -> bool:
    with MaildirMailer(folder).open() as connection:
        return connection.send(
            lambda: MESSAGE,
            sender="us@x.example",
            recipient="ada@x.example",
            proceed=lambda _: proceed,
        )


def test_each_mail_is_a_file_of_its_own_in_a_folder_made_at_first_use(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "mail"
    assert send(folder)
    assert send(folder)
    assert len(Mailbox(folder)) == 2
    assert Mailbox(folder).messages()[0].get_content() == "Hello\n"


def test_a_mail_never_appears_half_written(tmp_path: Path) -> None:
    send(tmp_path)
    (file,) = (tmp_path / "new").iterdir()
    assert file.read_bytes() == MESSAGE.replace(b"\r\n", b"\n")
    assert list((tmp_path / "tmp").iterdir()) == []


def test_nothing_is_written_where_the_sender_says_no(tmp_path: Path) -> None:
    assert not send(tmp_path, proceed=False)
    assert len(Mailbox(tmp_path)) == 0


def test_a_writable_folder_passes_the_check_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    MaildirMailer(tmp_path / "mail").check()
    assert [file for file in (tmp_path / "mail").rglob("*") if file.is_file()] == []


def test_an_unwritable_folder_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    with pytest.raises(MailerNotReadyError) as wrong:
        MaildirMailer(in_the_way / "mail").check()
    assert str(wrong.value) == (
        f"SMTP_URL: cannot write to the mail folder {in_the_way / 'mail'} (Not a directory); "
        "name a folder that this user may write to, for example SMTP_URL=maildir:var/mail"
    )


def test_a_folder_that_becomes_unwritable_is_a_server_that_is_away(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    with pytest.raises(MailServerUnavailableError) as error:
        send(in_the_way / "mail")
    assert str(error.value) == f"mail folder {in_the_way / 'mail'}: Not a directory"


def test_a_folder_that_vanishes_under_an_open_connection_is_too(tmp_path: Path) -> None:
    with MaildirMailer(tmp_path / "mail").open() as connection:
        (tmp_path / "mail" / "tmp").rmdir()
        away = f"^mail folder {tmp_path / 'mail'}: No such file"
        with pytest.raises(MailServerUnavailableError, match=away):
            connection.send(
                lambda: MESSAGE, sender="us@x", recipient="ada@x", proceed=lambda _: True
            )


def test_a_mail_inside_a_transaction_is_refused(tmp_path: Path, database: Engine) -> None:
    with pytest.raises(NetworkInTransactionError), db.transaction():
        send(tmp_path)
    assert len(Mailbox(tmp_path)) == 0


def test_a_transaction_begun_on_an_open_connection_is_refused_too(
    tmp_path: Path, database: Engine
) -> None:
    with (
        MaildirMailer(tmp_path).open() as connection,
        db.transaction(),
        pytest.raises(NetworkInTransactionError),
    ):
        connection.send(lambda: MESSAGE, sender="us@x", recipient="ada@x", proceed=lambda _: True)
