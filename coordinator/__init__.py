"""What the consortium runs: it sees totals only."""
