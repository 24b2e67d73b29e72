"""What an attacker can show about a privacy claim: lower bounds on ε from what a mechanism gave out."""
