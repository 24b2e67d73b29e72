"""Readers: each turns one kind of source into facts (node.ingest.facts), and does nothing else."""
