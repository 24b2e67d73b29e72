"""Mechanisms, accountant, ledger and secure sum: everything that protects a patient in an aggregate."""
