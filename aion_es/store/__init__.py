"""Where events are kept: the port, the embedded default, and the URL that chooses among them."""
