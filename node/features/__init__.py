"""From OMOP records to the numbers a model is trained on."""
