"""From a verdict on the page to the champion measured on it."""

from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from caliber_pipeline.asset_checks import annotated_texts_are_current
from caliber_pipeline.automation import annotations_sensor
from caliber_pipeline.core.annotation_events import AnnotationEvent, find_reason_to_wait
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.fingerprints import content_hashes
from caliber_pipeline.definitions import build_definitions
from caliber_pipeline.resources import Project
from caliber_pipeline.settings import Settings
from caliber_pipeline.stores.annotation_store import AnnotationStore
from caliber_pipeline.stores.ingest import is_ingested, load_annotations, load_records


def annotate(project: Project, *record_ids: str, score: int = 1, notes: str | None = None) -> None:
    with AnnotationStore(project.settings.annotation_store_url) as store:
        n = store.last_seq()
        store.append(
            [
                AnnotationEvent(
                    event_id=f"{n}-{i}", record_id=id_, annotator="eve", action="annotate", score=score, notes=notes
                )
                for i, id_ in enumerate(record_ids)
            ]
        )


def run(project: Project, instance: dg.DagsterInstance, job: str) -> None:
    definitions = build_definitions(project.settings, project)
    assert definitions.resolve_job_def(job).execute_in_process(instance=instance).success


def outcome(project: Project, instance: dg.DagsterInstance) -> dg.RunRequest | str:
    context = dg.build_sensor_context(instance=instance, resources={"project": project})
    result = annotations_sensor(context)
    if isinstance(result, dg.SkipReason):
        return str(result.skip_message)
    assert isinstance(result, dg.RunRequest)
    return result


def test_verdicts_of_the_page_and_of_files_are_read_alike(planted: Project) -> None:
    records = load_records(planted.settings).table
    before = load_annotations(planted.settings, records).table
    annotate(planted, "r1", "r2", score=0, notes="no")
    annotate(planted, "not-a-record")
    loaded = load_annotations(planted.settings, records)
    assert len(loaded.table) == len(before) + 2
    of_eve = loaded.table[loaded.table["annotator"] == "eve"]
    assert of_eve[["record_id", "score", "notes"]].to_numpy().tolist() == [["r1", 0, "no"], ["r2", 0, "no"]]
    assert loaded.rejected["reason"].tolist() == ["record_id 'not-a-record' is not among the records"]
    assert loaded.store_place == 3


def test_a_verdict_on_another_text_is_no_verdict_on_the_text_there_is(
    planted: Project, instance: dg.DagsterInstance
) -> None:
    records = load_records(planted.settings).table.set_index("record_id", drop=False)
    now, then = content_hashes(records.loc[["r1", "r2"]])
    assert now != then
    events = [
        AnnotationEvent(
            event_id=name, record_id="r1", annotator=name, action="annotate", score=1, record_fingerprint=text
        )
        for name, text in (("of-now", now), ("of-then", then), ("of-none", None))
    ]
    with AnnotationStore(planted.settings.annotation_store_url) as store:
        store.append(events)
    run(planted, instance, "ingest")
    annotations, rejected = (planted.tables.require(name) for name in ("annotations", "rejected_annotations"))
    annotators = annotations.loc[annotations["record_id"] == "r1", "annotator"].tolist()
    assert annotators == ["ann", "of-none", "of-now"]
    assert rejected["reason"].tolist() == ["record 'r1' had another text when it was judged; judge it again"]
    assert rejected["raw"].tolist() == ["r1 of-then 1"]
    check = annotated_texts_are_current(planted)
    assert isinstance(check, dg.AssetCheckResult)
    assert not check.passed
    assert "1 verdicts are on a text that has changed since; record 'r1'" in str(check.description)


def test_a_file_that_was_also_imported_into_the_store_counts_once(planted: Project) -> None:
    records = load_records(planted.settings).table
    before = load_annotations(planted.settings, records).table
    with AnnotationStore(planted.settings.annotation_store_url) as store:
        assert store.import_annotations(before) == len(before)
    after = load_annotations(planted.settings, records).table
    pd.testing.assert_frame_equal(after, before)


def test_a_new_verdict_makes_what_was_ingested_out_of_date(planted: Project, instance: dg.DagsterInstance) -> None:
    run(planted, instance, "ingest")
    assert is_ingested(planted.settings, planted.tables)
    annotate(planted, "r1")
    assert not is_ingested(planted.settings, planted.tables)
    run(planted, instance, "ingest")
    assert is_ingested(planted.settings, planted.tables)


def test_enough_new_annotations_request_a_recalibration_once(planted: Project, instance: dg.DagsterInstance) -> None:
    assert outcome(planted, instance) == "the input is not ingested yet"
    run(planted, instance, "ingest")
    assert "nobody has annotated on the page yet" in str(outcome(planted, instance))
    annotate(planted, *(f"r{i}" for i in range(19)))
    annotate(planted, "r3", "r3", score=0)  # one more verdict on a record already counted
    assert outcome(planted, instance) == "19 of 20 new or changed annotations since the last ingestion"
    annotate(planted, "r19")
    request = outcome(planted, instance)
    assert isinstance(request, dg.RunRequest)
    assert request == outcome(planted, instance), "the key of a request stays the same, so that it is made once"
    run(planted, instance, "recalibration")
    assert outcome(planted, instance) == "0 of 20 new or changed annotations since the last ingestion"


def test_a_recalibration_under_way_is_waited_for() -> None:
    assert find_reason_to_wait(20, 20, is_running=False) is None
    assert find_reason_to_wait(20, 20, is_running=True) == "a recalibration is under way"


def test_a_store_that_cannot_be_reached_is_named(planted: Project, instance: dg.DagsterInstance) -> None:
    run(planted, instance, "ingest")
    Path(planted.settings.annotation_store_url).write_text("no database " * 100)
    assert "not usable as annotation store" in str(outcome(planted, instance))


def test_the_store_lies_beside_the_input_or_in_the_output(tmp_path: Path) -> None:
    assert Settings().annotation_store_url == "data/input/annotations.sqlite"
    assert Settings(output=tmp_path).annotation_store_url == str(tmp_path / "annotations.sqlite")
    assert Settings(annotation_store="postgresql://db/notes").annotation_store_url == "postgresql://db/notes"
    assert Settings(annotation_store="postgresql://ada@db/notes").annotation_store is not None
    for url, what in (("ada:canary@db/notes", "a password"), ("db/notes?password=canary", "'password' in its query")):
        with pytest.raises(InputError, match=f"holds {what}") as caught:
            Settings.from_env({"CALIBER_ANNOTATION_STORE": f"postgresql://{url}"})
        assert "canary" not in str(caught.value)
