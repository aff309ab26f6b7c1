"""Record text as a tree of harmless nodes, which the page builds element by element: no HTML is ever made of it."""

import re
from collections.abc import Iterator
from typing import Any, Final

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

Node = str | list[Any]
"""Text, or [tag, attributes, children]."""

MAX_FORMATTED_LENGTH: Final = 100_000  # characters; longer texts are shown as written, which is always quick
_MARKS: Final = re.compile(
    r"^(```|~~~)"  # fenced code
    r"|^#{1,6} \S"  # heading
    r"|^ {0,3}[-*+] \S.*\n+ {0,3}[-*+] \S"  # list
    r"|^ {0,3}\d{1,3}[.)] \S[^\n]*\n+(?:[^\n]*\n+){0,3}? {0,3}\d{1,3}[.)] \S"
    r"|^\|?[^|\n]+\|[^\n]*\n\|?\s*:?-{2,}"  # table
    r"|^> \S"  # quotation
    r"|\*\*\S[^*\n]*\*\*|(?<![`\w])`[^`\n]+`"  # bold, code
    r"|\[[^\]\n]+\]\(\S+\)",  # link
    re.MULTILINE,
)
_FENCE: Final = re.compile(r"^ {0,3}(```|~~~)", re.MULTILINE)
_LIST_ITEM: Final = re.compile(r"\s*([-*+\u2022]|\d{1,3}[.)]) ")
_CODE_LINE: Final = re.compile(
    r".*([{}\[\](;>\\]|[\])}\"'\d],|\):)\s*$"  # ends as few sentences do
    r"|\s*(if|elif|else|for|while|try|except|with|case)\b.*:$"
    r"|\s*[\"'][^\"']+[\"']\s*:"
    r"|\s*(#|//|/\*|--|@\w|(import|from|return|def|class|function|const|let|var|SELECT|FROM|WHERE)\b)"
    r"|\s*[\w.\[\]]+(\(.*\)| [-+*/|]?= .*)$"  # a call, an assignment
)
MIN_CODE_LINES: Final = 3
MIN_CODE_SHARE: Final = 0.6  # of the lines; prose that breaks its lines stays under it
_TAGS: Final = {
    "paragraph": "p", "bullet_list": "ul", "ordered_list": "ol", "list_item": "li", "blockquote": "blockquote",
    "table": "table", "thead": "thead", "tbody": "tbody", "tr": "tr", "th": "th", "td": "td",
    "strong": "strong", "em": "em", "s": "s",
}  # fmt: skip


def is_markdown(text: str) -> bool:
    """Whether the text has marks that only a formatter gives their meaning."""
    return _MARKS.search(text) is not None


def is_code(text: str) -> bool:
    """Whether the text is a program or data with nothing around it, in which Markdown's marks mean something else."""
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) < MIN_CODE_LINES or _FENCE.search(text) or not any(line[0] in " \t" for line in lines):
        return False
    n_code = sum(_LIST_ITEM.match(line) is None and _CODE_LINE.match(line) is not None for line in lines)
    return n_code >= MIN_CODE_SHARE * len(lines)


def format_text(text: str) -> list[Node] | None:
    """The text as nodes; None where it reads best as it was written."""
    if len(text) > MAX_FORMATTED_LENGTH:
        return None
    if is_code(text):
        return [["pre", {}, [["code", {}, [text]]]]]
    return parse_nodes(text) if is_markdown(text) else None


def parse_nodes(text: str) -> list[Node]:
    """The nodes of a Markdown text. HTML in it stays text; links and images become text with their address."""
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"])
    root = SyntaxTreeNode(parser.parse(text))
    return [node for child in root.children for node in _nodes(child)]


def _nodes(node: SyntaxTreeNode) -> Iterator[Node]:
    kind = node.type
    if kind in {"text", "html_inline", "html_block"}:
        yield node.content
    elif kind == "code_inline":
        yield ["code", {}, [node.content]]
    elif kind in {"fence", "code_block"}:
        yield ["pre", {}, [["code", {}, [node.content]]]]
    elif kind in {"softbreak", "hardbreak"}:
        yield ["br", {}, []]
    elif kind == "hr":
        yield ["hr", {}, []]
    elif kind == "heading":
        level = min(int(node.tag[1]) + 2, 6)  # the page's own headings are the first two levels
        yield [f"h{level}", {}, _children(node)]
    elif kind == "link":
        yield from _children(node)
        yield _address(str(node.attrs.get("href", "")))
    elif kind == "image":
        yield f"[image: {node.content}]"
        yield _address(str(node.attrs.get("src", "")))
    elif kind in _TAGS:
        start = node.attrs.get("start")
        yield [_TAGS[kind], {} if start is None else {"start": start}, _children(node)]
    else:
        yield from _children(node)


def _children(node: SyntaxTreeNode) -> list[Node]:
    return [grandchild for child in node.children for grandchild in _nodes(child)]


def _address(address: str) -> Node:
    return ["span", {"class": "address"}, [f" <{address}>"]]
