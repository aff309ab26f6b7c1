"""The stages as pure functions: tables in, tables out; no Dagster, no network, no clock, no files."""
