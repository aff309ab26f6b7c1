"""Proposals come from train alone, and each change names its evidence."""

import pandas as pd

from caliber_pipeline.core.criteria import Clause, Criteria, Evidence, ExampleRef
from caliber_pipeline.core.proposals import ProposalRequest, TrainEvidence, find_twin, propose_by_rules, select_train

CHAMPION = Criteria(criteria="Score 1 if fine, otherwise 0")


def evidence(n_errors: int = 4) -> TrainEvidence:
    """Records r00 … r19, every second one rejected; the judge accepts the first rejected ones all the same."""
    n = 20
    ids = [f"r{i:02d}" for i in range(n)]
    human = [i % 2 for i in range(n)]
    errors = [i for i in ids if int(i[1:]) % 2 == 0][:n_errors]
    llm = [1 if i in errors else score for i, score in zip(ids, human, strict=True)]
    scored = pd.DataFrame({"record_id": ids, "split": "train", "human_score": human, "llm_score": llm})
    misalignments = pd.DataFrame(
        {
            "record_id": errors,
            "split": "train",
            "pattern_id": "p1",
            "attribution": "judge error",
            "human_notes": [f"rude, wrote to a@b{k}.example.com" for k in range(len(errors))],
        }
    )
    patterns = pd.DataFrame({"pattern_id": ["p1"], "polarity": ["reject"], "name": ["rude"], "is_unclustered": [False]})
    records = pd.DataFrame({"record_id": ids, "split": "train", "query": ids, "output": ids, "reference": None})
    return TrainEvidence(scored, misalignments, patterns, records)


def propose(given: TrainEvidence, champion: Criteria = CHAMPION, round_: int = 1, max_examples: int = 100) -> Criteria:
    proposal = propose_by_rules(ProposalRequest(champion, "v001", given, round_, max_examples))
    assert proposal is not None
    return proposal.criteria


def test_a_clause_quotes_what_people_wrote_and_names_its_records_and_pattern() -> None:
    criteria = propose(evidence())
    (clause,) = criteria.clauses
    assert clause.verdict == 0
    assert clause.evidence.pattern_id == "p1"
    assert clause.evidence.record_ids == ("r00", "r02", "r04", "r06")
    assert all(quote.startswith("rude") for quote in clause.evidence.quotes)
    assert (criteria.base, criteria.round, criteria.author) == ("v001", 1, "optimizer")


def test_private_data_in_notes_reaches_no_criteria_file() -> None:
    assert "@" not in propose(evidence()).model_dump_json()


def test_what_people_accept_even_so_becomes_a_clause_that_accepts() -> None:
    given = evidence()
    patterns = given.patterns.assign(polarity="accept")
    (clause,) = propose(TrainEvidence(given.scored, given.misalignments, patterns, given.records)).clauses
    assert clause.verdict == 1
    assert clause.text.startswith("Score 1 where a reviewer would approve as these did (rude): “rude")


def test_a_clause_names_its_pattern_and_cuts_long_notes_between_words() -> None:
    given = evidence()
    long = "the answer promises a refund " * 10
    misalignments = given.misalignments.assign(human_notes=[long, "rude", "curt", "cold"])
    (clause,) = propose(TrainEvidence(given.scored, misalignments, given.patterns, given.records)).clauses
    # four times the 29 characters of the phrase are 116, a fifth would pass 120
    assert clause.text == (
        "Score 0 where a reviewer would object as these did (rude): "
        f"“{('the answer promises a refund ' * 4).strip()}…”; “rude”; “curt”"
    )


def test_one_error_is_no_rule() -> None:
    assert propose(evidence(1)).clauses == ()


def test_no_errors_are_no_proposal() -> None:
    assert propose_by_rules(ProposalRequest(CHAMPION, "v001", evidence(0), 1, 9)) is None


def test_at_first_some_of_train_stays_unseen_and_after_a_failure_all_is_shown() -> None:
    assert len(propose(evidence()).examples) == 15
    assert len(propose(evidence(), round_=2).examples) == 20
    assert len(propose(evidence(), max_examples=6).examples) == 6
    assert propose(evidence(), max_examples=0).examples == ()


def test_the_errors_come_first_among_the_examples() -> None:
    shown = {example.record_id for example in propose(evidence(), max_examples=12).examples}
    assert {"r00", "r02", "r04", "r06"} <= shown


def test_clauses_and_examples_of_the_champion_stay() -> None:
    first = propose(evidence(), max_examples=6)
    again = propose_by_rules(ProposalRequest(first, "v002", evidence(), 2, 10))
    assert again is not None
    assert again.criteria.clauses == first.clauses  # the pattern is covered already
    assert again.criteria.examples[:6] == first.examples
    assert len(again.criteria.examples) == 10


def test_nothing_to_add_is_no_proposal() -> None:
    covered = CHAMPION.model_copy(update={"clauses": (Clause(text="x", evidence=Evidence(pattern_id="p1")),)})
    assert propose_by_rules(ProposalRequest(covered, "v001", evidence(), 1, 0)) is None


def test_the_same_call_gives_the_same_proposal_whatever_the_order() -> None:
    given = evidence()
    shuffled = TrainEvidence(*(frame.iloc[::-1].reset_index(drop=True) for frame in vars(given).values()))
    assert propose(shuffled) == propose(given)


def test_only_train_is_kept_of_the_evidence() -> None:
    given = evidence()
    frames = {name: frame.copy() for name, frame in vars(given).items()}
    for name in ("scored", "misalignments", "records"):
        frames[name].loc[0, "split"] = "dev"
    kept = select_train(frames["scored"], frames["misalignments"], frames["patterns"], frames["records"])
    assert "r00" not in propose(kept).model_dump_json()


def test_a_twin_tells_the_judge_the_same() -> None:
    criteria = propose(evidence())
    twin = criteria.model_copy(update={"round": 7, "base": "v005", "author": "person"})
    assert find_twin(criteria, {"v001": CHAMPION, "v004": twin}) == "v004"
    other = criteria.model_copy(update={"examples": (ExampleRef(record_id="r1", content_hash="x"),)})
    assert find_twin(other, {"v001": CHAMPION, "v004": twin}) is None
