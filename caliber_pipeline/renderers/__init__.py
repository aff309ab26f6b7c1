"""Results for people: console, notebook, JSON."""
