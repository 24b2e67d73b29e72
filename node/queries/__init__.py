"""Questions about cohorts, compiled to queries on the OMOP store."""
