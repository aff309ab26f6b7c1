"""What a language model is asked in order to rewrite criteria, and what of its reply becomes a proposal."""

import json
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Literal

import pandas as pd
from pydantic import BaseModel, Field

from caliber_pipeline.core.criteria import Clause, Evidence
from caliber_pipeline.core.enrichment import measure_enrichment
from caliber_pipeline.core.errors import ReplyError
from caliber_pipeline.core.fingerprints import hash_texts
from caliber_pipeline.core.learnings import distil_patterns
from caliber_pipeline.core.proposals import (
    MAX_CLAUSES,
    Proposal,
    ProposalRequest,
    pick_quotes,
)
from caliber_pipeline.core.proposed_change import ProposedChange
from caliber_pipeline.core.sanitizer import redact
from caliber_pipeline.core.shown_records import AS_DATA, keep_known, render_lines
from caliber_pipeline.core.themes import shorten

MAX_SHOWN: Final = 24  # errors in a prompt: enough for the patterns to show, few enough to be read
MAX_THEMES: Final = 8  # of which it is told how often the judge misses them
MAX_EARLIER_CHARS: Final = 1_500  # of the text of one whose changes are not known
MAX_EARLIER: Final = 3  # failed proposals that are told
REWRITE: Final = "rewrite"
SYSTEM: Final = (
    "You improve the criteria of an LLM judge that scores outputs 1 (accept) or 0 (reject), so that it decides as "
    "people do."
)


class Kind(StrEnum):
    """What a rewrite tries."""

    TIGHTEN = "tighten"
    LOOSEN = "loosen"
    CLARIFY = "clarify edge cases"
    RESTRUCTURE = "restructure"
    EXAMPLES = "examples only"


_TASKS: Final = {
    Kind.TIGHTEN: "The judge accepts what people reject. Make the criteria stricter exactly where people are, and "
    "nowhere else. Keep the main text; say what to reject in new clauses.",
    Kind.LOOSEN: "The judge rejects what people accept. Say in new clauses what is to be accepted even so, exactly "
    "where people are more lenient, and nowhere else. Keep the main text.",
    Kind.CLARIFY: "Keep the main text and settle the edge cases that the errors reveal, each in one new clause that "
    "says where the line runs, in both directions.",
    Kind.RESTRUCTURE: "Rewrite the main text as a short ordered list of checks, the one that decides most often first, "
    "so that its wording leads to people's verdicts; use clauses for what is special.",
}


class ClauseReply(BaseModel):
    """One new rule."""

    text: str = Field(description="One precise, general rule, without names or text from the records")
    verdict: Literal[0, 1] = Field(description="The score that the rule leads to")
    record_ids: list[str] = Field(description="Ids of the shown records that it comes from, one at least")


class ChangeReply(BaseModel):
    """One suggestion."""

    aspect: str = Field(description="What it is about, in a few words")
    suggestion: str = Field(description="The change")
    rationale: str = Field(description="Why, by the records")
    expected_improvement: str = Field(description="Which errors should vanish")
    record_ids: list[str] = Field(description="Ids of the shown records that it comes from")


class RewriteReply(BaseModel):
    """Better criteria."""

    suggestions: list[ChangeReply]
    criteria: str = Field(description="The whole main text, ready for use, without the clauses and placeholders")
    kept_clauses: list[int] = Field(description="Numbers of the present clauses that stay")
    new_clauses: list[ClauseReply]


@dataclass(frozen=True)
class RewriteTask:
    """One kind of rewrite, ready to be asked for.

    Attributes:
        kind: What is tried.
        prompt: What the language model is asked.
        shown: The misalignments that it was shown.
        known: The ids of all records that it was shown.
    """

    kind: Kind
    prompt: str
    shown: pd.DataFrame
    known: frozenset[str]


def choose_kinds(misalignments: pd.DataFrame, n: int) -> tuple[Kind, ...]:
    """The n most promising kinds: against the more frequent error first; none against one that does not occur.

    One alone has to speak to both kinds of error where both occur.
    """
    counts = misalignments["kind"].value_counts()
    n_fp, n_fn = int(counts.get("false_positive", 0)), int(counts.get("false_negative", 0))
    against = [(n_fp, Kind.TIGHTEN), (n_fn, Kind.LOOSEN)]
    directed = [kind for count, kind in sorted(against, key=lambda pair: -pair[0]) if count]
    if n == 1 and len(directed) > 1:
        return (Kind.CLARIFY,)
    return tuple([directed[0], Kind.CLARIFY, Kind.EXAMPLES, Kind.RESTRUCTURE, *directed[1:]][:n]) if directed else ()


