"""The command ``monoceros-env``: shows what is bound, or runs a command with it, as env(1) does.

    monoceros-env                        what is bound and which variables come of it, without secrets
    monoceros-env COMMAND [ARGUMENT...]  runs COMMAND with DATABASE_URL and the other variables set
    monoceros-env --toml FD              writes them to a file descriptor in TOML: what exec.d of a buildpack is for
    monoceros-env --sh FD                the same in the form that a shell reads

A descriptor is 3 or more and no terminal: nothing that is shown or logged ever has a password in it.
"""

import json
import os
import shlex
import sys
from collections.abc import Callable

import monoceros_env

# As env(1) ends where the command cannot be run, and where there is none.
CANNOT_RUN, NOT_FOUND = 126, 127


def main() -> None:
    """Does what the command line asks for."""
    arguments = sys.argv[1:]
    forms: dict[str, Callable[[str, str], str]] = {
        "--toml": lambda name, value: f"{name} = {json.dumps(value)}\n",
        "--sh": lambda name, value: f"export {name}={shlex.quote(value)}\n",
    }
    try:
        if not arguments:
            show()
        elif arguments[0] in forms and len(arguments) == 2:
            write(arguments[1], forms[arguments[0]])
        elif arguments[0].startswith("-"):
            sys.exit(__doc__)
        else:
            run(arguments)
    except (LookupError, ValueError, OSError) as error:
        sys.exit(f"monoceros-env: {error}")


def show() -> None:
    """What there is, and what it is called; where it is, without the login."""
    variables = monoceros_env.variables()
    for binding in monoceros_env.bindings():
        said = [binding.name or "(no name)", f"label {binding.label}" if binding.label else ""]
        said.append(f"tags {', '.join(binding.tags)}" if binding.tags else "")
        if binding.url:
            where = "(several hosts)" if binding.location.whole else binding.location.place
            said.append(f"{binding.location.scheme}://{where}")
            names = [name for name, value in variables.items() if value == binding.url]
            said.append(f"sets {', '.join(sorted(names))}" if names else "")
        else:
            said.append(f"no URL in its credentials: {', '.join(sorted(binding.credentials)) or 'none'}")
        print("; ".join(part for part in said if part))
    if "WEB_CONCURRENCY" in variables:
        print(f"WEB_CONCURRENCY={variables['WEB_CONCURRENCY']}")


def write(descriptor: str, form: Callable[[str, str], str]) -> None:
    """Hands the variables to the program that has opened the descriptor for that."""
    if not descriptor.isdigit() or int(descriptor) < 3 or os.isatty(int(descriptor)):
        raise ValueError(f"{descriptor!r} is no file descriptor from 3 on that is not a terminal")
    text = "".join(form(name, value) for name, value in monoceros_env.variables().items())
    with open(int(descriptor), "w", encoding="utf-8") as file:
        file.write(text)


def run(command: list[str]) -> None:
    """Becomes the command: the process, and with it its pid and its signals, stays."""
    monoceros_env.apply()
    try:
        os.execvp(command[0], command)
    except FileNotFoundError:
        print(f"monoceros-env: there is no command {command[0]!r}", file=sys.stderr)
        sys.exit(NOT_FOUND)
    except OSError as error:
        print(f"monoceros-env: cannot run {command[0]!r}: {error.strerror}", file=sys.stderr)
        sys.exit(CANNOT_RUN)


if __name__ == "__main__":
    main()
