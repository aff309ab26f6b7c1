"""Who gives verdicts: an OpenAI-compatible endpoint, recorded verdicts, or the embedded local judge."""
