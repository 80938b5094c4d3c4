"""What is remembered: kept, found, weighed, faded and archived."""
