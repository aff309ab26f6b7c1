"""The page on which people annotate records, served on loopback."""
