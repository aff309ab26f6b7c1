"""Files and databases that the pipeline reads and writes besides its tables."""
