"""Words that set groups of texts apart, by class-based TF-IDF."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import fsum
from typing import Final

import numpy as np

from caliber_pipeline.core.notes import STAND_IN, mask_names

_WORD: Final = re.compile(r"[^\W\d_](?:[\w'\u2019-]*\w)?")
_CLAUSE_END: Final = re.compile(r"[.,;:?!/\n\u2014\u2013]+\s+|[.?!]+$|\s-\s")
_CONJUNCTION: Final = re.compile(r"^(?:(?:and|but|then|also|so|or|plus)\s+)+", re.IGNORECASE)
_OPENERS: Final = frozenset(
    {"no", "not", "too", "never", "without", "why", "who", "what", "how", "when", "where", "only"}
)
N_KEYWORDS: Final = 6  # as many as a person takes in at a glance
_MAX_SPAN_WORDS: Final = 5
_CLAUSE_WORDS: Final = range(3, 9)
_ONCE_MALUS: Final = 0.5  # a word of one note may say nothing of the others
_PAIR_BONUS: Final = 1.2  # two words tell more than one
_QUOTES: Final = re.compile(r"[\"()\[\]\u201c\u201d]|\B'|'\B")
_PRAISE_TEXT: Final = """
accurate clear correct excellent fine good great helpful kind lovely nice ok okay perfect pleasant polite right warm
"""
_PRAISE: Final = frozenset(_PRAISE_TEXT.split())
_DENIAL: Final = re.compile(
    r"\b(?:not?|never|without|wrong|too|hardly|nothing|none|isnt|doesnt)\b|n['\u2019]t\b", re.IGNORECASE
)
_DECIMALS: Final = 9  # of what terms are worth; beyond them is how it was summed up
_NAMING_NOTES: Final = 8  # of the most typical, from which the words are taken
_SHARING_NOTES: Final = 200  # of the most typical, of which half must hold what is said to run through them
_STOP_TEXT: Final = """
a about above after again all also am an and any anything are aren't as at be because been before being below
between both but by can can't cannot could couldn't did didn't do does doesn't doing don't down during each even
ever every few for from further get gets give given gives got had has have having he he's her here hers him his how
however i i'd i'm i've if in into is isn't it it's its itself just let like made make makes many me might more most
much must my no nor not now of off on once one only or other our out over own quite really s said same say says she
should shouldn't so some still such t than that that's the their them then there there's these they they're this
those though through to too under until up upon us very was wasn't we we're well were weren't what when where
whether which while who whom whose why will with without won't would wouldn't you you're your yours
"""
_STOP_WORDS: Final = frozenset({*_STOP_TEXT.split(), STAND_IN})


def split_words(text: str) -> list[str]:
    """The text's words in lower case, stop words left out."""
    words = (match.group().replace("\u2019", "'") for match in _WORD.finditer(text.lower()))
    return [word for word in words if len(word) > 1 and word not in _STOP_WORDS]


def _terms(text: str) -> list[str]:
    """Words and pairs of neighbouring words, each once per text, so that one long note does not outweigh many."""
    words = split_words(text)
    return list(dict.fromkeys([*words, *(f"{a} {b}" for a, b in pairwise(words) if a != b)]))


def select_keywords(groups: Sequence[Sequence[str]], weights: Sequence[Sequence[int]] | None = None) -> list[list[str]]:
    """Up to six keywords of each group of texts, the most telling first.

    A term's weight is its share of the group's texts times log(1 + A / f), f being the sum over groups of such
    shares and A the mean of f (class-based TF-IDF, Grootendorst 2022, on shares of texts rather than term counts).
    Names of people and places are passed over, and so is a term that shares a word with a chosen one; of equal
    terms the one that comes first is taken, so give the most typical texts first.

    Args:
        groups: The texts of each group.
        weights: How many records each text stands for; None is one each.
    """
    if weights is None:
        weights = [[1] * len(texts) for texts in groups]
    counts = [_count_terms(texts, own) for texts, own in zip(groups, weights, strict=True)]
    shares = [
        {term: n / max(sum(own), 1) for term, n in count.items()} for count, own in zip(counts, weights, strict=True)
    ]
    totals: Counter[str] = Counter()
    for share in shares:
        totals.update(share)
    average = float(np.mean(list(totals.values()))) if totals else 0.0
    chosen = []
    for count, share in zip(counts, shares, strict=True):
        worth = {
            term: share[term]
            * float(np.log1p(average / totals[term]))
            * (_PAIR_BONUS if " " in term else 1.0)
            * (1.0 if n > 1 else _ONCE_MALUS)
            for term, n in count.items()
            if n > 1 or " " not in term
        }
        chosen.append(_select_distinct(worth))
    return chosen


