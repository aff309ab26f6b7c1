"""What an evaluation yields: verdicts beside labels, agreement, and what got no verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from caliber_pipeline.api.examples import Example
from caliber_pipeline.api.fields import each_item
from caliber_pipeline.api.frames import frame_from_json, frame_to_json, table_from_json, table_to_json
from caliber_pipeline.api.records import column_values
from caliber_pipeline.core.agreement import ConfusionMatrix, interpret_kappa
from caliber_pipeline.core.arguments import ITEMS, Kind, accepts, has_attributes, show
from caliber_pipeline.core.criteria import DEFAULT_CRITERIA, Clause, Criteria
from caliber_pipeline.core.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from caliber_pipeline.core.gate import Comparison

EvaluationMetrics: TypeAlias = ConfusionMatrix
"""The four cells and every figure that they define, None where undefined."""

_TEXTS: Final = ("query", "output", "reference")


_SPLIT: Final = Kind(lambda name: name in {"train", "dev", "test"}, "train, dev or test")
_SAVED: Final = Kind(lambda data: isinstance(data, Mapping) and "scored" in data, "what to_dict returned")
EVALUATION: Final = has_attributes("scored", "records", wanted="an evaluation, as evaluate returns it")


@dataclass(frozen=True)
class EvaluationConfig:
    """What is asked of which judge.

    Attributes:
        criteria: The judge's instructions.
        model_name: The model of an endpoint; 'local' and 'recorded' have none.
        llm_provider: A provider's name, 'local' or 'recorded'; None takes the provider whose key the environment has,
            else 'local'.
        system_prompt: What the model is told before.
        examples: What it is shown: records with labels (models, dicts, objects or ids of annotated records), or pairs
            of input and output, which are quoted as they are.
        clauses: Precise rules with their evidence, as proposals bring them.
    """

    criteria: str = DEFAULT_CRITERIA
    model_name: str = "gpt-4o"
    llm_provider: str | None = "openai"
    system_prompt: str | None = None
    examples: Iterable[Any] = ()
    clauses: Sequence[Clause] = ()

    def __post_init__(self) -> None:
        """Take no examples for none.

        Raises:
            InputError: the examples are no list.
        """
        if not ITEMS.or_none.fits(self.examples):
            raise InputError(f"examples is {show(self.examples)}; give a list of records or of record ids")
        object.__setattr__(self, "examples", () if self.examples is None else tuple(each_item(self.examples)))

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {
            "criteria": self.criteria,
            "model_name": self.model_name,
            "llm_provider": self.llm_provider,
            "system_prompt": self.system_prompt,
            "examples": [Example.parse(example).model_dump(mode="json") for example in self.examples],
            "clauses": [clause.model_dump(mode="json") for clause in self.clauses],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EvaluationConfig:
        """What `to_dict` was made from."""
        examples = tuple(Example.model_validate(example) for example in data["examples"])
        clauses = tuple(Clause.model_validate(clause) for clause in data["clauses"])
        return cls(**{**data, "examples": examples, "clauses": clauses})


@dataclass(frozen=True)
class EvaluatedRecord:
    """A record with both verdicts.

    Attributes:
        record_id: The record.
        human_score: The label, 1 accept, 0 reject.
        llm_score: The judge's verdict.
        llm_reasoning: The judge's reasoning.
        aligned: Whether the two are equal.
        score_difference: The judge's less the people's: 1 for a false positive, -1 for a false negative, else 0.
        confidence: Probability of the verdict by the judge's own account, None without one.
        human_notes: The people's notes.
        query: What the judged system was asked.
        output: What it answered.
        reference: A known good answer.
        split: train, dev or test.
    """

    record_id: str
    human_score: int
    llm_score: int
    llm_reasoning: str | None
    aligned: bool
    score_difference: int
    confidence: float | None = None
    human_notes: str | None = None
    query: str = field(default="", repr=False)
    output: str = field(default="", repr=False)
    reference: str | None = field(default=None, repr=False)
    split: str | None = None


@dataclass(frozen=True)
class FailedRecord:
    """A record that got no verdict.

    Attributes:
        record_id: The record.
        status: 'unparseable', 'refused', 'failed' or 'skipped'.
        reason: Why.
    """

    record_id: str
    status: str
    reason: str


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """What the judge said, beside what people said.

    Attributes:
        config: What was asked.
        criteria: The same as a criteria version, with the examples that were shown.
        provider: Who answered.
        model: The model that answered.
        judge_scores: One row per judged record, of the `judge_scores` schema.
        scored: The same with labels, group and split, as `core.judge_scores.join_labels` gives it.
        texts: record_id, query, output and reference of the judged records.
    """

    config: EvaluationConfig
    criteria: Criteria
    provider: str
    model: str
    judge_scores: pd.DataFrame = field(repr=False)
    scored: pd.DataFrame = field(repr=False)
    texts: pd.DataFrame = field(repr=False)

    @cached_property
    def records(self) -> list[EvaluatedRecord]:
        """The records with both verdicts, in the upload's order, less those that the judge was shown as examples."""
        shown = self.scored[self.scored["llm_score"].notna() & ~self.scored["is_example"]]
        shown = shown.merge(self.texts, on="record_id", how="left")
        names = ("record_id", "human_score", "llm_score", "llm_reasoning", "confidence", "human_notes")
        columns = (column_values(shown[name]) for name in (*names, *_TEXTS, "split"))
        return [
            EvaluatedRecord(i, human, llm, reasoning, human == llm, llm - human, *other)
            for i, human, llm, reasoning, *other in zip(*columns, strict=True)
        ]

    @cached_property
    def failed(self) -> list[FailedRecord]:
        """The records that got no verdict, and why."""
        rows = self.judge_scores[self.judge_scores["llm_score"].isna()]
        columns = (column_values(rows[name]) for name in ("record_id", "status", "failure_reason"))
        return [
            FailedRecord(record_id, status, reason or "") for record_id, status, reason in zip(*columns, strict=True)
        ]

    @property
    def example_ids(self) -> list[str]:
        """The records that the judge was shown as examples; they count in no figure."""
        return list(column_values(self.scored.loc[self.scored["is_example"], "record_id"]))

    @cached_property
    def alignment_metrics(self) -> pd.DataFrame:
        """Every figure with its interval on train, dev, test and all: the `alignment_metrics` table."""
        from caliber_pipeline.core.alignment_metrics import compute_alignment_metrics

        return compute_alignment_metrics(self.scored)

    @cached_property
    def metrics(self) -> EvaluationMetrics:
        """Agreement on `records`; a figure that is undefined is None.

        Where labels were sampled actively, figures weigh each record by the inverse of its inclusion probability.
        """
        return _count(self, [record.record_id for record in self.records])

    def interval(self, metric: str) -> tuple[float, float] | None:
        """The 95 % interval of a figure over all records, as 'cohen_kappa'; None where undefined.

        Raises:
            KeyError: there is no such figure.
        """
        table = self.alignment_metrics
        rows = table[(table["split"] == "all") & (table["metric"] == metric) & table["slice_column"].isna()]
        if rows.empty:
            raise KeyError(f"no figure '{metric}'; there are {sorted(set(table['metric']))}")
        low, high = (column_values(rows[name])[0] for name in ("ci_low", "ci_high"))
        return None if low is None or high is None else (low, high)

    @property
    def confusion_matrix(self) -> dict[str, dict[str, int]]:
        """Counts by the judge's verdict, then the people's."""
        cells = self.metrics
        return {
            "LLM=0": {"Human=0": cells.true_negatives, "Human=1": cells.false_negatives},
            "LLM=1": {"Human=0": cells.false_positives, "Human=1": cells.true_positives},
        }

    @property
    def interpretation(self) -> str:
        """Cohen's kappa in the words of Landis and Koch: above 0.6 'substantial'; 'undefined' without a value."""
        return interpret_kappa(self.metrics.cohen_kappa)

    @property
    def misaligned(self) -> list[EvaluatedRecord]:
        """The records on which judge and people differ."""
        return [record for record in self.records if not record.aligned]

    @accepts(split=_SPLIT)
    def on_split(self, split: str) -> EvaluationResult:
        """The same on one split alone: train, dev or test.

        Raises:
            InputError: there is no such split.
        """
        ids = self.scored.loc[self.scored["split"] == split, "record_id"]
        names = ("judge_scores", "scored", "texts")
        kept = {name: getattr(self, name)[getattr(self, name)["record_id"].isin(ids)] for name in names}
        return replace(self, **{name: frame.reset_index(drop=True) for name, frame in kept.items()})

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON; figures are in it to be read and are worked out again by `from_dict`."""
        from caliber_pipeline.core.schemas import JUDGE_SCORES

        return {
            "config": self.config.to_dict(),
            "criteria": self.criteria.model_dump(mode="json"),
            "provider": self.provider,
            "model": self.model,
            "metrics": {**metrics_to_dict(self.metrics), "interpretation": self.interpretation},
            "confusion_matrix": self.confusion_matrix,
            "judge_scores": frame_to_json(self.judge_scores, JUDGE_SCORES),
            "scored": table_to_json(self.scored),
            "texts": table_to_json(self.texts),
        }

    @classmethod
    @accepts(data=_SAVED)
    def from_dict(cls, data: Mapping[str, Any]) -> EvaluationResult:
        """What `to_dict` was made from."""
        from caliber_pipeline.core.schemas import JUDGE_SCORES

        return cls(
            config=EvaluationConfig.from_dict(data["config"]),
            criteria=Criteria.model_validate(data["criteria"]),
            provider=data["provider"],
            model=data["model"],
            judge_scores=frame_from_json(data["judge_scores"], JUDGE_SCORES),
            scored=table_from_json(data["scored"]),
            texts=table_from_json(data["texts"]),
        )


@dataclass(frozen=True)
class EvaluationComparison:
    """Two evaluations on the records that both judged and that neither was shown as an example.

    Attributes:
        metrics_a: The first one's agreement there.
        metrics_b: The second one's.
        fixed: Records that only the second gets right, by id.
        broken: Records that only the first gets right.
        both_wrong: Records that neither gets right.
        only_a: Records that only the first judged.
        only_b: Records that only the second judged.
        relabelled: Records left out since people's verdict changed in between.
        p_value: Of the gain in kappa, one-sided, paired by groups; None where kappa is undefined. It describes: what
            decides is the gate on dev.
    """

    metrics_a: EvaluationMetrics
    metrics_b: EvaluationMetrics
    fixed: list[str]
    broken: list[str]
    both_wrong: list[str]
    only_a: list[str] = field(repr=False)
    only_b: list[str] = field(repr=False)
    relabelled: list[str]
    p_value: float | None

    @property
    def n(self) -> int:
        """How many records are compared."""
        return self.metrics_a.n

    @property
    def kappa_gain(self) -> float | None:
        """The second one's kappa less the first one's, None where either is undefined."""
        before, after = self.metrics_a.cohen_kappa, self.metrics_b.cohen_kappa
        return None if before is None or after is None else after - before

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {
            **vars(self),
            "metrics_a": metrics_to_dict(self.metrics_a),
            "metrics_b": metrics_to_dict(self.metrics_b),
            "n": self.n,
            "kappa_gain": self.kappa_gain,
        }


@accepts(result_a=EVALUATION, result_b=EVALUATION)
def compare(result_a: EvaluationResult, result_b: EvaluationResult) -> EvaluationComparison:
    """Two evaluations side by side: what the second fixed and what it broke."""
    a = {record.record_id: record for record in result_a.records}
    b = {record.record_id: record for record in result_b.records}
    both = [record_id for record_id in a if record_id in b]
    same = [i for i in both if a[i].human_score == b[i].human_score]
    tested = _test_gain(result_a, result_b, same)
    return EvaluationComparison(
        metrics_a=_count(result_a, same),
        metrics_b=_count(result_b, same),
        fixed=[i for i in same if not a[i].aligned and b[i].aligned],
        broken=[i for i in same if a[i].aligned and not b[i].aligned],
        both_wrong=[i for i in same if not a[i].aligned and not b[i].aligned],
        only_a=[i for i in a if i not in b],
        only_b=[i for i in b if i not in a],
        relabelled=[i for i in both if a[i].human_score != b[i].human_score],
        p_value=tested.p_value,
    )


def metrics_to_dict(metrics: EvaluationMetrics) -> dict[str, float | int | None]:
    """Cells and figures, ready for JSON."""
    from caliber_pipeline.core.agreement import CELLS

    return {"n": metrics.n, **dict(zip(CELLS, metrics.cells, strict=True)), **metrics.figures}


def _test_gain(result_a: EvaluationResult, result_b: EvaluationResult, record_ids: list[str]) -> Comparison:
    """The gate's own test, here over all records in place of dev."""
    from caliber_pipeline.core.gate import compare_versions

    base, version = (r.scored[r.scored["record_id"].isin(record_ids)] for r in (result_a, result_b))
    return compare_versions(base.assign(split="dev"), version.assign(split="dev"))


def _count(result: EvaluationResult, record_ids: list[str]) -> EvaluationMetrics:
    """The cells of these of its records."""
    from caliber_pipeline.core.optimized_criteria import count_cells

    return count_cells(result.scored[result.scored["record_id"].isin(record_ids)])
