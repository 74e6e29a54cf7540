"""The results of a study as pandas frames, reports and models.

Reads the database and the run folders; changes neither.
"""

from hpsearch.results.results import Results, open_results

__all__ = ["Results", "open_results"]
