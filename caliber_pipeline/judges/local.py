"""The `local` judge: the embedded default, for trying the pipeline without a key or a network. It is no LLM.

It reads what the criteria give it, as an LLM would: with examples it learns a small classifier of them; clauses tell it
what to look for by the people's words that they quote; with neither, it can only tell whether output and query are
about the same thing. It knows no facts.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from caliber_pipeline.core.criteria import Clause, Criteria
from caliber_pipeline.core.verdicts import VERDICTS
from caliber_pipeline.encoders.protocol import Encoder
from caliber_pipeline.judges.protocol import JudgeTask

Floats = NDArray[np.float64]

RELATED: Final = 0.5  # cosine of query and output from which they count as about the same thing
STEEPNESS: Final = 8.0  # of the logistic curve that turns a cosine into a probability: 0.5 ± 0.1 gives 31 % and 69 %
MIN_EXAMPLES_PER_CLASS: Final = 4  # with fewer of either verdict a classifier of 768 features learns nothing
REGULARISATION: Final = 3.0  # C of the logistic regression; 1 to 10 gave the same cross-validated kappa on train
CLAUSE_WEIGHT: Final = 0.5  # scale of the clause features against the unit vectors beside them
_SENTENCE_END: Final = re.compile(r"(?<=[.!?])\s+|\n+")


@dataclass(frozen=True)
class _Features:
    """What the judge sees of some records.

    Attributes:
        content: Mean direction of the output's sentences, and how it differs from the query's, shape (n, 2 * d).
        relatedness: Cosine of the query and the output's direction, shape (n,).
        clauses: Per clause the greatest cosine of a sentence of the output and a quote, shape (n, n_clauses).
    """

    content: Floats
    relatedness: Floats
    clauses: Floats


class LocalJudge:
    """An encoder and a logistic regression over what the criteria show."""

    provider = "local"
    is_cacheable = True
    max_examples = 300

    def __init__(self, encoder: Encoder) -> None:
        """Use an encoder; it is first called when there is something to judge."""
        self._encoder = encoder

    @property
    def model(self) -> str:
        """The encoder that it stands on."""
        return self._encoder.name

    def identity(self, criteria: Criteria) -> Mapping[str, str | int | float | None]:
        """Provider, encoder, and the version of this judge's rules."""
        return {"provider": self.provider, "model": self.model, "rules": 1}

    def judge(self, task: JudgeTask) -> Iterator[pd.DataFrame]:
        """Yield all verdicts at once: the encoder works in batches of its own."""
        if not len(task.records):
            return
        clauses = task.criteria.clauses
        seen = self._features(task.records, clauses)
        examples = task.examples
        scores = examples["human_score"].to_numpy(dtype=np.int8) if len(examples) else np.zeros(0, dtype=np.int8)
        if min(np.count_nonzero(scores == 0), np.count_nonzero(scores == 1)) >= MIN_EXAMPLES_PER_CLASS:
            shown = self._features(examples, clauses)
            _mask_own_quotes(shown.clauses, examples["record_id"], clauses)
            accept = _learn(shown, scores, seen)
            nearest = (seen.content @ shown.content.T).argmax(axis=1)
            ids = examples["record_id"].to_numpy(dtype=object)
            basis = [f"Most like example {ids[i]} ({_WORD[scores[i]]})" for i in nearest]
        else:
            accept = _by_similarity(seen, clauses)
            basis = [
                f"Query and output are {'' if r >= RELATED else 'not '}related ({r:.2f})" for r in seen.relatedness
            ]
        yield _verdicts(task.records, accept, _reasons(basis, seen, clauses), self)

    def _features(self, records: pd.DataFrame, clauses: Sequence[Clause]) -> _Features:
        sentences = [split_sentences(output) for output in records["output"]]
        queries = self._encoder.encode(list(records["query"])).astype(np.float64)
        flat = self._encoder.encode([s for group in sentences for s in group]).astype(np.float64)
        starts = np.cumsum([0, *(len(group) for group in sentences)])[:-1]
        means = np.add.reduceat(flat, starts, axis=0)
        directions = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        return _Features(
            content=np.hstack([directions, directions - queries]),
            relatedness=(queries * directions).sum(axis=1),
            clauses=self._clause_similarity(flat, starts, clauses),
        )

    def _clause_similarity(self, sentences: Floats, starts: NDArray[np.int64], clauses: Sequence[Clause]) -> Floats:
        columns = []
        for clause in clauses:
            quotes = self._encoder.encode(list(clause.evidence.quotes or (clause.text,))).astype(np.float64)
            columns.append(np.maximum.reduceat((sentences @ quotes.T).max(axis=1), starts))
        return np.column_stack(columns) if columns else np.zeros((len(starts), 0))


