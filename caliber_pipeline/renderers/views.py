"""What renderers need to know of the things they show; the Python API's objects have it, and so may others."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from caliber_pipeline.core.agreement import ConfusionMatrix


class IdView(Protocol):
    """Something about a record."""

    @property
    def record_id(self) -> str:
        """The record's id."""
        ...


class TextView(IdView, Protocol):
    """A record's texts."""

    @property
    def query(self) -> str:
        """What the judged system was asked."""
        ...

    @property
    def output(self) -> str:
        """What it answered."""
        ...


class ReasonsView(IdView, Protocol):
    """Why people and judge decided so."""

    @property
    def human_notes(self) -> str | None:
        """The people's notes."""
        ...

    @property
    def llm_reasoning(self) -> str | None:
        """The judge's reasoning."""
        ...


class RecordView(TextView, Protocol):
    """A query and an answer."""

    @property
    def reference(self) -> str | None:
        """A known good answer."""
        ...


class AnnotationView(Protocol):
    """A person's verdict."""

    @property
    def score(self) -> int:
        """1 accept, 0 reject."""
        ...

    @property
    def notes(self) -> str | None:
        """Why."""
        ...


class StateView(Protocol):
    """How far the annotating is."""

    @property
    def total(self) -> int:
        """Records."""
        ...

    @property
    def annotated(self) -> int:
        """Records with an annotation."""
        ...

    @property
    def accepts(self) -> int:
        """Records whose label is accept."""
        ...

    @property
    def rejects(self) -> int:
        """Records whose label is reject."""
        ...

    @property
    def undecided(self) -> int:
        """Records on which the annotators tie."""
        ...


class AnnotatingView(Protocol):
    """Keeps verdicts while a person gives them."""

    @property
    def current_index(self) -> int:
        """The record at hand."""
        ...

    def get_state(self) -> StateView:
        """How far the annotating is."""
        ...

    def get_current_record(self) -> RecordView | None:
        """The record at hand."""
        ...

    def get_next_unannotated(self) -> RecordView | None:
        """The next record without an annotation."""
        ...

    def get_annotation(self, record_id: str) -> AnnotationView | None:
        """The verdict on a record."""
        ...

    def annotate(self, record_id: str, score: int, notes: str | None = None) -> object:
        """Give a verdict."""
        ...

    def set_current_index(self, index: int) -> object:
        """Go to a record."""
        ...

    def index_of(self, record_id: str) -> int:
        """A record's index."""
        ...

    def undo(self) -> object:
        """Take the last verdict back; None where there is none."""
        ...


class EvaluatedView(ReasonsView, Protocol):
    """A record with both verdicts."""

    @property
    def human_score(self) -> int:
        """The people's verdict."""
        ...

    @property
    def llm_score(self) -> int:
        """The judge's verdict."""
        ...

    @property
    def aligned(self) -> bool:
        """Whether the verdicts are equal."""
        ...


class FailedView(IdView, Protocol):
    """A record without a verdict."""

    @property
    def status(self) -> str:
        """What went wrong, in one word."""
        ...

    @property
    def reason(self) -> str:
        """Why."""
        ...


class EvaluationView(Protocol):
    """A judge's verdicts beside people's."""

    @property
    def metrics(self) -> ConfusionMatrix:
        """The four cells and what they define."""
        ...

    @property
    def interpretation(self) -> str:
        """Kappa in words."""
        ...

    @property
    def provider(self) -> str:
        """Who judged."""
        ...

    @property
    def model(self) -> str:
        """The model that judged."""
        ...

    @property
    def records(self) -> Sequence[EvaluatedView]:
        """The records with both verdicts."""
        ...

    @property
    def failed(self) -> Sequence[FailedView]:
        """The records without one."""
        ...

    def interval(self, metric: str) -> tuple[float, float] | None:
        """The 95 % interval of a figure."""
        ...


class MisalignedView(TextView, ReasonsView, Protocol):
    """A false positive or a false negative."""

    @property
    def kind(self) -> str:
        """'false_positive' or 'false_negative'."""
        ...


class FindingView(Protocol):
    """What some errors have in common."""

    @property
    def title(self) -> str:
        """A short name."""
        ...

    @property
    def description(self) -> str:
        """What they have in common."""
        ...

    @property
    def record_ids(self) -> Sequence[str]:
        """Those errors."""
        ...


class AnalysisView(Protocol):
    """What the judge gets wrong."""

    @property
    def summary(self) -> str:
        """In a sentence or two."""
        ...

    @property
    def findings(self) -> Sequence[FindingView]:
        """What errors have in common."""
        ...

    @property
    def recommendations(self) -> Sequence[str]:
        """What to change."""
        ...

    @property
    def false_positives(self) -> Sequence[MisalignedView]:
        """Judge accepts, people reject."""
        ...

    @property
    def false_negatives(self) -> Sequence[MisalignedView]:
        """Judge rejects, people accept."""
        ...


class PatternView(Protocol):
    """A theme in people's notes."""

    @property
    def category(self) -> str:
        """A short name."""
        ...

    @property
    def description(self) -> str:
        """What the notes have in common."""
        ...

    @property
    def count(self) -> int:
        """How many records' notes belong to it."""
        ...

    @property
    def examples(self) -> Sequence[str]:
        """Typical notes."""
        ...

    @property
    def keywords(self) -> Sequence[str]:
        """Words that set the notes apart."""
        ...

    @property
    def stability(self) -> float | None:
        """How surely the notes belong together, in [0, 1]."""
        ...

    @property
    def record_ids(self) -> Sequence[str]:
        """Those records."""
        ...


class PatternsView(Protocol):
    """Patterns as discovering returns them."""

    @property
    def patterns(self) -> Sequence[PatternView]:
        """The patterns, the largest first."""
        ...


class SuggestionView(Protocol):
    """One change that a proposal makes."""

    @property
    def aspect(self) -> str:
        """What it is about."""
        ...

    @property
    def suggestion(self) -> str:
        """What to change."""
        ...

    @property
    def rationale(self) -> str:
        """Why."""
        ...

    @property
    def record_ids(self) -> Sequence[str]:
        """The records it comes from."""
        ...


class ProposalView(Protocol):
    """Criteria that may be better."""

    @property
    def original_criteria(self) -> str:
        """The criteria that were edited."""
        ...

    @property
    def optimized_criteria(self) -> str:
        """What they became."""
        ...

    @property
    def suggestions(self) -> Sequence[SuggestionView]:
        """The changes."""
        ...

    @property
    def summary(self) -> str:
        """In a sentence."""
        ...

    @property
    def example_ids(self) -> Sequence[str]:
        """Records that the judge is shown as examples."""
        ...


class RoundView(Protocol):
    """One version of the criteria in the course of calibrating."""

    @property
    def version(self) -> str:
        """Its name."""
        ...

    @property
    def decision(self) -> str:
        """What the gate decided."""
        ...

    @property
    def decision_reason(self) -> str:
        """Why."""
        ...

    @property
    def kappa_by_split(self) -> Mapping[str, float | None]:
        """Cohen's kappa on 'dev' and 'all', and on 'test' where it is not sealed."""
        ...


class RoundsView(Protocol):
    """Versions as iterating returns them."""

    @property
    def rounds(self) -> Sequence[RoundView]:
        """One per version, in the order of evaluation."""
        ...
