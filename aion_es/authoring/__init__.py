"""What a workflow author writes: decorators, `Context`, options, typed channels."""
