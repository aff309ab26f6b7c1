"""The map of the package that a newcomer reads first."""

import re
from pathlib import Path

from caliber_pipeline import core


def test_every_module_stands_once_on_the_map() -> None:
    modules = sorted(path.stem for path in Path(str(core.__file__)).parent.glob("*.py") if path.stem != "__init__")
    assert sorted(re.findall(r"`(\w+)`", str(core.__doc__))) == modules