def sample_errors(misalignments: pd.DataFrame, n: int, *, seed: int = 0) -> pd.DataFrame:
    """Up to n errors, one of each pattern after the other, the largest patterns first; a pure function of its input.

    A long list cut short would show the first pattern alone.
    """
    keys = misalignments["record_id"].astype("string[pyarrow]") + f"\x1f{seed}"
    shuffled = misalignments.assign(_order=hash_texts(keys), _pattern=misalignments["pattern_id"].fillna(""))
    shuffled = shuffled.sort_values(["_order", "record_id"])
    by_pattern = shuffled.groupby("_pattern")["record_id"]
    ranked = shuffled.assign(_rank=by_pattern.cumcount(), _size=-by_pattern.transform("size"))
    chosen = ranked.sort_values(["_rank", "_size", "_pattern"]).head(n)
    return chosen.drop(columns=["_order", "_pattern", "_rank", "_size"]).reset_index(drop=True)


def build_task(request: ProposalRequest, kind: Kind, max_shown: int = MAX_SHOWN) -> RewriteTask:
    """The prompt of one kind of rewrite, from train alone, with so many errors at most."""
    errors = request.evidence.misalignments
    wanted = {Kind.TIGHTEN: "false_positive", Kind.LOOSEN: "false_negative"}.get(kind)
    if wanted is not None:
        errors = errors[errors["kind"] == wanted]
    shown = sample_errors(errors, max_shown, seed=request.round_)
    right = _select_right(request, max_shown)
    parts = [
        f"The judge's criteria:\n{request.champion.criteria}",
        _numbered(request),
        f"Errors of the judge, {len(shown)} of {len(errors)}, taken from every pattern ({_sizes(errors)}). "
        f"{AS_DATA}\n{_render(shown)}",
        f"Records that it gets right and must go on getting right:\n{_render(right)}" if len(right) else "",
        _missed(request, wanted),
        _earlier(request),
        f"{_TASKS[kind]}\nState general rules: copy no text and no name from a record. Say for each new clause and "
        f"each suggestion which shown records it comes from. At most {MAX_CLAUSES} clauses in all; keep it short.",
    ]
    known = frozenset([*shown["record_id"].astype(str), *right["record_id"].astype(str)])
    return RewriteTask(kind, "\n\n".join(part for part in parts if part), shown, known)


def read_reply(reply: RewriteReply, task: RewriteTask, request: ProposalRequest) -> Proposal:
    """The proposal that a reply amounts to; clauses without a shown record and invented ids fall out, and are counted.

    Raises:
        ReplyError: the main text is blank, or nothing was changed.
    """
    text = redact(reply.criteria.strip())
    if not text:
        raise ReplyError("the language model's criteria are blank")
    present = request.champion.clauses
    kept = [present[number - 1] for number in sorted(set(reply.kept_clauses)) if 1 <= number <= len(present)]
    patterns = dict(zip(task.shown["record_id"], task.shown["pattern_id"], strict=True))
    grounded = [clause for reply_ in reply.new_clauses if (clause := _clause(reply_, task.shown)) is not None]
    new = grounded[: max(MAX_CLAUSES - len(kept), 0)]
    criteria = request.edit(criteria=text, clauses=(*kept, *new))
    if criteria.full_text == request.champion.full_text:
        raise ReplyError("the language model changed nothing")
    changes = tuple(_change(suggestion, task.known, patterns) for suggestion in reply.suggestions)
    cited = [i for change in reply.suggestions for i in change.record_ids]
    cited += [i for clause in reply.new_clauses for i in clause.record_ids]
    n_invented = keep_known(cited, task.known)[1]
    n_dropped = len(reply.new_clauses) - len(new)
    summary = (
        f"{task.kind}: clauses added: {len(new)}; taken out: {len(present) - len(kept)}"
        f"{f'; left aside, being too many or without evidence: {n_dropped}' if n_dropped else ''}; "
        f"main text {'kept' if text == request.champion.criteria else 'rewritten'}"
    )
    return Proposal(criteria, tuple(new), REWRITE, summary, str(task.kind), changes, n_invented)


