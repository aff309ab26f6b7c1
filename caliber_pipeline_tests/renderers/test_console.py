import io
import re
import subprocess
import sys

import pytest
from rich.console import Console

from caliber_pipeline.renderers.console import MAX_ROWS, ConsoleCaliberRenderer
from caliber_pipeline.renderers.protocol import CaliberRenderer
from caliber_pipeline_tests.renderers.shown import (
    HOSTILE,
    PATTERNS,
    ROUNDS,
    Analysis,
    Misaligned,
    Proposal,
    make_manager,
    make_result,
)


def shown(name: str, thing: object, width: int = 200) -> str:
    file = io.StringIO()
    renderer: CaliberRenderer = ConsoleCaliberRenderer(file=file, width=width)
    getattr(renderer, f"render_{name}")(thing)
    return file.getvalue()


def test_shows_agreement_with_words_cells_and_failures() -> None:
    text = shown("evaluation", make_result())

    # 5 of 7 agree; pe = (4/7)(4/7) + (3/7)(3/7) = 25/49, kappa = (35 - 25) / (49 - 25) = 10/24
    assert re.search(r"Cohen's kappa\D+0\.417", text)
    assert re.search(r"accuracy\D+0\.714", text)
    assert "Kappa is moderate." in text
    assert re.search(r"people accept\D+3\D+1", text)
    assert "1 record got no verdict, e.g. r7: the records file has no verdict here" in text


def test_shows_undefined_figures_as_such() -> None:
    assert re.search(r"Cohen's kappa\D+n/a", shown("evaluation", make_result([(1, 1)])))


def test_shows_data_as_it_is() -> None:
    for name, thing in (
        ("records", make_manager().records),
        ("misalignments", Analysis()),
        ("patterns", PATTERNS),
        ("proposal", Proposal()),
        ("history", ROUNDS),
    ):
        assert HOSTILE in shown(name, thing, width=400)


def test_counts_what_it_leaves_out() -> None:
    errors = tuple(Misaligned(f"r{i}", "false_positive") for i in range(MAX_ROWS + 3))

    assert "and 3 more" in shown("misalignments", Analysis(false_positives=errors))


def test_marks_the_changed_lines() -> None:
    text = shown("proposal", Proposal())

    assert "  be right" in text
    assert "+ - <b>mind the dates</b>" in text


def test_shows_the_history_with_sealed_test_figures() -> None:
    text = shown("history", ROUNDS)

    assert re.search(r"v002.*n/a.*sealed.*rejected", text)
    assert re.search(r"v003.*0\.700.*0\.650.*promoted", text)


@pytest.mark.parametrize("no_color", [True, False])
def test_honours_no_color(no_color: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    file = io.StringIO()
    renderer = ConsoleCaliberRenderer(Console(file=file, force_terminal=True, width=100, color_system="standard"))

    renderer.render_proposal(Proposal())

    assert ("\x1b[32m" in file.getvalue()) is not no_color


def test_keeps_to_the_width() -> None:
    for width in (40, 80):
        lines = shown("evaluation", make_result(), width=width).splitlines()
        assert max(map(len, lines)) <= width


def annotate(keys: str, n: int = 3) -> tuple[dict[str, tuple[int, str | None]], str]:
    manager, file = make_manager(n), io.StringIO()
    ConsoleCaliberRenderer(file=file, width=100, stdin=io.StringIO(keys)).annotate(manager)
    return {a.record_id: (a.score, a.notes) for a in manager.annotations}, file.getvalue()


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("a\nr wrong date\na\n", {"r0": (1, None), "r1": (0, "wrong date"), "r2": (1, None)}),
        ("a\nq\nr\n", {"r0": (1, None)}),
        ("A\nREJECT\n", {"r0": (1, None), "r1": (0, None)}),  # the end of input quits
        ("s\nr\nb\nb\na\n", {"r1": (0, None), "r0": (1, None)}),
        ("a\nb\nn kind\nq\n", {"r0": (1, "kind")}),
        ("r bad\nb\na\nq\n", {"r0": (1, "bad")}),
        ("a\nr\nu\nq\n", {"r0": (1, None)}),
        ("n too early\nx\n\na\n", {"r0": (1, None)}),
        ("s\ns\ns\na\n", {}),  # beyond the last one
        ("actually bad\nrather good\nbut no\nr\n", {"r0": (0, None)}),  # words that only begin like a key
        ("", {}),
    ],
)
def test_annotates_by_keys_from_a_pipe(keys: str, expected: dict[str, tuple[int, str | None]]) -> None:
    assert annotate(keys)[0] == expected


def test_shows_the_record_and_how_far_one_is() -> None:
    _, text = annotate("a\nb\nq\n")

    assert HOSTILE in text
    assert "r0 (1 of 3, 0 annotated)" in text
    assert "Your verdict: accept" in text
    assert "1/3 annotated: 1 accept, 0 reject" in text


def test_data_moves_no_cursor_and_colours_nothing() -> None:
    told = "\x1b[31mred\x1b[0m\x07 \x9b2J"
    texts = [
        shown("message", told),
        shown("misalignments", Analysis(summary=told)),
        shown("proposal", Proposal(optimized_criteria=told)),
    ]

    for text in texts:
        assert "�[31mred�[0m� �2J" in text
        assert not set(text) & {"\x1b", "\x07", "\x9b"}


def test_every_question_has_a_line_of_its_own() -> None:
    _, text = annotate("a\nr\n")

    questions = [line for line in text.splitlines() if line.startswith("a/r/n/s/b/u/q >")]
    assert questions == ["a/r/n/s/b/u/q > a", "a/r/n/s/b/u/q > r", "a/r/n/s/b/u/q > "]


def test_an_encoding_that_lacks_signs_gets_others() -> None:
    buffer = io.BytesIO()
    renderer = ConsoleCaliberRenderer(file=io.TextIOWrapper(buffer, encoding="cp1252"), width=60)

    renderer.render_evaluation(make_result())
    renderer.render_message("日本")
    renderer.console.file.flush()

    text = buffer.getvalue().decode("cp1252")
    assert re.search(r"accuracy +\| 0\.714 \| #+-+ \|", text)
    assert "??" in text


def test_annotates_from_a_real_pipe() -> None:
    code = (
        "from caliber_pipeline_tests.renderers.shown import make_manager\n"
        "from caliber_pipeline.renderers.console import ConsoleCaliberRenderer\n"
        "manager = make_manager()\n"
        "ConsoleCaliberRenderer().annotate(manager)\n"
        "print(manager.get_annotations_dict())\n"
    )

    done = subprocess.run([sys.executable, "-c", code], input="a\nr\n", capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "{'r0': 1, 'r1': 0}"


def test_a_narrow_terminal_has_short_bars_not_cut_ones() -> None:
    file = io.StringIO()
    ConsoleCaliberRenderer(file=file, width=56).render_evaluation(make_result())

    bars = [line.split("│")[3].strip() for line in file.getvalue().splitlines() if "█" in line]
    assert bars
    assert not any("…" in bar for bar in bars)
    assert {len(bar) for bar in bars} == {len(bars[0])}
    assert len(bars[0]) < 24
