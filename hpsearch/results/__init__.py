"""What a study came to, as pandas frames, reports and models.

Reads the database and the run folders; changes neither.
"""
