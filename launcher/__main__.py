"""``handscroll``: the commands of the algorithm, and ``serve``."""

from handscroll.cli import app, run
from launcher.serve import serve

app.command()(serve)


def main() -> None:
    """Run the command line."""
    run(app)


if __name__ == "__main__":
    main()
