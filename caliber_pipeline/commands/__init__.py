"""The subcommands of `caliber`, one module each: `add_parser` declares one, its `execute` runs it."""
