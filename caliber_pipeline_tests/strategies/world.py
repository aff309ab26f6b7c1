"""A world with planted rules: what people reject is known, and the judge knows only what its criteria tell it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from pydantic import BaseModel

from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.fingerprints import hash_texts
from caliber_pipeline.core.proposals import EarlierProposal, Proposal, ProposalRequest, TrainEvidence, select_train
from caliber_pipeline.core.rewriting import RewriteReply
from caliber_pipeline.core.splits import splits_of_hashes
from caliber_pipeline_tests.api.scripted_model import ScriptedModel

RULES = {"zebra": "mentions a zebra", "quasar": "speaks of a quasar", "walrus": "brings up a walrus"}
CANARY = "the canary sings seven secret songs tonight"
START = Criteria(criteria="Score 1 if the answer is fine, otherwise 0")


@dataclass
class World:
    """Records of which each rule concerns a sixth; test (and dev) records carry a canary in all their texts.

    Attributes:
        n: Records, each a group of its own.
        asked: Record ids by proposal kind, in the order asked for.
    """

    n: int = 240
    asked: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        ids = [f"r{i:03d}" for i in range(self.n)]
        flaws = [([*RULES, None, None, None])[i % 6] for i in range(self.n)]
        groups = pd.Series(ids, dtype="string[pyarrow]")
        split = splits_of_hashes(hash_texts(groups)).to_pylist()
        tail = ["" if s == "train" else f" {CANARY}" for s in split]
        notes = [None if f is None else RULES[f] + t for f, t in zip(flaws, tail, strict=True)]
        self.records = pd.DataFrame(
            {
                "record_id": groups,
                "query": [f"question {i}{t}" for i, t in enumerate(tail)],
                "output": [f"answer {i} {f or 'plain'}{t}" for i, (f, t) in enumerate(zip(flaws, tail, strict=True))],
                "reference": pd.Series([None] * self.n, dtype="string[pyarrow]"),
                "group": groups,
                "split": split,
            }
        )
        self.labels = pd.DataFrame(
            {
                "record_id": groups,
                "human_score": pd.array([int(f is None) for f in flaws], dtype="int8[pyarrow]"),
                "human_notes": pd.Series(notes, dtype="string[pyarrow]"),
            }
        )

    def judge(self, criteria: Criteria, record_ids: Sequence[str]) -> pd.DataFrame:
        """Rejects what shows a flaw that the criteria name; 'reject everything' rejects all."""
        told = criteria.full_text
        outputs = self.records.set_index("record_id").loc[list(record_ids), "output"]
        known = [flaw for flaw in RULES if flaw in told]
        scores = [int(not any(f in o for f in known) and "reject everything" not in told) for o in outputs]
        return pd.DataFrame(
            {
                "record_id": list(record_ids),
                "llm_score": pd.array(scores, dtype="int8[pyarrow]"),
                "llm_reasoning": "looked for what the clauses name",
            }
        )

    def score(self, criteria: Criteria) -> pd.DataFrame:
        """As `join_labels` gives it."""
        verdicts = self.judge(criteria, self.records["record_id"].tolist())
        scored = self.labels.merge(verdicts, on="record_id").merge(
            self.records[["record_id", "group", "split"]], on="record_id"
        )
        return scored.assign(is_example=scored["record_id"].isin([e.record_id for e in criteria.examples]))

    def race_judge(self, proposal: Proposal, record_ids: Sequence[str]) -> pd.DataFrame:
        self.asked += [(proposal.kind, record_id) for record_id in record_ids]
        return self.judge(proposal.criteria, record_ids)

    def guarded(self) -> pd.DataFrame:
        """Dev and test, with their notes."""
        return self.records[self.records["split"] != "train"].merge(self.labels, on="record_id")

    def request(
        self, champion: Criteria, round_: int, earlier: tuple[EarlierProposal, ...] = (), version: str = "v001"
    ) -> ProposalRequest:
        return ProposalRequest(champion, version, self.evidence(champion), round_, 4, earlier)

    def evidence(self, champion: Criteria) -> TrainEvidence:
        scored = self.score(champion)
        wrong = scored[(scored["llm_score"] != scored["human_score"]).astype(bool)].merge(
            self.records[["record_id", "query", "output", "reference"]], on="record_id"
        )
        flaw = wrong["output"].str.extract(f"({'|'.join(RULES)})")[0]
        wrong = wrong.assign(
            kind=np.where(wrong["llm_score"] == 1, "false_positive", "false_negative"),
            pattern_id=("p-" + flaw).astype("string[pyarrow]"),
            pattern_name=flaw.map(RULES).astype("string[pyarrow]"),
            attribution="judge_error",
        )

        def members(flaw: str, is_chosen: pd.Series) -> list[str]:
            has_flaw = self.records["output"].str.contains(flaw)
            return [str(record_id) for record_id in self.records.loc[has_flaw & is_chosen, "record_id"]]

        patterns = pd.DataFrame(
            {
                "pattern_id": [f"p-{f}" for f in RULES],
                "name": list(RULES.values()),
                "polarity": "reject",
                "is_unclustered": False,
                "description": "",
                "keywords": [[flaw] for flaw in RULES],
                "examples": [[note] for note in RULES.values()],
                "stability": 0.9,
                "method": "by hand",
                "notes_fingerprint": "n",
                "record_ids": [members(flaw, self.records["split"] != "") for flaw in RULES],
                "train_record_ids": [members(flaw, self.records["split"] == "train") for flaw in RULES],
            }
        )
        return select_train(scored, wrong, patterns, self.records)


def scripted(answer: Callable[[str, type[BaseModel]], dict[str, object]]) -> ScriptedModel:
    """A language model that answers from a function."""
    return ScriptedModel(lambda prompt, reply: json.dumps(answer(prompt, reply)))


def learn_from_prompt(prompt: str, reply: type[BaseModel]) -> dict[str, object]:
    """A language model that names every planted flaw that it is shown an error of, and drops nothing."""
    assert reply is RewriteReply
    rows = [json.loads(line) for line in prompt.splitlines() if line.startswith("{")]
    errors = [row for row in rows if row.get("people") != row.get("judge")]
    n_present = sum(line[:1].isdigit() and line[1:3] == ". " for line in prompt.splitlines())
    new = []
    for flaw in RULES:
        ids = [row["record_id"] for row in errors if flaw in row["output"]]
        if ids:
            new.append({"text": f"Reject an answer with a {flaw}.", "verdict": 0, "record_ids": [*ids, "nobody"]})
    suggestion = {"aspect": "flaws", "suggestion": "name them", "rationale": "seen", "expected_improvement": "fewer"}
    return {
        "suggestions": [{**suggestion, "record_ids": [row["record_id"] for row in errors[:2]]}],
        "criteria": START.criteria,
        "kept_clauses": list(range(1, n_present + 1)),
        "new_clauses": new,
    }
