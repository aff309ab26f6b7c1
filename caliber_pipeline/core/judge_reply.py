"""What a judge replied: its score and reasoning from the text, its confidence from the token probabilities."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final

_FENCED: Final = re.compile(r"```(?:json)?\s*(.*?)```", re.DOTALL | re.IGNORECASE)
_JSON_SCORE: Final = re.compile(r'(?<!\\)"score"\s*:\s*(?:"\s*([01])\s*"|([01])(?=\s*(?:[,}\n]|$)))')
_PLAIN_SCORE: Final = re.compile(
    r"\b(?:score|verdict)\b[\s*_`\"']*(?:[:=]|\bis\b)[\s*_`\"']*([01])"
    r"(?![\w%]|\s*(?:/|[.,]\d|\bout\b|\bor\b))",  # not the start of 1.5, 1/5, 1 out of 5, 0 or 1
    re.IGNORECASE,
)
_SCORE_KEY: Final = re.compile(r'(?<!\\)"score"\s*:\s*"?\s*')


@dataclass(frozen=True)
class ParsedReply:
    """A verdict: 1 accept, 0 reject, and the reasoning given for it."""

    score: int
    reasoning: str | None


def parse_reply(text: str) -> ParsedReply | None:
    """The verdict in a reply; None where it says neither 0 nor 1.

    Read in this order: the whole as a JSON object; the last JSON object with a score in it, fenced or not; a `"score"`
    key in JSON that is broken elsewhere; in plain text, the last "score: 0" or "score is 1", or a bare 0 or 1.
    """
    stripped = text.strip()
    for candidate in (stripped, *reversed(_FENCED.findall(stripped))):
        found = _from_json(candidate)
        if found is not None:
            return found
    last = _last_object(stripped)
    if last is not None:
        return last
    if stripped.startswith("{"):
        scores = [quoted or bare for quoted, bare in _JSON_SCORE.findall(stripped)]
        return ParsedReply(int(scores[-1]), stripped) if len(set(scores)) == 1 else None
    if stripped in {"0", "1"}:
        return ParsedReply(int(stripped), None)
    scores = _PLAIN_SCORE.findall(stripped)
    return ParsedReply(int(scores[-1]), stripped) if scores else None


def _from_json(text: str) -> ParsedReply | None:
    try:
        content = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None
    return _from_object(content)


def _from_object(content: object) -> ParsedReply | None:
    if not isinstance(content, Mapping):
        return None
    score = content.get("score")
    if isinstance(score, str):
        score = {"0": 0, "1": 1}.get(score.strip())
    if isinstance(score, bool) or score not in (0, 1):
        return None
    reasoning = content.get("reasoning")
    return ParsedReply(int(score), clean_text(reasoning) if isinstance(reasoning, str) else None)


def _last_object(text: str) -> ParsedReply | None:
    """The last JSON object in the text that holds a score, reading from each opening brace."""
    decoder = json.JSONDecoder(strict=False)
    found, place = None, text.find("{")
    while place >= 0:
        try:
            content, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            end = place + 1
        else:
            found = _from_object(content) or found
        place = text.find("{", end)
    return found


def clean_text(text: str) -> str:
    """The text without what cannot be stored as UTF-8 (lone surrogates) and without NUL."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def majority(scores: Sequence[int]) -> tuple[int | None, float | None]:
    """The score of most votes and its share of all votes; (None, share) on a tie, (None, None) without votes."""
    if not scores:
        return None, None
    n_accept = sum(scores)
    share = max(n_accept, len(scores) - n_accept) / len(scores)
    if 2 * n_accept == len(scores):
        return None, share
    return int(2 * n_accept > len(scores)), share


def score_confidence(tokens: Sequence[Mapping[str, Any]], score: int) -> float | None:
    """Probability of the given score against the other, from the log-probabilities of the score's token.

    Args:
        tokens: `choices[0].logprobs.content` of a chat completion: token, logprob, top_logprobs.
        score: The verdict that was read from the same reply.

    Returns:
        P(score) / (P(0) + P(1)) in [0, 1] over the alternatives given for that token; None where the token cannot be
        found or holds more than the score.
    """
    texts = [str(token.get("token", "")) for token in tokens]
    keys = list(_SCORE_KEY.finditer("".join(texts)))
    if not keys:
        return None
    place, start = keys[-1].end(), 0
    for token, text in zip(tokens, texts, strict=True):
        if start <= place < start + len(text):
            return _share_of(token, str(score))
        start += len(text)
    return None


def _share_of(token: Mapping[str, Any], score: str) -> float | None:
    chosen = {"token": token.get("token"), "logprob": token.get("logprob")}
    by_score: dict[str, float] = {}
    seen: set[str] = set()
    for option in (chosen, *(token.get("top_logprobs") or ())):
        text, logprob = str(option.get("token")), option.get("logprob")
        if text in seen or not isinstance(logprob, int | float):
            continue
        seen.add(text)
        value = text.strip(' \t\r\n"}:,')
        if value in {"0", "1"}:
            by_score[value] = by_score.get(value, 0.0) + math.exp(min(0.0, logprob))
    if score not in by_score:
        return None
    if len(by_score) == 1 and len(seen) == 1:
        return min(1.0, by_score[score])
    total = sum(by_score.values())
    return by_score[score] / total if total > 0 else None


def parse_retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that a server asks to wait; None where it does not say, or says it illegibly.

    Args:
        headers: By lower-case name. `retry-after-ms` (milliseconds) goes before `retry-after` (seconds or an HTTP
            date, RFC 9110 section 10.2.3).
        now: Seconds since the epoch, for dates.
    """
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * scale
        except (KeyError, ValueError):
            continue
        return max(0.0, seconds) if math.isfinite(seconds) else None
    try:
        date = parsedate_to_datetime(headers["retry-after"])
    except (KeyError, ValueError):
        return None
    return max(0.0, date.timestamp() - now)