def _clause(reply: ClauseReply, shown: pd.DataFrame) -> Clause | None:
    rows = shown[shown["record_id"].isin(reply.record_ids)].sort_values("record_id")
    text = redact(" ".join(reply.text.split()))
    if rows.empty or not text:
        return None
    named = rows.dropna(subset=["pattern_id"])
    pattern_id, pattern = None, None
    if len(named):
        pattern_id = Counter(named["pattern_id"].astype(str)).most_common(1)[0][0]
        pattern = redact(str(named.loc[named["pattern_id"] == pattern_id, "pattern_name"].iloc[0]))
    quotes = pick_quotes([str(note) for note in rows["human_notes"].dropna()])
    evidence = Evidence(
        pattern_id=pattern_id, pattern=pattern, record_ids=tuple(rows["record_id"].astype(str)), quotes=tuple(quotes)
    )
    return Clause(text=text, verdict=reply.verdict, evidence=evidence)


def _change(reply: ChangeReply, known: frozenset[str], patterns: dict[str, str | None]) -> ProposedChange:
    record_ids, _ = keep_known(reply.record_ids, known)
    found = {str(patterns[i]) for i in record_ids if not pd.isna(patterns.get(i))}
    return ProposedChange(
        aspect=redact(reply.aspect),
        suggestion=redact(reply.suggestion),
        rationale=redact(reply.rationale),
        expected_improvement=redact(reply.expected_improvement),
        pattern_ids=tuple(sorted(found)),
        record_ids=record_ids,
    )


def _numbered(request: ProposalRequest) -> str:
    lines = [f"{i}. {clause.text}" for i, clause in enumerate(request.champion.clauses, start=1)]
    return "\n".join(["Its clauses, which the judge reads after the main text:", *lines]) if lines else ""


def _earlier(request: ProposalRequest) -> str:
    told = []
    for earlier in request.earlier[-MAX_EARLIER:]:
        told.append(
            f"- {'; '.join(earlier.changes) or shorten(earlier.text, MAX_EARLIER_CHARS)}\n  Result: {earlier.reason}"
        )
        told += [f"  Tried beside it: {beaten}" for beaten in earlier.beaten]
    if not told:
        return ""
    return "\n".join(["Tried before over the same criteria, and not good enough; do not try it again:", *told])


def _missed(request: ProposalRequest, kind: str | None) -> str:
    """Which themes in people's notes the judge misses on train, and what was learned of them."""
    evidence = request.evidence
    notes = evidence.scored[["record_id"]].assign(text=evidence.scored["human_notes"]).dropna()
    known = set(notes["record_id"])
    seen = evidence.patterns["train_record_ids"].map(lambda ids: [i for i in ids if i in known])  # none set aside
    patterns = evidence.patterns.assign(train_record_ids=seen)
    learnings = distil_patterns(patterns, notes, measure_enrichment(evidence.scored, patterns))
    if kind is not None:
        learnings = learnings[learnings["kind"] == kind]
    missed = learnings[learnings["n_missed"] > 0].head(MAX_THEMES)
    if missed.empty:
        return ""
    lines = "\n".join(json.dumps(_theme(row), ensure_ascii=False) for row in missed.to_dict("records"))
    return f"Themes in people's notes on train that the judge misses, what it misses more than others first:\n{lines}"


def _theme(row: Mapping[Hashable, Any]) -> dict[str, object]:
    n_others = row["n_other_missed"] + row["n_other_caught"]
    return {
        "theme": redact(str(row["title"])),
        "error": row["kind"],
        "missed": f"{row['n_missed']} of {row['n_missed'] + row['n_caught']}",
        "missed_elsewhere": f"{row['n_other_missed']} of {n_others}",
        "is_blind_spot": bool(row["is_enriched"]),
        "learned": redact(str(row["content"])),
        "advice": [redact(action) for action in row["recommended_actions"]],
    }


def _sizes(errors: pd.DataFrame) -> str:
    names = errors["pattern_name"].fillna("no pattern").astype(str)
    return ", ".join(f"{redact(str(name))}: {n}" for name, n in names.value_counts(sort=True).items()) or "none"


def _render(rows: pd.DataFrame) -> str:
    plain = rows.astype(object).where(rows.notna(), None).to_dict("records")
    return render_lines({str(name): value for name, value in row.items()} for row in plain)


def _select_right(request: ProposalRequest, max_shown: int) -> pd.DataFrame:
    """A few records that the judge gets right, so that a rewrite does not break them."""
    scored = request.evidence.scored
    right = scored[(scored["llm_score"] == scored["human_score"]).fillna(value=False).astype(bool)]
    keys = right["record_id"].astype("string[pyarrow]") + f"\x1f{request.round_}"
    chosen = right.assign(_order=hash_texts(keys)).sort_values("_order").head(max_shown // 4)
    texts = request.evidence.records[["record_id", "query", "output", "reference"]]
    return chosen[["record_id", "human_score", "llm_score"]].merge(texts, on="record_id")
