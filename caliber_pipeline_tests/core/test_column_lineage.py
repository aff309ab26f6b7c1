from caliber_pipeline.core.calibrated_judge import JudgeDocument
from caliber_pipeline.core.column_lineage import COLUMN_LINEAGE
from caliber_pipeline.core.schemas import SCHEMAS


def origins(table: str, column: str) -> set[tuple[str, str]]:
    sources = set(COLUMN_LINEAGE.get(table, {}).get(column, ()))
    return sources.union(*(origins(*source) for source in sources)) if sources else set()


def test_every_named_column_exists() -> None:
    named = {
        column
        for table, columns in COLUMN_LINEAGE.items()
        for name, sources in columns.items()
        for column in ((table, name), *sources)
    }
    there = {table: set(schema.names) for table, schema in SCHEMAS.items()}
    there["calibrated_judge"] = set(JudgeDocument.model_fields)
    assert sorted((table, name) for table, name in named if name not in there[table]) == []


def test_the_calibrated_judge_goes_back_to_the_records() -> None:
    for field in ("criteria", "examples", "abstention", "certificate"):
        sources = origins("calibrated_judge", field)
        assert ("records", "human_score") in sources or ("records", "human_notes") in sources
        assert ("annotations", "score") in sources
        assert ("records", "output") in sources


def test_every_table_but_the_first_has_its_sources() -> None:
    roots = {"records", "rejected_records", "rejected_annotations"}
    assert SCHEMAS.keys() - COLUMN_LINEAGE.keys() == roots
    assert COLUMN_LINEAGE.keys() - SCHEMAS.keys() == {"calibrated_judge"}
