"""The calibrated judge: one JSON document with all that judging takes, and the certificate of what it is worth."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from caliber_pipeline.core.abstention import ALPHA, DELTA, Abstention, learn_abstention
from caliber_pipeline.core.agreement import interpret_kappa
from caliber_pipeline.core.alignment_metrics import compute_alignment_metrics, metric_row
from caliber_pipeline.core.conforming import plain_cell
from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.fingerprints import content_hashes
from caliber_pipeline.core.judge_prompt import TEMPLATE_VERSION
from caliber_pipeline.core.optimized_criteria import is_test_reported
from caliber_pipeline.core.sanitizer import redact

FORMAT: Final = "caliber-judge/1"
FIGURES: Final = ("cohen_kappa", "accuracy", "precision", "recall", "specificity", "f1_score")
_CERTIFIED: Final = ("test", "dev", "labels", "human_ceiling", "fingerprints")
ExampleTexts = Literal["full", "redacted", "none"]


class ExampleText(BaseModel):
    """One example as the judge is shown it."""

    model_config = ConfigDict(extra="forbid")

    record_id: str
    query: str
    output: str
    reference: str | None = None
    human_score: Literal[0, 1]
    human_notes: str | None = None


class JudgeDocument(BaseModel):
    """The exported judge, as its JSON file holds it."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["caliber-judge/1"] = FORMAT
    criteria_version: str
    criteria: str
    definition: Criteria
    examples: list[ExampleText]
    provider: str
    model: str
    sampling: dict[str, Any]
    template_version: str
    abstention: dict[str, Any]
    certificate: dict[str, Any]

    @field_validator("certificate")
    @classmethod
    def _is_complete(cls, certificate: dict[str, Any]) -> dict[str, Any]:
        missing = [name for name in _CERTIFIED if name not in certificate]
        for split in ("test", "dev"):
            figures = certificate.get(split)
            known = figures if isinstance(figures, Mapping) else {}
            missing += [f"{split}.{name}" for name in FIGURES if figures is not None and name not in known]
        if missing:
            raise ValueError(f"the certificate lacks {', '.join(missing)}")
        return certificate


def build_document(
    version: str,
    criteria: Criteria,
    examples: pd.DataFrame,
    scored: pd.DataFrame,
    verdicts: pd.DataFrame,
    decided: pd.Series,
    ceiling: Mapping[str, float | None],
    issued_at: datetime,
    *,
    example_texts: ExampleTexts = "full",
    abstention: Abstention | None = None,
) -> JudgeDocument:
    """The document of an evaluated version.

    Args:
        version: Its name.
        criteria: Its content.
        examples: As `resolve_examples` gives them.
        scored: As `join_labels` gives it.
        verdicts: Its `judge_scores`, with attrs.
        decided: Its row of `optimized_criteria`.
        ceiling: Agreement of people with each other: value, ci_low, ci_high and n.
        issued_at: When the document is made.
        example_texts: Whether the examples' texts are exported as they are, redacted, or not at all.
        abstention: What the judge may decide alone; None learns it with the default risks.
    """
    texts = [_example(row, is_redacted=example_texts == "redacted") for row in examples.to_dict("records")]
    changed = sum(a != b for a, b in zip(content_hashes(examples), _hashes(texts), strict=True))
    certificate = {
        "issued_at": issued_at.isoformat(),
        "provider": str(verdicts["provider"].iloc[0]) if len(verdicts) else "",
        "model": str(verdicts["model"].iloc[0]) if len(verdicts) else "",
        "template_version": TEMPLATE_VERSION,
        "decision": str(decided["decision"]),
        "decision_reason": str(decided["decision_reason"]),
        "test": _figures(scored, "test") if (scored["split"] == "test").any() else None,
        "dev": _figures(scored, "dev"),
        "dev_kappa_corrected": plain_cell(decided["kappa_corrected"]),
        "n_test_looks": int(decided["n_test_looks"]),
        "labels": {
            **{str(split): int(n) for split, n in scored["split"].value_counts().sort_index().items()},
            "groups": int(scored["group"].nunique()),
            "without_a_verdict": int(scored["llm_score"].isna().sum()),
            "shown_as_examples": len(examples),
        },
        "human_ceiling": dict(ceiling),
        "examples": {"full": "as they are", "redacted": f"redacted, {changed} changed", "none": "left out"}[
            example_texts
        ],
        "fingerprints": {
            name: str(verdicts.attrs[f"{name}_fingerprint"]) for name in ("records", "annotations", "criteria")
        },
    }
    return JudgeDocument(
        criteria_version=version,
        criteria=criteria.full_text,
        definition=criteria,
        examples=[] if example_texts == "none" else texts,
        provider=certificate["provider"],
        model=certificate["model"],
        sampling=criteria.sampling.model_dump(),
        template_version=TEMPLATE_VERSION,
        abstention=asdict(learn_abstention(scored) if abstention is None else abstention),
        certificate=certificate,
    )


