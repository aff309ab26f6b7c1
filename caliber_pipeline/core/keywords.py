"""Words that set groups of texts apart, by class-based TF-IDF."""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np

_WORD: Final = re.compile(r"[^\W\d_](?:[\w'\u2019-]*\w)?")
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
_STOP_WORDS: Final = frozenset(_STOP_TEXT.split())


def split_words(text: str) -> list[str]:
    """The text's words in lower case, stop words left out."""
    words = (match.group().replace("\u2019", "'") for match in _WORD.finditer(text.lower()))
    return [word for word in words if len(word) > 1 and word not in _STOP_WORDS]


def _terms(text: str) -> set[str]:
    """Words and pairs of neighbouring words, each once per text, so that one long note does not outweigh many."""
    words = split_words(text)
    return {*words, *(f"{a} {b}" for a, b in pairwise(words) if a != b)}


def select_keywords(groups: Sequence[Sequence[str]], *, n_keywords: int = 6) -> list[list[str]]:
    """The keywords of each group of texts, the most telling first.

    A term's weight is its share of the group's texts times log(1 + A / f), f being the sum over groups of such
    shares and A the mean of f (class-based TF-IDF, Grootendorst 2022, on document rather than term counts). A term
    that only one text of a larger group has is no keyword; a term inside a chosen pair, or a pair that adds nothing
    to a chosen word, is passed over.
    """
    counts = [Counter(term for text in texts for term in sorted(_terms(text))) for texts in groups]
    shares = [{term: n / len(texts) for term, n in count.items()} for count, texts in zip(counts, groups, strict=True)]
    totals: Counter[str] = Counter()
    for share in shares:
        totals.update(share)
    average = float(np.mean(list(totals.values()))) if totals else 0.0
    chosen = []
    for count, share, texts in zip(counts, shares, groups, strict=True):
        least = 2 if len(set(texts)) > 2 else 1
        weights = {
            term: share[term] * float(np.log1p(average / totals[term])) * (1.2 if " " in term else 1.0)
            for term, n in count.items()
            if n >= least
        }
        chosen.append(_select_distinct(weights, n_keywords))
    return chosen


def _select_distinct(weights: dict[str, float], n_keywords: int) -> list[str]:
    chosen: list[str] = []
    taken: set[str] = set()
    for term in sorted(weights, key=lambda t: (-weights[t], t)):
        words = term.split()
        if any(_stem(word) in taken for word in words):
            continue
        chosen.append(term)
        taken.update(map(_stem, words))
        if len(chosen) == n_keywords:
            break
    return chosen


def _stem(word: str) -> str:
    """A rough stem, only to keep 'refund' and 'refunds' from both being keywords."""
    for ending in ("ing", "ed", "es", "s", "ly"):
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word.removesuffix(ending)
    return word
