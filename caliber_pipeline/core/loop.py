"""What to do next in the calibration loop: the decision that sensor and command line share."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from caliber_pipeline.core.criteria import Criteria


@dataclass(frozen=True)
class LoopState:
    """What is there.

    Attributes:
        missing_input: What is missing of the input files, in words; None where nothing is.
        is_ingested: The records and annotations are stored.
        criteria: The valid criteria files by version.
        invalid: By file name why a criteria file cannot be used.
        evaluated: Fingerprints of the criteria by version, for versions that were judged.
        decided: The versions whose evaluation is finished.
        registered: The versions that are known as partitions.
    """

    missing_input: str | None
    is_ingested: bool
    criteria: Mapping[str, Criteria]
    invalid: Mapping[str, str] = field(default_factory=dict)
    evaluated: Mapping[str, str] = field(default_factory=dict)
    decided: frozenset[str] = frozenset()
    registered: frozenset[str] = frozenset()


@dataclass(frozen=True)
class LoopPlan:
    """What to do.

    Attributes:
        should_ingest: Ingest first; evaluate when that is done.
        register: Versions that are not known as partitions yet.
        evaluate: Versions to evaluate, in this order.
        warnings: Files that are left aside, and why.
        skip_reason: Why there is nothing to do; None where there is.
    """

    should_ingest: bool = False
    register: tuple[str, ...] = ()
    evaluate: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    skip_reason: str | None = None


def plan_next(state: LoopState) -> LoopPlan:
    """Decide what to do next; a pure function of what is there."""
    if not state.is_ingested:
        if state.missing_input is not None:
            return LoopPlan(skip_reason=state.missing_input)
        return LoopPlan(should_ingest=True)
    warnings = [f"skipped: {reason}" for reason in state.invalid.values()]
    pending = []
    for version, criteria in sorted(state.criteria.items()):
        fault = find_fault(version, criteria, state)
        if fault is not None:
            warnings.append(fault)
        elif version not in state.decided:
            pending.append(version)
    register = tuple(version for version in pending if version not in state.registered)
    if pending:
        return LoopPlan(register=register, evaluate=tuple(pending), warnings=tuple(warnings))
    n_usable = len(state.criteria)
    reason = f"nothing new among {n_usable} criteria versions" if n_usable else "the criteria folder has no version yet"
    return LoopPlan(warnings=tuple(warnings), skip_reason="; ".join([reason, *warnings]))


def find_fault(version: str, criteria: Criteria, state: LoopState) -> str | None:
    """Why a version must not be evaluated: it changed after it was, or its base is unknown."""
    before = state.evaluated.get(version)
    if before is not None and before != criteria.fingerprint:
        return describe_change(version, before, criteria.fingerprint)
    if criteria.base is not None and (criteria.base not in state.criteria or criteria.base == version):
        return f"criteria '{version}' name the base '{criteria.base}', which is no other version; correct the base"
    return None


def describe_change(version: str, before: str, now: str) -> str:
    """The message for a criteria file that changed after it was evaluated."""
    return (
        f"criteria '{version}' changed after they were evaluated: fingerprint {before[:12]} then, {now[:12]} now; "
        "restore the file and write the change as a new version"
    )


def select_stale(champion: str | None, base: str | None, data: Mapping[str, str], now: str) -> tuple[str, ...]:
    """The champion and its base, base first, where either was evaluated on other data than there is now.

    Args:
        champion: The champion, if there is one.
        base: The version that it was compared with, if any.
        data: The data fingerprint that each version was evaluated on.
        now: The data fingerprint of the stored records and annotations.
    """
    versions = tuple(version for version in (base, champion) if version is not None)
    return versions if any(data.get(version) != now for version in versions) else ()


def data_fingerprint(attrs: Mapping[str, str]) -> str:
    """What identifies the records and annotations that a table was made from."""
    return f"{attrs['records_fingerprint']}:{attrs['annotations_fingerprint']}"


def champion_base(decided: Mapping[str, pd.DataFrame], champion: str | None) -> str | None:
    """The base that the champion was compared with."""
    if champion is None or champion not in decided:
        return None
    base = decided[champion]["base"].iloc[0]
    return None if pd.isna(base) else str(base)
