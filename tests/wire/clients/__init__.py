"""Programs that run with AWS's own clients, in the clients' environments, and what asks them."""
