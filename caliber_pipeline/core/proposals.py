"""Writing the next criteria from what people wrote about the judge's errors on train, without an LLM."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd

from caliber_pipeline.core.attribution import LABEL_DOUBT
from caliber_pipeline.core.criteria import Clause, Criteria, Evidence, ExampleRef
from caliber_pipeline.core.example_selection import choose_strategy, select_examples
from caliber_pipeline.core.fingerprints import content_hashes
from caliber_pipeline.core.proposed_change import ProposedChange
from caliber_pipeline.core.sanitizer import redact
from caliber_pipeline.core.themes import shorten

MAX_CLAUSES: Final = 12  # a rubric that a person still reads
MIN_ERRORS_PER_CLAUSE: Final = 2  # one error is an accident, two with the same note are a rule that is missing
MAX_QUOTES: Final = 5  # per clause
MAX_QUOTE_CHARS: Final = 200
MAX_TOLD_CHARS: Final = 120  # of a quote in a clause's text, where it shows what is meant
FIRST_TRAIN_SHARE: Final = 0.75  # shown as examples at first: what stays unseen reveals the next errors


@dataclass(frozen=True)
class TrainEvidence:
    """All that a proposal may look at: train alone.

    Attributes:
        scored: The champion's verdicts with labels, as `join_labels` gives it, train rows only.
        misalignments: The champion's errors on train.
        patterns: Patterns, of which only train members and examples are read.
        records: The texts of the train records.
    """

    scored: pd.DataFrame
    misalignments: pd.DataFrame
    patterns: pd.DataFrame
    records: pd.DataFrame


@dataclass(frozen=True)
class EarlierProposal:
    """A proposal that edited the same champion and did not win.

    Attributes:
        version: Its name.
        text: What it told the judge.
        reason: Why it did not win.
        changes: What it changed, in words.
        beaten: What else was tried then, and what became of it.
    """

    version: str
    text: str
    reason: str
    changes: tuple[str, ...] = ()
    beaten: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProposalRequest:
    """What a strategy is asked for.

    Attributes:
        champion: The criteria to edit.
        champion_version: Their version.
        evidence: The champion's errors and all labelled records of train.
        round_: The round of the proposal; another round chooses other examples and errors.
        max_examples: How many examples the judge reads with profit.
        earlier: What was tried over the same champion and failed.
    """

    champion: Criteria
    champion_version: str
    evidence: TrainEvidence
    round_: int
    max_examples: int
    earlier: tuple[EarlierProposal, ...] = ()

    def edit(self, **changes: object) -> Criteria:
        """The champion with these changes, as the next version: base, round and author set."""
        update = {"base": self.champion_version, "round": self.round_, "author": "optimizer", **changes}
        return self.champion.model_copy(update=update)


@dataclass(frozen=True)
class Proposal:
    """A next version, and where each of its changes comes from.

    Attributes:
        criteria: What the file will hold.
        clauses: The clauses that it adds.
        strategy: Who wrote it.
        summary: What it changes, in words.
        kind: What it tries, where a strategy tries several things.
        changes: What it changes beside adding clauses.
        n_invented_ids: Record ids in a language model's reply that it was not shown, removed.
    """

    criteria: Criteria
    clauses: tuple[Clause, ...]
    strategy: str
    summary: str
    kind: str = "clauses and examples"
    changes: tuple[ProposedChange, ...] = ()
    n_invented_ids: int = 0

    @property
    def all_changes(self) -> tuple[ProposedChange, ...]:
        """Every change, that of each added clause among them."""
        return (*(_describe(clause) for clause in self.clauses), *self.changes)


def _describe(clause: Clause) -> ProposedChange:
    evidence = clause.evidence
    return ProposedChange(
        aspect=evidence.pattern or "",
        suggestion=clause.text,
        rationale=f"{len(evidence.record_ids)} errors of the judge on train carry such notes",
        expected_improvement="fewer false positives" if clause.verdict == 0 else "fewer false negatives",
        pattern_ids=(evidence.pattern_id,) if evidence.pattern_id else (),
        record_ids=evidence.record_ids,
    )


@dataclass(frozen=True)
class Candidate:
    """What became of one proposal among several.

    Attributes:
        strategy: Who wrote it.
        kind: What it tries.
        outcome: chosen, dropped early, worse, refused or failed, and why.
        n_screened: Train records on which it was tried.
        kappa: Cohen's kappa on them; None where undefined or not tried.
        kappa_corrected: The same, corrected for being the best of several.
    """

    strategy: str
    kind: str
    outcome: str
    n_screened: int = 0
    kappa: float | None = None
    kappa_corrected: float | None = None


def select_train(
    scored: pd.DataFrame, misalignments: pd.DataFrame, patterns: pd.DataFrame, records: pd.DataFrame
) -> TrainEvidence:
    """Keep of the evidence what belongs to train, without records whose label is in doubt."""
    is_doubtful = misalignments["attribution"] == LABEL_DOUBT
    doubtful = misalignments.loc[is_doubtful, "record_id"]
    return TrainEvidence(
        scored=scored[(scored["split"] == "train") & ~scored["record_id"].isin(doubtful)],
        misalignments=misalignments[(misalignments["split"] == "train") & ~is_doubtful],
        patterns=patterns[~patterns["is_unclustered"].astype(bool)],
        records=records[records["split"] == "train"],
    )


def propose_by_rules(request: ProposalRequest) -> Proposal | None:
    """Write the next criteria: a clause per pattern among the errors, and examples chosen from train.

    Returns:
        None where the errors on train that the champion was not shown, if any, give no new clause and no new example.
    """
    champion, evidence = request.champion, request.evidence
    if evidence.misalignments.empty:
        return None
    clauses = _clauses(champion, evidence)
    examples = _examples(request)
    criteria = request.edit(clauses=(*champion.clauses, *clauses), examples=examples)
    if not clauses and examples == champion.examples:
        return None
    summary = f"clauses added: {len(clauses)}; examples from train: {len(examples)} (before: {len(champion.examples)})"
    return Proposal(criteria, tuple(clauses), "rules", summary)


def find_twin(criteria: Criteria, versions: Mapping[str, Criteria]) -> str | None:
    """The version that tells a judge the same, if there is one."""
    told = {"criteria", "system_prompt", "clauses", "examples", "model", "provider", "sampling"}
    wanted = criteria.model_dump(include=told)
    return next((version for version, other in versions.items() if other.model_dump(include=told) == wanted), None)


def _clauses(champion: Criteria, evidence: TrainEvidence) -> list[Clause]:
    covered = {clause.evidence.pattern_id for clause in champion.clauses}
    notes_by_id = evidence.misalignments.set_index("record_id")["human_notes"]
    errors = evidence.misalignments.groupby("pattern_id")["record_id"].agg(sorted)
    by_size = sorted(errors.items(), key=lambda item: (-len(item[1]), str(item[0])))
    patterns = evidence.patterns.set_index("pattern_id")
    clauses = []
    for pattern_id, record_ids in by_size:
        if pattern_id in covered or len(record_ids) < MIN_ERRORS_PER_CLAUSE or pattern_id not in patterns.index:
            continue
        pattern = patterns.loc[str(pattern_id)]
        quotes = pick_quotes([notes_by_id[record_id] for record_id in record_ids])
        verdict = 0 if pattern["polarity"] == "reject" else 1
        name = redact(str(pattern["name"]))
        clauses.append(
            Clause(
                text=_clause_text(verdict, name, quotes),
                verdict=verdict,
                evidence=Evidence(
                    pattern_id=str(pattern_id),
                    pattern=name,
                    record_ids=tuple(record_ids),
                    quotes=tuple(quotes),
                ),
            )
        )
    return clauses[: max(MAX_CLAUSES - len(champion.clauses), 0)]


def pick_quotes(notes: Sequence[str]) -> list[str]:
    """Different notes, sanitized, shortened, at most `MAX_QUOTES`."""
    return list(dict.fromkeys(redact(note)[:MAX_QUOTE_CHARS].strip() for note in notes))[:MAX_QUOTES]


def _clause_text(verdict: int, pattern: str, quotes: Sequence[str]) -> str:
    quoted = "; ".join(f"“{shorten(quote, MAX_TOLD_CHARS)}”" for quote in quotes[:3])
    would = "object" if verdict == 0 else "approve"
    return f"Score {verdict} where a reviewer would {would} as these did ({pattern}): {quoted}"


def _examples(request: ProposalRequest) -> tuple[ExampleRef, ...]:
    """Examples for the judge: those it has stay, its errors come first."""
    champion, evidence = request.champion, request.evidence
    # where a proposal on part of train did not win, the evidence was too thin: the next one shows all of it
    share = FIRST_TRAIN_SHARE if request.round_ == champion.round + 1 else 1.0
    limit = min(request.max_examples, int(share * len(evidence.scored)))
    kept = champion.examples[:limit]
    kept_ids = {example.record_id for example in kept}
    candidates = evidence.scored[~evidence.scored["record_id"].isin(kept_ids)]
    strategy = choose_strategy(len(evidence.misalignments), len(evidence.patterns))
    chosen = select_examples(candidates, limit - len(kept), strategy, seed=request.round_).examples
    return (*kept, *refer_to(sorted(chosen["record_id"]), evidence.records))


def refer_to(record_ids: Sequence[str], records: pd.DataFrame) -> tuple[ExampleRef, ...]:
    """References to records as examples, in the given order."""
    texts = records.set_index("record_id", drop=False).loc[list(record_ids)]
    pairs = zip(texts["record_id"], content_hashes(texts), strict=True)
    return tuple(ExampleRef(record_id=record_id, content_hash=content) for record_id, content in pairs)
