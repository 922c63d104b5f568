"""What has happened: every event, its envelope, and its form on the wire."""
