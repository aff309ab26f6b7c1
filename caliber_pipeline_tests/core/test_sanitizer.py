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
