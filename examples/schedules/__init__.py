"""Schedules to watch: what each overlap policy does, and what is made up for after a pause of the program."""
