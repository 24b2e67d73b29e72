"""The OMOP CDM 5.4 store of one hospital."""
