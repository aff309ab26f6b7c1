"""Learnings: advice distilled from a theme, held to the notes that it rests on."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import pandas as pd

from caliber_pipeline.core.conforming import conform_frame, empty_frame, plain_cell
from caliber_pipeline.core.enrichment import MAX_FALSE_DISCOVERY_RATE
from caliber_pipeline.core.notes import normalise_note
from caliber_pipeline.core.sanitizer import redact
from caliber_pipeline.core.themes import shorten

MAX_TAGS: Final = 10
MAX_UNACTIONABLE_CONFIDENCE: Final = 0.69  # advice without an action is not to be called sure
SURE_CONFIDENCE: Final = 0.7


@dataclass(frozen=True)
class LearningArtifact:
    """One piece of advice.

    Attributes:
        title: What was learned, in a few words.
        content: The same at length.
        tags: Lower case, underscores, at most ten.
        confidence: How sure [0, 1].
        supporting_item_ids: The evidence that it rests on.
        recommended_actions: What to do.
        counterexamples: What speaks against it.
        scope: Where it holds.
        when_not_to_apply: Where it does not.
        provenance: What made it: pattern, method, model, sources, time.
    """

    title: str
    content: str
    tags: tuple[str, ...] = ()
    confidence: float = 0.5
    supporting_item_ids: tuple[str, ...] = ()
    recommended_actions: tuple[str, ...] = ()
    counterexamples: tuple[str, ...] = ()
    scope: str | None = None
    when_not_to_apply: str | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return (
            asdict(self) | {name: list(getattr(self, name)) for name in LISTS} | {"provenance": dict(self.provenance)}
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "LearningArtifact":
        """What `to_dict` gave."""
        return cls(**dict(data) | {name: tuple(data[name]) for name in LISTS})


_ENRICHMENT_TEXT: Final = "kind n_missed n_caught n_other_missed n_other_caught odds_ratio p_value q_value is_enriched"
_ENRICHMENT_COLUMNS: Final = _ENRICHMENT_TEXT.split()
LISTS: Final = ("tags", "supporting_item_ids", "recommended_actions", "counterexamples")


@dataclass(frozen=True)
class Enrichment:
    """How much more often the judge misses a theme than other notes, among what can be missed."""

    n_missed: int
    n_caught: int
    share_other_missed: float | None
    q_value: float


@dataclass(frozen=True)
class ThemeEvidence:
    """What a learning is distilled from.

    Attributes:
        name: The theme's name.
        description: A sentence.
        notes: Notes by id, the most typical first.
        keywords: Words that set the notes apart.
        stability: Bootstrap Jaccard; None where not computed.
        confidence: Mean similarity to the centre; None where not known.
        enrichment: Where the judge's errors are known.
        polarity: The verdict that the notes explain, 'reject' or 'accept'; None where they explain none.
    """

    name: str
    description: str
    notes: Mapping[str, str]
    keywords: tuple[str, ...] = ()
    stability: float | None = None
    confidence: float | None = None
    enrichment: Enrichment | None = None
    polarity: str | None = None


_SCORES: Final = {"reject": "score 0", "accept": "score 1", None: "say how to score"}


def distil_learning(theme: ThemeEvidence) -> LearningArtifact:
    """A learning without a language model: from keywords, representative notes and enrichment.

    The confidence is the theme's stability, or a half where that is not known, scaled down for few notes:
    n / (n + 2), so that two notes count half.
    """
    quotes = [shorten(redact(text), 200) for text in list(theme.notes.values())[:3]]
    about = f" They are about {', '.join(theme.keywords)}." if theme.keywords else ""
    quoted = "; ".join(f"\u201c{quote}\u201d" for quote in quotes)
    content = f"{len(theme.notes)} notes share this theme.{about} In people's words: {quoted}."
    actions = [f"Add a clause to the criteria: {_SCORES[theme.polarity]} where people note \u201c{quotes[0]}\u201d."]
    tags = [*theme.keywords]
    if theme.enrichment is not None:
        found = theme.enrichment
        elsewhere = "" if found.share_other_missed is None else f", against {found.share_other_missed:.0%} elsewhere"
        n = found.n_missed + found.n_caught
        content += f" The judge misses it in {found.n_missed} of {n} records{elsewhere} (q = {found.q_value:.2g})."
        if found.q_value <= MAX_FALSE_DISCOVERY_RATE:
            actions.append("Put it first: the judge misses this theme more often than others.")
            tags.append("judge blind spot")
    n_notes = len(theme.notes)
    stability = 0.5 if theme.stability is None else theme.stability
    return LearningArtifact(
        title=theme.name,
        content=content,
        tags=tuple(tags),
        confidence=round(stability * n_notes / (n_notes + 2), 2),
        supporting_item_ids=tuple(theme.notes),
        recommended_actions=tuple(actions),
        scope="Records like those that the notes are about",
    )


def distil_patterns(patterns: pd.DataFrame, notes: pd.DataFrame, enrichment: pd.DataFrame) -> pd.DataFrame:
    """One learning per pattern that train notes made, from keywords, those notes and enrichment.

    Args:
        patterns: A frame of the `patterns` schema.
        notes: record_id and text of the notes that the patterns were found in.
        enrichment: As `measure_enrichment` gives it for the patterns.

    Returns:
        A frame of the `learnings` schema, in the order of `enrichment`: what the judge misses most comes first.
    """
    text_of = dict(zip(notes["record_id"], notes["text"], strict=True))
    by_id = {row["pattern_id"]: row for row in patterns.to_dict("records")}
    rows = []
    for found in enrichment.to_dict("records"):
        pattern = by_id[found["pattern_id"]]
        if len(pattern["train_record_ids"]):
            rows.append(_learning_row(pattern, text_of, found))
    return conform_frame(pd.DataFrame(rows), "learnings") if rows else empty_frame("learnings")


def _learning_row(pattern: Mapping[Any, Any], text_of: Mapping[str, str], found: Mapping[Any, Any]) -> dict[str, Any]:
    rank = {normalise_note(example): i for i, example in enumerate(pattern["examples"])}
    texts = {i: text_of[i] for i in pattern["train_record_ids"]}
    ordered = sorted(texts, key=lambda i: (rank.get(normalise_note(texts[i]), len(rank)), i))
    share = found["share_other_missed"]
    theme = ThemeEvidence(
        name=pattern["name"],
        description=pattern["description"],
        notes={i: texts[i] for i in ordered},
        keywords=tuple(pattern["keywords"]),
        stability=plain_cell(pattern["stability"]),
        enrichment=Enrichment(
            found["n_missed"], found["n_caught"], None if pd.isna(share) else share, found["q_value"]
        ),
        polarity=pattern["polarity"],
    )
    learning = distil_learning(theme)
    provenance = {
        "writer": "keywords",
        "clustering_method": pattern["method"],
        "notes_fingerprint": pattern["notes_fingerprint"],
        "stability": theme.stability,
    }
    row = learning.to_dict() | {"tags": list(normalise_tags(learning.tags))}
    row |= {name: found[name] for name in _ENRICHMENT_COLUMNS}
    return row | {
        "learning_id": f"learning-{pattern['pattern_id']}",
        "pattern_id": pattern["pattern_id"],
        "polarity": pattern["polarity"],
        "provenance": json.dumps(provenance, sort_keys=True),
    }


def validate_learning(
    learning: LearningArtifact, cluster_ids: Collection[str]
) -> tuple[LearningArtifact | None, list[str]]:
    """Hold a learning to its cluster.

    Returns:
        The learning, or None where no supporting id is in the cluster, and the repairs made, in words: ids that are
        not in the cluster or repeat are removed, confidence is clipped to [0, 1], and lowered to 0.69 where it is
        0.7 or more without a recommended action.
    """
    known = set(cluster_ids)
    valid = tuple(dict.fromkeys(i for i in learning.supporting_item_ids if i in known))
    repairs = []
    foreign = sorted(set(learning.supporting_item_ids) - known)
    if foreign:
        repairs.append(f"'{learning.title}': removed {len(foreign)} foreign ids, e.g. {foreign[:3]}")
    if not valid:
        return None, [*repairs, f"'{learning.title}': dropped, no supporting id is in the cluster"]
    confidence = min(max(learning.confidence, 0.0), 1.0)
    if confidence != learning.confidence:
        repairs.append(f"'{learning.title}': confidence {learning.confidence} clipped to {confidence}")
    actions = tuple(action for action in learning.recommended_actions if action.strip())
    if confidence >= SURE_CONFIDENCE and not actions:
        repairs.append(f"'{learning.title}': confidence {confidence} lowered to 0.69, no recommended action")
        confidence = MAX_UNACTIONABLE_CONFIDENCE
    kept = replace(learning, supporting_item_ids=valid, confidence=confidence, recommended_actions=actions)
    return kept, repairs


def normalise_tags(tags: Sequence[str]) -> tuple[str, ...]:
    """Lower case, underscores for all that is neither letter nor digit, no duplicates, at most ten."""
    normalised = (re.sub(r"[\W_]+", "_", tag.casefold()).strip("_") for tag in tags)
    return tuple(dict.fromkeys(tag for tag in normalised if tag))[:MAX_TAGS]