def render_document(document: JudgeDocument) -> str:
    """The document as JSON text; `parse_document` gives it back."""
    return json.dumps(document.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"


def parse_document(text: str, *, source: str) -> JudgeDocument:
    """Parse an exported judge.

    Raises:
        InputError: the text is no exported judge of a format that is known.
    """
    try:
        return JudgeDocument.model_validate_json(text)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()[:5])
        raise InputError(f"{source}: no calibrated judge ({faults}); write one with `caliber export`") from None


def find_changes(document: JudgeDocument) -> list[str]:
    """What of a document is not what was certified: other criteria, examples left out or of another text."""
    definition, changes = document.definition, []
    fingerprint = document.certificate.get("fingerprints", {}).get("criteria")
    if definition.fingerprint != fingerprint or document.sampling != definition.sampling.model_dump():
        changes.append("the criteria or their sampling were changed")
    elif document.criteria != definition.full_text:
        changes.append("the text under 'criteria' is not that of the definition, by which the judge judges")
    shown = dict(zip([e.record_id for e in document.examples], _hashes(document.examples), strict=True))
    texts = [shown.get(example.record_id) for example in definition.examples]
    n_missing = texts.count(None)
    n_changed = sum(t not in (None, e.content_hash) for t, e in zip(texts, definition.examples, strict=True))
    if n_missing:
        changes.append(f"{n_missing} examples were left out")
    if n_changed:
        changes.append(f"the texts of {n_changed} examples were changed ({document.certificate.get('examples')})")
    return changes


def check_kappa(document: JudgeDocument, min_kappa: float) -> tuple[bool, str]:
    """Whether the certificate supports a kappa: the lower end of its 95 % interval on test reaches it. And why."""
    test = document.certificate.get("test")
    version = document.criteria_version
    if test is None:
        return False, f"{version}: {_why_untested(document.certificate)}, so nothing supports {min_kappa:g}"
    figure = test["cohen_kappa"]
    if figure["value"] is None or figure["ci_low"] is None:
        return False, f"{version}: kappa on test is undefined on {figure['n']} records; label more"
    low, high, n = figure["ci_low"], figure["ci_high"], figure["n"]
    shown = f"{version}: kappa on test {figure['value']:.3f} ({low:.3f} to {high:.3f}, n = {n})"
    if caution := figure.get("reason"):
        return False, f"{shown} supports nothing: {caution}; label more"
    if low >= min_kappa:
        return True, f"{shown} supports {min_kappa:g}"
    return False, f"{shown}: its lower bound does not support {min_kappa:g}"


def _why_untested(certificate: Mapping[str, Any]) -> str:
    """Why a certificate has no figures on test, and what to do; labels help only where test is not sealed."""
    if _is_sealed(certificate):
        return "test is sealed, as the version was not promoted (check the champion or another that was)"
    return "no labelled record of test was judged (label more records, run again and export anew)"


def _is_sealed(certificate: Mapping[str, Any]) -> bool:
    return not is_test_reported(str(certificate.get("decision")))


