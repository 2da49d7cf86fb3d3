"""What accuracy and speed both need."""
