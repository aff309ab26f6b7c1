"""Annotations that were made under criteria of another substance than those of today."""

import re
from collections.abc import Mapping
from typing import Final

import pandas as pd

from caliber_pipeline.core.criteria import Criteria

_LAYOUT: Final = re.compile(r"[\W_]+")


def find_stale(annotations: pd.DataFrame, versions: Mapping[str, Criteria], version: str) -> pd.DataFrame:
    """Annotations whose annotator saw criteria that differ in substance from those of a version.

    What the optimizer adds is no new substance: it writes down how people decided already. So the texts that people
    wrote are compared, each version's own or that of the last person's version which it goes back to; layout, case and
    punctuation do not count. An annotation that names no version, or one whose file is gone, is not known to be stale.

    Args:
        annotations: Of the `annotations` schema.
        versions: All criteria by version.
        version: The one that counts today.

    Returns:
        record_id, annotator and criteria_version of the stale annotations, sorted.
    """
    substances = {name: substance(name, versions) for name in versions}
    changed = [name for name, text in substances.items() if text != substances.get(version)]
    stale = annotations.loc[
        annotations["criteria_version"].isin(changed).astype(bool), ["record_id", "annotator", "criteria_version"]
    ]
    return stale.sort_values(["record_id", "annotator"], ignore_index=True)


def substance(version: str, versions: Mapping[str, Criteria]) -> str:
    """What people meant: the words of the last version in a version's line that a person wrote."""
    seen = {version}
    criteria = versions[version]
    while criteria.author == "optimizer" and criteria.base is not None and criteria.base not in seen:
        if criteria.base not in versions:
            break
        seen.add(criteria.base)
        criteria = versions[criteria.base]
    return _LAYOUT.sub(" ", criteria.full_text.casefold()).strip()