def _count_terms(texts: Sequence[str], weights: Sequence[int]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for text, weight in zip(texts, weights, strict=True):
        for term in _terms(mask_names(text)):
            counts[term] += weight
    return counts


def _select_distinct(weights: dict[str, float]) -> list[str]:
    chosen: list[str] = []
    taken: set[str] = set()
    for term in sorted(weights, key=lambda t: -round(weights[t], _DECIMALS)):
        words = term.split()
        if any(_stem(word) in taken for word in words):
            continue
        chosen.append(term)
        taken.update(map(_stem, words))
        if len(chosen) == N_KEYWORDS:
            break
    return chosen


def select_name(keywords: Sequence[str], notes: Sequence[str], *, of_faults: bool = False) -> str:
    """A short name in people's own words.

    Where one keyword runs through at least half of the notes: the span of two to five words that holds most of the
    keywords; else the clause of three to eight words that does. Both are taken from the most typical notes.

    Args:
        keywords: The most telling first.
        notes: The most typical first.
        of_faults: The notes are on rejects: what they praise on the way ("bolt advice fine") names no fault.
    """
    said = [" ".join(split_words(note)) for note in notes[:_SHARING_NOTES]]
    shared = [term for term in keywords if sum(term in words for words in said) * 2 >= len(said)]
    typical = notes[:_NAMING_NOTES]
    clauses = [(i, clause) for i, note in enumerate(typical) for clause in _clauses(note)]
    if of_faults:
        clauses = [(i, clause) for i, clause in clauses if not _praises(clause)] or clauses
    spans = [(i, span) for i, clause in clauses for span in _spans(clause)] if shared else []
    sizes = (_CLAUSE_WORDS, range(2, _CLAUSE_WORDS.stop))
    candidates = [spans, *([(i, c) for i, c in clauses if len(c.split()) in size] for size in sizes)]
    name = next((best for found in candidates if (best := _most_telling(found, keywords))), "")
    if not name:
        words = next((clause for _, clause in clauses if clause), " ".join(notes[0].split())).split()
        name = " ".join(words[: _CLAUSE_WORDS.stop - 1]) + ("\u2026" if len(words) >= _CLAUSE_WORDS.stop else "")
    return name


def _praises(clause: str) -> bool:
    return not _PRAISE.isdisjoint(clause.lower().split()) and _DENIAL.search(clause) is None


def _most_telling(candidates: Sequence[tuple[int, str]], keywords: Sequence[str]) -> str:
    """The text that holds most of the keywords for its length, the first keywords and typical notes counting more."""
    worth = {_stem(word): 1.0 / (1 + i) for i, term in reversed(list(enumerate(keywords))) for word in term.split()}
    best, best_score = "", 0.0
    for i, text in candidates:
        held = {_stem(word) for word in split_words(text)}
        score = fsum(worth.get(word, 0.0) for word in held) * 0.95**i * 0.94 ** len(text.split())
        score = round(score, _DECIMALS)
        if score > best_score:
            best, best_score = text, score
    return best


def _clauses(note: str) -> list[str]:
    clauses = (" ".join(clause.split()) for clause in _CLAUSE_END.split(_QUOTES.sub("", note)))
    return [_CONJUNCTION.sub("", clause) for clause in clauses]


def _spans(clause: str) -> Iterator[str]:
    """Runs of 2 to `_MAX_SPAN_WORDS` words that begin and end with telling words."""
    words = clause.split()
    for start in range(len(words)):
        for end in range(start + min(2, len(words)), min(start + _MAX_SPAN_WORDS, len(words)) + 1):
            span = words[start:end]
            if _opens(span[0]) and split_words(span[-1]):
                yield " ".join(span)


def _opens(word: str) -> bool:
    return bool(split_words(word)) or word.lower() in _OPENERS


def _stem(word: str) -> str:
    """A rough stem, only to keep 'refund' and 'refunds' from both being keywords."""
    for ending in ("ing", "ed", "es", "s", "ly"):
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word.removesuffix(ending)
    return word
