from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caliber_pipeline.annotate.formatting import MAX_FORMATTED_LENGTH, Node, format_text, is_markdown, parse_nodes

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
     "a | b"],
)  # fmt: skip
def test_text_that_only_looks_marked_is_shown_as_written(text: str) -> None:
    assert not is_markdown(text)


@pytest.mark.parametrize(
    "text",
    [
        "# double it\nimport os\n\ndef f(__x__):\n    # by two\n    return __x__ * 2\n\nprint(f(3))",
        '{\n  "a": 1,\n  "b": [1, 2],\n  "c": {\n    "d": "**e**"\n  }\n}',
        "const x = `1`;\nfunction f() {\n  return x;\n}",
        "SELECT a, b\nFROM t\n  JOIN u ON t.id = u.id\nWHERE a > 1",
        '<div style="color: red">\n  <p>Hello</p>\n</div>',
    ],
)
def test_a_program_without_a_fence_keeps_its_lines_and_marks(text: str) -> None:
    assert format_text(text) == [["pre", {}, [["code", {}, [text]]]]]


@pytest.mark.parametrize(
    "text",
    [
        "Roses are red,\n  violets are blue,\nsugar is sweet,\n  and so are you.",
        "Send it to:\n  12 High Street,\n  Leeds,\n  UK",
        "Dear Ada,\n\nthank you for your order.\n  It will come on Monday (I think).\n\nRegards,\nBob",
        "x" * (MAX_FORMATTED_LENGTH + 1) + " **b**",
    ],
)
def test_prose_in_short_lines_and_what_is_very_long_is_shown_as_written(text: str) -> None:
    assert format_text(text) is None


def test_a_list_with_indented_items_is_a_list() -> None:
    nodes = format_text("Do this:\n\n1. open (the app);\n2. press one of:\n   - `A`;\n   - `B`;\n")
    assert nodes is not None
    assert [node[0] for node in nodes] == ["p", "ol"]


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
