"""Identity out: pseudonyms, dates, ages and structured fields."""
