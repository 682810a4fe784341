"""``handscroll``: the commands of the algorithm, of serving, keys and pruning, and of training."""

from handscroll.cli import app, run
from launcher import keys
from launcher.prune import prune
from launcher.serve import serve
from launcher.status import status
from training.command import train

app.command()(serve)
app.command()(status)
app.command()(prune)
app.command()(train)
app.add_typer(keys.app, name="keys")


def main() -> None:
    """Run the command line."""
    run(app)


if __name__ == "__main__":
    main()
