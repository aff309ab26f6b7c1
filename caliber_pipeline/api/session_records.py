"""A session's data: records, annotations, and what each step made of them."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from caliber_pipeline.api.annotating import AnnotationManager, AnnotationState
from caliber_pipeline.api.records import Annotation, UploadedRecord
from caliber_pipeline.api.session_content import SessionContent
from caliber_pipeline.api.upload import UploadHandler, UploadResult
from caliber_pipeline.core.arguments import accepts, has_attributes
from caliber_pipeline.core.errors import MissingStepError

if TYPE_CHECKING:
    import pandas as pd

    from caliber_pipeline.api.analysis import MisalignmentAnalysis
    from caliber_pipeline.api.discovery_results import PatternDiscoveryResult
    from caliber_pipeline.api.iterating import CalibrationOutcome
    from caliber_pipeline.api.optimization import OptimizationResult
    from caliber_pipeline.api.results import EvaluationResult
    from caliber_pipeline.encoders.protocol import Encoder
    from caliber_pipeline.encoders.remembering import RememberingEncoder
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

    @accepts(judge=has_attributes("judge", "identity", wanted="a judge").or_none)
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
        self._content = SessionContent(str(session_id)) if session_id else SessionContent()
        self._judge = judge
        self._encoder = encoder
        self._cache = cache
        self._remembering: RememberingEncoder | None = None
        self._revision = 0

    def __repr__(self) -> str:
        """Id, state and size."""
        n_records = len(self._content.manager.records)
        return f"{type(self).__name__}({self.session_id!r}, state={self.state.value!r}, records={n_records})"

    @property
    def session_id(self) -> str:
        """The session's id."""
        return self._content.session_id

    @property
    def state(self) -> SessionState:
        """Which step is next."""
        if not self._content.manager.records:
            return SessionState.UPLOAD
        if self._still_valid(self._content.evaluation) is not None:
            return SessionState.COMPLETE
        return SessionState.EVALUATE if self._content.manager.is_complete() else SessionState.ANNOTATE

    @property
    def records(self) -> list[UploadedRecord]:
        """The records, in their order."""
        return self._content.manager.records

    @property
    def annotations(self) -> list[Annotation]:
        """Every annotator's latest verdict on each record."""
        return self._content.manager.annotations

    @property
    def annotation_manager(self) -> AnnotationManager:
        """The annotations with undo and history, for renderers to annotate with."""
        return self._content.manager

    @property
    def patterns(self) -> PatternDiscoveryResult | None:
        """The patterns that were discovered, None before."""
        return self._still_valid(self._content.patterns)

    @property
    def analysis(self) -> MisalignmentAnalysis | None:
        """The analysis that was made, None before."""
        return self._still_valid(self._content.analysis)

    @property
    def proposal(self) -> OptimizationResult | None:
        """The criteria that were proposed, None before."""
        return self._still_valid(self._content.proposal)

    @property
    def outcome(self) -> CalibrationOutcome | None:
        """The rounds of the last `iterate`, None before."""
        return self._still_valid(self._content.outcome)

    def upload_csv(self, path: str | Path, column_mapping: Mapping[str, str] | None = None) -> UploadResult:
        """Take the records of a CSV file; see `UploadHandler.from_csv`."""
        return self.upload(UploadHandler().from_csv(path, column_mapping))

    def upload_records(
        self, records: Iterable[Mapping[str, Any]], column_mapping: Mapping[str, str] | None = None
    ) -> UploadResult:
        """Take dicts; see `UploadHandler.from_records`."""
        return self.upload(UploadHandler().from_records(records, column_mapping))

    def upload_dataframe(self, df: pd.DataFrame, column_mapping: Mapping[str, str] | None = None) -> UploadResult:
        """Take a frame's rows; see `UploadHandler.from_dataframe`."""
        return self.upload(UploadHandler().from_dataframe(df, column_mapping))

    def upload(self, upload: UploadResult) -> UploadResult:
        """Take what `UploadHandler` read, in place of what was there.

        Annotations made here, or read from a file of their own, stay for records that are the same as before and bring
        none of their own; all that rested on the old records is dropped.
        """
        brought = {(a.record_id, a.annotator) for a in upload.annotations}
        before = {record.record_id: _content(record) for record in self._content.manager.records}
        same = {r.record_id for r in upload.records if before.get(r.record_id) == _content(r)}
        old = self._content.upload.annotations if self._content.upload else []
        came = {(a.record_id, a.annotator) for a in old}
        by_hand = {(change.record_id, change.annotator) for change in self._content.manager.history}
        kept = [
            a
            for a in self._content.manager.annotations
            if a.record_id in same
            and (key := (a.record_id, a.annotator)) not in brought
            and (key in by_hand or key not in came)
        ]
        self._content.manager = AnnotationManager(upload.records, [*kept, *upload.annotations])
        self._content.upload = upload
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
        return self._content.manager.annotate(record_id, score, notes, annotator)

    def get_annotation_state(self) -> AnnotationState:
        """How far the annotating is."""
        return self._content.manager.get_state()

    def get_record_for_annotation(self, index: int) -> UploadedRecord:
        """The record at an index, which becomes the one at hand.

        Raises:
            MissingStepError: there are no records.
            InputError: there is none at the index.
        """
        self._need_upload("annotate")
        return self._content.manager.set_current_index(index)

    def get_next_unannotated(self) -> UploadedRecord | None:
        """The next record without an annotation, None where there is none."""
        return self._content.manager.get_next_unannotated()

    def is_annotation_complete(self) -> bool:
        """Whether there are records and each has an annotation."""
        return self._content.manager.is_complete()

    def _need_upload(self, step: str) -> UploadResult:
        if self._content.upload is None:
            raise MissingStepError(f"cannot {step} yet: upload records first (upload_csv, upload_records, …)")
        if not self._content.upload.total_count:
            first = self._content.upload.validation_warnings[0]
            raise MissingStepError(f"cannot {step} yet: upload records first; none of those given is one ({first})")
        return self._content.upload

    def _need_annotations(self, step: str) -> UploadResult:
        upload = self._need_upload(step)
        self._still_valid(None)  # what the step yields holds for the annotations as they are now
        if not self._content.manager.annotations:
            raise MissingStepError(f"cannot {step} yet: annotate records first (annotate, or upload a human_score)")
        return upload

    def _need_evaluation(self, step: str) -> EvaluationResult:
        self._need_annotations(step)
        evaluation = self._still_valid(self._content.evaluation)
        if evaluation is None:
            raise MissingStepError(f"cannot {step} yet: evaluate first (evaluate, evaluate_sync)")
        return evaluation

    def _made_from(self) -> tuple[AnnotationManager, int]:
        """Records and annotations as they are now; what a step makes of them is kept where they are the same then."""
        return self._content.manager, self._content.manager.revision

    def _still_valid(self, result: ResultT | None) -> ResultT | None:
        """What was made of the annotations, None where they changed since."""
        if self._revision != self._content.manager.revision:
            self._drop_results()
            return None
        return result

    def _drop_results(self) -> None:
        self._content.drop_results()
        self._revision = self._content.manager.revision

    def resume(self, content: SessionContent) -> Self:
        """Go on from what another session held; its verdicts are kept, so that nothing is paid for twice."""
        from caliber_pipeline.core.conforming import arrow_from_frame
        from caliber_pipeline.stores.verdict_cache import CACHED_VERDICTS

        self._content, self._revision = content, content.manager.revision
        for evaluation in content.evaluations:
            verdicts = arrow_from_frame(evaluation.judge_scores, "judge_scores").select(CACHED_VERDICTS.names)
            self._open_cache().put_many(verdicts)
        return self

    def _open_encoder(self) -> RememberingEncoder:
        """The encoder given, else the packaged one; each text is encoded once as long as the session lives."""
        if self._remembering is None:
            from caliber_pipeline.api.judging import default_encoder
            from caliber_pipeline.encoders.remembering import RememberingEncoder

            self._remembering = RememberingEncoder(self._encoder or default_encoder())
        return self._remembering

    def _open_cache(self) -> VerdictCache:
        """The cache given, else one in memory for as long as the session lives."""
        if self._cache is None:
            from caliber_pipeline.stores.verdict_cache import VerdictCache

            self._cache = VerdictCache(Path(":memory:"))
            weakref.finalize(self, self._cache.close)
        return self._cache


def _content(record: UploadedRecord) -> tuple[str, str, str | None]:
    return record.query, record.output, record.reference
