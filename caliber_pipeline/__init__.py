"""Calibrate LLM judges against people."""
