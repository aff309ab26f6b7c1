"""What must not leave does not, and what may stays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caliber_pipeline.core.sanitizer import redact

# 4111 1111 1111 1111 and 378282246310005 are the card networks' published test numbers; the phone numbers are from
# the ranges that regulators keep for fiction (Ofcom 020 7946 0xxx, NANP 555-01xx).
_REDACTED = [
    ("write to jo.b+shop@mail.example.co.uk please", "write to [EMAIL] please"),
    ("<A_B@EXAMPLE.COM>", "<[EMAIL]>"),
    ("call 020 7946 0018 today", "call [PHONE] today"),
    ("call +44 20 7946 0018.", "call [PHONE]."),
    ("ring (212) 555-0143, ext 2", "ring [PHONE], ext 2"),
    ("tel:+12125550143", "tel:[PHONE]"),
    ("02079460018", "[PHONE]"),
    ("555.0143.222", "[PHONE]"),
    ("card 4111 1111 1111 1111 exp 04/27", "card [CARD] exp 04/27"),
    ("card 4111111111111111", "card [CARD]"),
    ("amex 378282246310005", "amex [CARD]"),
    ("card 1234-5678-9012-3456", "card [CARD]"),
    ("key sk-proj-abcDEF1234567890abcd", "key [TOKEN]"),
    ("ghp_0123456789abcdefABCDEF0123456789abcd", "[TOKEN]"),
    ("AKIAIOSFODNN7EXAMPLE is it", "[TOKEN] is it"),
    ("Authorization: Bearer abc.def-123456789", "Authorization: Bearer [TOKEN]"),
    ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjMifQ.c2lnbmF0dXJl ok", "[TOKEN] ok"),
    ("password: hunter2!", "password: [TOKEN]"),
    ('api_key = "abcd1234"', "api_key = [TOKEN]"),
    ("https://user:pa55@host.example/x", "https://[TOKEN]@host.example/x"),
    ("to o'hara.b@example.org", "to [EMAIL]"),
    ("+44\u00a020\u00a07946\u00a00018", "[PHONE]"),
    ("phone: 2125550143 or call 2125550143", "phone: [PHONE] or call [PHONE]"),
    ("+4915112345678 passes the check of cards", "[PHONE] passes the check of cards"),
    ("12 34 56 78", "[PHONE]"),
    ("4111\u00a01111\u00a01111\u00a01111", "[CARD]"),
    ("Authorization: Basic dXNlcjpwYXNzd29yZA==", "Authorization: Basic [TOKEN]"),
    ("DB_PASSWORD=hunter22 client_secret=abc123def", "DB_PASSWORD=[TOKEN] client_secret=[TOKEN]"),
    ('{"password": "hunter22"}', '{"password": [TOKEN]}'),
    ("the password is hunter22", "the password is [TOKEN]"),
    ("key sk-ant-api03-abcDEF123456_xyz-000", "key [TOKEN]"),
    ("d41d8cd98f00b204e9800998ecf8427e", "[TOKEN]"),
    ("-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY----- end", "[TOKEN] end"),
]

_KEPT = [
    "Order LK-48213 came on 2026-04-01, not 2025-12-24",
    "delivered 24/12/2025 at 14:30",
    "5-7 business days, 30 days from delivery",
    "refund of £1,249.99 on 3 items",
    "version 1.13.2 of 2026",
    "the record id 1234567",
    "asks for password and full card number",
    "2019-2023, 2023 2024 2025, 2024-25 2025-26, invoice 2024-000123",
    "24.12.23 18:00, from 2024-01-15 2024-01-16",
    "1 000 000 euros, 1.234.567 pounds, pi is 3.14159265358979, lat 52.520008",
    "192.168.100.200, ISBN 978-3-16-148410-0",
    "chapters 1 2 3 4 5 6 7 8, ages 40-50 60-70, scores 10/10 9/10 8/10",
    "the password is printed on the router",
    "the token limit is 4096",
    "12 notes @ home",
    "self-explanatory-but-rather-long-compound-adjectives",
]


@pytest.mark.parametrize(("text", "expected"), _REDACTED)
def test_what_must_not_leave_is_replaced_by_its_kind(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize("text", _KEPT)
def test_ordinary_figures_and_words_stay(text: str) -> None:
    assert redact(text) == text


@given(st.lists(st.sampled_from([text for text, _ in _REDACTED] + _KEPT), max_size=4).map(" ; ".join))
def test_redacting_again_changes_nothing(text: str) -> None:
    once = redact(text)
    assert redact(once) == once
    for secret in ("@example", "@EXAMPLE", "7946", "1111", "hunter2", "abcd1234", "pa55"):
        assert secret not in once
