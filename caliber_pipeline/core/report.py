"""What a report on one criteria version says: every sentence and figure, as plain values for a template."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

import pandas as pd

from caliber_pipeline.core.agreement import CELLS
from caliber_pipeline.core.alignment_metrics import metric_row
from caliber_pipeline.core.annotator_agreement import EVERYBODY
from caliber_pipeline.core.calibration_history import latest_evaluations
from caliber_pipeline.core.conforming import plain_cell
from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.gate import ALPHA
from caliber_pipeline.core.intervals import CellSample
from caliber_pipeline.core.loop import WINNING
from caliber_pipeline.core.planning import labels_for_gain, labels_for_half_width, plausible_shares
from caliber_pipeline.core.stability import is_unstable

Row = dict[str, Any]

TEXT_LENGTH: Final = 400  # characters of a record's text; the whole one is in the table that the report names
MISALIGNMENT_BYTES: Final = 1_200_000  # of the table of misalignments, so that the file can be sent by mail
MAX_EXAMPLES: Final = 4
MAX_PATTERNS: Final = 60
MAX_EVALUATIONS: Final = 60
MAX_ANNOTATORS: Final = 30
ANNOTATOR_FIGURES: Final = ("accept_rate", "bias", "dawid_skene_recall", "dawid_skene_specificity")
HALF_WIDTHS: Final = (0.2, 0.1, 0.05)
GAINS: Final = (0.05, 0.1)

METRICS: Final[Mapping[str, tuple[str, str]]] = {
    "cohen_kappa": ("Cohen's kappa", "agreement beyond what chance alone would give: 0 is chance, 1 is perfect"),
    "accuracy": ("Accuracy", "share of records on which judge and people give the same verdict"),
    "majority_baseline": ("Majority baseline", "accuracy of always giving the commoner verdict"),
    "lift": ("Lift over the baseline", "accuracy less the majority baseline"),
    "precision": ("Precision of accepts", "of what the judge accepts, the share that people accept"),
    "recall": ("Recall of accepts", "of what people accept, the share that the judge accepts"),
    "specificity": ("Specificity", "of what people reject, the share that the judge rejects"),
    "f1_score": ("F1 of accepts", "harmonic mean of precision and recall"),
    "balanced_accuracy": ("Balanced accuracy", "mean of recall and specificity"),
    "mcc": ("Matthews correlation", "correlation of the two verdicts: 0 is none, 1 is perfect"),
    "gwet_ac1": ("Gwet's AC1", "agreement beyond chance, steadier than kappa where one verdict is rare"),
    "standardised_kappa": ("Kappa at even prevalence", "kappa if people accepted half of the records"),
    "prevalence": ("People's accept rate", "share of records that people accept"),
    "accept_rate": ("Judge's accept rate", "share of records that the judge accepts"),
    "bias": ("Bias", "judge's accept rate less people's"),
    "coverage": ("Coverage", "share of the annotated records for which there is a verdict"),
    "repeat_stability": ("Repeat stability", "how often repeated votes agree with the verdict"),
}
SPLIT_NOTES: Final[Mapping[str, str]] = {
    "train": "what the optimizer learns from, less the records that it shows as examples",
    "dev": "what decides about a version",
    "test": "what nothing was tuned on",
    "all": "all that was judged: describes, decides nothing",
}
_DECISION: Final = ("decision", "decision_reason", "stop_reason", "kappa_corrected", "n_test_looks")


@dataclass(frozen=True, kw_only=True)
class ReportSource:
    """What is stored about a version.

    Attributes:
        version: The version.
        criteria: Its criteria.
        base_version: The version it edits; None for a first one.
        base: That one's criteria.
        metrics: Its `alignment_metrics`.
        metrics_by_version: Those of every version, to compare.
        dev_sample: The judged records of dev, as the intervals take them.
        history: `calibration_history`.
        patterns: Its `patterns`.
        misalignments: Its `misalignments`.
        judge_scores: Its `judge_scores`.
        n_records: Records in all.
        n_annotators: People who annotated.
        is_weighted: Records were sampled with known chances, so that some count for more than others.
        kappa_target: Kappa that counts as aligned.
        where: The folder of the tables.
        annotator_agreement: `annotator_agreement`; None where it is not stored.
        max_rounds: Looks at dev that the loop may take.
    """

    version: str
    criteria: Criteria
    base_version: str | None
    base: Criteria | None
    metrics: pd.DataFrame
    metrics_by_version: Mapping[str, pd.DataFrame]
    dev_sample: CellSample
    history: pd.DataFrame
    patterns: pd.DataFrame
    misalignments: pd.DataFrame
    judge_scores: pd.DataFrame
    n_records: int
    n_annotators: int
    is_weighted: bool
    kappa_target: float
    where: str
    annotator_agreement: pd.DataFrame | None = None
    max_rounds: int = 3


def build_report(source: ReportSource) -> Row:
    """All that the template shows, as plain values."""
    latest = latest_evaluations(source.history).set_index("criteria_version")
    evaluation = pd.Series(latest.loc[source.version])
    metrics = source.metrics
    splits = _shown_splits(metrics, is_test_sealed=bool(evaluation["is_test_sealed"]))
    champion = str(source.history["champion"].iloc[-1])
    return {
        "version": source.version,
        "champion": champion,
        "verdict": find_verdict(source),
        "decision": {name: plain_cell(evaluation[name]) for name in _DECISION},
        "splits": [{"name": split, "note": SPLIT_NOTES[split], "n": _count(metrics, split)} for split in splits],
        "figures": _figures(metrics, splits),
        "people": _people(source),
        "matrices": [_matrix(metrics, split) for split in splits if split != "train"],
        "is_test_sealed": bool(evaluation["is_test_sealed"]),
        "comparison": _comparison(source, champion),
        "history": [_evaluation(row) for _, row in source.history.tail(MAX_EVALUATIONS).iterrows()],
        "patterns": [_pattern(row) for row in _records(source.patterns)[:MAX_PATTERNS]],
        "misalignments": _misalignments(source.misalignments),
        "criteria": _criteria(source),
        "planning": _planning(source),
        "judge": _judge(source.judge_scores),
        "standing": _standing(source.history, source.version, champion),
        "provenance": _provenance(source),
    }


def _shown_splits(metrics: pd.DataFrame, *, is_test_sealed: bool) -> list[str]:
    there = set(metrics["split"])
    order = ("dev", "all", "train") if is_test_sealed else ("dev", "test", "all", "train")
    return [split for split in order if split in there]


def find_verdict(source: ReportSource) -> Row:
    """The report in one sentence, by the interval of kappa on dev against the target, and its tone."""
    name, target = source.version, f"{source.kappa_target:g}"
    kappa = _figure(source.metrics, "dev", "cohen_kappa")
    if kappa["value"] is None:
        return {"tone": "unsure", "sentence": f"Nothing can be said of {name} yet: {kappa['reason']}.", "kappa": None}
    missing = _figure(source.metrics, "dev", "labels_missing")["value"]
    on = f"on {kappa['n']} dev records"
    low, high = kappa["low"], kappa["high"]
    if low is None or high is None or missing:
        more = f"; about {missing:.0f} more are needed on dev" if missing else ""
        sentence = f"There are not enough labels to say whether {name} agrees with people{more}."
        return {"tone": "unsure", "sentence": sentence, "kappa": kappa, "on": on}
    if kappa["reason"]:  # a caution of the metrics: few groups tell little, however many records they hold
        tone, says = "unsure", f"cannot be held against the target of {target} ({kappa['reason']})"
    elif low >= source.kappa_target:
        tone, says = "good", f"agrees with people: even the low end of the interval reaches the target of {target}"
    elif high < source.kappa_target:
        tone, says = (
            "bad",
            f"does not agree with people well enough: all of the interval is below the target of {target}",
        )
    elif kappa["value"] >= source.kappa_target:
        tone, says = "unsure", f"reaches the target of {target}, but the labels do not rule out that it falls short"
    else:
        tone, says = "unsure", f"falls short of the target of {target}, though the labels do not rule it out"
    return {"tone": tone, "sentence": f"{name} {says}.", "kappa": kappa, "on": on}


def _standing(history: pd.DataFrame, version: str, champion: str) -> str:
    """What the version is beside the champion, and how it became that."""
    if version != champion:
        return f"The champion is {champion}, not this version."
    won = history[(history["criteria_version"] == version) & history["decision"].isin(WINNING)].tail(1)
    if won["is_by_hand"].any():
        return f"{version} is the champion: a person made it so."
    is_first = (won["decision"] == "baseline").any()
    return f"{version} is the champion: {'the first version' if is_first else 'the version that last won on dev'}."


def _figure(metrics: pd.DataFrame, split: str, name: str) -> Row:
    row = metric_row(metrics, split, name)
    return {
        "value": plain_cell(row["value"]), "low": plain_cell(row["ci_low"]), "high": plain_cell(row["ci_high"]),
        "n": int(row["n"]), "reason": plain_cell(row["reason"]),
    }  # fmt: skip


def _figures(metrics: pd.DataFrame, splits: Sequence[str]) -> list[Row]:
    there = set(metrics["metric"])
    return [
        {"label": label, "meaning": meaning, "by_split": [_figure(metrics, split, name) for split in splits]}
        for name, (label, meaning) in METRICS.items()
        if name in there
    ]


def _people(source: ReportSource) -> Row:
    """How far people agree with each other, which bounds what a judge can be shown to reach, and each one.

    People are not named: a report is forwarded.
    """
    agreement, named = source.annotator_agreement, ("human_human", "judge_annotator")
    if agreement is None or not {f"{name}_kappa" for name in named} <= set(source.metrics["metric"]):
        return {"annotators": []}
    kappas = {name: _figure(source.metrics, "dev", f"{name}_kappa") for name in named}
    if kappas["human_human"]["value"] is None:
        return {"annotators": []}
    own = agreement[agreement["other"].isna() & (agreement["annotator"] != EVERYBODY)]
    wide = own.pivot_table(index="annotator", columns="metric", values="value", aggfunc="first")
    counts = own[own["metric"] == "accept_rate"].set_index("annotator")["n"]
    shown = [
        {"n": int(counts.get(name, 0)), **{f: plain_cell(row.get(f)) for f in ANNOTATOR_FIGURES}}
        for name, row in wide.iterrows()
    ]
    return {**kappas, "annotators": sorted(shown, key=lambda each: -each["n"])[:MAX_ANNOTATORS]}


def _count(metrics: pd.DataFrame, split: str) -> int:
    return sum(int(_figure(metrics, split, cell)["value"] or 0) for cell in CELLS)


def _matrix(metrics: pd.DataFrame, split: str) -> Row:
    cells = {cell: int(_figure(metrics, split, cell)["value"] or 0) for cell in CELLS}
    total = sum(cells.values())
    return {"split": split, "total": total, **{name: (n, n / total if total else None) for name, n in cells.items()}}


def _comparison(source: ReportSource, champion: str) -> list[Row]:
    """Kappa on dev by version, with intervals, placed on a scale from 0 to 1 for the chart."""
    shown = []
    for version, metrics in source.metrics_by_version.items():
        kappa = _figure(metrics, "dev", "cohen_kappa")
        places = {
            name: None if kappa[name] is None else min(max(kappa[name], 0.0), 1.0) for name in ("value", "low", "high")
        }
        about = {"version": version, "is_champion": version == champion, "is_this": version == source.version}
        shown.append(about | {"kappa": kappa, "at": places})
    return shown


def _evaluation(row: pd.Series) -> Row:
    names = ("criteria_version", "base", "decision", "dev_cohen_kappa", "dev_n", "all_accuracy", "champion")
    return {name: plain_cell(row[name]) for name in names} | {"evaluated_at": f"{row['evaluated_at']:%Y-%m-%d %H:%M}"}


def _pattern(row: Row) -> Row:
    return {
        "name": row["name"], "count": int(row["count"]), "polarity": row["polarity"],
        "is_unclustered": bool(row["is_unclustered"]), "description": _shorten(row["description"]),
        "keywords": list(row["keywords"])[:8], "examples": [_shorten(note) for note in row["examples"][:MAX_EXAMPLES]],
        "stability": plain_cell(row["stability"]),
        "is_unstable": is_unstable(plain_cell(row["stability"])),
    }  # fmt: skip


def _misalignments(misalignments: pd.DataFrame) -> Row:
    """The worst errors first, as many as fit; those on test are counted and not shown, lest somebody tune on them."""
    is_test = misalignments["split"] == "test"
    shown = misalignments[~is_test].assign(
        severity=misalignments["severity"].fillna(1.0), confidence=misalignments["confidence"].fillna(0.0)
    )
    shown = shown.sort_values(["severity", "confidence", "record_id"], ascending=[False, False, True])
    rows = list(_fitting(_misalignment(row) for row in _records(shown)))
    counts = misalignments["kind"].value_counts()
    return {
        "rows": rows,
        "n_shown": len(rows),
        "n_total": len(misalignments),
        "n_test": int(is_test.sum()),
        "n_false_positives": int(counts.get("false_positive", 0)),
        "n_false_negatives": int(counts.get("false_negative", 0)),
        "patterns": sorted({row["pattern"] for row in rows if row["pattern"]}),
        "faults": sorted({row["attribution"] for row in rows}),
    }


def _misalignment(row: Row) -> Row:
    texts = {name: _shorten(row[name]) for name in ("query", "output", "reference", "human_notes", "llm_reasoning")}
    return texts | {
        "record_id": row["record_id"], "split": row["split"], "kind": row["kind"].replace("_", " "),
        "severity": row["severity"], "pattern": plain_cell(row["pattern_name"]),
        "attribution": row["attribution"].replace("_", " "), "why": row["attribution_reason"],
    }  # fmt: skip


def _fitting(rows: Iterable[Row]) -> Iterator[Row]:
    left = MISALIGNMENT_BYTES
    for row in rows:
        left -= 600 + sum(len(escape(str(value)).encode()) for value in row.values() if value is not None)
        if left < 0:
            return
        yield row


def _criteria(source: ReportSource) -> Row:
    criteria, base = source.criteria, source.base
    return {
        "author": criteria.author,
        "round": criteria.round,
        "base_version": source.base_version,
        "text": criteria.full_text,
        "diff": None if base is None else list(diff_words(base.full_text, criteria.full_text)),
        "n_examples": len(criteria.examples),
        "clauses": [
            {
                "text": clause.text, "verdict": "accept" if clause.verdict else "reject",
                "is_new": base is not None and clause.text not in {old.text for old in base.clauses},
                "pattern": clause.evidence.pattern, "n_records": len(clause.evidence.record_ids),
                "record_ids": list(clause.evidence.record_ids[:6]),
                "quotes": [
                    _shorten(quote) for quote in clause.evidence.quotes[:MAX_EXAMPLES] if quote not in clause.text
                ],
            }
            for clause in criteria.clauses
        ],
    }  # fmt: skip


def diff_words(before: str, after: str) -> Iterator[tuple[str, str]]:
    """The two texts as one sequence of (same | gone | new, text) that contains both."""
    old, new = (re.findall(r"\s+|[^\s]+", text) for text in (before, after))
    for operation, i, j, k, m in difflib.SequenceMatcher(a=old, b=new, autojunk=False).get_opcodes():
        if operation == "equal":
            yield "same", "".join(old[i:j])
            continue
        if i < j:
            yield "gone", "".join(old[i:j])
        if k < m:
            yield "new", "".join(new[k:m])


def _planning(source: ReportSource) -> Row:
    """How many labels further statements need, at the shares of the cells seen on dev, as `caliber plan` has them."""
    n = int(_figure(source.metrics, "dev", "cohen_kappa")["n"])
    shares = plausible_shares(source.dev_sample.cells)
    effect = source.dev_sample.planned_effect
    intervals = [
        {"half_width": width, "needed": labels_for_half_width(shares, width, design_effect=effect)}
        for width in HALF_WIDTHS
    ]
    discordance, alpha = float(shares[2] + shares[3]), ALPHA / max(source.max_rounds, 1)
    gains = [{"gain": gain, "needed": labels_for_gain(gain, max(discordance, gain), alpha=alpha)} for gain in GAINS]
    return {
        "n": n, "intervals": intervals, "gains": gains, "discordance": discordance, "alpha": alpha,
        "design_effect": effect,
    }  # fmt: skip


def _judge(scores: pd.DataFrame) -> Row:
    is_scored = scores["status"] == "scored"
    failures = scores.loc[~is_scored, "status"].value_counts()
    costs, latencies = scores["cost_usd"].dropna(), scores["latency_s"].dropna()
    return {
        "models": sorted({f"{p} / {m}" for p, m in zip(scores["provider"], scores["model"], strict=True)}),
        "n": len(scores),
        "n_scored": int(is_scored.sum()),
        "n_cached": int(scores["is_cached"].sum()),
        "failures": {str(status): int(count) for status, count in failures.items()},
        "tokens": int(scores[["prompt_tokens", "completion_tokens"]].sum().sum()),
        "cost": float(costs.sum()) if len(costs) else None,
        "latency": float(latencies.astype("float64").median()) if len(latencies) else None,
    }


def _provenance(source: ReportSource) -> Row:
    attrs = {str(name): str(value) for name, value in source.metrics.attrs.items()}
    return {
        "where": source.where,
        "n_records": source.n_records,
        "n_annotators": source.n_annotators,
        "n_set_aside": int(_figure(source.metrics, "all", "n_calibration")["value"] or 0),
        "is_weighted": source.is_weighted,
        "consensus": attrs.get("consensus", "majority"),
        "pattern_methods": sorted(set(source.patterns["method"])),
        "fingerprints": {
            "records": attrs["records_fingerprint"],
            "annotations": attrs["annotations_fingerprint"],
            "criteria": source.criteria.fingerprint,
        },
        "evaluated_at": attrs["evaluated_at"][:16].replace("T", " "),
    }


def _records(frame: pd.DataFrame) -> list[Row]:
    """Rows as plain values, null as None."""
    names = list(map(str, frame.columns))
    columns = ([plain_cell(value) for value in frame[name]] for name in names)
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _shorten(text: str | None) -> str | None:
    if text is None or len(text) <= TEXT_LENGTH:
        return text
    return text[:TEXT_LENGTH].rsplit(" ", 1)[0] + " …"
