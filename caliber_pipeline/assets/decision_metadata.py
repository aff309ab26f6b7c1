"""What the UI shows of errors and of decisions: the worst cases, what changed in the criteria, the gate's evidence."""

from collections.abc import Mapping
from typing import Any, Final

import dagster as dg
import pandas as pd

from caliber_pipeline.assets.metadata import Metadata, share_of, show_numbers, show_table
from caliber_pipeline.core.conforming import plain_cell
from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.renderers.markdown import escape_markdown, render_diff, render_table

N_WORST: Final = 3  # of each kind; more in full, behind a click
N_IN_FULL: Final = 10
MAX_TEXT: Final = 700
KINDS: Final = ("false_positive", "false_negative")


def show_misalignments(found: pd.DataFrame) -> Metadata:
    """Counts, the patterns that the errors fall into, and the worst cases with both sides' reasons.

    Cases on test are counted and not shown: who reads them tunes on them.
    """
    kinds, attributions = found["kind"].value_counts(), found["attribution"].value_counts()
    open_to_see = found[found["split"] != "test"].assign(
        severity=lambda table: table["severity"].fillna(1.0), confidence=lambda table: table["confidence"].fillna(0.0)
    )
    open_to_see["is_noted"] = open_to_see["human_notes"].notna()
    order = ["severity", "is_noted", "confidence", "record_id"]
    ordered = open_to_see.sort_values(order, ascending=[False, False, False, True])
    worst = pd.concat([ordered[ordered["kind"] == kind].head(N_WORST) for kind in KINDS])
    by_pattern = found["pattern_name"].value_counts().head(N_IN_FULL)
    return {
        **{f"n_{kind}s": int(kinds.get(kind, 0)) for kind in KINDS},
        **{f"n_{name}": int(n) for name, n in attributions.items()},
        **show_numbers({"in_a_pattern_share": share_of(int(found["pattern_id"].notna().sum()), len(found))}),
        "worst_cases": show_table([_case(row) for row in worst.to_dict("records")]),
        "worst_cases_in_full": dg.MetadataValue.md(
            "\n\n".join(_case_in_full(row) for row in ordered.head(N_IN_FULL).to_dict("records")) or "none"
        ),
        "errors_by_pattern": show_table([{"pattern": str(name), "errors": int(n)} for name, n in by_pattern.items()]),
    }


def show_decision(
    row: Mapping[Any, Any], criteria: Criteria, base: Criteria | None, proposal_base: Criteria | None
) -> Metadata:
    """The gate's evidence, and the criteria against what they were edited from.

    Args:
        row: The version's row of `optimized_criteria`.
        criteria: The version.
        base: What it was compared with; None for a first one.
        proposal_base: What the proposed next version edits; None where nothing was proposed.
    """
    shown: Metadata = {"gate": show_table(_evidence(row))}
    if base is not None:
        shown["criteria_against_base"] = dg.MetadataValue.md(
            render_diff(_in_full(base), _in_full(criteria), before_name=row["base"], after_name=row["criteria_version"])
        )
    if proposal_base is not None:
        names = {"before_name": row["proposal_base"], "after_name": row["proposed_version"]}
        after = f"{row['proposed_criteria']}\n({len(row['example_ids'])} records as examples)"
        diff = render_diff(_in_full(proposal_base), after, **names)
        shown["proposal_against_champion"] = dg.MetadataValue.md(diff)
        shown["suggestions"] = dg.MetadataValue.md(_suggestions(row))
    return shown


def _in_full(criteria: Criteria) -> str:
    return f"{criteria.full_text}\n({len(criteria.examples)} records as examples)"


def _case(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        "record": row["record_id"],
        "kind": row["kind"].replace("_", " "),
        "the judge says": plain_cell(row["llm_reasoning"]),
        "people say": plain_cell(row["human_notes"]),
        "pattern": plain_cell(row["pattern_name"]),
    }


def _case_in_full(row: Mapping[Any, Any]) -> str:
    verdict = {0: "rejects", 1: "accepts"}
    judge, people = verdict[int(row["llm_score"])], verdict[int(row["human_score"])].rstrip("s")
    head = f"**{escape_markdown(row['record_id'])}**: the judge {judge}, people {people} ({row['split']})"
    sides = render_table(
        [f"the judge {judge}", f"people {people}"],
        [[plain_cell(row["llm_reasoning"]) or "no reasoning", plain_cell(row["human_notes"]) or "no note"]],
        max_chars=MAX_TEXT,
    )
    texts = render_table(["query", "output"], [[row["query"], row["output"]]], max_chars=MAX_TEXT)
    return f"{head}\n\n{sides}\n\n{texts}"


def _evidence(row: Mapping[Any, Any]) -> list[dict[str, Any]]:
    numbers = {
        "kappa of the base on dev": row["base_kappa"],
        "kappa of this version": row["kappa"],
        "the same, corrected for being the best of those compared": row["kappa_corrected"],
        "p, paired permutation": row["p_value"],
        "p, exact McNemar": row["mcnemar_p"],
        "severity of new errors over that of the mended": row["new_error_share"],
    }
    counts = {
        "records judged under both": row["n_compared"],
        "groups among them": row["n_groups"],
        "fixed": row["n_fixed"],
        "broken": row["n_broken"],
    }
    texts = {name: "n/a" if pd.isna(value) else f"{value:.4g}" for name, value in numbers.items()}
    texts |= {name: str(value) for name, value in counts.items()}
    base = "n/a, the first" if pd.isna(row["base"]) else str(row["base"])
    return [{"evidence": name, "value": text} for name, text in {"base": base, **texts}.items()]


def _suggestions(row: Mapping[Any, Any]) -> str:
    names = ("aspect", "suggestion", "rationale")
    table = [[*(s[name] for name in names), ", ".join(list(s["record_ids"])[:6])] for s in row["suggestions"]]
    return render_table([*names, "from records"], table) if table else "examples alone"
