"""DICOM objects without identity: PS3.15 Annex E, the Basic Application Level Confidentiality Profile."""
