"""A session as JSON and back."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from caliber_pipeline.api.analysis import MisalignmentAnalysis
from caliber_pipeline.api.annotating import AnnotationManager
from caliber_pipeline.api.discovery_results import PatternDiscoveryResult
from caliber_pipeline.api.faults import describe_fault
from caliber_pipeline.api.frames import frame_from_json, frame_to_json
from caliber_pipeline.api.iterating import CalibrationOutcome
from caliber_pipeline.api.optimization import OptimizationResult
from caliber_pipeline.api.results import EvaluationResult
from caliber_pipeline.api.session_content import SessionContent
from caliber_pipeline.api.upload import RejectedRow, UploadResult
from caliber_pipeline.core.errors import InputError, SchemaError, describe_read_error

FORMAT: Final = 1


def content_to_dict(content: SessionContent) -> dict[str, Any]:
    """All of a session, ready for JSON."""
    return {
        "format": FORMAT,
        "session_id": content.session_id,
        "upload": None if content.upload is None else _upload_to_dict(content.upload),
        "annotating": content.manager.annotations_to_dict(),
        **{name: made.to_dict() if (made := getattr(content, name)) else None for name in _RESULTS},
    }


def content_from_dict(data: Mapping[str, Any]) -> SessionContent:
    """What `content_to_dict` was made from.

    Raises:
        InputError: the data is no session, or one of another version of this package.
    """
    if not isinstance(data, Mapping) or data.get("format") != FORMAT:
        found = data.get("format") if isinstance(data, Mapping) else type(data).__name__
        raise InputError(f"no session of format {FORMAT} (found {found!r}); save it again with this version")
    try:
        return _parse(data)
    except ValidationError as error:
        raise InputError(f"the session cannot be read ({describe_fault(error)}); save it again") from error
    except (KeyError, TypeError, ValueError, AttributeError, SchemaError) as error:
        raise InputError(f"the session cannot be read ({type(error).__name__}: {error}); save it again") from error


def save_json(data: Mapping[str, Any], path: Path) -> Path:
    """Write a JSON file, whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(data, ensure_ascii=False, allow_nan=False), encoding="utf-8")
        temporary.replace(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be written ({describe_read_error(error)})") from error
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


def _parse(data: Mapping[str, Any]) -> SessionContent:
    content = SessionContent(str(data["session_id"]))
    if data["upload"] is not None:
        content.upload = _upload_from_dict(data["upload"])
        content.manager = AnnotationManager.from_dict(data["annotating"], content.upload.records)
    for name, parse in _RESULTS.items():
        if data[name]:
            setattr(content, name, parse(data[name]))
    return content


_RESULTS: Final[dict[str, Callable[[Mapping[str, Any]], object]]] = {
    "evaluation": EvaluationResult.from_dict,
    "patterns": PatternDiscoveryResult.from_dict,
    "analysis": MisalignmentAnalysis.from_dict,
    "proposal": OptimizationResult.from_dict,
    "outcome": CalibrationOutcome.from_dict,
}
"""What the steps make, and how each is read."""


def _upload_to_dict(upload: UploadResult) -> dict[str, Any]:
    from caliber_pipeline.core.schemas import RECORDS

    return {
        "source": upload.source,
        "left_out": list(upload.left_out),
        "records": frame_to_json(upload.table, RECORDS),
        "rejected": [asdict(row) for row in upload.rejected],
    }


def _upload_from_dict(data: Mapping[str, Any]) -> UploadResult:
    from caliber_pipeline.core.schemas import RECORDS

    table = frame_from_json(data["records"], RECORDS)
    rejected = tuple(RejectedRow(**row) for row in data["rejected"])
    return UploadResult(table, rejected, data["source"], tuple(data["left_out"]))
