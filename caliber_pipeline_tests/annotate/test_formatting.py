from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caliber_pipeline.annotate.formatting import MAX_FORMATTED_LENGTH, Node, is_markdown, parse_nodes

TAGS = {
    "p", "ul", "ol", "li", "blockquote", "table", "thead", "tbody", "tr", "th", "td", "strong", "em", "s", "code",
    "pre", "br", "hr", "h3", "h4", "h5", "h6", "span",
}  # fmt: skip


def tags(nodes: list[Node]) -> Iterator[tuple[str, dict[str, object]]]:
    for node in nodes:
        if not isinstance(node, str):
            yield node[0], node[1]
            yield from tags(node[2])


def text_of(nodes: list[Node]) -> str:
    return "".join(node if isinstance(node, str) else text_of(node[2]) for node in nodes)


@pytest.mark.parametrize(
    "text",
    ["```\ncode\n```", "# Title\nx", "- a\n- b", "1. a\n2. b", "a | b\n--|--\n1 | 2", "> said", "so **bold** it is",
     "use `x`", "see [this](https://example.org)"],
)  # fmt: skip
def test_text_with_marks_is_formatted(text: str) -> None:
    assert is_markdown(text)


@pytest.mark.parametrize(
    "text",
    ["Plain.", "1986. A great year.", "- only one dash", "5 * 3 * 2 = 30", "a_b_c", "#hashtag", "cost: $5 [sic]",
     "a | b", "x" * (MAX_FORMATTED_LENGTH + 1) + " **b**"],
)  # fmt: skip
def test_text_that_only_looks_marked_is_shown_as_written(text: str) -> None:
    assert not is_markdown(text)


def test_nodes_keep_structure_and_line_breaks() -> None:
    nodes = parse_nodes("# T\n\none\ntwo\n\n3. a\n4. `b`\n\n```py\nx < 1\n```")
    assert nodes == [
        ["h3", {}, ["T"]],
        ["p", {}, ["one", ["br", {}, []], "two"]],
        ["ol", {"start": 3}, [["li", {}, [["p", {}, ["a"]]]], ["li", {}, [["p", {}, [["code", {}, ["b"]]]]]]]],
        ["pre", {}, [["code", {}, ["x < 1\n"]]]],
    ]


def test_html_stays_text_and_addresses_are_shown_not_linked() -> None:
    nodes = parse_nodes('<img src=x onerror="run()"> [good](https://a.example/?q) ![pic](https://b.example/p.png)')
    assert {tag for tag, _ in tags(nodes)} == {"p", "span"}
    assert text_of(nodes) == (
        '<img src=x onerror="run()"> good <https://a.example/?q> [image: pic] <https://b.example/p.png>'
    )


@settings(max_examples=150)
@given(st.text(alphabet=st.sampled_from("ab <>&\"'`*_#-[]()!|\n1.~:/="), max_size=80))
def test_whatever_the_text_only_harmless_nodes_come_out(text: str) -> None:
    nodes = parse_nodes(text)
    for tag, attributes in tags(nodes):
        assert tag in TAGS
        assert set(attributes) <= {"start", "class"}
    written = {word for word in text.split() if word.isalnum()}
    assert all(letter in text_of(nodes) for word in written for letter in word if letter.isalpha())
