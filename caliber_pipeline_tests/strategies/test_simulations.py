"""The loop of proposal, race and gate in worlds whose truth is known."""

import asyncio
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from pydantic import BaseModel

from caliber_pipeline.core.alignment_metrics import compute_alignment_metrics
from caliber_pipeline.core.conforming import empty_frame
from caliber_pipeline.core.criteria import Clause, Criteria
from caliber_pipeline.core.gate import compare_versions
from caliber_pipeline.core.human_ceiling import compute_people_metrics
from caliber_pipeline.core.optimized_criteria import decide_version
from caliber_pipeline.core.proposals import EarlierProposal, Proposal
from caliber_pipeline.core.stopping import LoopSettings, find_stop, measure_alignment
from caliber_pipeline.strategies import Choice, RewriteStrategy, Strategy, choose_next
from caliber_pipeline.strategies.screening import STAGES, race
from caliber_pipeline_tests.strategies.world import CANARY, RULES, START, World, learn_from_prompt, scripted

SETTINGS = LoopSettings(kappa_target=0.95, max_iterations=3)
Reply = Callable[[str, type[BaseModel]], dict[str, object]]


def propose(world: World, strategy: Strategy, champion: Criteria, round_: int, *earlier: EarlierProposal) -> Choice:
    request = world.request(champion, round_, earlier)
    return asyncio.run(choose_next([strategy], request, world.guarded(), world.race_judge))


def run_loop(world: World, strategy: Strategy) -> tuple[Criteria, list[str]]:
    """The champion at the end, and every decision."""
    champion, decisions = START, ["baseline"]
    earlier: list[EarlierProposal] = []
    for round_ in range(1, SETTINGS.max_iterations + 1):
        choice = propose(world, strategy, champion, round_, *earlier)
        if choice.proposal is None:
            break
        comparison = compare_versions(world.score(champion), world.score(choice.proposal.criteria))
        decision = decide_version(f"v{round_}", "base", "base", comparison, None, SETTINGS)
        decisions.append(decision.decision)
        if decision.decision == "promoted":
            champion, earlier = choice.proposal.criteria, []
        else:
            earlier.append(EarlierProposal(f"v{round_}", choice.proposal.criteria.full_text, decision.reason))
    return champion, decisions


def test_the_loop_finds_the_planted_rules_and_reaches_the_planted_agreement() -> None:
    world = World()
    champion, decisions = run_loop(world, RewriteStrategy(scripted(learn_from_prompt)))
    assert decisions[:2] == ["baseline", "promoted"]
    told = " ".join(clause.text for clause in champion.clauses)
    assert all(flaw in told for flaw in RULES)
    test = world.score(champion).query("split == 'test'")
    assert (test["llm_score"] == test["human_score"]).all()


def test_every_clause_names_patterns_and_train_records_and_invented_ids_fall_out() -> None:
    world = World()
    choice = propose(world, RewriteStrategy(scripted(learn_from_prompt)), START, 1)
    assert choice.proposal is not None
    assert choice.proposal.clauses
    split_of = world.records.set_index("record_id")["split"]
    for clause in choice.proposal.clauses:
        assert clause.evidence.pattern_id is not None
        assert set(split_of[list(clause.evidence.record_ids)]) == {"train"}
        assert "nobody" not in clause.evidence.record_ids
        assert set(clause.evidence.quotes) <= set(RULES.values())


def test_no_canary_of_dev_or_test_reaches_a_prompt_or_the_criteria() -> None:
    model = scripted(learn_from_prompt)
    world = World()
    champion, _ = run_loop(world, RewriteStrategy(model))
    assert len(model.prompts) >= 2
    assert not any("canary" in prompt for prompt in model.prompts)
    assert "canary" not in champion.model_dump_json()
    deciding = set(world.records.loc[world.records["split"] != "train", "record_id"])
    assert not deciding & {record_id for _, record_id in world.asked}
    assert not any(record_id in prompt for prompt in model.prompts for record_id in deciding)


def spoil(**changes: object) -> Reply:
    """A language model that learns, and spoils its reply."""
    return lambda prompt, reply: {**learn_from_prompt(prompt, reply), **changes}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"criteria": f"Score 0 where {CANARY}"}, "refused: it quotes a record of dev or test"),
        ({"criteria": "Score 1 if {{condition}}"}, "refused: it has gaps to be filled in: {{, }}"),
        ({"criteria": "Score 1. TODO: say when"}, "refused: it has gaps to be filled in: TODO"),
        ({"criteria": "word " * 3000}, "refused: it has"),
        ({"criteria": "  "}, "failed: the language model's criteria are blank"),
        ({"criteria": START.criteria, "new_clauses": []}, "failed: the language model changed nothing"),
    ],
)
def test_what_must_not_become_criteria_is_refused_with_the_reason(changes: dict[str, object], reason: str) -> None:
    choice = propose(World(), RewriteStrategy(scripted(spoil(**changes)), n_candidates=2), START, 1)
    assert choice.proposal is None
    assert choice.reason is not None
    assert choice.reason.startswith("no proposal is worth trying")
    assert all(candidate.outcome.startswith(reason) for candidate in choice.candidates)


