"""The race is held on train records that no strategy saw."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.proposals import Proposal, ProposalRequest
from caliber_pipeline.strategies import ExamplesStrategy, Proposals, choose_next
from caliber_pipeline.strategies.screening import race, set_aside
from caliber_pipeline_tests.strategies.world import START, World


def test_a_part_of_train_is_set_aside_and_shown_to_nobody() -> None:
    world = World()
    evidence = world.evidence(START)
    shown, aside = set_aside(evidence)
    ids = set(aside["record_id"])
    assert len(shown.scored) + len(aside) == len(evidence.scored)
    assert 0.1 < len(aside) / len(evidence.scored) < 0.4
    assert not ids & {*shown.misalignments["record_id"], *shown.records["record_id"]}
    again = set_aside(replace(evidence, scored=evidence.scored.iloc[::-1]))[1]
    assert set(again["record_id"]) == ids


def test_the_race_asks_for_nothing_else() -> None:
    world = World()
    aside = set(set_aside(world.evidence(START))[1]["record_id"])
    asyncio.run(choose_next([ExamplesStrategy()], world.request(START, 1), world.guarded(), world.race_judge))
    assert world.asked
    assert {record_id for _, record_id in world.asked} <= aside


class Sees:
    """Remembers how many records it was shown."""

    name = "sees"

    def __init__(self, max_proposals: int) -> None:
        self.max_proposals = max_proposals
        self.n_seen = 0

    async def propose(self, request: ProposalRequest) -> Proposals:
        self.n_seen = len(request.evidence.scored)
        return Proposals(())


def test_a_single_proposal_is_written_from_all_of_train() -> None:
    world = World()
    n_train = len(world.evidence(START).scored)
    one, two = Sees(1), Sees(2)
    for strategy in (one, two):
        asyncio.run(choose_next([strategy], world.request(START, 1), world.guarded(), world.race_judge))
    assert one.n_seen == n_train
    assert two.n_seen < n_train


def test_a_proposal_whose_calls_failed_is_not_dropped_for_it() -> None:
    world = World()

    def judge(proposal: Proposal, record_ids: Sequence[str]) -> pd.DataFrame:
        """As the world does, but half of the calls for the second proposal fail."""
        verdicts = world.race_judge(proposal, record_ids)
        if proposal.kind == "failing":
            verdicts.loc[::2, "llm_score"] = None
        return verdicts

    # both know what every planted flaw is, so that both are right wherever they answer
    criteria = Criteria(criteria="Score 1 if fine; 0 for a zebra, a quasar or a walrus")
    answering, failing = (Proposal(criteria, (), "s", "", kind=kind) for kind in ("answering", "failing"))
    screening = race(world.request(START, 1), [answering, failing], judge)
    assert [candidate.outcome for candidate in screening.candidates] == ["chosen", "not the best"]
