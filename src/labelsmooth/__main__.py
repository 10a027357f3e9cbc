"""The ``labelsmooth`` command."""

import sys

from labelsmooth import __version__


def main() -> None:
    if sys.argv[1:] == ["--version"]:
        print(f"labelsmooth {__version__}")
        return
    try:
        from labelsmooth.study.commands.cli import main as run_command
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("labelsmooth"):
            raise
        sys.exit(f"labelsmooth: {error.name} is missing; the command needs: pip install 'labelsmooth[study]'")
    except KeyboardInterrupt:
        sys.exit(130)
    run_command()


if __name__ == "__main__":
    main()
