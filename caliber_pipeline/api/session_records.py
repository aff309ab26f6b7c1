"""A session's data: records, annotations, and what each step made of them."""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from caliber_pipeline.api.annotating import AnnotationManager, AnnotationState
from caliber_pipeline.api.records import Annotation, UploadedRecord
from caliber_pipeline.api.upload import UploadHandler, UploadResult
from caliber_pipeline.core.errors import MissingStepError

if TYPE_CHECKING:
    import pandas as pd

    from caliber_pipeline.api.analysis import MisalignmentAnalysis
    from caliber_pipeline.api.discovery_results import PatternDiscoveryResult
    from caliber_pipeline.api.optimization import OptimizationResult
    from caliber_pipeline.api.results import EvaluationResult
    from caliber_pipeline.encoders.protocol import Encoder
    from caliber_pipeline.judges.protocol import Judge
    from caliber_pipeline.stores.verdict_cache import VerdictCache

ResultT = TypeVar("ResultT")


class SessionState(StrEnum):
    """Which step is next: uploading, annotating, evaluating, or none as there is an evaluation."""

    UPLOAD = "upload"
    ANNOTATE = "annotate"
    EVALUATE = "evaluate"
    COMPLETE = "complete"


class SessionRecords:
    """A session's records and annotations, and what the steps made of them so far."""

    def __init__(
        self,
        session_id: str | None = None,
        *,
        judge: Judge | None = None,
        encoder: Encoder | None = None,
        cache: VerdictCache | None = None,
    ) -> None:
        """Start a session.

        Args:
            session_id: Its id; made where not given.
            judge: Who judges, whatever provider a step names.
            encoder: Text to vectors for patterns and 'local'; None takes the packaged one.
            cache: Where verdicts are kept; None keeps them in memory.
        """
        self._id = session_id or uuid.uuid4().hex
        self._judge = judge
        self._encoder = encoder
        self._cache = cache
        self._upload: UploadResult | None = None
        self._revision = 0
        self._manager = AnnotationManager([])
        self._evaluation: EvaluationResult | None = None
        self._patterns: PatternDiscoveryResult | None = None
        self._analysis: MisalignmentAnalysis | None = None
        self._proposal: OptimizationResult | None = None

    def __repr__(self) -> str:
        """Id, state and size."""
        return f"{type(self).__name__}({self._id!r}, state={self.state.value!r}, records={len(self._manager.records)})"

    @property
    def session_id(self) -> str:
        """The session's id."""
        return self._id

    @property
    def state(self) -> SessionState:
        """Which step is next."""
        if self._upload is None:
            return SessionState.UPLOAD
        if self._still_valid(self._evaluation) is not None:
            return SessionState.COMPLETE
        return SessionState.EVALUATE if self._manager.is_complete() else SessionState.ANNOTATE

    @property
    def records(self) -> list[UploadedRecord]:
        """The records, in their order."""
        return self._manager.records

    @property
    def annotations(self) -> list[Annotation]:
        """Every annotator's latest verdict on each record."""
        return self._manager.annotations

    @property
    def annotation_manager(self) -> AnnotationManager:
        """The annotations with undo and history, for renderers to annotate with."""
        return self._manager

    @property
    def patterns(self) -> PatternDiscoveryResult | None:
        """The patterns that were discovered, None before."""
        return self._still_valid(self._patterns)

    @property
    def analysis(self) -> MisalignmentAnalysis | None:
        """The analysis that was made, None before."""
        return self._still_valid(self._analysis)

    @property
    def proposal(self) -> OptimizationResult | None:
        """The criteria that were proposed, None before."""
        return self._still_valid(self._proposal)

    def upload_csv(self, path: str | Path, column_mapping: Mapping[str, str] | None = None) -> UploadResult:
        """Take the records of a CSV file; see `UploadHandler.from_csv`."""
        return self.upload(UploadHandler().from_csv(path, column_mapping))

    def upload_records(
        self, records: list[dict[str, Any]], column_mapping: Mapping[str, str] | None = None
    ) -> UploadResult:
        """Take dicts; see `UploadHandler.from_records`."""
        return self.upload(UploadHandler().from_records(records, column_mapping))

    def upload_dataframe(self, df: pd.DataFrame, column_mapping: Mapping[str, str] | None = None) -> UploadResult:
        """Take a frame's rows; see `UploadHandler.from_dataframe`."""
        return self.upload(UploadHandler().from_dataframe(df, column_mapping))

    def upload(self, upload: UploadResult) -> UploadResult:
        """Take what `UploadHandler` read, in place of what was there.

        Annotations made here stay for records that are the same as before and bring none of their own; all that
        rested on the old records is dropped.
        """
        brought = {(a.record_id, a.annotator) for a in upload.annotations}
        before = {record.record_id: _content(record) for record in self._manager.records}
        same = {r.record_id for r in upload.records if before.get(r.record_id) == _content(r)}
        by_hand = {(change.record_id, change.annotator) for change in self._manager.history}
        kept = [
            a
            for a in self._manager.annotations
            if a.record_id in same and (a.record_id, a.annotator) in by_hand - brought
        ]
        self._manager = AnnotationManager(upload.records, [*kept, *upload.annotations])
        self._upload = upload
        self._drop_results()
        return upload

    def annotate(
        self, record_id: str, score: int, notes: str | None = None, annotator: str | None = None
    ) -> Annotation:
        """Give or change a verdict: 1 accept, 0 reject; without an annotator it is the label itself.

        Raises:
            MissingStepError: there are no records.
            InputError: the record is unknown, or the score is neither 0 nor 1.
        """
        self._need_upload("annotate")
        return self._manager.annotate(record_id, score, notes, annotator)

    def get_annotation_state(self) -> AnnotationState:
        """How far the annotating is."""
        return self._manager.get_state()

    def get_record_for_annotation(self, index: int) -> UploadedRecord:
        """The record at an index, which becomes the one at hand.

        Raises:
            MissingStepError: there are no records.
            InputError: there is none at the index.
        """
        self._need_upload("annotate")
        return self._manager.set_current_index(index)

    def get_next_unannotated(self) -> UploadedRecord | None:
        """The next record without an annotation, None where there is none."""
        return self._manager.get_next_unannotated()

    def is_annotation_complete(self) -> bool:
        """Whether there are records and each has an annotation."""
        return self._manager.is_complete()

    def _need_upload(self, step: str) -> UploadResult:
        if self._upload is None:
            raise MissingStepError(f"cannot {step} yet: upload records first (upload_csv, upload_records, …)")
        return self._upload

    def _need_annotations(self, step: str) -> UploadResult:
        upload = self._need_upload(step)
        self._still_valid(None)  # what the step yields holds for the annotations as they are now
        if not self._manager.annotations:
            raise MissingStepError(f"cannot {step} yet: annotate records first (annotate, or upload a human_score)")
        return upload

    def _need_evaluation(self, step: str) -> EvaluationResult:
        self._need_annotations(step)
        evaluation = self._still_valid(self._evaluation)
        if evaluation is None:
            raise MissingStepError(f"cannot {step} yet: evaluate first (evaluate, evaluate_sync)")
        return evaluation

    def _still_valid(self, result: ResultT | None) -> ResultT | None:
        """What was made of the annotations, None where they changed since."""
        if self._revision != self._manager.revision:
            self._drop_results()
            return None
        return result

    def _drop_results(self) -> None:
        self._evaluation = self._patterns = self._analysis = self._proposal = None
        self._revision = self._manager.revision

    def _open_cache(self) -> VerdictCache:
        """The cache given, else one in memory for as long as the session lives."""
        if self._cache is None:
            from caliber_pipeline.stores.verdict_cache import VerdictCache

            self._cache = VerdictCache(Path(":memory:"))
            weakref.finalize(self, self._cache.close)
        return self._cache


def _content(record: UploadedRecord) -> tuple[str, str, str | None]:
    return record.query, record.output, record.reference
