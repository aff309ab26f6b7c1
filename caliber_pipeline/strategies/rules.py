"""Proposals without a language model: clauses from the notes, and examples."""

from caliber_pipeline.core.example_selection import SelectionStrategy, select_examples
from caliber_pipeline.core.proposals import (
    FIRST_TRAIN_SHARE,
    Proposal,
    ProposalRequest,
    propose_by_rules,
    refer_to,
)
from caliber_pipeline.core.proposed_change import ProposedChange
from caliber_pipeline.strategies.protocol import Proposals


class RulesStrategy:
    """A clause per pattern among the errors, and examples of what the judge gets wrong."""

    name = "rules"
    max_proposals = 1

    async def propose(self, request: ProposalRequest) -> Proposals:
        """One proposal, or none where the errors on train give no new clause and no new example."""
        proposal = propose_by_rules(request)
        return Proposals((proposal,) if proposal is not None else ())


class ExamplesStrategy:
    """Other examples, the text left as it is: one proposal for each way to select them."""

    name = "examples"
    max_proposals = len(SelectionStrategy)

    async def propose(self, request: ProposalRequest) -> Proposals:
        """A proposal for each `SelectionStrategy` that the evidence feeds; none without an error on train."""
        if request.evidence.misalignments.empty:
            return Proposals(())
        kinds = [SelectionStrategy.MISALIGNMENT_GUIDED, SelectionStrategy.BALANCED]
        if len(request.evidence.patterns):
            kinds.append(SelectionStrategy.PATTERN_AWARE)
        found = [propose_examples(request, kind) for kind in kinds]
        distinct = {proposal.criteria.examples: proposal for proposal in reversed(found) if proposal is not None}
        return Proposals(tuple(reversed(distinct.values())))


def propose_examples(
    request: ProposalRequest, selection: SelectionStrategy = SelectionStrategy.MISALIGNMENT_GUIDED
) -> Proposal | None:
    """The champion with examples chosen anew from train; None where they are those that it has."""
    evidence = request.evidence
    scored = evidence.scored
    if selection is SelectionStrategy.PATTERN_AWARE:
        members = evidence.patterns[["pattern_id", "train_record_ids"]].explode("train_record_ids")
        by_id = members.dropna().set_index("train_record_ids")["pattern_id"]
        scored = scored.assign(pattern_id=scored["record_id"].map(by_id[~by_id.index.duplicated()]))
    limit = min(request.max_examples, int(FIRST_TRAIN_SHARE * len(scored)))
    chosen = select_examples(scored, limit, selection, seed=request.round_).examples
    examples = refer_to(sorted(chosen["record_id"]), evidence.records)
    if not examples or examples == request.champion.examples:
        return None
    change = ProposedChange(
        "examples",
        f"show {len(examples)} examples from train, selected as {selection}",
        f"the judge errs on {len(evidence.misalignments)} records of train",
        "fewer errors of the kinds shown",
        record_ids=tuple(example.record_id for example in examples),
    )
    return Proposal(
        request.edit(examples=examples),
        (),
        "examples",
        f"{len(examples)} examples from train, {selection} (before: {len(request.champion.examples)})",
        str(selection),
        (change,),
    )
