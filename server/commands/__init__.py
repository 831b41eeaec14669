"""The subcommands of ``tapster``: each has ``add_arguments(parser)`` and ``run(args) -> exit status``."""
