"""What it costs, measured against a peer in the same run; each module has ``measure()``."""
