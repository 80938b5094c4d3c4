"""The command line: `persona`, its commands, and what they print."""
