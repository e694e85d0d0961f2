"""Requests by someone who means ill, and what each of them must be answered."""
