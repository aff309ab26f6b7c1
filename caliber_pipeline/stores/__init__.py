"""Files and databases that the pipeline reads and writes."""
