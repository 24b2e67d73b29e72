"""What wearables and monitors measure: raw samples beside the CDM, summaries in it."""
