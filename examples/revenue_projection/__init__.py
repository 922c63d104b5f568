"""A projection of one's own: revenue by customer and day, from the events of the demo. Begin with `revenue.py`."""
