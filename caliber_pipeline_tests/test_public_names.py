import ast
import subprocess
import sys
from pathlib import Path

import pytest

import caliber_pipeline

HEAVY = ("dagster", "torch", "sklearn", "pandas", "pyarrow", "scipy", "hdbscan", "openai", "sentence_transformers")


def test_every_public_name_is_there() -> None:
    for name in caliber_pipeline.__all__:
        assert getattr(caliber_pipeline, name) is not None
    assert set(caliber_pipeline.__all__) <= set(dir(caliber_pipeline))


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(caliber_pipeline.__file__).read_text(encoding="utf-8"))
    declared = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        (node.module, alias.asname)
        for node in declared.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    assert seen == {(module, name) for name, module in caliber_pipeline._MODULE_OF.items()}


def test_unknown_names_are_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'caliber_pipeline' has no attribute 'nothing'"):
        _ = caliber_pipeline.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "statement",
    [
        "import caliber_pipeline",
        "from caliber_pipeline import CalibrationSession, CaliberHQ, EvaluationRunner, PromptOptimizer, UploadHandler",
    ],
)
def test_importing_is_quick_and_loads_nothing_heavy(statement: str) -> None:
    code = f"""
import sys, time
start = time.process_time()
{statement}
took = time.process_time() - start
loaded = [name for name in {HEAVY} if name in sys.modules]
start = time.process_time()
import pandas, sklearn.linear_model
print(took / (time.process_time() - start), loaded)
"""

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    share, loaded = done.stdout.split(maxsplit=1)
    assert float(share) < 0.6  # of what two of the heavy ones take, as seconds are the machine's
    assert loaded.strip() == "[]"
