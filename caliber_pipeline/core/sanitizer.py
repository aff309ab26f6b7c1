"""Redaction: what may not leave in a text - e-mail addresses, phone numbers, card numbers and tokens."""

import re
from typing import Final

_EMAIL: Final = re.compile(r"(?<![\w.+-])[\w+%-][\w.+%'-]{0,63}@(?:[\w-]{1,63}\.)+[^\W\d_]{2,24}\b")
_DIGITS: Final = re.compile(
    r"(?<![\w.-])(?:\+|\(|00)?\d(?:[ \u00a0\u2009\u202f().\u2010-\u2013/-]{0,2}\d){6,24}(?![\w-]|\.\d)"
)
_TOKENS: Final = (
    re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]+)?"),  # JSON web token
    re.compile(r"\b(?:sk|pk|rk)[-_](?:[a-z0-9]+[-_])*[A-Za-z0-9]{12,}[\w-]*"),  # model and payment providers' keys
    re.compile(r"\b(?:gh[pousr]_|github_pat_|glpat-|xox[abprs]-|hf_|npm_|pypi-)[\w-]{10,}"),
    re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    re.compile(r"\bAIza[\w-]{30,}"),
    re.compile(r"(?i)(?<=\bbearer )[\w.~+/-]{12,}=*"),
    re.compile(r"(?i)(?<=\bauthorization: basic )[\w+/-]{8,}=*"),
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
)
_SECRET_VALUE: Final = re.compile(
    r"(?i)(?<![\w-])([\w-]{0,40}(?:api[_ -]?key|token|secret|password|passwd|pwd)(?:[_-]key)?)"
    r"([\"']?\s*[:=]\s*|\s+is\s+(?=[^\s\"']*\d))([\"']?)([^\s\"',;&]{4,})\3"
)
_URL_CREDENTIALS: Final = re.compile(r"(?i)(?<=://)[^\s/@:]+:[^\s/@]+(?=@)")
_RANDOM: Final = re.compile(r"(?<![\w/+=-])(?=[\w/+-]*[A-Za-z])(?=[\w/+-]*\d)[\w/+-]{32,}={0,2}(?![\w/+=-])")
_TELEPHONE_WORD: Final = re.compile(
    r"(?i)\b((?:phone|tel|telephone|mobile|cell|call|ring|fax|whatsapp)[^\w+]{0,3}(?:(?:number|no|nr)[^\w+]{1,3})?)(\d{7,15})\b"
)
_DATE: Final = r"(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d{2}))(?:[ T]\d{1,2})?"
_YEAR: Final = r"(?:19|20)\d\d(?:[-/\u2013]\d\d)?"
_FIGURE: Final = re.compile(
    rf"{_DATE}(?:[ \u2013/-]{{1,3}}{_DATE})*|{_YEAR}(?:[ \u2013/-]{{1,3}}{_YEAR})*"
    r"|(?:19|20)\d\d-\d{5,7}"  # an invoice by its year
    r"|[1-9]?\d{0,2}\.\d{5,}"  # a decimal fraction
    r"|[1-9]\d?(?:([ .\u00a0\u202f])\d{3})(?:\1\d{3})*"  # thousands; three digits first are a phone number's
    r"|(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)"  # an IPv4 address
    r"|97[89](?:[ -]?\d){10}"  # ISBN
    r"|(?!\d\d(?: \d\d){3}$)[1-9]\d?(?:[ \u2013/-]{1,2}\d{1,2})+"  # ranges, scores, lists; pairs are a phone number's
)

MIN_PHONE_DIGITS: Final = 7  # the shortest local numbers; shorter runs are amounts and counts
MAX_PHONE_DIGITS: Final = 15  # ITU-T E.164
_CARD_DIGITS: Final = range(13, 20)  # ISO/IEC 7812


def redact(text: str) -> str:
    """The text with each e-mail address, phone number, card number and token replaced by its kind in brackets.

    Card numbers are runs of 13 to 19 digits that pass the Luhn check, or come in groups of four, and any run longer
    than a phone number. A run of 7 to 15 digits is a phone number where it is written like one: with a plus, a leading
    zero, in groups, or after a word such as "phone". Dates, years, amounts, decimals, IP addresses, ISBNs, ranges and
    order numbers such as LK-48213 stay. Redacting twice changes nothing.
    """
    for pattern in _TOKENS:
        text = pattern.sub("[TOKEN]", text)
    text = _SECRET_VALUE.sub(lambda m: m[0] if m[4].startswith("[") else f"{m[1]}{m[2]}[TOKEN]", text)
    text = _URL_CREDENTIALS.sub("[TOKEN]", text)
    text = _EMAIL.sub("[EMAIL]", text)
    text = _RANDOM.sub("[TOKEN]", text)
    text = _TELEPHONE_WORD.sub(r"\1[PHONE]", text)
    return _DIGITS.sub(_redact_digits, text)


def _redact_digits(match: re.Match[str]) -> str:
    run = match.group()
    digits = re.sub(r"\D", "", run)
    if _FIGURE.fullmatch(run):
        return run
    if run[0] == "+" and len(digits) <= MAX_PHONE_DIGITS:
        return "[PHONE]" if len(digits) >= MIN_PHONE_DIGITS else run
    if len(digits) in _CARD_DIGITS and (_passes_luhn(digits) or re.fullmatch(r"(?:\d{4}[ \u00a0-]){3}\d{1,7}", run)):
        return "[CARD]"
    if not MIN_PHONE_DIGITS <= len(digits) <= MAX_PHONE_DIGITS:
        return run if len(digits) <= MAX_PHONE_DIGITS else "[CARD]"
    is_phone = run[0] in "+(0" or len(re.findall(r"\d+", run)) > 1
    return "[PHONE]" if is_phone else run


def _passes_luhn(digits: str) -> bool:
    """Whether the check digit fits (ISO/IEC 7812-1, annex B)."""
    doubled = (int(d) * (1 + i % 2) for i, d in enumerate(reversed(digits)))
    return sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0
