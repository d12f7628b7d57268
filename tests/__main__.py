"""All checks under one command, ``python -m tests``: ruff, mypy (blocking) and pytest; exits with the first failure's code."""

import subprocess
import sys

for command in (
    ["-m", "ruff", "check", "cqpde", "tests", "validation", "examples"],
    ["-m", "mypy"],
    ["-m", "pytest", *sys.argv[1:]],
):
    print("$ python", *command, flush=True)
    code = subprocess.run([sys.executable, *command]).returncode
    if code:
        sys.exit(code)
