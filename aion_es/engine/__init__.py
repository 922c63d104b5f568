"""What makes it go: activation, replay, dispatch, timers, recovery, registry, catalog."""
