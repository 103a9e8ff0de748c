"""The command line of a program, and how it ends."""

import argparse
import os
import re
import sys

from client import PROGRAM, Failure


def run(main):
    """Runs a program; what it cannot help ends it with a sentence."""
    try:
        main()
        sys.stdout.flush()
    except Failure as failure:
        sys.exit(f"{PROGRAM}: {failure}")
    except BrokenPipeError:
        # Python would try to write what is left when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(f"{PROGRAM}: nobody reads what it prints any more")
    except OSError as error:
        sys.exit(f"{PROGRAM}: {error.filename}: {error.strerror}")
    except KeyboardInterrupt:
        sys.exit(130)


def arguments(description):
    """The arguments that every program has."""
    parser = argparse.ArgumentParser(description=description)
    default = "http://127.0.0.1:7070"
    parser.add_argument("--server", type=address, default=default, metavar="URL", help=default)
    return parser


def address(url):
    parts = re.fullmatch(r"(http://)?(([^/:\s]+|\[[^/\s]+\]):(\d{1,5}))/?", url)
    if not parts or int(parts[4]) > 65_535:
        advice = "give it as http://HOST:PORT"
        raise argparse.ArgumentTypeError(f"{url!r} is not the address of a node: {advice}")
    return parts[2]


def positive(text):
    if not re.fullmatch("0*[1-9][0-9]{0,17}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)
