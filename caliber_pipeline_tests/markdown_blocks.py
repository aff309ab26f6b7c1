"""Runs the Python blocks of a Markdown page as a reader would: one after the other, in one namespace."""

import ast
import asyncio
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_BLOCK: Final = re.compile(r"^```(?:python|py)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One block of a page."""

    page: Path
    line: int
    code: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def find_blocks(page: Path) -> Iterator[Block]:
    """The page's Python blocks; those of a transcript (>>>) as well."""
    text = page.read_text(encoding="utf-8")
    for match in _BLOCK.finditer(text):
        yield Block(page, text.count("\n", 0, match.start()) + 2, match[1])


def run_blocks(page: Path) -> int:
    """Run all of a page's blocks in order, top-level await included, and return how many there are.

    Raises:
        AssertionError: a block raised; the message names its line.
    """
    namespace: dict[str, Any] = {"__name__": page.stem}
    n = 0
    for block in find_blocks(page):
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        code = compile("\n" * (block.line - 1) + block.code, str(page), "exec", flags=flags)
        try:
            _run(code, namespace)
        except Exception as error:
            raise AssertionError(f"{block} raised {type(error).__name__}: {error}") from error
        n += 1
    return n


def _run(code: Any, namespace: dict[str, Any]) -> None:  # noqa: ANN401 - a code object
    if code.co_flags & inspect.CO_COROUTINE:

        async def call() -> None:
            await eval(code, namespace)  # noqa: S307 - the project's own page

        asyncio.run(call())
    else:
        exec(code, namespace)  # noqa: S102 - the project's own page
