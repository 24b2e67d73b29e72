"""The command `fedtwin` and the researcher's client."""
