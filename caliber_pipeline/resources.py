"""From settings to what the assets work with: stores, encoder, judge."""

from collections.abc import Callable
from pathlib import Path

import dagster as dg

from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.optimized_criteria import LoopSettings
from caliber_pipeline.encoders import CachedEncoder, SentenceTransformerEncoder
from caliber_pipeline.judges.local import LocalJudge
from caliber_pipeline.judges.protocol import Judge
from caliber_pipeline.judges.recorded import RecordedJudge
from caliber_pipeline.settings import Settings
from caliber_pipeline.stores.criteria_files import CriteriaFiles
from caliber_pipeline.stores.embedding_cache import EmbeddingCache
from caliber_pipeline.stores.pattern_fits import PatternFits
from caliber_pipeline.stores.tables import TableStore
from caliber_pipeline.stores.verdict_cache import VerdictCache

CACHE_FOLDER = ".cache"


class Project(dg.ConfigurableResource):  # type: ignore[type-arg]
    """One project: its settings, and the stores and clients that they stand for."""

    settings_json: str

    @classmethod
    def from_settings(cls, settings: Settings) -> "Project":
        """Wrap settings; nothing is opened."""
        return cls(settings_json=settings.model_dump_json())

    @property
    def settings(self) -> Settings:
        """The settings."""
        return Settings.model_validate_json(self.settings_json)

    @property
    def loop(self) -> LoopSettings:
        """When the loop ends."""
        return LoopSettings(kappa_target=self.settings.kappa_target, max_iterations=self.settings.max_iterations)

    @property
    def tables(self) -> TableStore:
        """The stored tables."""
        return TableStore(str(self.settings.output))

    @property
    def criteria_files(self) -> CriteriaFiles:
        """The criteria folder."""
        return CriteriaFiles(self.settings.criteria_folder)

    @property
    def cache_folder(self) -> Path:
        """Where verdicts and embeddings are kept."""
        return self.settings.output / CACHE_FOLDER

    @property
    def fits(self) -> PatternFits:
        """The pattern fits that versions share."""
        return PatternFits(self.cache_folder / "fits")

    def open_verdict_cache(self) -> VerdictCache:
        """The verdict cache of this output; the caller closes it."""
        return VerdictCache(self.cache_folder / "verdicts.sqlite")

    def build_encoder(self, on_progress: Callable[[int, int], None] | None = None) -> CachedEncoder:
        """The encoder, behind the embedding cache of this output."""
        encoder = SentenceTransformerEncoder(on_progress=on_progress)
        return CachedEncoder(encoder, EmbeddingCache(self.cache_folder / "embeddings.sqlite"))

    def build_judge(self, on_progress: Callable[[int, int], None] | None = None) -> Judge:
        """The judge that the settings name.

        Raises:
            InputError: it cannot be had.
        """
        name = self.settings.judge
        if name == "local":
            return LocalJudge(self.build_encoder(on_progress))
        if name == "recorded":
            return RecordedJudge()
        raise InputError(f"judge '{name}' is not built in yet; use local or recorded")
