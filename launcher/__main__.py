"""``handscroll``: the commands of the algorithm, ``serve``, ``status``, ``prune`` and ``keys``."""

from handscroll.cli import app, run
from launcher import keys
from launcher.prune import prune
from launcher.serve import serve
from launcher.status import status

app.command()(serve)
app.command()(status)
app.command()(prune)
app.add_typer(keys.app, name="keys")


def main() -> None:
    """Run the command line."""
    run(app)


if __name__ == "__main__":
    main()
