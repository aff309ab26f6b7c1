import pandas as pd
import pytest

from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.judge_scores import read_metadata, select_judged


def test_ties_are_judged_only_where_asked_for() -> None:
    records = pd.DataFrame({"record_id": ["b", "a", "c"]})
    labels = pd.DataFrame({"record_id": ["a", "b"], "human_score": pd.array([1, None], dtype="int8[pyarrow]")})

    assert select_judged(records, labels)["record_id"].tolist() == ["a"]
    assert select_judged(records, labels, with_ties=True)["record_id"].tolist() == ["a", "b"]


def test_metadata_columns_are_read_as_text() -> None:
    metadata = ['{"topic": "returns", "length": 3}', None, '{"topic": null}']
    records = pd.DataFrame({"record_id": ["a", "b", "c"], "metadata": pd.array(metadata, dtype="string[pyarrow]")})

    found = read_metadata(records, ["topic", "length"])

    assert found["topic"].tolist() == ["returns", pd.NA, pd.NA]
    assert found["length"].tolist() == ["3", pd.NA, pd.NA]
    with pytest.raises(InputError, match=r"no record has the metadata column \['tone'\]; the columns are \['length', "):
        read_metadata(records, ["tone"])
