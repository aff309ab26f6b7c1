"""Proposals by GEPA (Agrawal et al., 2025, arXiv 2507.19457) through the optional package `gepa`.

Its search is GEPA's own; metric, judge, feedback and acceptance test are those of this project.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import pandas as pd
from pydantic import BaseModel, Field

from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.errors import JudgeSettingsError, ReplyError
from caliber_pipeline.core.fingerprints import hash_texts
from caliber_pipeline.core.gate import exact_mcnemar
from caliber_pipeline.core.proposals import Candidate, Proposal, ProposalRequest
from caliber_pipeline.core.proposed_change import ProposedChange
from caliber_pipeline.core.sanitizer import redact
from caliber_pipeline.judges.language_model import LanguageModel
from caliber_pipeline.strategies.protocol import Proposals

JudgeCriteria = Callable[[Criteria, Sequence[str]], pd.DataFrame]
"""Judges the named train records under criteria: record_id, llm_score and llm_reasoning come back."""

GEPA: Final = "gepa"
MAX_VERDICTS: Final = 400  # what the search may ask the judge for
MINIBATCH: Final = 8  # on which a rewritten text is held against its parent
N_VALIDATION: Final = 40  # train records that the search compares its candidates on
ACCEPTED_P: Final = 0.3  # on a minibatch: two fixed and none broken (p = 1/4) pass, one fixed alone (1/2) does not
MAX_CHARS: Final = 1_500
_COMPONENT: Final = "criteria"


class TextReply(BaseModel):
    """An answer in plain text."""

    text: str = Field(description="The whole answer")


class GepaStrategy:
    """Lets GEPA evolve the main text; the champion's clauses and examples stay."""

    name = GEPA
    max_proposals = 1

    def __init__(self, model: LanguageModel, judge: JudgeCriteria, *, max_verdicts: int = MAX_VERDICTS) -> None:
        """Say who reflects, who judges, and how often.

        Args:
            model: The language model that rewrites the text.
            judge: Gives verdicts on train records under criteria.
            max_verdicts: What the search may ask the judge for.
        """
        self._model = model
        self._judge = judge
        self._max_verdicts = max_verdicts

    async def propose(self, request: ProposalRequest) -> Proposals:
        """The text that does best on train, if it is not the champion's.

        Raises:
            JudgeError: the package `gepa` is not installed, or judge or language model cannot be asked.
        """
        if request.evidence.misalignments.empty:
            return Proposals(())
        return await asyncio.to_thread(self._search, request)

    def _search(self, request: ProposalRequest) -> Proposals:
        try:
            import gepa
        except ImportError:
            raise JudgeSettingsError(
                "the strategy 'gepa' needs the package gepa: pip install 'caliber-pipeline[gepa]'"
            ) from None
        rows = _rows(request)
        if len(rows) <= MINIBATCH:
            return Proposals((), (Candidate(GEPA, GEPA, f"failed: only {len(rows)} train records to learn from"),))
        before = self._model.usage
        found = gepa.optimize(
            seed_candidate={_COMPONENT: request.champion.criteria},
            trainset=rows,
            valset=rows[:N_VALIDATION],
            adapter=(adapter := _Adapter(request, self._judge)),
            reflection_lm=_Reflection(self._model),
            reflection_minibatch_size=MINIBATCH,
            acceptance_criterion=_Acceptance(),
            max_metric_calls=self._max_verdicts,
            logger=_Silence(),
            seed=request.round_,
        )
        text = redact(found.best_candidate[_COMPONENT].strip())
        if text == request.champion.criteria or not text:
            reason = f"failed: no text did better on train ({found.num_candidates} tried)"
            return Proposals((), (Candidate(GEPA, GEPA, reason, len(rows)),), self._model.usage.since(before))
        changes = tuple(
            _change(i, step, record_ids, request)
            for i, (step, record_ids) in enumerate(adapter.lineage(found.best_candidate[_COMPONENT]), start=1)
        )
        summary = f"main text evolved over {found.num_candidates} candidates"
        proposal = Proposal(request.edit(criteria=text), (), GEPA, summary, "evolved text", changes)
        return Proposals((proposal,), (), self._model.usage.since(before))


def _change(step: int, text: str, record_ids: Sequence[str], request: ProposalRequest) -> ProposedChange:
    """One rewrite on the way, with the errors that it came from."""
    errors = request.evidence.misalignments
    patterns = errors.loc[errors["record_id"].isin(record_ids), "pattern_id"].dropna()
    return ProposedChange(
        aspect=f"main text, rewrite {step}",
        suggestion=redact(text.strip())[:MAX_CHARS],
        rationale=f"{len(record_ids)} records of a minibatch of train were judged wrongly by the text before",
        expected_improvement="fewer such errors",
        pattern_ids=tuple(sorted(set(patterns.astype(str)))),
        record_ids=tuple(record_ids),
    )


