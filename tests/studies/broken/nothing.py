"""No study in it."""
