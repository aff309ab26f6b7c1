"""Tables in an object store: a real S3 protocol on loopback, small tables as one object, large ones as several."""

import pandas as pd
import pytest

from caliber_pipeline.core.errors import SchemaError
from caliber_pipeline.stores import shards
from caliber_pipeline.stores.tables import TableStore

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def frame(n: int) -> pd.DataFrame:
    rows = pd.DataFrame({"source": "f", "line": range(n), "reason": "blank", "raw": [f"row {i}" for i in range(n)]})
    rows.attrs = {"records_fingerprint": f"of {n}"}
    return rows


def test_a_table_comes_back_small_and_large_and_small_again(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = TableStore(bucket)
    path = tables.path("rejected_records")
    assert tables.load("rejected_records") is None
    tables.save(frame(10), path, "rejected_records")
    assert path.is_file()
    with monkeypatch.context() as patch:
        patch.setattr(shards, "MAX_GROUP_ROWS", 10)
        patch.setattr(shards.ShardWriter.__init__, "__kwdefaults__", {"max_shard_rows": 10})
        tables.save(frame(95), path, "rejected_records")
    assert len(list(path.iterdir())) == 10
    stored = tables.require("rejected_records")
    assert stored["line"].tolist() == list(range(95))
    assert stored.attrs == tables.load_attrs("rejected_records") == {"records_fingerprint": "of 95"}
    assert tables.count("rejected_records") == 95
    tables.save(frame(3), path, "rejected_records")
    assert tables.require("rejected_records")["raw"].tolist() == ["row 0", "row 1", "row 2"]


def test_a_table_that_breaks_its_schema_leaves_the_object(bucket: str) -> None:
    tables = TableStore(bucket)
    path = tables.path("rejected_annotations")
    tables.save(frame(4), path, "rejected_annotations")
    with pytest.raises(SchemaError):
        tables.save(frame(4).drop(columns="raw"), path, "rejected_annotations")
    assert tables.count("rejected_annotations") == 4
