"""A shop that fulfils orders and survives `kill -9`. Begin with `workflows.py`."""