def _rows(request: ProposalRequest) -> list[dict[str, Any]]:
    """The train records of the search, errors and others in a seeded order, with what people say of them."""
    scored = request.evidence.scored
    usable = scored[scored["llm_score"].notna() & ~scored["is_example"].astype(bool)]
    keys = usable["record_id"].astype("string[pyarrow]") + f"\x1fgepa{request.round_}"
    chosen = usable.assign(_order=hash_texts(keys)).sort_values("_order")
    chosen = chosen[["record_id", "human_score", "human_notes"]]
    texts = request.evidence.records[["record_id", "query", "output", "reference"]]
    rows = chosen.merge(texts, on="record_id").to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


class _Adapter:
    """What GEPA asks of a system that it improves: scores, and what there is to learn from them."""

    propose_new_texts = None  # GEPA's own

    def __init__(self, request: ProposalRequest, judge: JudgeCriteria) -> None:
        self._request = request
        self._judge = judge
        self._reflected: tuple[str, tuple[str, ...]] | None = None
        self._made_from: dict[str, tuple[str, tuple[str, ...]]] = {}

    def lineage(self, text: str) -> list[tuple[str, tuple[str, ...]]]:
        """The texts from the first rewrite to this one, each with the records that were got wrong under its parent."""
        steps: list[tuple[str, tuple[str, ...]]] = []
        while text in self._made_from and all(text != known for known, _ in steps):
            parent, record_ids = self._made_from[text]
            steps.append((text, record_ids))
            text = parent
        return steps[::-1]

    def evaluate(
        self,
        batch: list[dict[str, Any]],
        candidate: Mapping[str, str],
        capture_traces: bool = False,
    ) -> Any:  # noqa: ANN401 - of an optional package
        from gepa.core.adapter import EvaluationBatch

        criteria = self._request.edit(criteria=redact(candidate[_COMPONENT].strip()) or self._request.champion.criteria)
        text = candidate[_COMPONENT]
        if self._reflected is not None and text not in self._made_from and text != self._reflected[0]:
            self._made_from[text] = self._reflected
        verdicts = self._judge(criteria, [*dict.fromkeys(row["record_id"] for row in batch)])
        verdicts = verdicts.set_index("record_id")  # GEPA fills up a last batch with records that it holds already
        outputs, scores = [], []
        for row in batch:
            verdict = verdicts.loc[row["record_id"]]
            llm = None if pd.isna(verdict["llm_score"]) else int(verdict["llm_score"])
            reasoning = "" if pd.isna(verdict["llm_reasoning"]) else str(verdict["llm_reasoning"])
            outputs.append({"llm_score": llm, "llm_reasoning": reasoning})
            scores.append(float(llm == int(row["human_score"])))
        traces = [{**row, **output} for row, output in zip(batch, outputs, strict=True)] if capture_traces else None
        return EvaluationBatch(outputs=outputs, scores=scores, trajectories=traces)

    def make_reflective_dataset(
        self,
        candidate: Mapping[str, str],
        eval_batch: Any,  # noqa: ANN401 - of an optional package
        components_to_update: Sequence[str],
    ) -> dict[str, list[dict[str, Any]]]:
        traces = eval_batch.trajectories or []
        wrong = (str(trace["record_id"]) for trace in traces if trace["llm_score"] != int(trace["human_score"]))
        self._reflected = (candidate[_COMPONENT], tuple(dict.fromkeys(wrong)))
        shown = [_feedback(trace) for trace in traces]
        return dict.fromkeys(components_to_update, shown)


def _feedback(trace: Mapping[str, Any]) -> dict[str, Any]:
    """A record, the judge's verdict, and people's, as a language model is shown them."""
    expected, given = int(trace["human_score"]), trace["llm_score"]
    note = "" if pd.isna(trace["human_notes"]) else f" People say: {redact(str(trace['human_notes']))}"
    agrees = "The judge agrees with people." if given == expected else f"People give {expected}, the judge {given}."
    texts = {name: trace[name] for name in ("query", "output", "reference") if not pd.isna(trace[name])}
    return {
        "Inputs": {name: redact(str(text))[:MAX_CHARS] for name, text in texts.items()},
        "Generated Outputs": {"score": given, "reasoning": redact(trace["llm_reasoning"])[:MAX_CHARS]},
        "Feedback": agrees + note,
    }


class _Acceptance:
    """A rewritten text is kept where it fixes clearly more of the minibatch than it breaks."""

    def should_accept(self, proposal: Any, state: object) -> bool:  # noqa: ANN401 - of an optional package
        before, after = proposal.subsample_scores_before or [], proposal.subsample_scores_after or []
        pairs = list(zip(before, after, strict=True))
        n_fixed, n_broken = sum(new > old for old, new in pairs), sum(new < old for old, new in pairs)
        return exact_mcnemar(n_fixed, n_broken) <= ACCEPTED_P


class _Reflection:
    """A language model as GEPA calls it: text in, text out; an unusable reply is an empty one."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model

    def __call__(self, prompt: str | list[dict[str, Any]]) -> str:
        text = prompt if isinstance(prompt, str) else "\n\n".join(str(message["content"]) for message in prompt)
        try:
            return asyncio.run(self._model.ask(text, TextReply)).text
        except ReplyError:
            return ""


class _Silence:
    """GEPA reports to a logger; the decision's row says what matters."""

    def log(self, message: str) -> None:
        """Nothing."""
