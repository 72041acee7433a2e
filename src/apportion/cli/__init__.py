"""The command line: one file a subcommand; each loads what it needs only when it runs."""
