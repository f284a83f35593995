"""Open a web page on this machine to generate music, with an HTTP API."""

import argparse

from open_musiclm import cli
from open_musiclm.app.limits import Limits
from open_musiclm.app.server import check_server, serve


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__, "folder of the sounds; default: a temporary one")
    most = Limits()
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 accepts connections from other machines"
    )
    parser.add_argument("--port", type=cli.positive_int, default=7860, help="port to listen on")
    parser.add_argument(
        "--max_duration", type=cli.positive_float, default=most.duration, help="largest duration of a request, seconds"
    )
    parser.add_argument(
        "--max_samples", type=cli.positive_int, default=most.samples, help="largest number of samples of a request"
    )
    parser.add_argument(
        "--max_waiting", type=cli.positive_int, default=most.waiting, help="largest number of waiting requests"
    )
    parser.add_argument("--max_results", type=cli.positive_int, default=most.results, help="number of results to keep")
    cli.add_model_arguments(parser)
    cli.add_generation_arguments(parser, ("num_samples", *cli.LENGTH_FIELDS, *cli.SAMPLING_FIELDS, *cli.OUTPUT_FIELDS))
    return parser


def main(arguments: argparse.Namespace) -> None:
    check_server(arguments.host, arguments.port)
    limits = Limits(
        duration=arguments.max_duration,
        samples=arguments.max_samples,
        waiting=arguments.max_waiting,
        results=arguments.max_results,
    )
    model, parts = cli.load_model(arguments)
    serve(model, parts, limits, arguments.host, arguments.port, arguments.results_folder)


if __name__ == "__main__":
    cli.run(main, arguments())