_WORD: Final = {0: "rejected", 1: "accepted"}


def split_sentences(text: str) -> list[str]:
    """The sentences and lines of a text; a text without any is one itself."""
    return [part for part in _SENTENCE_END.split(text) if part.strip()] or [text]


def _mask_own_quotes(similarity: Floats, record_ids: pd.Series, clauses: Sequence[Clause]) -> None:
    """Where a clause quotes an example's own note, put the other examples' mean: the echo would teach too much."""
    for column, clause in enumerate(clauses):
        is_own = record_ids.isin(clause.evidence.record_ids).to_numpy(dtype=bool)
        if not is_own.all():
            similarity[is_own, column] = similarity[~is_own, column].mean()


def _learn(shown: _Features, scores: NDArray[np.int8], seen: _Features) -> Floats:
    """Probability of accept by a classifier that was trained on the examples."""
    from sklearn.linear_model import LogisticRegression

    def table(features: _Features) -> Floats:
        return np.hstack([features.content, CLAUSE_WEIGHT * features.clauses])

    classifier = LogisticRegression(C=REGULARISATION, max_iter=2000, class_weight="balanced")
    classifier.fit(table(shown), scores)
    probabilities: Floats = classifier.predict_proba(table(seen))[:, 1]
    return probabilities


def _by_similarity(seen: _Features, clauses: Sequence[Clause]) -> Floats:
    """Probability of accept by relatedness, moved by the clauses that a sentence comes near to."""
    evidence = STEEPNESS * (seen.relatedness - RELATED)
    for column, clause in enumerate(clauses):
        nearness = STEEPNESS * np.maximum(seen.clauses[:, column] - RELATED, 0)
        evidence += nearness if clause.verdict == 1 else -nearness
    return np.asarray(1 / (1 + np.exp(-evidence)))


def _reasons(basis: Sequence[str], seen: _Features, clauses: Sequence[Clause]) -> list[str]:
    if not clauses:
        return [f"{text}." for text in basis]
    nearest = seen.clauses.argmax(axis=1)
    names = [clause.evidence.pattern or clause.text for clause in clauses]
    return [
        f"{text}; nearest clause: {names[column]} ({seen.clauses[row, column]:.2f})."
        for row, (text, column) in enumerate(zip(basis, nearest, strict=True))
    ]


def _verdicts(records: pd.DataFrame, accept: Floats, reasons: Sequence[str], judge: LocalJudge) -> pd.DataFrame:
    scores = (accept >= 0.5).astype(np.int8)
    verdicts = pd.DataFrame(index=range(len(records)), columns=VERDICTS.names, dtype=object)
    verdicts["record_id"] = records["record_id"].to_numpy(dtype=object)
    verdicts["status"] = "scored"
    verdicts["llm_score"] = scores
    verdicts["llm_reasoning"] = list(reasons)
    verdicts["confidence"] = np.where(scores == 1, accept, 1 - accept)
    verdicts["provider"] = judge.provider
    verdicts["model"] = judge.model
    verdicts["n_attempts"] = 1
    return verdicts
