"""Themes: groups of distinct notes with a name, a description, examples and keywords."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from caliber_pipeline.core.consensus_clustering import Labels
from caliber_pipeline.core.fault_kinds import Kind
from caliber_pipeline.core.keywords import select_keywords, select_name
from caliber_pipeline.core.ties import rank

N_EXAMPLES: Final = 5
_MAX_KEYWORD_NOTES: Final = 2_000  # the most typical of a group; more add no keyword, only time
_EXAMPLE_LENGTH: Final = 200  # characters of the note that a description quotes


@dataclass(frozen=True)
class Theme:
    """What a group of notes has in common.

    Attributes:
        name: A few words.
        description: A sentence.
        examples: Representative notes, the most typical first.
        keywords: Words that set the notes apart, the most telling first.
        confidence: Mean similarity [0, 1] of the notes to their centre; None where not known.
    """

    name: str
    description: str
    examples: tuple[str, ...]
    keywords: tuple[str, ...]
    confidence: float | None


def describe_themes(
    texts: Sequence[str],
    weights: Labels,
    labels: Labels,
    strengths: NDArray[np.floating] | None,
    kinds: Sequence[Kind | None] | None = None,
) -> list[Theme]:
    """One theme per label 0 … k-1.

    Args:
        texts: The distinct notes.
        weights: How many records each stands for.
        labels: Per note its label, -1 for the unclustered.
        strengths: Per note its similarity to the centre of its group; None where the groups have no centre, then
            notes come in the order given.
        kinds: Per label the kind of fault, with which its name begins, in the words of the notes that speak of it.
    """
    n_themes = int(labels.max(initial=-1)) + 1
    groups = [np.flatnonzero(labels == c) for c in range(n_themes)]
    if strengths is not None:
        groups = [group[rank(strengths[group])] for group in groups]
    telling = [group[:_MAX_KEYWORD_NOTES] for group in groups]
    keywords = select_keywords(
        [[texts[i] for i in group.tolist()] for group in telling], [weights[group].tolist() for group in telling]
    )
    themes = []
    for group, words, kind in zip(groups, keywords, kinds or [None] * n_themes, strict=True):
        notes = [texts[i] for i in group.tolist()]
        confidence = None if strengths is None else float(np.clip(strengths[group], 0, 1).mean())
        naming = notes if kind is None else [texts[i] for i in group[np.isin(group, kind.rows)]]
        name = _name(words, naming, kind, of_faults=kinds is not None)
        themes.append(Theme(name, _describe(words, notes), tuple(notes[:N_EXAMPLES]), tuple(words), confidence))
    return themes


def _name(keywords: Sequence[str], notes: Sequence[str], kind: Kind | None, *, of_faults: bool) -> str:
    own_words = select_name(keywords, notes, of_faults=of_faults)
    return f"{kind.name}: {own_words}" if kind else own_words[:1].upper() + own_words[1:]


def _describe(keywords: Sequence[str], notes: Sequence[str]) -> str:
    about = f"Notes about {', '.join(keywords)}; for example: " if keywords else "For example: "
    return f"{about}\u201c{shorten(notes[0], _EXAMPLE_LENGTH)}\u201d"


def shorten(text: str, length: int) -> str:
    """The text on one line of at most `length` characters, cut between words."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1].rsplit(" ", 1)[0] + "\u2026"
