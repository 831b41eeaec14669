"""``tapster serve``: the endpoint and the page in one process."""

import argparse
import os
import sys
from typing import TYPE_CHECKING

from ..options import add_model_arguments, engine_config, find_profile

if TYPE_CHECKING:
    from ..http.settings import HttpSettings

DRAIN_S = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    from ..http.settings import HttpSettings

    add_model_arguments(parser)
    defaults = HttpSettings()
    http = parser.add_argument_group("server")
    http.add_argument("--host", default="127.0.0.1", help="address to listen on")
    http.add_argument("--port", type=int, default=8000, help="port to listen on; 0 takes a free one")
    http.add_argument("--name", metavar="ID", help="what clients call the model (default: the file's name)")
    http.add_argument(
        "--alias", action="append", default=[], metavar="ID", help="a further name for the model; may be repeated"
    )
    http.add_argument(
        "--api-key",
        action="append",
        default=[],
        metavar="KEY",
        help="ask for this key; may be repeated (also TAPSTER_API_KEY, which does not show in the process list)",
    )
    http.add_argument(
        "--cors-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="let pages from this origin call the API; may be repeated",
    )
    http.add_argument(
        "--max-body-bytes", type=int, default=defaults.max_body_bytes, metavar="N", help="largest request body"
    )
    http.add_argument(
        "--max-choices", type=int, default=defaults.max_choices, metavar="N", help="answers to one request (n)"
    )
    http.add_argument("--no-page", action="store_true", help="do not serve the chat page")
    http.add_argument(
        "--drain-s",
        type=float,
        default=DRAIN_S,
        metavar="S",
        help="seconds that running requests get to finish at SIGTERM",
    )
    http.add_argument(
        "--log-level", default="info", choices=("debug", "info", "warning", "error"), help="what is logged"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until a signal. Exit status 0 after a drain, 1 when the engine failed."""
    from ..logs import configure_logging
    from ..process import Address, serve

    configure_logging(args.log_level)
    profile = find_profile(args)
    return serve(
        profile,
        Address(args.host, args.port),
        engine=args.engine,
        config=engine_config(args, profile),
        http=_http_settings(args),
        has_page=not args.no_page,
        drain_s=args.drain_s,
        announce=sys.stderr.write,
    )


def _http_settings(args: argparse.Namespace) -> "HttpSettings":
    from ..http.settings import HttpSettings

    keys = [*args.api_key, *filter(None, [os.environ.get("TAPSTER_API_KEY")])]
    return HttpSettings(
        model_name=args.name,
        aliases=tuple(args.alias),
        api_keys=tuple(keys),
        cors_origins=tuple(args.cors_origin),
        max_body_bytes=args.max_body_bytes,
        max_choices=args.max_choices,
    )
