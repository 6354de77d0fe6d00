import pytest

from app.adapters.mailer import MailRefusedError, check_address, describe_reply


@pytest.mark.parametrize(
    ("text", "described"),
    [
        (b"5.1.1 <ada@people.example>: no such user", "SMTP 550 5.1.1 to RCPT"),
        (b"no such user ada@people.example", "SMTP 550 to RCPT"),
        (b"5.1.1ada", "SMTP 550 to RCPT"),
        (b"", "SMTP 550 to RCPT"),
    ],
)
def test_a_refusal_is_told_by_its_codes_and_never_by_the_servers_words(
    text: bytes, described: str
) -> None:
    assert describe_reply(550, text, to="RCPT") == described


@pytest.mark.parametrize("address", ["ada@people.example", "a.b+c=d@x.example", "x@[192.0.2.1]"])
def test_an_ascii_address_in_one_word_is_usable(address: str) -> None:
    check_address(address)


@pytest.mark.parametrize(
    "address",
    ["", "ada", "@x", "ada@", "a b@x", "a@x\r\nDATA", "a@x\n", "<a@x>", "a@x,b@x", "ä@x", "a@\0"],
)
def test_anything_else_is_refused_without_being_repeated(address: str) -> None:
    with pytest.raises(MailRefusedError) as refused:
        check_address(address)
    assert str(refused.value) == "the address cannot be used"
