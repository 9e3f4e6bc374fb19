import time

import pytest

from thinktune.text.scrub import scrub

ALL = ("secrets", "emails", "phones")
TOKEN = "aB3" * 12


@pytest.mark.parametrize(
    ("text", "clean", "kind"),
    [
        ("id AKIAIOSFODNN7EXAMPLE.", "id [secret].", "API key"),
        (f"ghp_{TOKEN}", "[secret]", "API key"),
        (f"key=hf_{TOKEN}", "key=[secret]", "API key"),
        (f"'sk-ant-api03-{TOKEN}'", "'[secret]'", "API key"),
        (f"sk-proj-{TOKEN}", "[secret]", "API key"),
        (f"AIza{TOKEN[:35]}", "[secret]", "API key"),
        (f"xoxb-123456-{TOKEN}", "[secret]", "API key"),
        (f"Authorization: Bearer {TOKEN}", "Authorization: Bearer [secret]", "bearer token"),
        (
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
            "[secret]",
            "JWT",
        ),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIIE\n+/=\n"
            "-----END RSA PRIVATE KEY-----\nand",
            "-----BEGIN RSA PRIVATE KEY-----[secret]-----END RSA PRIVATE KEY-----\nand",
            "private key",
        ),
        ("-----BEGIN PRIVATE KEY-----\nMIIE", "-----BEGIN PRIVATE KEY-----[secret]", "private key"),
        (
            "postgres://joe:hunter2@db.example.com/x",
            "postgres://joe:[secret]@db.example.com/x",
            "password in an address",
        ),
        ("PASSWORD: 'abc12345'", "PASSWORD: '[secret]'", "secret in an assignment"),
        (
            "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "aws_secret_access_key = [secret]",
            "secret in an assignment",
        ),
        ("to joe.doe+x@mail.example.co.uk.", "to [e-mail address].", "e-mail address"),
        ("call +49 (0)30 1234-5678 now", "call [phone number] now", "phone number"),
        ("(555) 123-4567", "[phone number]", "phone number"),
        ("555.123.4567", "[phone number]", "phone number"),
    ],
)
def test_what_is_found(text: str, clean: str, kind: str) -> None:
    found = scrub(text, ALL)
    assert found.text == clean
    assert found.counts == {kind: 1}
    assert scrub(clean, ALL).text == clean


@pytest.mark.parametrize(
    "text",
    [
        "sk-learn-like-estimators-with-many-names",
        "password = input('which password?')",
        "The password: something long",
        "He was a bearer of responsibilities_and_more_of_them",
        "risk-1234567890123456789012345",
        "https://example.com:8080/@user",
        "Given f @ g, and a@b in a matrix, 5@3",
        "From 2024-01-15 to 2024-02-15, 12 14 15 16 18 20 22, 1,234,567.89",
        "ISBN 978-3-16-148410-0, p = 0.000123456789",
        "AKIA is a prefix",
        "eyJust a word.eyJust another.word",
    ],
)
def test_what_is_left_alone(text: str) -> None:
    found = scrub(text, ALL)
    assert (found.text, found.counts) == (text, {})


def test_only_what_is_asked_for() -> None:
    text = f"ghp_{TOKEN} a@b.org +49 30 1234567"
    assert scrub(text, ()).text == text
    assert scrub(text, ["emails"]).text == f"ghp_{TOKEN} [e-mail address] +49 30 1234567"
    assert scrub(text, ["phones"]).text == f"ghp_{TOKEN} a@b.org [phone number]"
    assert scrub(text, ["secrets"]).text == "[secret] a@b.org +49 30 1234567"
    assert scrub(f"{text} c@d.org", ALL).counts.total() == 4


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        " ",
        "1",
        "a@",
        "a@a.",
        "a.a@a.a",
        "+1 ",
        "+12345678901234567890123 ",
        "123-456-",
        "(123) ",
        "eyJ",
        "eyJaaaaaaaaa.",
        "sk-",
        "bearer ",
        "://a:",
        "://a:a@",
        "password=",
        "AKIA",
        "ghp_aaaa ",
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nA: b\n",
        "a" * 63 + ".",
    ],
)
def test_hostile_megabytes(piece: str) -> None:
    """Less than a second of processor time on a machine of its own; what is not linear takes
    minutes."""
    text = (piece * (1_000_000 // len(piece) + 1))[:1_000_000]
    started = time.process_time()
    scrub(text, ALL)
    assert time.process_time() - started < 3
