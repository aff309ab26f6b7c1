"""The Dagster assets: one module per stage, each a thin layer over the core module of the same name."""
