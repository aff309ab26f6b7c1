"""The champion as the commands need it: its verdicts with labels, and its judgment of other records."""

from dataclasses import dataclass

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from caliber_pipeline.core.errors import InputError, MissingStepError
from caliber_pipeline.core.fingerprints import content_hash_by_id
from caliber_pipeline.core.judge_scores import join_labels, resolve_examples
from caliber_pipeline.core.labels import resolve_labels
from caliber_pipeline.core.optimized_criteria import current_champion
from caliber_pipeline.core.verdicts import refuse_capped, summarize_verdicts
from caliber_pipeline.judges.protocol import JudgeTask
from caliber_pipeline.judges.runner import run_judge
from caliber_pipeline.resources import Project
from caliber_pipeline.stores.ingest import load_annotated


@dataclass(frozen=True)
class Champion:
    """The champion on the data as stored.

    Attributes:
        version: Its criteria version.
        scored: Its verdicts with labels, as `join_labels` gives them.
        records: The stored records that have annotations.
        labels: All labels, as `resolve_labels` gives them.
        provider: Who judged.
        model: With which model.
    """

    version: str
    scored: pd.DataFrame
    records: pd.DataFrame
    labels: pd.DataFrame
    provider: str
    model: str

    @property
    def held_out(self) -> pd.DataFrame:
        """Judged rows of dev and test: train helped to write the criteria, and examples were shown to the judge."""
        is_held_out = self.scored["split"].isin(["dev", "test"])
        usable = self.scored["llm_score"].notna() & ~self.scored["is_example"] & is_held_out
        return self.scored[usable.to_numpy(dtype=bool)]

    @property
    def is_unlabelled(self) -> pc.Expression:
        """Whether a record of a table has no label."""
        return ~pc.field("record_id").isin(pa.array(self.labels["record_id"], pa.string(), from_pandas=True))

    def labelled_among(self, records: pd.DataFrame) -> list[str]:
        """The ids of those records of another file that are labelled records, with the same text."""
        known = content_hash_by_id(self.records)
        return [record_id for record_id, text in content_hash_by_id(records).items() if known.get(record_id) == text]


def load_champion(project: Project) -> Champion:
    """Load the champion.

    Raises:
        MissingStepError: nothing was evaluated yet, or the data changed since.
    """
    tables = project.tables
    version = current_champion(tables.load_versions("optimized_criteria"))
    if version is None:
        raise MissingStepError(f"{project.settings.output}: nothing was evaluated yet; run `caliber run` first")
    verdicts = tables.require("judge_scores", version)
    records, annotations = load_annotated(tables), tables.require("annotations")
    for name, table in (("records", records), ("annotations", annotations)):
        if table.attrs[f"{name}_fingerprint"] != verdicts.attrs[f"{name}_fingerprint"]:
            raise MissingStepError(f"the {name} changed after '{version}' was judged; run `caliber run` again")
    labels = resolve_labels(annotations)
    judge = verdicts.iloc[0] if len(verdicts) else {"provider": "", "model": ""}
    scored = join_labels(verdicts, labels, records)
    return Champion(version, scored, records, labels, str(judge["provider"]), str(judge["model"]))


def judge_others(project: Project, champion: Champion, records: pd.DataFrame) -> pd.DataFrame:
    """The champion's verdicts on other records, through the cache.

    Raises:
        InputError: the settings name another judge than the champion's.
        SpendingCapError: the spending cap left records unasked; the other verdicts are kept.
    """
    criteria = project.criteria_files.load(champion.version)
    judge = project.build_judge(criteria=criteria, version=champion.version)
    if champion.provider and (judge.provider, judge.model) != (champion.provider, champion.model):
        raise InputError(
            f"'{champion.version}' was judged by {champion.provider} ({champion.model}), the settings name "
            f"{judge.provider} ({judge.model}); name the same with --judge"
        )
    judge = project.in_batches(judge, "estimate", champion.version, waits=True)
    examples = resolve_examples(criteria, champion.records, champion.labels)
    with project.open_verdict_cache() as cache:
        verdicts = run_judge(judge, JudgeTask(records, criteria, examples), cache=cache)
    refuse_capped(summarize_verdicts(verdicts), f"under '{champion.version}'")
    return verdicts