def test_private_data_in_a_reply_is_taken_out() -> None:
    choice = propose(World(), RewriteStrategy(scripted(spoil(criteria="Write to a@b.example.com"))), START, 1)
    assert choice.proposal is not None
    assert "@" not in choice.proposal.criteria.model_dump_json()


def test_a_harmful_proposal_is_rejected_by_the_gate() -> None:
    def harm(prompt: str, reply: type[BaseModel]) -> dict[str, object]:
        shown = [line.split('"')[3] for line in prompt.splitlines() if line.startswith("{")]
        clause = {"text": "Please reject everything.", "verdict": 0, "record_ids": shown[:1]}
        return {**learn_from_prompt(prompt, reply), "new_clauses": [clause]}

    champion, decisions = run_loop(World(), RewriteStrategy(scripted(harm), n_candidates=2))
    assert champion == START
    assert set(decisions[1:]) == {"rejected"}


def test_the_race_drops_the_clearly_worse_before_they_cost_more() -> None:
    world = World()
    request = world.request(START, 1)
    good, bad = (
        Proposal(START.model_copy(update={"clauses": (Clause(text=text),)}), (), "s", "", kind)
        for text, kind in ((" ".join(RULES), "good"), ("reject everything", "bad"))
    )
    screening = race(request, [bad, good], world.race_judge)
    assert screening.chosen is good
    outcome = {candidate.kind: candidate for candidate in screening.candidates}
    assert outcome["bad"].outcome == "dropped after 16 records: clearly worse than good"
    assert outcome["bad"].n_screened == STAGES[0]
    assert outcome["good"].kappa == 1.0
    assert outcome["good"].n_screened == STAGES[-1]
    assert screening.n_judged == STAGES[0] + STAGES[-1]
    assert race(request, [bad, bad], world.race_judge).chosen in (bad, None)


def test_a_tie_in_the_race_goes_to_the_simpler() -> None:
    world = World()
    short, long = (
        Proposal(START.model_copy(update={"clauses": (Clause(text=text),)}), (), "s", "", text)
        for text in ("zebra quasar walrus", "zebra quasar walrus and so on")
    )
    assert race(world.request(START, 1), [long, short], world.race_judge).chosen is short


def test_earlier_rejected_proposals_are_told_to_the_next() -> None:
    model = scripted(learn_from_prompt)
    propose(World(), RewriteStrategy(model), START, 2, EarlierProposal("v002", "Score 1 always", "no gain"))
    assert all("Score 1 always" in prompt and "no gain" in prompt for prompt in model.prompts)


def toss(groups: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Verdicts by coin, one coin for a whole group."""
    return rng.integers(0, 2, int(groups.max()) + 1)[groups]


@pytest.mark.parametrize("group_size", [pytest.param(1, marks=pytest.mark.slow), 5])
def test_pure_noise_is_seldom_promoted(group_size: int) -> None:
    """At alpha 0.05 for the whole loop 10 of 200 runs are expected; more than 18 have a probability of 0.7 %."""
    n, n_runs, n_promoted = 100, 200, 0
    groups = np.arange(n) // group_size
    settings = LoopSettings(max_iterations=3)
    for seed in range(n_runs):
        rng = np.random.default_rng(seed)
        # half of what people say is shared by their group, and all of what the judge says
        human = np.where(rng.random(n) < 0.5, toss(groups, rng), rng.integers(0, 2, n))
        frame = pd.DataFrame(
            {
                "record_id": np.arange(n).astype(str),
                "group": groups.astype(str),
                "split": "dev",
                "human_score": pd.array(human.tolist(), dtype="int8[pyarrow]"),
                "is_example": False,
            }
        )
        champion = frame.assign(llm_score=pd.array(toss(groups, rng).tolist(), dtype="int8[pyarrow]"))
        n_failed, has_promoted = 0, False
        for _ in range(settings.max_iterations):
            version = frame.assign(llm_score=pd.array(toss(groups, rng).tolist(), dtype="int8[pyarrow]"))
            comparison = compare_versions(champion, version, seed=seed)
            if decide_version("b", "a", "a", comparison, None, settings).decision == "promoted":
                champion, n_failed, has_promoted = version, 0, True
            else:
                n_failed += 1
            if n_failed == 2:
                break
        n_promoted += has_promoted
    assert n_promoted <= 18


def test_the_aligned_stop_asks_for_a_lower_bound() -> None:
    world = World(n=60)
    scored = world.score(START.model_copy(update={"clauses": (Clause(text=" ".join(RULES)),)}))
    people = compute_people_metrics(
        empty_frame("annotations"), scored[["record_id", "llm_score", "is_example", "split"]]
    )
    metrics = pd.concat([compute_alignment_metrics(scored), people])
    alignment = measure_alignment(scored, metrics)
    assert alignment.kappa == 1.0
    assert alignment.lower_bound is not None
    assert 0.7 < alignment.lower_bound < 1.0  # perfect agreement on some 24 records proves no more
    decision = decide_version("v1", None, None, None, None, SETTINGS)
    assert find_stop(decision, START, alignment, 60, {}, "d", LoopSettings(kappa_target=1.0, max_iterations=3)) is None
    reason = find_stop(decision, START, alignment, 60, {}, "d", LoopSettings(kappa_target=0.8, max_iterations=3))
    assert reason is not None
    assert reason.startswith("aligned: kappa on dev 1.000 reaches the target 0.8, and is at least 0.")
