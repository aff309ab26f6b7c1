"""A session as JSON and back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from caliber_pipeline.api.analysis import MisalignmentAnalysis
from caliber_pipeline.api.annotating import AnnotationManager
from caliber_pipeline.api.discovery_results import PatternDiscoveryResult
from caliber_pipeline.api.frames import frame_from_json, frame_to_json
from caliber_pipeline.api.optimization import OptimizationResult
from caliber_pipeline.api.results import EvaluationResult
from caliber_pipeline.api.upload import RejectedRow, UploadResult
from caliber_pipeline.core.errors import InputError, SchemaError

if TYPE_CHECKING:
    from caliber_pipeline.api.session import CalibrationSession

FORMAT: Final = 1


def session_to_dict(session: CalibrationSession) -> dict[str, Any]:
    """All of a session, ready for JSON."""
    upload = session._upload  # noqa: SLF001 - this module is the session's own
    evaluation = session.get_evaluation_result()
    return {
        "format": FORMAT,
        "session_id": session.session_id,
        "state": session.state.value,
        "upload": None if upload is None else _upload_to_dict(upload),
        "annotating": session.annotation_manager.annotations_to_dict(),
        "evaluation": evaluation.to_dict() if evaluation else None,
        "patterns": session.patterns.to_dict() if session.patterns else None,
        "analysis": session.analysis.to_dict() if session.analysis else None,
        "proposal": session.proposal.to_dict() if session.proposal else None,
    }


def restore_session(session: CalibrationSession, data: Mapping[str, Any]) -> CalibrationSession:
    """Fill an empty session with what `session_to_dict` gave.

    Raises:
        InputError: the data is no session, or one of another version of this package.
    """
    if not isinstance(data, Mapping) or data.get("format") != FORMAT:
        found = data.get("format") if isinstance(data, Mapping) else type(data).__name__
        raise InputError(f"no session of format {FORMAT} (found {found!r}); save it again with this version")
    try:
        _fill(session, data)
    except (KeyError, TypeError, ValueError, ValidationError, SchemaError) as error:
        raise InputError(f"the session cannot be read ({type(error).__name__}: {error}); save it again") from error
    return session


def save_json(data: Mapping[str, Any], path: Path) -> Path:
    """Write a JSON file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(data, ensure_ascii=False, allow_nan=False), encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def load_json(path: Path) -> Any:  # noqa: ANN401 - a file may hold any JSON
    """Read a JSON file.

    Raises:
        InputError: there is no such file, or it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a session ({error})") from error


def _fill(session: CalibrationSession, data: Mapping[str, Any]) -> None:
    session._id = str(data["session_id"])  # noqa: SLF001
    if data["upload"] is not None:
        session._upload = upload = _upload_from_dict(data["upload"])  # noqa: SLF001
        session._manager = AnnotationManager.from_dict(data["annotating"], upload.records)  # noqa: SLF001
        session._drop_results()  # noqa: SLF001
    if data["evaluation"]:
        session._evaluation = evaluation = EvaluationResult.from_dict(data["evaluation"])  # noqa: SLF001
        _remember(session, evaluation)
    if data["patterns"]:
        session._patterns = PatternDiscoveryResult.from_dict(data["patterns"])  # noqa: SLF001
    if data["analysis"]:
        session._analysis = MisalignmentAnalysis.from_dict(data["analysis"])  # noqa: SLF001
    if data["proposal"]:
        session._proposal = OptimizationResult.from_dict(data["proposal"])  # noqa: SLF001


def _remember(session: CalibrationSession, evaluation: EvaluationResult) -> None:
    """Put the verdicts into the session's cache, so that evaluating again does not pay for them twice."""
    from caliber_pipeline.core.schemas import arrow_from_frame
    from caliber_pipeline.stores.verdict_cache import CACHED_VERDICTS

    verdicts = arrow_from_frame(evaluation.judge_scores, "judge_scores").select(CACHED_VERDICTS.names)
    session._open_cache().put_many(verdicts)  # noqa: SLF001


def _upload_to_dict(upload: UploadResult) -> dict[str, Any]:
    from caliber_pipeline.core.schemas import RECORDS

    return {
        "source": upload.source,
        "records": frame_to_json(upload.table, RECORDS),
        "rejected": [asdict(row) for row in upload.rejected],
    }


def _upload_from_dict(data: Mapping[str, Any]) -> UploadResult:
    from caliber_pipeline.core.schemas import RECORDS

    table = frame_from_json(data["records"], RECORDS)
    return UploadResult(table, tuple(RejectedRow(**row) for row in data["rejected"]), data["source"])
