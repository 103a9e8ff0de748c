"""Has a program run with the packages and stubs that `setup` has made; to be imported first."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENV = HERE / ".venv"

if Path(sys.prefix).resolve() != VENV:
    if not (VENV / "stamp").exists():
        sys.exit(f"{Path(sys.argv[0]).name}: not set up yet: run {HERE / 'setup'} first")
    python = str(VENV / "bin" / "python")
    os.execv(python, [python, *sys.orig_argv[1:]])

sys.path.insert(0, str(HERE / "gen"))
# What goes wrong is said by the programs, in a sentence.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
