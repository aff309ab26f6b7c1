from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from caliber_pipeline.renderers.markdown import escape_markdown, render_code, render_diff, render_table

PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
TEXTS = st.text(
    alphabet=st.one_of(st.sampled_from("\\`*_[]()<>|#!~$&: \n-=+1."), st.characters(codec="utf-8")), max_size=80
)


@given(TEXTS)
def test_text_from_data_is_one_plain_text_in_its_cell(text: str) -> None:
    tokens = PARSER.parse(render_table(["a", "b"], [[f"x{text}", "end"]]))
    kinds = [token.type for token in tokens]
    assert kinds.count("td_open") == 2
    cell = tokens[kinds.index("td_open") + 1]
    assert {child.type for child in cell.children or []} <= {"text", "text_special", "softbreak"}


@given(TEXTS)
def test_a_code_block_holds_its_text_and_nothing_follows(text: str) -> None:
    (token,) = PARSER.parse(render_code(text))
    assert token.type == "fence"


def test_a_missing_value_is_not_available_and_long_text_is_cut() -> None:
    table = render_table(["a", "b"], [[None, "word " * 100]], max_chars=20)
    assert table.splitlines()[2] == "| n/a | word word word word… |"
    assert escape_markdown("a\n b  c") == "a b c"


def test_a_diff_shows_changed_sentences_alone() -> None:
    before = "Score 1 if it is right. Otherwise 0."
    after = "Score 1 if it is right. Otherwise 0.\n- Reject it where it invents a refund."
    assert render_diff(before, after, before_name="v001", after_name="v002").splitlines() == [
        "```diff",
        "--- v001",
        "+++ v002",
        "@@ -2 +2,2 @@",
        " Otherwise 0.",
        "+- Reject it where it invents a refund.",
        "```",
    ]
    assert "no difference" in render_diff(before, before, before_name="v001", after_name="v002")
