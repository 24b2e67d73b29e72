"""Training plans that come with the project, as TOML."""
