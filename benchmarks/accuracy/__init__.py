"""What bre finds and what it misses, beside published detectors."""