def render_card(document: JudgeDocument) -> str:
    """The certificate as a Markdown model card."""
    certificate, abstention = document.certificate, document.abstention
    labels = ", ".join(f"{n} {name}" for name, n in certificate["labels"].items()).replace("_", " ")
    lines = [
        f"# Calibrated judge {document.criteria_version}",
        "",
        f"- Judge: {document.provider}, {document.model}, template {document.template_version}, "
        f"{len(document.examples)} examples ({certificate['examples']})",
        f"- Issued: {certificate['issued_at']}",
        f"- Decision: {certificate['decision']}; {certificate['decision_reason']}",
        "",
        "## Agreement with people",
        "",
        *_card_figures(certificate),
        "",
        f"Labels: {labels}. Test was shown {certificate['n_test_looks']} times on these data, this version included.",
        *_card_corrected(certificate.get("dev_kappa_corrected")),
        _card_ceiling(certificate["human_ceiling"]),
        "",
        "## When to ask a person",
        "",
        _card_abstention(abstention),
        "",
        "## Criteria",
        "",
        *(f"    {line}" for line in document.criteria.splitlines()),
        "",
        "## Limits",
        "",
        "- The figures hold for records like those that people labelled, judged by this model with this template.",
        "- Where the input changes, sample, label and calibrate again.",
        "",
        "## Fingerprints",
        "",
        *(f"- {name}: `{value}`" for name, value in certificate["fingerprints"].items()),
    ]
    return "\n".join(lines) + "\n"


def _card_figures(certificate: Mapping[str, Any]) -> list[str]:
    lines = ["| split | figure | value | 95 % interval | n |", "| --- | --- | ---: | --- | ---: |"]
    for split in ("test", "dev"):
        figures = certificate[split]
        if figures is None:
            lines.append(f"| {split} | {'sealed' if _is_sealed(certificate) else 'no labelled record'} | | | |")
            continue
        for name in FIGURES:
            figure = figures[name]
            interval = "" if figure["ci_low"] is None else f"{figure['ci_low']:.3f} to {figure['ci_high']:.3f}"
            value = "n/a" if figure["value"] is None else f"{figure['value']:.3f}"
            word = f" ({interpret_kappa(figure['value'])})" if name == "cohen_kappa" else ""
            lines.append(f"| {split} | {name.replace('_', ' ')} | {value}{word} | {interval} | {figure['n']} |")
        if caution := figures["cohen_kappa"].get("reason"):
            lines.append(f"| {split} | {caution} | | | |")
    return lines


def _card_corrected(kappa: float | None) -> list[str]:
    if kappa is None:
        return []
    return [f"Kappa on dev is {kappa:.3f} corrected for this version being the best of those compared on it."]


def _card_ceiling(ceiling: Mapping[str, Any]) -> str:
    if ceiling.get("value") is None:
        return "No record was judged by two people, so that nobody knows how far people agree."
    interval = "" if ceiling["ci_low"] is None else f" ({ceiling['ci_low']:.3f} to {ceiling['ci_high']:.3f})"
    return f"People agree with each other at kappa {ceiling['value']:.3f}{interval} on {ceiling['n']} records."


def _card_abstention(abstention: Mapping[str, Any]) -> str:
    if abstention["threshold"] is None:
        return f"No threshold can be guaranteed: {abstention['reason']}."
    return (
        f"Verdicts of a confidence of at least {abstention['threshold']:.3f} may stand "
        f"({abstention['share_decided']:.0%} of the calibration records): they disagree with people on at most "
        f"{100 * abstention.get('alpha', ALPHA):g} % of them, at {100 * (1 - abstention.get('delta', DELTA)):g} % "
        "confidence."
    )


def _figures(scored: pd.DataFrame, split: str) -> dict[str, dict[str, Any]]:
    metrics = compute_alignment_metrics(scored)
    found = {}
    for name in FIGURES:
        row = metric_row(metrics, split, name)
        found[name] = {key: plain_cell(row[key]) for key in ("value", "ci_low", "ci_high", "reason")}
        found[name]["n"] = int(row["n"])
    return found


def _example(row: Mapping[Any, Any], *, is_redacted: bool) -> ExampleText:
    texts = {name: None if pd.isna(row[name]) else str(row[name]) for name in _TEXTS}
    if is_redacted:
        texts = {name: None if text is None else redact(text) for name, text in texts.items()}
    return ExampleText.model_validate({**texts, "record_id": row["record_id"], "human_score": int(row["human_score"])})


_TEXTS: Final = ("query", "output", "reference", "human_notes")


def _hashes(examples: list[ExampleText]) -> list[str]:
    return content_hashes(frame_examples(examples))


def frame_examples(examples: list[ExampleText]) -> pd.DataFrame:
    """The examples as a judge's task takes them."""
    columns = ["record_id", "query", "output", "reference", "human_score", "human_notes"]
    return pd.DataFrame([example.model_dump() for example in examples], columns=columns)
