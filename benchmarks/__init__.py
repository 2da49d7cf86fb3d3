"""What the numbers in docs/ were measured by. README.md here says which command writes what."""
