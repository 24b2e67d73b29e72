"""Mapping suggestions: what an unmapped code or label of the source may stand for, for a person to decide."""
