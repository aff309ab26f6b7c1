"""Kinds of fault that people find in a system's output, whatever it is about.

A note says what is wrong and about what. Its theme is the former, but an embedding weighs the latter, so that notes
on one subject would be found alike. The directions in which the phrases below differ from one another are those of
the fault: vectors stretched along them tell faults better than subjects. The same phrases name the kind of a theme.
The list need not hold a set's themes: half of it, drawn at random, gains as much.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from caliber_pipeline.core.consensus_clustering import Labels, Matrix, unit
from caliber_pipeline.core.ties import first_best

STRETCH: Final = 2.0  # times; 1.4 gains nearly as much, 3 begins to lose what the list lacks
MIN_VOTES: Final = 0.4  # share of a theme's notes that must be nearest to a kind; then it is right for four in five
_BLOCK: Final = 16_384  # rows stretched at a time

_KINDS: Final = """
Wrong fact: states something that is not true; this is factually incorrect; wrong number, date or amount
Made-up information: invents something that does not exist; hallucinated, there is no such thing; fabricated source
Claims an action not taken: says it has done something it did not do; pretends the request was completed; claims to \
have sent or changed it
Does not answer the question: does not answer what was asked; misses the point of the question; answers something else
Leaves something out: an important part is missing; omits the key information; only half of the question is answered
Ignores a constraint: ignores what the user said they wanted; disregards the given requirement; does not respect the \
limit
No next step: does not say what to do next; no contact, link or way forward; leaves the person without help
Too vague: too generic and vague; no concrete details or examples; says nothing specific
Too long: too long and wordy; rambling, takes forever to get to the point; padded with unnecessary text
Too short: too brief; needs more explanation; one-word answer
Unfriendly tone: rude and unfriendly; cold, no empathy; condescending, lectures the user
Flattery: excessive praise; flattering and sycophantic; over-enthusiastic
Unsafe advice: dangerous advice; could hurt someone; should have warned about the risk
Private data: asks for a password or other secret; reveals personal data; violates privacy
Against the rules: contradicts the policy; promises what the rules do not allow; wrong terms and conditions
Contradiction: contradicts itself; inconsistent with what was said before; two statements cannot both be true
Repetition: repeats itself; says the same thing twice; duplicate content
Irrelevant detail: irrelevant detail; this is not important; off topic
Unclear reference: unclear who is meant; not explained who or what this is; a name is not introduced
Missing reason: does not explain why; no reason or cause is given; the motivation is unclear
Abrupt jump: abrupt transition; does not connect with what came before; confusing order of events
Language and style: grammar mistake; awkward wording, hard to read; spelling error
Wrong language: answers in the wrong language; mixes languages; not translated
Wrong format: wrong format; bad layout, not as a list; formatting problem
Needless refusal: refuses to help for no reason; declines a harmless request; over-cautious
Biased or offensive: offensive or biased; stereotypes; inappropriate content
Not practical: impossible to carry out; unrealistic plan; does not work in practice
Not accessible: not suitable for people with a disability; not accessible; excludes some people
"""
_LINES: Final = [line.split(": ") for line in _KINDS.strip().splitlines()]
KINDS: Final = tuple(name for name, _ in _LINES)
PHRASES: Final = tuple(phrase for _, phrases in _LINES for phrase in phrases.split("; "))
_PER_KIND: Final = len(PHRASES) // len(KINDS)


def stretch_faults(vectors: NDArray[np.floating], phrases: NDArray[np.floating]) -> Matrix:
    """The vectors stretched along the directions in which the phrases differ, as unit rows.

    Args:
        vectors: Of notes, shape (n, dimensions).
        phrases: Of `PHRASES`, shape (len(PHRASES), dimensions).
    """
    _, sizes, axes = np.linalg.svd(phrases - phrases.mean(axis=0), full_matrices=False)
    axes = axes[sizes > sizes.max(initial=0.0) * 1e-6].astype(vectors.dtype)
    stretched = np.empty_like(vectors)
    for start in range(0, len(vectors), _BLOCK):
        block = vectors[start : start + _BLOCK]
        stretched[start : start + _BLOCK] = unit(block + (STRETCH - 1.0) * (block @ axes.T) @ axes)
    return stretched


@dataclass(frozen=True)
class Kind:
    """A kind of fault, and the rows that speak of it."""

    name: str
    rows: Labels


def select_kinds(rows: NDArray[np.floating], labels: Labels, phrases: NDArray[np.floating]) -> list[Kind | None]:
    """The kind of fault of each cluster 0 … k-1; None where its notes do not agree on one.

    Each note votes for the kind with the phrase nearest to it. A kind names a cluster where it has the most votes,
    `MIN_VOTES` of them and two at the least, and the highest mean similarity too.

    Args:
        rows: Unit vectors, shape (n, dimensions).
        labels: Per row 0 … k-1, or -1.
        phrases: Of `PHRASES`, as unit vectors of the same kind.
    """
    kinds: list[Kind | None] = []
    for c in range(int(labels.max(initial=-1)) + 1):
        own = np.flatnonzero(labels == c)
        similarity = (rows[own] @ phrases.T).reshape(len(own), len(KINDS), _PER_KIND).max(axis=2)
        nearest, best = first_best(similarity), int(first_best(similarity.mean(axis=0)))
        votes = np.bincount(nearest, minlength=len(KINDS))
        is_agreed = votes[best] >= max(2, MIN_VOTES * len(own), votes.max())
        kinds.append(Kind(KINDS[best], own[nearest == best]) if is_agreed else None)
    return kinds
