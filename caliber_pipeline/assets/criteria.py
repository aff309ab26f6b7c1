"""The external asset `criteria`: the criteria files, which people and the optimizer write."""

import dagster as dg

from caliber_pipeline.assets.definition import OWNERS, criteria_versions

criteria = dg.AssetSpec(
    "criteria",
    description="The judge's instructions, one immutable YAML file per version; the sensor reports each new file here.",
    partitions_def=criteria_versions,
    group_name="input",
    kinds={"yaml"},
    owners=OWNERS,
)
