"""The report on a criteria version as one HTML file that needs nothing else."""

import base64
import hashlib
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from caliber_pipeline.core.alignment_metrics import cell_sample
from caliber_pipeline.core.errors import MissingStepError
from caliber_pipeline.core.judge_scores import join_labels
from caliber_pipeline.core.labels import resolve_labels
from caliber_pipeline.core.report import ReportSource, build_report
from caliber_pipeline.stores.criteria_files import CriteriaFiles
from caliber_pipeline.stores.ingest import load_annotated
from caliber_pipeline.stores.tables import TableStore

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES: Final = Path(__file__).parent / "templates"


def render_report(source: ReportSource, *, made_at: datetime) -> str:
    """The HTML of a report. All that comes from data is escaped, and only the file's own script may run."""
    from markupsafe import Markup

    style, script = ((_TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    return (
        _environment()
        .get_template("report.html")
        .render(
            **build_report(source),
            target=source.kappa_target,
            made_at=made_at.strftime("%Y-%m-%d %H:%M UTC"),
            style=Markup(style),  # noqa: S704 our own file
            script=Markup(script),  # noqa: S704 our own file
            style_hash=_hash(style),
            script_hash=_hash(script),
        )
    )


def load_report_source(
    tables: TableStore, files: CriteriaFiles, *, version: str | None = None, kappa_target: float, max_rounds: int = 3
) -> ReportSource:
    """Read what is stored about a version.

    Args:
        tables: The tables.
        files: The criteria.
        version: The version; None for the champion.
        kappa_target: Kappa that counts as aligned.
        max_rounds: Looks at dev that the loop may take.

    Raises:
        MissingStepError: nothing was evaluated yet, or not this version.
        CriteriaError: its criteria file cannot be read.
    """
    history = tables.load("calibration_history")
    if history is None or history.empty:
        raise MissingStepError("nothing was evaluated yet; run `caliber run`, or materialize the assets")
    chosen = version or str(history["champion"].iloc[-1])
    evaluated = sorted(set(history["criteria_version"]))
    if chosen not in evaluated:
        raise MissingStepError(f"'{chosen}' was not evaluated; these were: {', '.join(evaluated)}")
    criteria = files.load(chosen)
    annotations = tables.require("annotations")
    judge_scores = tables.require("judge_scores", chosen)
    records = load_annotated(tables, ["record_id", "group", "split"])
    return ReportSource(
        version=chosen,
        criteria=criteria,
        base_version=criteria.base,
        base=files.load(criteria.base) if criteria.base else None,
        metrics=tables.require("alignment_metrics", chosen),
        metrics_by_version={name: tables.require("alignment_metrics", name) for name in evaluated},
        dev_sample=cell_sample(join_labels(judge_scores, resolve_labels(annotations), records), "dev"),
        history=history,
        patterns=tables.require("patterns", chosen),
        misalignments=tables.require("misalignments", chosen),
        judge_scores=judge_scores,
        n_records=tables.count("records"),
        n_annotators=int(annotations.loc[~annotations["is_gold"], "annotator"].nunique()),
        is_weighted=bool(annotations["inclusion_probability"].notna().any()),
        kappa_target=kappa_target,
        where=str(tables.folder),
        max_rounds=max_rounds,
        annotator_agreement=tables.load("annotator_agreement"),
    )


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": _figure, "percent": _percent}
    return environment


def _figure(value: Any) -> str:  # noqa: ANN401 - a figure, or None where it is undefined
    return "n/a" if value is None else f"{value:z.2f}".replace("-", "\N{MINUS SIGN}")


def _percent(value: float | None) -> str:
    return "n/a" if value is None else f"{100 * value:.1f} %"


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
