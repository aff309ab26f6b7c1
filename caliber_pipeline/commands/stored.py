"""What the commands share that work on what `caliber run` stored: its folder, its champion, its judge."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from caliber_pipeline.resources import Project


def open_project(arguments: argparse.Namespace) -> "Project":
    """The project of an output folder, with the judge of the version that was asked for, or else of the champion.

    Raises:
        MissingStepError: nothing was evaluated there yet.
        InputError: the version is not evaluated.
    """
    from caliber_pipeline.commands.run import build_settings
    from caliber_pipeline.core.errors import MissingStepError
    from caliber_pipeline.resources import Project

    settings = build_settings(arguments)
    project = Project.from_settings(settings)
    if not project.tables.versions("optimized_criteria"):
        raise MissingStepError(f"{settings.output}: nothing was evaluated yet; run `caliber run` first")
    judged = project.tables.require("judge_scores", find_version(project, arguments.version))
    if judged.empty:
        return project
    provider, model = str(judged["provider"].iloc[0]), str(judged["model"].iloc[0])
    if provider in {"local", "recorded"}:
        return Project.from_settings(settings.model_copy(update={"judge": provider}))
    options = {"provider": provider, "model": model, **settings.judge_options}
    return Project.from_settings(settings.model_copy(update={"judge": "openai", "judge_options": options}))


def load_decided(project: "Project") -> "dict[str, pd.DataFrame]":
    """The decided versions' rows."""
    return project.tables.load_versions("optimized_criteria")


def find_version(project: "Project", version: str | None) -> str:
    """The version that was asked for, which must be evaluated; the champion where none was.

    Raises:
        InputError: it is not evaluated.
    """
    from caliber_pipeline.core.errors import InputError
    from caliber_pipeline.core.optimized_criteria import current_champion

    decided = load_decided(project)
    found = version or current_champion(decided)
    if found is None or found not in decided:
        raise InputError(f"'{version}' is no evaluated version; evaluated are {', '.join(sorted(decided))}")
    return found
