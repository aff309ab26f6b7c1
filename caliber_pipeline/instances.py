"""Which Dagster instance a project uses: the one that `dagster dev` shows for it."""

import os
import shutil
from importlib.resources import files
from pathlib import Path

import dagster as dg
from dotenv import dotenv_values

from caliber_pipeline.settings import Settings

FOLDER = ".dagster"


def instance_folder(settings: Settings) -> Path:
    """The instance's folder.

    For the project's own output what `dagster dev` would take in this folder: `DAGSTER_HOME` from the `.env` file, else
    from the environment; else `.dagster`. Another output has an instance of its own: runs into different outputs never
    meet.
    """
    if not settings.is_default_output:
        return settings.state_folder.resolve() / FOLDER
    home = dotenv_values(Path.cwd() / ".env").get("DAGSTER_HOME") or os.environ.get("DAGSTER_HOME")
    return Path(home).expanduser() if home else Path.cwd() / FOLDER


def open_instance(settings: Settings) -> dg.DagsterInstance:
    """Open the instance of a project; its folder is made where missing."""
    folder = instance_folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "dagster.yaml"
    if not config.exists():
        shutil.copyfile(str(files("caliber_pipeline") / "dagster_instance.yaml"), config)
    return dg.DagsterInstance.from_config(str(folder))
