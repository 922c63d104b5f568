"""Spans and metrics to look at on a terminal: one trace over a restart, with nothing else installed or running."""
