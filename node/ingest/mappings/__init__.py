"""Mapping files that come with the project, as TOML."""
