"""What all services share: the store, and how they speak, start, log and fail."""
