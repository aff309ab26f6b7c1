"""What to do next in the calibration loop: the decision that sensor and command line share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pandas as pd

from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.judge_scores import is_test_judged

WINNING: Final = ("baseline", "promoted")


@dataclass(frozen=True)
class LoopState:
    """What is there.

    Attributes:
        missing_input: What is missing of the input files, in words; None where nothing is.
        is_ingested: The records and annotations are stored.
        is_ingesting: A run that reads the input is under way.
        has_ingest_failed: The input as it is now could not be read.
        criteria: The valid criteria files by version.
        invalid: By file name why a criteria file cannot be used.
        evaluated: Fingerprints of the criteria by version, for versions that were judged.
        decided: The versions whose evaluation is finished.
        untested: The versions that won and are not judged on test yet.
        stale: The champion and its base, base first, as far as they were evaluated before the latest ingestion.
        running: The versions whose evaluation is under way.
        failed: The versions whose evaluation failed and was not asked for again.
        registered: The versions that are known as partitions.
        waiting: By version, in words, the provider's batches that are under way for its evaluation.
        answered: The versions whose batches have all ended, and whose results wait to be taken.
    """

    missing_input: str | None
    is_ingested: bool
    criteria: Mapping[str, Criteria]
    invalid: Mapping[str, str] = field(default_factory=dict)
    evaluated: Mapping[str, str] = field(default_factory=dict)
    decided: frozenset[str] = frozenset()
    is_ingesting: bool = False
    has_ingest_failed: bool = False
    untested: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    running: frozenset[str] = frozenset()
    failed: frozenset[str] = frozenset()
    registered: frozenset[str] = frozenset()
    waiting: Mapping[str, str] = field(default_factory=dict)
    answered: frozenset[str] = frozenset()


@dataclass(frozen=True)
class LoopPlan:
    """What to do.

    Attributes:
        should_ingest: Ingest first; evaluate when that is done.
        register: Versions that are not known as partitions yet.
        evaluate: The version to evaluate next; one at a time, since each decision is what the next builds upon.
        test: The version to judge on test, which it has won.
        warnings: Files that are left aside, and why.
        skip_reason: Why there is nothing to do; None where there is.
    """

    should_ingest: bool = False
    register: tuple[str, ...] = ()
    evaluate: str | None = None
    test: str | None = None
    warnings: tuple[str, ...] = ()
    skip_reason: str | None = None


def plan_next(state: LoopState) -> LoopPlan:
    """Decide what to do next; a pure function of what is there."""
    if not state.is_ingested:
        return _plan_ingestion(state)
    warnings = [f"skipped: {reason}" for reason in state.invalid.values()]
    sound = []
    for version, criteria in sorted(state.criteria.items()):
        fault = find_fault(version, criteria, state)
        if fault is None:
            sound.append(version)
        else:
            warnings.append(fault)
    warnings += [
        f"the evaluation of '{v}' failed; run the job 'calibration' for it again" for v in sorted(state.failed)
    ]
    undecided = (version for version in sound if version not in state.decided)
    waiting = [*sorted(state.answered), *state.stale, *undecided]
    ready = [v for v in waiting if v in sound and v not in state.failed and _is_base_ready(state.criteria[v], state)]
    won = [version for version in state.untested if version in sound and version not in state.failed]
    register = tuple(version for version in sound if version not in state.registered)
    if state.running:
        reason = f"being evaluated: {', '.join(sorted(state.running))}"
    elif under_way := [f"'{v}': {words}" for v, words in sorted(state.waiting.items()) if v not in state.failed]:
        reason = "; ".join(under_way)
    elif won:
        return LoopPlan(register=register, test=won[0], warnings=tuple(warnings))
    elif ready:
        return LoopPlan(register=register, evaluate=ready[0], warnings=tuple(warnings))
    else:
        n = len(state.criteria)
        reason = f"nothing new among {n} criteria versions" if n else "the criteria folder has no version yet"
    return LoopPlan(register=register, warnings=tuple(warnings), skip_reason="; ".join([reason, *warnings]))


def _plan_ingestion(state: LoopState) -> LoopPlan:
    if state.missing_input is not None:
        return LoopPlan(skip_reason=state.missing_input)
    if state.is_ingesting:
        return LoopPlan(skip_reason="the input is being read")
    if state.has_ingest_failed:
        return LoopPlan(skip_reason="the input could not be read: see the run of the job 'ingest'; correct the file")
    return LoopPlan(should_ingest=True)


def _is_base_ready(criteria: Criteria, state: LoopState) -> bool:
    return criteria.base is None or criteria.base in state.decided


def find_fault(version: str, criteria: Criteria, state: LoopState) -> str | None:
    """Why a version must not be evaluated: it changed after it was, or its base is unknown."""
    before = state.evaluated.get(version)
    if before is not None and before != criteria.fingerprint:
        return describe_change(version, before, criteria.fingerprint)
    if criteria.base is not None and (criteria.base not in state.criteria or criteria.base == version):
        return f"criteria '{version}' name the base '{criteria.base}', which is no other version; correct the base"
    if (cycle := _find_cycle(version, state.criteria)) is not None:
        return f"criteria '{version}' rest on themselves: {' → '.join(cycle)}; correct a base"
    return None


def _find_cycle(version: str, criteria: Mapping[str, Criteria]) -> list[str] | None:
    chain = [version]
    while (base := criteria[chain[-1]].base) is not None and base in criteria:
        if base in chain:
            return [*chain, base]
        chain.append(base)
    return None


def describe_change(version: str, before: str, now: str) -> str:
    """The message for a criteria file that changed after it was evaluated."""
    return (
        f"criteria '{version}' changed after they were evaluated: fingerprint {before[:12]} then, {now[:12]} now; "
        "restore the file and write the change as a new version"
    )


def select_stale(versions: Sequence[str | None], ingestions: Mapping[str, str], latest: str) -> tuple[str, ...]:
    """Of the champion and its base those that were evaluated before the latest ingestion, in the given order.

    Args:
        versions: The base, then the champion; None where there is none.
        ingestions: By version when the data that it was evaluated on were ingested.
        latest: When data were last ingested.
    """
    return tuple(v for v in versions if v is not None and v in ingestions and ingestions[v] != latest)


def select_untested(
    decided: Mapping[str, pd.DataFrame], judged: Mapping[str, Mapping[str, str]], latest: str
) -> tuple[str, ...]:
    """The versions that won on the latest data and are not judged on test yet, sorted.

    Args:
        decided: The rows of the decided versions.
        judged: By version what its verdicts were made from.
        latest: When data were last ingested.
    """
    return tuple(
        version
        for version, frame in sorted(decided.items())
        if frame["decision"].iloc[0] in WINNING
        and frame.attrs.get("ingested_at") == latest
        and version in judged
        and not is_test_judged(judged[version])
    )


def data_fingerprint(attrs: Mapping[Any, Any]) -> str:
    """What identifies the records and annotations that a table was made from."""
    return f"{attrs['records_fingerprint']}:{attrs['annotations_fingerprint']}"


def base_of(decided: pd.DataFrame) -> str | None:
    """The base in the row of a decided version."""
    base = decided["base"].iloc[0]
    return None if pd.isna(base) else str(base)


def champion_base(decided: Mapping[str, pd.DataFrame], champion: str | None) -> str | None:
    """The base that the champion was compared with."""
    return base_of(decided[champion]) if champion is not None and champion in decided else None
