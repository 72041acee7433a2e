"""Tasks in the harness's own format that read local files, with the functions that they name."""
