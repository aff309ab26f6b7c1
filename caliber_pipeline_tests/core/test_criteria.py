"""Criteria files: parsed strictly, rendered so that they come back the same, fingerprinted by content."""

import pytest

from caliber_pipeline.core.criteria import (
    Clause,
    Criteria,
    Evidence,
    ExampleRef,
    next_version,
    parse_criteria,
    render_criteria,
)
from caliber_pipeline.core.errors import CriteriaError

FULL = Criteria(
    criteria="Score 1 if it is right: “always”, otherwise 0",
    system_prompt="You judge.",
    examples=(ExampleRef(record_id="r1", content_hash="ab"),),
    clauses=(Clause(text="Score 0 if rude", evidence=Evidence(pattern_id="p", record_ids=("r1",), quotes=("rude",))),),
    base="v001",
    round=2,
    author="optimizer",
)


def test_what_is_rendered_comes_back() -> None:
    assert parse_criteria(render_criteria(FULL), source="f") == FULL


def test_layout_and_comments_do_not_change_the_fingerprint_but_content_does() -> None:
    one = parse_criteria("criteria: Be right", source="f")
    two = parse_criteria("# note\ncriteria: >-\n  Be\n  right\nround: 0\n", source="f")
    assert one.fingerprint == two.fingerprint
    assert parse_criteria("criteria: Be wrong", source="f").fingerprint != one.fingerprint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("criteria: 'unfinished", "v9.yaml: not valid YAML"),
        ("- a list", "v9.yaml: holds no mapping; write at least a line 'criteria: …'"),
        ("", "v9.yaml: holds no mapping"),
        ("criteria: '  '", "criteria: Value error, criteria is blank"),
        ("system_prompt: x", "the key 'criteria' is missing"),
        ("criteria: x\nexmaples: []", "unknown key 'exmaples'; did you mean 'examples'"),
        ("criteria: x\nround: -1", "round: Input should be greater than or equal to 0"),
        ("criteria: x\nclauses: [{text: y, verdict: 2}]", "clauses.0.verdict: Input should be 0 or 1"),
    ],
)
def test_a_file_that_is_no_criteria_says_where_and_why(text: str, message: str) -> None:
    with pytest.raises(CriteriaError) as error:
        parse_criteria(text, source="v9.yaml")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_full_text_lists_the_clauses_below_the_criteria() -> None:
    assert FULL.full_text == "Score 1 if it is right: “always”, otherwise 0\n- Score 0 if rude"


def test_the_next_version_follows_the_highest_number_and_ignores_other_names() -> None:
    assert next_version([]) == "v001"
    assert next_version(["v001", "v009", "mine", "v3"]) == "v010"
    assert next_version(["v999"]) == "v1000"
